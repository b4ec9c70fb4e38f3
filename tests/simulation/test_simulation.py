"""A short run of the simulator, and that it can be trusted: the same seed is the same schedule, planted bugs are seen.

`make simulate` runs as many seeds as one likes, `make simulate PLANTED=1` all planted bugs.
"""

import asyncio
import logging
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.postgres import Cluster
from tests.simulation.clock import Stuck, VirtualLoop
from tests.simulation.database import EPOCH, SimulatedDatabase
from tests.simulation.planted import BUGS, ROOT, PlantedBug, named, try_bug
from tests.simulation.running import Failure, replayed, shrink
from tests.simulation.schedules import CORRUPT, FEWEST_FAULTS, Fault, Operation, Schedule
from tests.simulation.world import simulate

SEEDS_A_TEST = 20
VERSIONED = 2  # a seed whose bucket is versioned
# One of each kind: natural key, the bucket decides, lease, doorbell, visibility, sweep.
SOME_BUGS = (
    "an object seen again is another version",
    "a delete does not look at the bucket",
    "a version is claimed though somebody holds it",
    "messages are acknowledged first (chunk)",
    "visible before everything is embedded",
    "the sweep gives up at once",
)


@pytest.fixture(scope="module")
def database(cluster: Cluster) -> Iterator[SimulatedDatabase]:
    logging.disable(logging.CRITICAL)
    database = SimulatedDatabase(cluster, "edda_simulation_test")
    yield database
    database.close()
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("first", range(0, 5 * SEEDS_A_TEST, SEEDS_A_TEST))
def test_no_schedule_loses_doubles_or_blocks_anything(database: SimulatedDatabase, first: int) -> None:
    for seed in range(first, first + SEEDS_A_TEST):
        outcome = simulate(Schedule.drawn(seed), database)
        assert outcome.violation is None, str(Failure(seed, str(outcome.violation), shrink(outcome, database)))


# In a process of its own: threads that other tests have left draw from the same global randomness.
TRACES = """
import sys
from pathlib import Path

from tests.postgres import Cluster
from tests.simulation.database import SimulatedDatabase
from tests.simulation.schedules import Schedule
from tests.simulation.world import simulate

database = SimulatedDatabase(Cluster(Path(sys.argv[1])), "edda_simulation_traces")
for seed in (*range(6), *reversed(range(6))):
    print("trace", seed, simulate(Schedule.drawn(seed), database).digest)
database.close()
"""


def test_the_same_seed_gives_the_same_trace(cluster: Cluster) -> None:
    command = [sys.executable, "-c", TRACES, str(cluster.folder)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=100)
    assert ran.returncode == 0, ran.stderr
    traces = [line for line in ran.stdout.splitlines() if line.startswith("trace ")]  # between what Edda logs
    assert len(traces) == 12
    assert traces == traces[::-1]
    assert len({trace.split()[2] for trace in traces}) == 6


def test_what_was_deleted_is_not_found_though_the_put_after_it_failed(database: SimulatedDatabase) -> None:
    put, delete = Operation("put", 0, "acme", "a.txt", ("acme line 1",)), Operation("delete", 100, "acme", "a.txt")
    put_again = Operation("put", 101, "acme", "a.txt", (f"acme {CORRUPT}",))
    late = Fault("event_delayed", at=1, amount=600)
    outcome = simulate(Schedule(VERSIONED, (put, delete, put_again), (late,)), database)
    assert outcome.fired == (late,)
    assert database.rows("SELECT current_version_id FROM documents") == [(None,)]


def test_an_object_whose_event_was_lost_is_found_by_the_sweep(database: SimulatedDatabase) -> None:
    put, lost = Operation("put", 0, "acme", "a.txt", ("acme line 1",)), Fault("event_lost", at=0, amount=0)
    outcome = simulate(Schedule(VERSIONED, (put,), (lost,)), database)
    assert (outcome.violation, outcome.fired) == (None, (lost,))
    assert database.rows("SELECT status FROM document_versions") == [("ready",)]


def test_every_schedule_draws_at_least_eight_faults() -> None:
    assert all(len(Schedule.drawn(seed).faults) >= FEWEST_FAULTS for seed in range(1000))


def test_a_replay_is_the_schedule_that_failed() -> None:
    drawn = Schedule.drawn(17)
    shorter = replayed("17/0,2/1,4")
    assert shorter.operations == (drawn.operations[0], drawn.operations[2])
    assert shorter.faults == (drawn.faults[1], drawn.faults[4])
    assert replayed("17") == drawn


def test_the_database_knows_no_time_but_the_simulated(database: SimulatedDatabase) -> None:
    simulate(Schedule.drawn(0), database)
    rows = database.rows(
        "SELECT created_at, updated_at FROM documents UNION ALL SELECT created_at, chunked_at FROM document_versions"
    )
    assert rows
    assert all(time_ is None or time_ >= EPOCH for row in rows for time_ in row)


def test_virtual_time_passes_without_waiting() -> None:
    loop, started = VirtualLoop(), time.monotonic()
    loop.run_until_complete(asyncio.sleep(86_400))
    assert loop.time() == pytest.approx(86_400)
    assert time.monotonic() - started < 10
    with pytest.raises(Stuck):
        loop.run_until_complete(asyncio.Event().wait())
    loop.close()


@pytest.mark.parametrize("name", SOME_BUGS)
def test_a_planted_bug_is_caught(cluster: Cluster, name: str) -> None:
    (bug,) = named([name])
    assert try_bug(cluster, bug, range(60)).violation is not None


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_can_still_be_planted(bug: PlantedBug, tmp_path: Path) -> None:
    bug.plant(tmp_path)
