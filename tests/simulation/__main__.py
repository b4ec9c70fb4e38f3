"""Run the simulator: many seeds, one schedule again, or the planted bugs. See docs/reliability.md."""

import argparse
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

from tests.postgres import Cluster, running_cluster
from tests.simulation.running import Report, replayed, run_seeds
from tests.simulation.world import simulate


def main() -> int:
    parser = argparse.ArgumentParser(prog="make simulate", description=__doc__)
    parser.add_argument("--seeds", default="0:200", help="first:last, the last excluded (make: SEEDS=)")
    parser.add_argument("--jobs", type=int, default=1, help="processes, each with a database of its own (make: JOBS=)")
    parser.add_argument("--replay", help="seed, or seed/operations/faults as a failure prints it (make: REPLAY=)")
    parser.add_argument("--planted", nargs="?", const="", help="prove that planted bugs are caught (make: PLANTED=1)")
    parser.add_argument("--stop-at-first", action="store_true", help="end at the first violation")
    parser.add_argument("--no-shrinking", action="store_true", help="do not look for the shortest schedule that fails")
    parser.add_argument("--socket", type=Path, help="folder of the socket of a running Postgres to use")
    options = parser.parse_args()
    first, _, last = options.seeds.partition(":")
    seeds = range(int(first), int(last or int(first) + 1))
    with nullcontext(Cluster(options.socket)) if options.socket else running_cluster() as cluster:
        if options.replay:
            return replay(cluster, options.replay)
        if options.planted is not None:
            from tests.simulation.planted import prove

            return prove(cluster, options.planted, seeds, options.jobs)
        reports = run_seeds(
            cluster,
            seeds,
            jobs=options.jobs,
            stop_at_first=options.stop_at_first,
            shrinking=not options.no_shrinking,
        )
        return run(reports, len(seeds))


def run(reports: Iterator[Report], count: int) -> int:
    """Non-zero when an invariant was violated."""
    report, told, printed = Report(), time.monotonic(), 0
    for report in reports:
        for failure in report.failures[printed:]:
            print(failure, flush=True)
        printed = len(report.failures)
        if time.monotonic() - told > 10:
            told = time.monotonic()
            print(
                f"{report.schedules} of {count} schedules, {printed} violations, "
                f"{report.schedules / report.seconds:.1f} schedules/s",
                flush=True,
            )
    print(report)
    return 1 if report.failures else 0


def replay(cluster: Cluster, code: str) -> int:
    """One schedule, with its whole trace."""
    from tests.simulation.database import SimulatedDatabase

    logging.disable(logging.CRITICAL)
    outcome = simulate(replayed(code), SimulatedDatabase(cluster, "edda_simulation_replay"))
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
