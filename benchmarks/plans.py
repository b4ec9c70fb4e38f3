"""What is measured: `smoke` by the tests, `quick` in some minutes, `full` for the record."""

from collections.abc import Callable, Sequence

from benchmarks.contestants import CONTESTANTS
from benchmarks.regimes import REGIMES
from benchmarks.running import Cell

TUNED = ("synchronous/tuned", "llamaindex/tuned", "langchain/tuned", "pgai/tuned")
USERS = ("synchronous/users", "llamaindex/users", "langchain/users", "pgai/users")
STARTUP, IDEAL = "node/startup", "node/ideal"
BOTH = ("edda/deployed", IDEAL)
REPETITIONS = 5


def _cell(regime: str, chunks: int, dimensions: int, names: Sequence[str], repetitions: int) -> Cell:
    return Cell(REGIMES[regime], chunks, dimensions, [CONTESTANTS[name] for name in names], repetitions)


def smoke() -> list[Cell]:
    return [_cell("no-latency", 50, 384, ("edda/deployed", "reference/plain"), 1)]


def quick() -> list[Cell]:
    """About two minutes on two quiet cores."""
    return [
        _cell("unlimited", 1000, 1536, ["edda/deployed", STARTUP, IDEAL, *TUNED, "synchronous/users"], 1),
        _cell("unlimited", 1000, 1536, BOTH, 2),
        _cell("unlimited", 5000, 1536, BOTH, 1),
        _cell("concurrent-16", 1000, 1536, ("edda/deployed", STARTUP), 1),
        _cell("no-latency", 5000, 1536, BOTH, 2),
        _cell("errors", 1000, 1536, ["edda/deployed"], 1),
    ]


def full() -> list[Cell]:
    """For the record, in about 25 minutes on two quiet cores. What is compared is repeated five times.

    The slow take part with fewer chunks and fewer repetitions, and only where their rate is not known already.
    """
    return [
        _cell("unlimited", 2000, 1536, ["edda/deployed", "edda/with-chunks", STARTUP, IDEAL, *TUNED], REPETITIONS),
        _cell("unlimited", 20_000, 1536, BOTH, REPETITIONS),
        _cell("no-latency", 20_000, 1536, BOTH, REPETITIONS),
        _cell("unlimited", 2000, 1536, ["edda/one-environment"], 2),
        _cell("unlimited", 20_000, 1536, ["edda/one-environment"], 2),
        _cell("unlimited", 2000, 1536, USERS, 1),
        _cell("unlimited", 20_000, 1536, [STARTUP], 1),
        _cell("unlimited", 20_000, 1536, ["llamaindex/tuned", "langchain/tuned", "pgai/tuned"], 2),
        _cell("concurrent-16", 2000, 1536, ["edda/deployed", STARTUP, IDEAL], 3),
        _cell("concurrent-4", 5000, 1536, BOTH, 2),
        _cell("concurrent-16", 5000, 1536, BOTH, 2),
        _cell("concurrent-64", 5000, 1536, BOTH, 2),
        _cell("errors", 2000, 1536, BOTH, 3),
        _cell("a-minute", 2000, 1536, ["edda/deployed"], 2),
        _cell("live-index", 2000, 384, BOTH, 2),
        _cell("unlimited", 2000, 384, BOTH, 3),
        _cell("unlimited", 20_000, 384, BOTH, 3),
        _cell("unlimited", 200_000, 384, BOTH, 1),
    ]


PLANS: dict[str, Callable[[], list[Cell]]] = {"smoke": smoke, "quick": quick, "full": full}
