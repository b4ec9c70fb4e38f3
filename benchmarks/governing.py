"""How near to a provider's limits several environments stay together: `python -m benchmarks.governing`.

Each environment is a process: Edda's own adapter, a governor, a connection to Postgres, and always more to embed. They
begin together on a provider key that nobody knows yet, or (`--known`) on one that an environment has used for a minute
before. Nothing is written but the shared budget. `--contention` measures the budget's row alone.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import quantiles
from typing import Any

from edda import budgets
from edda.adapters.openai_embedder import OPENAI_LIMITS, OpenAIEmbedder
from edda.budgets import Refusal, provider_key
from edda.concurrency import Deadline
from edda.errors import ProviderThrottled, RetryableError
from edda.governing import Governor, NoSlot
from edda.store.budgets import BudgetStore
from edda.store.database import Database

from benchmarks.contestants import ROOT
from benchmarks.corpus import corpus, read
from benchmarks.postgres import server
from benchmarks.processes import provider
from benchmarks.provider import BURST_S, Behaviour
from benchmarks.regimes import REGIMES

DIMENSIONS = 384
CHUNKS = 5000  # asked for again and again
CONTENDING_S = 5.0
CONNECTIONS = 12  # of a process that contends

Barrier = Any  # multiprocessing's synchronisation has no public types
Results = Any


@dataclass(frozen=True, slots=True)
class Environment:
    """What one process is told."""

    number: int
    provider_url: str
    database_url: str
    texts: Path
    seconds: float
    texts_a_request: int
    governed: bool


@dataclass(slots=True)
class Done:
    """What it came to."""

    number: int
    tokens: int = 0
    requests: int = 0
    throttled: int = 0
    throttled_late: int = 0  # in the second half
    failed: int = 0
    database_transactions: int = 0


class Counting(BudgetStore):
    """Counts its transactions."""

    transactions = 0

    async def read(self) -> Any:
        self.transactions += 1
        return await super().read()

    async def change(self, change: Any) -> Any:
        self.transactions += 1
        return await super().change(change)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.governing", description=__doc__)
    parser.add_argument("--state", type=Path, default=ROOT / ".bench", help="folder of database and corpus (.bench)")
    parser.add_argument("--regime", nargs="+", default=["a-minute", "concurrent-4", "concurrent-16", "concurrent-64"])
    parser.add_argument("--environments", nargs="+", type=int, default=[1, 2, 4])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--texts", type=int, default=128, help="a request")
    parser.add_argument("--headers", action="store_true", help="the provider says its limits with every answer")
    parser.add_argument("--known", action="store_true", help="the provider's limit is known when it begins")
    parser.add_argument("--ungoverned", action="store_true", help="32 at once whatever the provider says")
    parser.add_argument("--contention", action="store_true", help="the budget's row alone, with 1 to 8 processes")
    arguments = parser.parse_args()
    state = arguments.state.resolve()
    state.mkdir(parents=True, exist_ok=True)
    with server(state) as running, running.fresh("edda", DIMENSIONS) as fresh:
        if arguments.contention:
            for processes in (1, 2, 4, 8):
                print(json.dumps(contention(fresh.application_url, processes)), flush=True)
            return
        texts = corpus(state, CHUNKS)
        for name in arguments.regime:
            behaviour = replace(REGIMES[name].behaviour, dimensions=DIMENSIONS, says_limits=arguments.headers)
            for environments in arguments.environments:
                told = partial(
                    Environment,
                    database_url=fresh.application_url,
                    texts=texts,
                    texts_a_request=arguments.texts,
                    governed=not arguments.ungoverned,
                )
                with provider(behaviour) as mock:
                    if arguments.known:
                        run([told(0, mock.url, seconds=60)])
                    before = mock.stats()
                    done = run([told(number, mock.url, seconds=arguments.seconds) for number in range(environments)])
                    after = mock.stats()
                line = {"regime": name, "environments": environments, "load": round(os.getloadavg()[0], 1)}
                line |= summary(done, behaviour, arguments.seconds, arguments.texts)
                line["refused_by_provider"] = after["throttled"] - before["throttled"]
                print(json.dumps(line), flush=True)


def summary(done: list[Done], behaviour: Behaviour, seconds: float, texts_a_request: int) -> dict[str, Any]:
    """Together, in relation to what the limit allows."""
    tokens, requests = sum(one.tokens for one in done), sum(one.requests for one in done)
    limit = None
    if behaviour.tokens_a_minute:
        limit = behaviour.tokens_a_minute / 60 * (seconds + BURST_S) / max(1, tokens)
    elif behaviour.concurrent:
        latency_s = (behaviour.request_ms + behaviour.text_ms * texts_a_request) / 1000
        limit = behaviour.concurrent * seconds / latency_s / max(1, requests)
    shares = sorted(one.tokens * len(done) / max(1, tokens) for one in done)
    return {
        "requests": requests,
        "of_the_limit": round(1 / limit, 3) if limit else None,
        "throttled": sum(one.throttled for one in done),
        "throttled_late": sum(one.throttled_late for one in done),
        "failed": sum(one.failed for one in done),
        "shares": [round(shares[0], 2), round(shares[-1], 2)],
        "transactions": sum(one.database_transactions for one in done),
    }


def run(environments: list[Environment]) -> list[Done]:
    """All at once, each in a process."""
    context = multiprocessing.get_context("spawn")
    ready, results = context.Barrier(len(environments)), context.SimpleQueue()
    processes = [context.Process(target=_run_one, args=(one, ready, results)) for one in environments]
    for process in processes:
        process.start()
    done: list[Done] = [results.get() for _ in processes]
    for process in processes:
        process.join()
    return sorted(done, key=lambda one: one.number)


def _run_one(told: Environment, ready: Barrier, results: Results) -> None:
    results.put(asyncio.run(_environment(told, ready)))


async def _environment(told: Environment, ready: Barrier) -> Done:
    async def conninfo() -> str:
        return told.database_url

    texts = read(told.texts)
    batches = [texts[at : at + told.texts_a_request] for at in range(0, len(texts), told.texts_a_request)]
    embedder = OpenAIEmbedder(f"{told.provider_url}/v1", "m", DIMENSIONS, "benchmark")
    database = Database(conninfo)
    store = Counting(database, provider_key("openai", told.provider_url, "m"))
    governor = Governor(store, OPENAI_LIMITS.max_concurrent_requests)
    await governor.refresh()
    done, store.transactions = Done(told.number), 0
    await asyncio.to_thread(ready.wait)
    deadline, began_s = Deadline.after(told.seconds), time.monotonic()

    async def ask(batch: list[str], tokens: int) -> None:
        if not told.governed:
            await embedder.embed(batch, purpose="document", deadline=deadline)
            return
        async with governor.slot(tokens, deadline):
            await embedder.embed(batch, purpose="document", deadline=deadline)

    async def work(waiting: Iterator[list[str]]) -> None:
        for batch in waiting:
            tokens = sum(map(len, batch)) // 4
            asked = False
            while not asked and not deadline.expired:
                try:
                    await ask(batch, tokens)
                    asked = True
                    done.requests += 1
                    done.tokens += tokens
                except NoSlot:
                    return
                except ProviderThrottled as error:
                    done.throttled += 1
                    done.throttled_late += time.monotonic() - began_s > told.seconds / 2
                    if not told.governed:
                        await asyncio.sleep(error.retry_after_s or 1)
                except RetryableError:
                    done.failed += not deadline.expired

    def again() -> Iterator[list[str]]:
        while not deadline.expired:
            yield from batches

    waiting = again()
    async with asyncio.TaskGroup() as group:
        for _ in range(OPENAI_LIMITS.max_concurrent_requests):
            group.create_task(work(waiting))
    done.database_transactions = store.transactions
    await embedder.aclose()
    await database.aclose()
    return done


def contention(database_url: str, processes: int) -> dict[str, Any]:
    """Leases a second, when each of so many processes asks for them over a dozen connections without a pause."""
    context = multiprocessing.get_context("spawn")
    ready, results = context.Barrier(processes), context.SimpleQueue()
    children = [context.Process(target=_contend, args=(database_url, ready, results)) for _ in range(processes)]
    for child in children:
        child.start()
    seconds = sorted(one for _ in children for one in results.get())
    for child in children:
        child.join()
    cuts = quantiles(seconds, n=100)
    return {
        "connections": processes * CONNECTIONS,
        "leases_a_s": round(len(seconds) / CONTENDING_S),
        "p50_ms": round(cuts[49] * 1000, 1),
        "p99_ms": round(cuts[98] * 1000, 1),
        "load": round(os.getloadavg()[0], 1),
    }


def _contend(database_url: str, ready: Barrier, results: Results) -> None:
    results.put(asyncio.run(_leases(database_url, ready)))


async def _leases(database_url: str, ready: Barrier) -> list[float]:
    async def conninfo() -> str:
        return database_url

    databases = [Database(conninfo) for _ in range(CONNECTIONS)]
    stores = [BudgetStore(database, provider_key("", "", "contention")) for database in databases]
    refusal = Refusal(tokens=1, wait_s=0, began_ago_s=0, returned=0, rate_guess=1e9)
    for store in stores:  # connected, and limited
        await store.change(partial(budgets.refused, refusal=refusal))
    lease = partial(budgets.lease, least=1, most=1, within_s=1e9, returned=0)
    await asyncio.to_thread(ready.wait)
    until, seconds = time.monotonic() + CONTENDING_S, []

    async def ask(store: BudgetStore) -> None:
        while (began_s := time.monotonic()) < until:
            with suppress(RetryableError):
                await store.change(lease)
            seconds.append(time.monotonic() - began_s)

    await asyncio.gather(*map(ask, stores))
    for database in databases:
        await database.aclose()
    return seconds


if __name__ == "__main__":
    main()
