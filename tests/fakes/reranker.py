"""A reranker without a model: a text's score is the share of the query's words that it holds."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from edda.concurrency import Deadline
from edda.errors import ProviderUnavailable
from edda.models import RerankLimits


def overlap(query: str, text: str) -> float:
    words = query.lower().split()
    return sum(word in text.lower().split() for word in words) / len(words)


LIMITS = RerankLimits(16, 2)


@dataclass(slots=True)
class FakeReranker:
    """Passes the same contract suite as the real ones. `script`: one entry a request, None for nothing unusual, an
    exception to raise, or the scores to return."""

    name: str = "fake/overlap"
    limits: RerankLimits = LIMITS
    script: list[Exception | list[float] | None] = field(default_factory=list)
    requests: list[tuple[str, list[str]]] = field(default_factory=list)

    async def rerank(self, query: str, texts: Sequence[str], deadline: Deadline) -> Sequence[float]:
        if not texts:
            return []
        if deadline.expired:
            raise ProviderUnavailable("No time was left.")
        self.requests.append((query, list(texts)))
        scripted = self.script.pop(0) if self.script else None
        if isinstance(scripted, Exception):
            raise scripted
        return scripted if scripted is not None else [overlap(query, text) for text in texts]

    async def aclose(self) -> None:
        """Nothing to give back."""
