"""Run the simulator: many seeds, one schedule again, or the planted bugs. See docs/reliability.md."""

import argparse
import json
import logging
import sys
import time
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path

from tests.postgres import Cluster, running_cluster
from tests.simulation.planted import BUGS, PlantedBug, named, prove
from tests.simulation.running import Report, Stop, replayed, run_seeds, seed_range
from tests.simulation.schedules import Schedule
from tests.simulation.world import simulate


def main() -> int:
    parser = argparse.ArgumentParser(prog="make simulate", description=__doc__)
    parser.add_argument(
        "--seeds", type=seed_range, default=range(200), help="first:last, the last excluded (make: SEEDS=)"
    )
    parser.add_argument(
        "--jobs", type=positive, default=1, help="processes, each with a database of its own (make: JOBS=)"
    )
    parser.add_argument(
        "--replay", type=replayed, help="seed, or seed/operations/faults as a failure prints it (make: REPLAY=)"
    )
    parser.add_argument(
        "--planted",
        nargs="?",
        const="",
        type=bugs,
        help="prove that planted bugs are caught, all or those named, separated by ; (make: PLANTED=1)",
    )
    parser.add_argument("--stop-at-first", action="store_true", help="end at the first violation")
    parser.add_argument("--no-shrinking", action="store_true", help="do not look for the shortest schedule that fails")
    parser.add_argument("--record", type=Path, help="write what the run came to as JSON (make: RECORD=)")
    parser.add_argument("--socket", type=Path, help="folder of the socket of a running Postgres to use")
    options = parser.parse_args()
    seeds = options.seeds
    with nullcontext(Cluster(options.socket)) if options.socket else running_cluster() as cluster:
        if options.replay:
            return replay(cluster, options.replay)
        if options.planted is not None:
            return prove(cluster, options.planted, seeds, options.jobs)
        with Stop() as stop:
            reports = run_seeds(
                cluster,
                seeds,
                stop,
                jobs=options.jobs,
                stop_at_first=options.stop_at_first,
                shrinking=not options.no_shrinking,
            )
            return run(reports, seeds, Progress(seeds, options.jobs, options.record), stop)


class Progress:
    """Where a long run is: one line that changes on a terminal, elsewhere one a minute; and the record, as often."""

    def __init__(self, seeds: range, jobs: int, record: Path | None) -> None:
        self._seeds = seeds
        self._jobs = jobs
        self._record = record
        self._terminal = sys.stderr.isatty()
        self._told = time.monotonic()

    def tell(self, report: Report) -> None:
        if time.monotonic() - self._told < (1 if self._terminal else 60):
            return
        self._told = time.monotonic()
        left = timedelta(seconds=round((len(self._seeds) - report.schedules) / report.rate))
        line = (
            f"{report.schedules} of {len(self._seeds)} schedules, {report.rate:.1f}/s, "
            f"{len(report.failures)} violations, {left} to go"
        )
        print(
            f"\r{line}\033[K" if self._terminal else line,
            end="" if self._terminal else "\n",
            file=sys.stderr,
            flush=True,
        )
        self.record(report)

    def clear(self) -> None:
        if self._terminal:
            print("\r\033[K", end="", file=sys.stderr, flush=True)

    def record(self, report: Report) -> None:
        if self._record is not None:
            unfinished = self._record.with_name(f"{self._record.name}.part")
            unfinished.write_text(json.dumps(report.record(self._seeds, self._jobs), indent=2) + "\n")
            unfinished.replace(self._record)


def run(reports: Iterator[Report], seeds: range, progress: Progress, stop: Stop) -> int:
    """0: all seeds, no violation. 1: violations. 2: a process died. 130: stopped before the end."""
    report, printed, died = Report(), 0, False
    try:
        for report in reports:
            for failure in report.failures[printed:]:
                progress.clear()
                print(failure, flush=True)
            printed = len(report.failures)
            progress.tell(report)
    except BrokenProcessPool:
        died = True
    progress.clear()
    progress.record(report)
    print(report)
    if died:
        print(
            f"a process of the simulator died: {report.schedules} of {len(seeds)} schedules were run", file=sys.stderr
        )
        return 2
    if stop.asked:
        print(f"stopped: {report.schedules} of {len(seeds)} schedules were run", file=sys.stderr)
    return 1 if report.failures else 130 if stop.asked else 0


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no positive number")
    return int(text)


def bugs(text: str) -> list[PlantedBug]:
    """All of them, or those that are named."""
    try:
        return named(text.split(";")) if text else BUGS
    except KeyError as error:
        names = "\n  ".join(bug.name for bug in BUGS)
        raise argparse.ArgumentTypeError(f"there is no planted bug {error}; there are:\n  {names}") from None


def replay(cluster: Cluster, schedule: Schedule) -> int:
    """One schedule, with its whole trace."""
    from tests.simulation.database import SimulatedDatabase

    logging.disable(logging.CRITICAL)
    outcome = simulate(schedule, SimulatedDatabase(cluster, "edda_simulation_replay"))
    print("\n".join(outcome.trace))
    for operation in outcome.schedule.operations:
        print(operation)
    for fault in outcome.schedule.faults:
        print(f"fault: {fault}{'' if fault in outcome.fired else ' (did not strike)'}")
    print(f"trace {outcome.digest}")
    print(outcome.violation or "no violation")
    return 1 if outcome.violation else 0


if __name__ == "__main__":
    sys.exit(main())
