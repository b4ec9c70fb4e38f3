"""What is measured: `smoke` by the tests, `quick` in some minutes, `full` for the record."""

from collections.abc import Callable, Sequence

from benchmarks.contestants import CONTESTANTS
from benchmarks.regimes import REGIMES
from benchmarks.running import Cell

FAST = (
    "edda/deployed",
    "edda/one-event",
    "edda/with-chunks",
    "node/startup",
    "node/ideal",
    "synchronous/tuned",
    "llamaindex/tuned",
    "langchain/tuned",
    "pgai/tuned",
)
FASTEST = ("edda/deployed", "edda/one-event", "node/ideal")
ALL = tuple(name for name in CONTESTANTS if name != "reference/plain")
REPETITIONS = 5


def _cell(regime: str, chunks: int, dimensions: int, names: Sequence[str], repetitions: int) -> Cell:
    return Cell(REGIMES[regime], chunks, dimensions, [CONTESTANTS[name] for name in names], repetitions)


def smoke() -> list[Cell]:
    return [_cell("no-latency", 50, 384, ("edda/deployed", "reference/plain"), 1)]


def quick() -> list[Cell]:
    return [
        _cell("unlimited", 1000, 1536, [*FAST, "synchronous/users"], 1),
        _cell("unlimited", 1000, 1536, FASTEST, 2),
        _cell("concurrent-16", 1000, 1536, ("edda/deployed", "node/startup", "node/ideal"), 1),
        _cell("live-index", 1000, 384, ("edda/deployed", "node/ideal"), 1),
        _cell("no-latency", 1000, 1536, FASTEST, 2),
    ]


def full() -> list[Cell]:
    """An hour and more."""
    return [
        _cell("unlimited", 2000, 384, ALL, REPETITIONS),
        _cell("unlimited", 2000, 1536, ALL, REPETITIONS),
        _cell("unlimited", 20_000, 384, ALL, REPETITIONS),
        _cell("unlimited", 20_000, 1536, ALL, REPETITIONS),
        _cell("concurrent-16", 20_000, 1536, FAST, REPETITIONS),
        _cell("no-latency", 20_000, 1536, FAST, REPETITIONS),
        _cell("concurrent-4", 5000, 1536, FASTEST, REPETITIONS),
        _cell("concurrent-16", 5000, 1536, FASTEST, REPETITIONS),
        _cell("concurrent-64", 5000, 1536, FASTEST, REPETITIONS),
        _cell("errors", 2000, 1536, FAST, REPETITIONS),
        _cell("a-minute", 2000, 384, FAST, REPETITIONS),
        _cell("live-index", 2000, 384, FAST, REPETITIONS),
        _cell("live-index", 2000, 1536, FAST, REPETITIONS),
        _cell("unlimited", 200_000, 384, ("edda/deployed", "node/ideal"), 2),
    ]


PLANS: dict[str, Callable[[], list[Cell]]] = {"smoke": smoke, "quick": quick, "full": full}
