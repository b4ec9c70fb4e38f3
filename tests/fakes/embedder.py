"""An embedding model without a model: a vector follows from its text, faults from a script."""

import struct
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from edda.batching import EmbeddedBatch, RetryPolicy, batch_indices, embed_all
from edda.concurrency import Deadline
from edda.errors import EmbeddingRejected, ProviderUnavailable
from edda.models import EmbeddingLimits
from edda.ports import Embedder
from edda.vectors import validate

from tests.fakes.provider_server import unit_vector

LIMITS = EmbeddingLimits(16, 100_000, 10_000, 4)


@dataclass(slots=True)
class FakeEmbedder:
    """Passes the same contract suite as the real ones, and keeps what it was asked.

    `refuses`: texts that spoil the request they are in. `script`: one entry a request, None for nothing unusual, an
    exception to raise, or a dict of text to what is returned for it.
    """

    name: str = "fake/hash"
    dimensions: int = 8
    limits: EmbeddingLimits = LIMITS
    refuses: set[str] = field(default_factory=set)
    script: list[Exception | dict[str, EmbeddingRejected] | None] = field(default_factory=list)
    requests: list[list[str]] = field(default_factory=list)
    purposes: list[str] = field(default_factory=list)

    async def embed(
        self, texts: Sequence[str], *, purpose: Literal["document", "query"], deadline: Deadline
    ) -> Sequence[bytes | EmbeddingRejected]:
        if not texts:
            return []
        if deadline.expired:
            raise ProviderUnavailable("No time was left.")
        self.requests.append(list(texts))
        self.purposes.append(purpose)
        scripted = self.script.pop(0) if self.script else None
        if isinstance(scripted, Exception):
            raise scripted
        if self.refuses.intersection(texts):
            raise EmbeddingRejected
        replaced = scripted or {}
        return [replaced.get(text) or self.vector(text) for text in texts]

    async def aclose(self) -> None:
        """Nothing to give back."""

    def vector(self, text: str) -> bytes:
        return validate(struct.pack(f"<{self.dimensions}f", *unit_vector(text, self.dimensions)), self.dimensions)

    @property
    def texts(self) -> list[str]:
        """Every text that was ever asked for, as often as it was."""
        return [text for request in self.requests for text in request]


def asked_all(
    embedder: Embedder, texts: Sequence[str], tokens: Sequence[int], deadline: Deadline, retry: RetryPolicy
) -> AsyncGenerator[list[EmbeddedBatch], None]:
    """`embed_all` for these texts, cut into requests as this embedder's limits ask for."""
    limits = embedder.limits

    async def ask(indices: Sequence[int]) -> Sequence[bytes | EmbeddingRejected]:
        return await embedder.embed([texts[index] for index in indices], purpose="document", deadline=deadline)

    requests = list(batch_indices(tokens, limits.max_texts_per_request, limits.max_tokens_per_request))
    return embed_all(ask, requests, limits.max_concurrent_requests, deadline, retry)
