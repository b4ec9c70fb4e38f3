"""Under which circumstances a turn is taken."""

from dataclasses import dataclass, field

from benchmarks.provider import BURST_S, Behaviour

# OpenAI takes so many texts in one request, so this is the most that a place among the concurrent can bring.
MOST_TEXTS = 2048


@dataclass(frozen=True, slots=True)
class Regime:
    name: str
    says: str
    behaviour: Behaviour = field(default_factory=Behaviour)
    live_index: bool = False

    def provider_limit(self, chunks: int, tokens_a_chunk: float) -> float | None:
        """The most chunks a second that this provider can give, whoever asks. None: there is no limit."""
        behaviour = self.behaviour
        limits: list[float] = []
        if behaviour.request_ms:
            limits.append(chunks / self._latency_s(1))  # nothing is there before the first answer
        if behaviour.concurrent and behaviour.request_ms:
            texts = min(MOST_TEXTS, max(1, chunks // behaviour.concurrent))
            limits.append(behaviour.concurrent * texts / self._latency_s(texts))
        if behaviour.tokens_a_minute:
            burst = behaviour.tokens_a_minute * BURST_S / 60
            seconds = (chunks * tokens_a_chunk - burst) * 60 / behaviour.tokens_a_minute
            limits.append(chunks / max(seconds, 0.001))
        return min(limits, default=None)

    def _latency_s(self, texts: int) -> float:
        return (self.behaviour.request_ms + self.behaviour.text_ms * texts) / 1000


REGIMES = {
    regime.name: regime
    for regime in (
        Regime("unlimited", "120 ms a request and 1 ms a text, as many at once as one likes"),
        Regime("concurrent-4", "the same, 4 requests at once; others wait", Behaviour(concurrent=4)),
        Regime("concurrent-16", "the same, 16 requests at once; others wait", Behaviour(concurrent=16)),
        Regime("concurrent-64", "the same, 64 requests at once; others wait", Behaviour(concurrent=64)),
        Regime(
            "a-minute",
            "the same, 1,000 requests and 1,000,000 tokens a minute, then 429 with Retry-After",
            Behaviour(requests_a_minute=1_000, tokens_a_minute=1_000_000),
        ),
        Regime("errors", "the same, 5 % of requests are answered with 500", Behaviour(errors=0.05)),
        Regime("live-index", "unlimited, and every row goes into an HNSW index as it is written", live_index=True),
        Regime("no-latency", "the provider answers at once", Behaviour(request_ms=0, text_ms=0)),
    )
}
