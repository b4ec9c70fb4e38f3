"""Break real processes: seeded schedules, one of them again, or a kill at every point. See docs/reliability.md."""

import argparse
import signal
import sys
import time
from collections import Counter

from tests.postgres import running_cluster
from tests.processes.crashes import plain_passages, run_crash
from tests.processes.labels import Strike, When
from tests.processes.schedules import Schedule, run
from tests.processes.stack import Stack, running_stack
from tests.simulation.running import commit, seed_range
from tests.simulation.violations import Violation

TELL_EVERY_S = 10


def main() -> int:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument(
        "--seeds", type=seed_range, default=range(50), help="first:last, the last excluded (make: SEEDS=)"
    )
    parser.add_argument("--replay", type=int, help="one seed, with what it does and the workers' log (make: REPLAY=)")
    parser.add_argument(
        "--crashes", action="store_true", help="every labelled point of every function (make: CRASHES=1)"
    )
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # by way of all that has to be stopped
    with running_cluster() as cluster, running_stack(cluster) as stack:
        if options.crashes:
            return crash_everywhere(stack)
        if options.replay is not None:
            return run_all(stack, range(options.replay, options.replay + 1), verbose=True)
        return run_all(stack, options.seeds)


def run_all(stack: Stack, seeds: range, *, verbose: bool = False) -> int:
    """Non-zero when an invariant was violated."""
    struck: Counter[str] = Counter()
    violations, deaths, began, told = 0, 0, time.monotonic(), time.monotonic()
    for number, seed in enumerate(seeds, 1):
        schedule = Schedule.drawn(seed)
        try:
            run(schedule, stack)
        except Violation as violation:
            violations += 1
            print(f"seed {seed}, commit {commit()}: {violation}\n{schedule}", flush=True)
            print(f"  replay: make chaos REPLAY={seed}", flush=True)
            stack.end()
        struck.update(f"{strike.action} {strike.when}" for strike in stack.struck)
        deaths += len(stack.deaths)
        if verbose:
            print(f"{schedule}\nstruck: {[str(strike) for strike in stack.struck]}\n{stack.log()}")
        if time.monotonic() - told > TELL_EVERY_S:
            told = time.monotonic()
            rate = number / (told - began)
            print(f"{number} of {len(seeds)} schedules, {violations} violations, {rate:.1f} schedules/s", flush=True)
    seconds = time.monotonic() - began
    print(f"struck: {dict(struck)}; {deaths} deaths")
    print(f"{len(seeds)} schedules, {violations} violations, {seconds:.0f} s, {len(seeds) / seconds:.1f} schedules/s")
    return 1 if violations else 0


def crash_everywhere(stack: Stack) -> int:
    """Non-zero when an invariant was violated."""
    passages = plain_passages(stack)
    print(
        f"{len({label for _, label in passages})} labels, {len(passages)} with the functions that pass them", flush=True
    )
    violations, began, told = 0, time.monotonic(), time.monotonic()
    resumed: list[tuple[float, str]] = []
    moments: tuple[When, ...] = ("before", "after")
    for number, ((function, label), scenarios) in enumerate(passages.items(), 1):
        for when in moments:
            strike = Strike(label, when)
            try:
                resumed.append((run_crash(stack, scenarios, function, strike), f"{function}: {strike}"))
            except Violation as violation:
                violations += 1
                print(f"{function}: {strike}: {violation}", flush=True)
                stack.end()
        if time.monotonic() - told > TELL_EVERY_S:
            told = time.monotonic()
            print(f"{number} of {len(passages)} points, {violations} violations", flush=True)
    for seconds, where in sorted(resumed, reverse=True):
        print(f"{seconds:7.0f} s until all was done after {where}")
    print(f"{2 * len(passages)} crashes, {violations} violations, {time.monotonic() - began:.0f} s")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
