"""How deep the legs are searched."""

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest
from edda.concurrency import Deadline
from edda.models import Candidate, Tenant
from edda.searching import Mode, Searching, SearchQuery

TENANT = Tenant(UUID(int=1), "acme")


@dataclass
class Store:
    """Knows nothing, and how deep it was asked."""

    depths: list[int] = field(default_factory=list)

    async def candidates(self, *asked: Any) -> list[Candidate]:
        self.depths.append(asked[-1])
        return []

    async def hits(self, *_: object) -> list[Any]:
        return []


class NoEmbedder:
    name = "none"


@pytest.mark.parametrize(
    ("top_k", "group_by_document", "depth"),
    [(10, False, 200), (100, False, 200), (300, False, 300), (10, True, 200), (100, True, 600)],
)
async def test_documents_are_of_several_chunks(top_k: int, group_by_document: bool, depth: int) -> None:
    store: Any = Store()
    embedder: Any = NoEmbedder()  # nobody asks it by words
    query = SearchQuery("leave", top_k=top_k, group_by_document=group_by_document, mode=Mode.TEXT)
    await Searching(store, embedder).search(TENANT, query, Deadline.after(5))
    assert store.depths == [depth]
