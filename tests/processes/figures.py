"""Figures of the embed function, several processes of it on real servers:

    make figures [FIGURES="--workers 4 --documents 40 --latency 0.5 --at-a-time 2"]

How much provider errors cost, how often the same text is paid twice, how many deadlocks there are. The provider answers
after `--latency` seconds, and so many requests at a time: it, and not this machine's processors, is what is waited for.
A request that fails takes its place like any other, so that with 20 % of errors no more can be had than 1 / 1.25.
"""

import argparse
import asyncio
import os
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from tests.fakes.provider_server import Fault, edited, hang, ok, reset, status, throttled, truncated_to
from tests.postgres import running_cluster
from tests.processes.stack import Stack, running_stack

TENANT = "acme"
LINES = 640  # of a document: ten messages
SHARED = 0.2  # of them stand in every document
GIVE_UP_S = 900
LARGE = {
    "EDDA_MAX_CHUNKS": "100000",
    "EDDA_MAX_DOCUMENT_BYTES": "1000000",
    "CHUNKS_A_BATCH": "64",
    "RENEWAL_S": "15",
    "PART_LINES": "100000",
}


def not_a_number(answer: dict[str, Any]) -> dict[str, Any]:
    answer["data"][0]["embedding"] = [float("nan")] * 8
    return answer


# Of 100 requests.
ERRORS: list[Fault] = [
    *[throttled()] * 5,
    *[throttled(retry_after="1")] * 5,
    *[status(500)] * 4,
    *[hang] * 3,
    reset,
    truncated_to(100),
    edited(not_a_number),
]


@dataclass(frozen=True, slots=True)
class Run:
    """What became of it."""

    texts_per_s: float
    distinct: int
    paid: int
    lost: int
    deadlocks: int


def measure(stack: Stack, workers: int, documents: int, script: list[Fault]) -> Run:
    """Chunk everything, then let the workers embed it: the rate between a tenth and nine tenths of the texts."""
    stack.end()
    stack.extra = dict(LARGE)
    stack.begin({"chunk": 1, "embed": 0}, [TENANT])
    deadlocks = deadlocks_so_far(stack)
    shared = [f"{TENANT} everywhere {number}" for number in range(int(LINES * SHARED))]
    for document in range(documents):
        own = [f"{TENANT} document {document} line {number}" for number in range(LINES - len(shared))]
        lines = own + shared
        random.Random(document).shuffle(lines)
        stack.put(f"{TENANT}/{document}.txt", lines)
    wait(stack, lambda: count(stack, "document_versions WHERE status = 'embedding'") == documents)
    stack.provider.script[:] = script
    distinct = documents * (LINES - len(shared)) + len(shared)
    for _ in range(workers):
        stack.start("embed")
    passed = []
    for part in (0.1, 0.9):
        wait(stack, partial(has_embeddings, stack, part * distinct))
        passed.append((time.monotonic(), count(stack, "embeddings")))
    (began, first), (ended, last) = passed
    wait(stack, lambda: finished(stack, documents), every_s=1)
    stored = count(stack, "embeddings")
    run = Run(
        texts_per_s=(last - first) / (ended - began),
        distinct=distinct,
        paid=stack.provider.paid.total(),
        lost=distinct - stored + documents - count(stack, "document_versions WHERE status = 'ready'"),
        deadlocks=deadlocks_so_far(stack) - deadlocks,
    )
    stack.provider.script.clear()
    return run


def finished(stack: Stack, documents: int) -> bool:
    """Otherwise a minute's sweep, if nothing moves."""
    return count(stack, "document_versions WHERE finished_at IS NOT NULL") == documents


def deadlocks_so_far(stack: Stack) -> int:
    return int(stack.rows("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")[0][0])


def count(stack: Stack, of: str) -> int:
    return int(stack.rows(f"SELECT count(*) FROM {of}")[0][0])


def has_embeddings(stack: Stack, at_least: float) -> bool:
    return count(stack, "embeddings") >= at_least


def wait(stack: Stack, condition: Callable[[], bool], every_s: float = 0.1) -> None:
    give_up = time.monotonic() + GIVE_UP_S
    while not condition():
        if time.monotonic() > give_up:
            raise TimeoutError(stack.log())
        for worker in stack.workers:
            worker.hear()
        time.sleep(every_s)


def edited_document(stack: Stack) -> int:
    """Texts paid for a document of 1,000 chunks that is uploaded again with one of them edited."""
    stack.end()
    stack.extra = dict(LARGE)
    stack.begin({"chunk": 1, "embed": 2}, [TENANT])
    lines = [f"{TENANT} line {number}" for number in range(1000)]
    stack.put(f"{TENANT}/a.txt", lines)
    stack.settle()
    before = stack.provider.paid.total()
    stack.put(f"{TENANT}/a.txt", [*lines[:500], f"{TENANT} edited", *lines[501:]])
    stack.settle()
    return stack.provider.paid.total() - before


def main() -> int:
    """Print the figures; non-zero when something was lost."""
    parser = argparse.ArgumentParser(prog="make figures", description=__doc__)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--documents", type=int, default=40)
    parser.add_argument("--latency", type=float, default=0.5)
    parser.add_argument("--at-a-time", type=int, default=2)
    options = parser.parse_args()
    with running_cluster() as cluster, running_stack(cluster) as stack:
        stack.provider.latency_s = options.latency
        stack.provider.at_a_time = asyncio.Semaphore(options.at_a_time)
        print(f"load {os.getloadavg()[0]:.1f}; {options}", flush=True)
        clean = measure(stack, options.workers, options.documents, [])
        print(f"clean:       {clean}", flush=True)
        errors = [fault for _ in range(100) for fault in random.sample([*ERRORS, *[ok] * 80], 100)]
        faulty = measure(stack, options.workers, options.documents, errors)
        print(f"with errors: {faulty}", flush=True)
        print(f"rate with 20 % errors / (clean / 1.25): {faulty.texts_per_s / (clean.texts_per_s / 1.25):.2f}")
        print(f"texts paid / distinct, without errors:  {clean.paid / clean.distinct:.4f}")
        print(f"deadlocks:                              {clean.deadlocks + faulty.deadlocks}")
        stack.provider.latency_s = 0
        print(f"texts paid after an edit of one in 1,000: {edited_document(stack)}")
        print(f"load {os.getloadavg()[0]:.1f}")
        return int(clean.lost + faulty.lost > 0)


if __name__ == "__main__":
    sys.exit(main())
