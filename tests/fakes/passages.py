"""Hits without a database."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid5

from edda.concurrency import Deadline
from edda.models import Hit, Passage, Tenant
from edda.ranking import PartScore, PartScores
from edda.searching import Degraded, Found, Mode, SearchQuery, SearchResult

NAMESPACE = UUID("5a8f1a52-53a7-4d6f-9c31-3a2c2a0d5f10")
OFFSET = 1000  # where each passage begins in its document


def hit(text: str, name: str = "handbook.pdf", **facts: Any) -> Hit:
    values: dict[str, Any] = {
        "document_id": uuid5(NAMESPACE, name),
        "chunk_id": uuid5(NAMESPACE, text),
        "version_id": uuid5(NAMESPACE, f"{name} 1"),
        "ordinal": 0,
        "name": name,
        "title": None,
        "text": text,
        "char_start": OFFSET,
        "char_end": OFFSET + len(text),
        "page": 4,
        "heading_path": ("Leave",),
        "language": "en",
        "metadata": {},
        "tags": (),
        "score": 0.5,
    }
    return Hit(**values | facts)


def hits(*texts: str) -> list[Hit]:
    return [hit(text, f"{number}.txt") for number, text in enumerate(texts)]


def found(one: Hit, similarity: float | None = 0.5) -> Found:
    vector = None if similarity is None else PartScore(1, similarity)
    return Found(one, PartScores(vector=vector))


@dataclass(slots=True)
class FakeSearching:
    """Finds what it was given, by what is asked for; keeps what that was."""

    found: list[Found]
    by_text: dict[str, list[Found]] = field(default_factory=dict)
    degraded: list[Degraded] = field(default_factory=list)
    queries: list[SearchQuery] = field(default_factory=list)
    passages: list[Passage] = field(default_factory=list)  # of every document

    @property
    def store(self) -> "FakeSearching":
        return self

    async def neighbours(self, tenant_id: UUID, hits: Sequence[Hit], n: int) -> list[list[Passage]]:
        return [[one for one in self.passages if 0 < abs(one.ordinal - hit.ordinal) <= n] for hit in hits]

    async def search(self, tenant: Tenant, query: SearchQuery, deadline: Deadline) -> SearchResult:
        self.queries.append(query)
        hits = self.by_text.get(query.text, self.found)[: query.top_k]
        return SearchResult(hits, Mode.HYBRID, "fused", "fake/hash", None, self.degraded, False, None)
