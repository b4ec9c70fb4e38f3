"""The budget of a provider in Postgres: environments with a connection each change it one after another."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import astuple
from functools import partial

import psycopg
import pytest
from edda import budgets
from edda.budgets import Budget, Lease, Refusal, provider_key
from edda.concurrency import Deadline
from edda.errors import DatabaseUnavailable
from edda.governing import Governor
from edda.store import budgets as store
from edda.store.budgets import BudgetStore
from edda.store.database import Database

from tests.fakes.limited_provider import LimitedProvider
from tests.postgres import DatabaseUrls

pytestmark = pytest.mark.anyio

KEY = provider_key("openai", "https://provider.example/v1", "model")
ENVIRONMENTS = 4
RATE = 5000.0


def refusal(guess: float = RATE) -> Refusal:
    return Refusal(tokens=100, wait_s=0.0, began_ago_s=0.0, returned=0, rate_guess=guess)


def ask(tokens: float, within_s: float = 600) -> "partial[tuple[Budget, Lease]]":
    return partial(budgets.lease, least=tokens, most=tokens, within_s=within_s, returned=0)


@pytest.fixture
async def stores(database_urls: DatabaseUrls) -> AsyncIterator[list[BudgetStore]]:
    """Each with a connection of its own."""

    async def conninfo() -> str:
        return database_urls.app

    async with AsyncExitStack() as stack:
        databases = [Database(conninfo) for _ in range(ENVIRONMENTS)]
        for database in databases:
            stack.push_async_callback(database.aclose)
        yield [BudgetStore(database, KEY) for database in databases]


async def test_what_nobody_has_refused_has_no_limit(stores: list[BudgetStore]) -> None:
    assert (await stores[0].read())[0] == Budget()
    assert (await stores[0].change(ask(100)))[2] == Lease(None, 0.0)


async def test_what_one_environment_is_told_the_others_read_to_the_microsecond(stores: list[BudgetStore]) -> None:
    told, now_s, _ = await stores[0].change(partial(budgets.refused, refusal=refusal()))
    budget, then_s = await stores[1].read()
    assert astuple(budget) == pytest.approx(astuple(told), abs=0.000_01)
    assert then_s >= now_s


async def test_each_provider_key_has_a_budget_of_its_own(database: Database, stores: list[BudgetStore]) -> None:
    await stores[0].change(partial(budgets.refused, refusal=refusal()))
    other = BudgetStore(database, provider_key("openai", "https://provider.example/v1", "another"))
    assert (await other.read())[0].rate is None


async def test_slices_of_environments_that_ask_at_the_same_time_follow_each_other(stores: list[BudgetStore]) -> None:
    _, began_s, _ = await stores[0].change(partial(budgets.refused, refusal=refusal()))
    await asyncio.gather(*(one.change(ask(100)) for _ in range(25) for one in stores))
    budget, _ = await stores[0].read()
    handed_out = 25 * ENVIRONMENTS * 100
    assert budget.granted == pytest.approx(handed_out)
    # Without a slice that overlaps another: all of them last as long as their tokens.
    assert budget.next_at_s >= began_s + (handed_out - 100) / (budget.rate or 1) - 0.01


async def test_nobody_waits_for_ever_for_a_worker_that_is_frozen_with_the_row(
    stores: list[BudgetStore], database_urls: DatabaseUrls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(store.BRIEF, "lock_timeout", "100ms")
    await stores[0].change(partial(budgets.refused, refusal=refusal()))
    with psycopg.connect(database_urls.app) as frozen:
        frozen.execute("SELECT FROM provider_budgets FOR UPDATE")
        with pytest.raises(DatabaseUnavailable):
            await stores[1].change(ask(1))
    _, _, lease = await stores[1].change(ask(1))
    assert lease.tokens == 1


async def test_environments_that_know_a_limit_stay_under_it_together(stores: list[BudgetStore]) -> None:
    provider = LimitedProvider(tokens_a_second=RATE, burst_s=1.5, seconds=lambda chance: 0.05 + 0.05 * chance.random())
    await stores[0].change(partial(budgets.refused, refusal=refusal()))
    deadline = Deadline.after(60)
    clock = asyncio.get_running_loop().time

    async def environment(number: int) -> None:
        governor = Governor(stores[number], 8, chance=random.Random(number).random)
        await governor.refresh()

        async def one() -> None:
            async with governor.slot(100, deadline):
                await provider.embed(f"environment {number}", 100)

        await asyncio.gather(*(one() for _ in range(40)))

    began_s = clock()
    await asyncio.gather(*map(environment, range(ENVIRONMENTS)))
    assert provider.refused == 0
    assert list(provider.answered.values()) == [4000] * ENVIRONMENTS
    assert clock() - began_s >= (ENVIRONMENTS * 4000 - 1.5 * RATE) / RATE
