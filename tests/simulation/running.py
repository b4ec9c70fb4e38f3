"""Many schedules, in one process or several; and the shortest schedule that still fails."""

import gc
import logging
import multiprocessing
import os
import platform
import re
import signal
import subprocess
import time
from argparse import ArgumentTypeError
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass, field, replace
from itertools import islice, takewhile
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
    python_s: float = 0  # of CPU
    postgres_s: float = 0  # likewise
    faults: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)

    def add(self, other: "Report") -> None:
        self.schedules += other.schedules
        self.simulated_s += other.simulated_s
        self.python_s += other.python_s
        self.postgres_s += other.postgres_s
        self.faults += other.faults
        self.failures += other.failures

    def __str__(self) -> str:
        kinds = "\n".join(f"  {count:8} {kind}" for kind, count in sorted(self.faults.items()))
        cpu_ms = 1000 * (self.python_s + self.postgres_s) / max(1, self.schedules)
        return (
            f"faults by kind:\n{kinds}\n"
            f"{self.schedules} schedules, {self.faults.total()} faults "
            f"({self.faults.total() / max(1, self.schedules):.1f} a schedule), "
            f"{self.simulated_s / 3600:.0f} simulated hours, {len(self.failures)} violations, "
            f"{self.seconds:.0f} s, {self.rate:.1f} schedules/s, {cpu_ms:.0f} ms of CPU a schedule"
            + "".join(f"\n{failure.violation}: make simulate REPLAY={failure.replay}" for failure in self.failures)
        )

    @property
    def rate(self) -> float:
        return self.schedules / self.seconds if self.seconds else 0

    def record(self, seeds: range, jobs: int) -> dict[str, Any]:
        """What is kept of a run."""
        return {
            "commit": commit(),
            "seeds": f"{seeds.start}:{seeds.stop}",
            "schedules": self.schedules,
            "complete": self.schedules == len(seeds),
            "faults": self.faults.total(),
            "faults_by_kind": dict(sorted(self.faults.items())),
            "violations": [
                {"seed": failure.seed, "violation": failure.violation, "replay": failure.replay}
                for failure in self.failures
            ],
            "wall_s": round(self.seconds, 1),
            "cpu_s": {"python": round(self.python_s, 1), "postgres": round(self.postgres_s, 1)},
            "simulated_hours": round(self.simulated_s / 3600),
            "jobs": jobs,
            "cores": os.cpu_count(),
            "python": platform.python_version(),
        }


class Stop:
    """SIGINT and SIGTERM end a run after the schedules that are running now; a second one ends it at once."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> "Stop":
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.default_int_handler)

    def _ask(self, *_: object) -> None:
        self.asked = True
        self.__exit__()


def run_seeds(
    cluster: Cluster, seeds: range, stop: Stop, *, jobs: int = 1, stop_at_first: bool = False, shrinking: bool = True
) -> Iterator[Report]:
    """The report so far, again and again until all seeds are done. Raises BrokenProcessPool when a process died."""
    total, started = Report(), time.monotonic()
    all_tasks = (seeds[start : start + SEEDS_A_TASK] for start in range(0, len(seeds), SEEDS_A_TASK))
    tasks = takewhile(lambda _: not stop.asked, all_tasks)
    for report in _reports(cluster, tasks, jobs, shrinking, stop_at_first):
        total.add(report)
        total.seconds = time.monotonic() - started
        yield total
        if stop_at_first and total.failures:
            return


def _reports(
    cluster: Cluster, tasks: Iterator[range], jobs: int, shrinking: bool, stop_at_first: bool
) -> Iterator["Report"]:
    context = multiprocessing.get_context("spawn")  # a fork would share the connections
    number = context.Value("i", os.getpid())  # whatever it is: several runs at once begin with several cores
    arguments = (Cluster(cluster.folder), shrinking, stop_at_first, number)  # the server stays this process's
    if jobs == 1:
        _open(*arguments)
        yield from map(_run, tasks)
        return
    with ProcessPoolExecutor(jobs, context, initializer=_open_process, initargs=arguments) as pool:
        running = {pool.submit(_run, task) for task in islice(tasks, 2 * jobs)}
        try:
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
                running |= {pool.submit(_run, task) for task in islice(tasks, len(done))}
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


_database: SimulatedDatabase | None = None
_shrinking, _stop_at_first = True, False


def _open_process(*arguments: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal: the first one decides
    _open(*arguments)


def _open(cluster: Cluster, shrinking: bool, stop_at_first: bool, number: Any) -> None:
    global _database, _shrinking, _stop_at_first
    _shrinking, _stop_at_first = shrinking, stop_at_first
    logging.disable(logging.CRITICAL)  # faults are logged at length
    with number.get_lock():
        number.value += 1
        core = number.value % (os.cpu_count() or 1)
    _database = SimulatedDatabase(cluster, f"edda_simulation_{os.getpid()}", core)
    gc.collect()
    gc.freeze()  # what is there by now stays: not to be looked through again and again


def _run(seeds: range) -> Report:
    assert _database is not None
    report, python_s, postgres_s = Report(), time.process_time(), _database.cpu_s()
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
    report.python_s, report.postgres_s = time.process_time() - python_s, _database.cpu_s() - postgres_s
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


def seed_range(text: str) -> range:
    """first:last, the last excluded, or one seed. Raises ArgumentTypeError."""
    if not (match := re.fullmatch(r"(\d+)(?::(\d+))?", text)):
        raise ArgumentTypeError(f"{text!r} is not first:last, as in 0:200")
    first = int(match[1])
    seeds = range(first, int(match[2]) if match[2] else first + 1)
    if not seeds:
        raise ArgumentTypeError(f"{text!r} holds no seed: the last is excluded")
    return seeds


def replayed(code: str) -> Schedule:
    """The schedule that `Failure.replay` names; a seed alone is the whole schedule. Raises ArgumentTypeError."""
    if not re.fullmatch(r"\d+(/[\d,]*/[\d,]*)?", code):
        raise ArgumentTypeError(f"{code!r} is neither a seed nor seed/operations/faults, as in 17/0,2/1,4")
    seed, *kept = code.split("/")
    schedule = Schedule.drawn(int(seed))
    if not kept:
        return schedule
    operations, faults = (_positions(part) for part in kept)
    if max(operations, default=0) >= len(schedule.operations) or max(faults, default=0) >= len(schedule.faults):
        raise ArgumentTypeError(f"seed {seed} has {len(schedule.operations)} operations, {len(schedule.faults)} faults")
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
