"""A short run of the simulator, and that it can be trusted: the same seed is the same schedule."""

import logging
from collections.abc import Iterator

import pytest

from tests.postgres import Cluster
from tests.simulation.database import SimulatedDatabase
from tests.simulation.running import shrink
from tests.simulation.schedules import FEWEST_FAULTS, Schedule
from tests.simulation.world import simulate


@pytest.fixture(scope="module")
def database(cluster: Cluster) -> Iterator[SimulatedDatabase]:
    logging.disable(logging.CRITICAL)
    database = SimulatedDatabase(cluster, "edda_simulation_test")
    yield database
    database.close()
    logging.disable(logging.NOTSET)


def test_the_same_seed_gives_the_same_trace(database: SimulatedDatabase) -> None:
    first = {seed: simulate(Schedule.drawn(seed), database).digest for seed in range(10)}
    again = {seed: simulate(Schedule.drawn(seed), database).digest for seed in reversed(range(10))}
    assert first == again


def test_every_schedule_draws_at_least_eight_faults() -> None:
    assert all(len(Schedule.drawn(seed).faults) >= FEWEST_FAULTS for seed in range(1000))


def test_no_schedule_loses_doubles_or_blocks_anything(database: SimulatedDatabase) -> None:
    for seed in range(100):
        outcome = simulate(Schedule.drawn(seed), database)
        assert outcome.violation is None, f"make simulate REPLAY={seed}: {shrink(outcome, database).schedule}"
