"""Many schedules, in one process or several; and the shortest schedule that still fails."""

import logging
import multiprocessing
import os
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.postgres import Cluster
from tests.simulation.database import SimulatedDatabase
from tests.simulation.schedules import Schedule
from tests.simulation.world import Outcome, simulate

ROOT = Path(__file__).parents[2]
SEEDS_A_TASK = 10


@dataclass(frozen=True, slots=True)
class Failure:
    """A violation, and the shortest schedule found that shows the same one."""

    seed: int
    violation: str
    shortest: Outcome

    @property
    def replay(self) -> str:
        """What `--replay` takes: seed/operations/faults, as positions in the schedule that the seed gives."""
        drawn, kept = Schedule.drawn(self.seed), self.shortest.schedule
        operations = ",".join(str(drawn.operations.index(operation)) for operation in kept.operations)
        return f"{self.seed}/{operations}/{','.join(str(drawn.faults.index(fault)) for fault in kept.faults)}"

    def __str__(self) -> str:
        schedule = self.shortest.schedule
        return "\n".join(
            (
                f"VIOLATION with seed {self.seed} at commit {commit()}",
                f"  {self.violation}",
                f"  shortest schedule found ({self.shortest.violation}):",
                *(f"    {operation}" for operation in schedule.operations),
                *(f"    fault: {fault}" for fault in schedule.faults),
                f"  replay: make simulate REPLAY={self.replay}",
            )
        )


@dataclass(slots=True)
class Report:
    """What a run of many schedules came to."""

    schedules: int = 0
    simulated_s: float = 0
    seconds: float = 0
    faults: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)

    def add(self, other: "Report") -> None:
        self.schedules += other.schedules
        self.simulated_s += other.simulated_s
        self.faults += other.faults
        self.failures += other.failures

    def __str__(self) -> str:
        kinds = "\n".join(f"  {count:8} {kind}" for kind, count in sorted(self.faults.items()))
        rate = self.schedules / self.seconds if self.seconds else 0
        return (
            f"faults by kind:\n{kinds}\n"
            f"{self.schedules} schedules, {self.faults.total()} faults "
            f"({self.faults.total() / max(1, self.schedules):.1f} a schedule), "
            f"{self.simulated_s / 3600:.0f} simulated hours, {len(self.failures)} violations, "
            f"{self.seconds:.0f} s, {rate:.1f} schedules/s"
        )


def run_seeds(
    cluster: Cluster, seeds: range, *, jobs: int = 1, stop_at_first: bool = False, shrinking: bool = True
) -> Iterator[Report]:
    """The report so far, again and again until all seeds are done."""
    total, started = Report(), time.monotonic()
    for report in _reports(cluster, seeds, jobs, shrinking, stop_at_first):
        total.add(report)
        total.seconds = time.monotonic() - started
        yield total
        if stop_at_first and total.failures:
            return


def _reports(cluster: Cluster, seeds: range, jobs: int, shrinking: bool, stop_at_first: bool) -> Iterator["Report"]:
    tasks = [seeds[start : start + SEEDS_A_TASK] for start in range(0, len(seeds), SEEDS_A_TASK)]
    context = multiprocessing.get_context("spawn")  # a fork would share the connections
    number = context.Value("i", os.getpid())  # whatever it is: several runs at once begin with several cores
    arguments = (cluster, shrinking, stop_at_first, number)
    if jobs == 1:
        _open(*arguments)
        yield from map(_run, tasks)
        return
    with ProcessPoolExecutor(jobs, context, initializer=_open, initargs=arguments) as pool:
        try:
            yield from pool.map(_run, tasks)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


_database: SimulatedDatabase | None = None
_shrinking, _stop_at_first = True, False


def _open(cluster: Cluster, shrinking: bool, stop_at_first: bool, number: Any) -> None:
    global _database, _shrinking, _stop_at_first
    _shrinking, _stop_at_first = shrinking, stop_at_first
    logging.disable(logging.CRITICAL)  # faults are logged at length
    with number.get_lock():
        number.value += 1
        core = number.value % (os.cpu_count() or 1)
    _database = SimulatedDatabase(cluster, f"edda_simulation_{os.getpid()}", core)


def _run(seeds: range) -> Report:
    assert _database is not None
    report = Report()
    for seed in seeds:
        outcome = simulate(Schedule.drawn(seed), _database)
        report.schedules += 1
        report.simulated_s += outcome.simulated_s
        report.faults.update(fault.kind for fault in outcome.fired)
        if outcome.violation is not None:
            shortest = shrink(outcome, _database) if _shrinking else outcome
            report.failures.append(Failure(seed, str(outcome.violation), shortest))
            if _stop_at_first:
                break
    return report


def shrink(outcome: Outcome, database: SimulatedDatabase, most_tries: int = 150) -> Outcome:
    """Leave out faults and operations for as long as the same invariant is violated."""
    shortest, tries = outcome, 0
    progress = True
    while progress:
        progress = False
        for shorter in _shorter(shortest.schedule):
            if tries == most_tries:
                return shortest
            tries += 1
            tried = simulate(shorter, database)
            if tried.violation and outcome.violation and tried.violation.invariant == outcome.violation.invariant:
                shortest, progress = tried, True
                break
    return shortest


def _shorter(schedule: Schedule) -> Iterator[Schedule]:
    """Halves first, then one less."""
    faults, operations = schedule.faults, schedule.operations
    if len(faults) > 3:
        middle = len(faults) // 2
        yield replace(schedule, faults=faults[middle:])
        yield replace(schedule, faults=faults[:middle])
    for position in range(len(faults)):
        yield replace(schedule, faults=faults[:position] + faults[position + 1 :])
    for position in range(len(operations) if len(operations) > 1 else 0):
        yield replace(schedule, operations=operations[:position] + operations[position + 1 :])


def replayed(code: str) -> Schedule:
    """The schedule that `Failure.replay` names; a seed alone is the whole schedule."""
    seed, *kept = code.split("/")
    schedule = Schedule.drawn(int(seed))
    if not kept:
        return schedule
    operations, faults = (_positions(part) for part in kept)
    return replace(
        schedule,
        operations=tuple(schedule.operations[position] for position in operations),
        faults=tuple(schedule.faults[position] for position in faults),
    )


def _positions(part: str) -> Sequence[int]:
    return [int(position) for position in part.split(",") if position]


def commit() -> str:
    """Which code it was."""
    said = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    return said.stdout.strip() or "unknown"
