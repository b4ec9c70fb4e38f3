"""How many requests of one environment begin, and when, in virtual time."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from edda.budgets import Budget
from edda.errors import DatabaseUnavailable, ProviderThrottled, ProviderUnavailable
from edda.governing import START, Governor, NoSlot, heard
from edda.governing import governed as governed_request

from tests.fakes.limited_provider import ROUND_TRIP_S, LimitedProvider, SharedInMemory, now_s
from tests.governors import deadline, governor, run


async def refuse(governor: Governor, retry_after_s: float | None = None, tokens: int = 100) -> None:
    """A request that is refused after a round trip."""
    await fail(governor, ProviderThrottled(retry_after_s=retry_after_s), tokens)


async def fail(governor: Governor, error: ProviderUnavailable, tokens: int = 100) -> None:
    with suppress(ProviderUnavailable):
        async with governor.slot(tokens, deadline()):
            await asyncio.sleep(ROUND_TRIP_S)
            raise error


async def answer(governor: Governor, tokens: int = 100, seconds: float = 0.25) -> float:
    """A request that is answered; when it began."""
    async with governor.slot(tokens, deadline()):
        began_s = now_s()
        await asyncio.sleep(seconds)
    return began_s


def test_the_window_is_halved_once_a_round_trip_and_grows_by_one_a_round_trip() -> None:
    async def work() -> list[int]:
        governed, sizes = governor(SharedInMemory()), []
        await asyncio.gather(*(refuse(governed) for _ in range(10)))
        sizes.append(int(governed.window.size))
        await refuse(governed)
        sizes.append(int(governed.window.size))
        for _ in range(2):
            await asyncio.gather(*(answer(governed) for _ in range(int(governed.window.size) + 1)))
            sizes.append(int(governed.window.size))
        return sizes

    assert run(work) == [START // 2, START // 4, START // 4 + 1, START // 4 + 2]


def test_the_window_keeps_one_place_and_its_first_size() -> None:
    async def work() -> tuple[float, float]:
        governed = governor(SharedInMemory(), most=4)
        for _ in range(5):
            await refuse(governed)
        least = governed.window.size
        for _ in range(100):
            await answer(governed)
        return least, governed.window.size

    assert run(work) == (1.0, 4.0)


def test_no_more_requests_than_the_window_has_places_and_those_who_wait_take_turns() -> None:
    async def work() -> list[int]:
        governed, order = governor(SharedInMemory(), most=2), []

        async def one(number: int) -> None:
            async with governed.slot(1, deadline()):
                assert governed.window.in_flight <= 2
                order.append(number)
                await asyncio.sleep(1)

        tasks = [asyncio.create_task(one(number)) for number in range(7)]
        await asyncio.sleep(0.5)
        tasks[3].cancel()  # it waits
        tasks[0].cancel()  # it has a place
        await asyncio.gather(*tasks, return_exceptions=True)
        assert governed.window.in_flight == 0
        return order

    assert run(work) == [0, 1, 2, 4, 5, 6]


def test_retry_after_holds_for_every_request_and_every_environment() -> None:
    async def work() -> list[float]:
        budget = SharedInMemory()
        one, other = governor(budget), governor(budget)
        await refuse(one, retry_after_s=7)
        await other.refresh()
        return sorted(await asyncio.gather(answer(one), answer(one), answer(other)))

    began_s = run(work)
    assert began_s[0] >= ROUND_TRIP_S + 7
    assert began_s[2] <= 30


def test_a_refusal_that_is_tolerated_holds_up_nobody_but_its_request() -> None:
    async def work() -> tuple[float, float, float]:
        limit = Budget(rate=1e6, sporadic=0.1, refused_at_s=1_000_000.0, resumes_at_s=1_000_000.0)
        governed = governor(SharedInMemory(limit))
        await governed.refresh()
        size, began_s = governed.window.size, now_s()
        waiting = asyncio.create_task(refuse(governed, retry_after_s=7))
        await asyncio.sleep(2 * ROUND_TRIP_S)
        other_s = await answer(governed) - began_s
        await waiting
        return governed.window.size / size, other_s, now_s() - began_s

    size, other_s, own_s = run(work)
    assert size >= 1
    assert other_s <= 0.1
    assert own_s >= ROUND_TRIP_S + 7


def test_who_was_refused_after_a_long_wait_pauses_no_longer_than_others() -> None:
    async def work() -> float:
        governed = governor(SharedInMemory())
        with suppress(ProviderThrottled):
            async with governed.slot(100, deadline()):
                await asyncio.sleep(60)
                raise ProviderThrottled
        return await answer(governed)

    assert run(work) <= 62.1


def test_who_has_waited_for_a_lease_heeds_a_pause_that_came_meanwhile() -> None:
    async def work() -> float:
        budget = SharedInMemory()
        one, other = governor(budget), governor(budget)
        await refuse(one, retry_after_s=1)
        await answer(one, tokens=300)  # the next ones have to wait
        waiting = asyncio.create_task(answer(one, tokens=300))
        await asyncio.sleep(0.1)
        await refuse(other, retry_after_s=30)
        return await waiting

    assert run(work) >= 30


def test_what_a_provider_did_not_take_is_told_once_the_database_is_back() -> None:
    async def work() -> tuple[float, float]:
        budget = SharedInMemory()
        governed = governor(budget)
        await refuse(governed, retry_after_s=1)
        await answer(governed)
        before = budget.budget.granted
        with suppress(ProviderThrottled):
            async with governed.slot(100, deadline()):
                budget.is_away = True
                raise ProviderThrottled(retry_after_s=1)
        budget.is_away = False
        await answer(governed)
        return before, budget.budget.granted

    before, after = run(work)
    assert after - before == pytest.approx(100)


def test_a_first_guess_of_the_rate_is_of_what_was_just_let_through() -> None:
    async def work() -> float | None:
        budget = SharedInMemory()
        governed = governor(budget)
        await asyncio.sleep(3600)
        await asyncio.gather(
            *(answer(governed, tokens=1000, seconds=1) for _ in range(10)),
            answer(governed, tokens=1000, seconds=3),
            refuse(governed, retry_after_s=50, tokens=1000),
        )
        return budget.budget.rate

    assert run(work) == pytest.approx(12_000 / 50, rel=0.01)


def test_a_request_that_finds_no_room_before_its_deadline_is_not_made_and_says_when() -> None:
    async def work() -> tuple[float | None, float]:
        governed = governor(SharedInMemory())
        await refuse(governed, retry_after_s=20)
        began_s = now_s()
        with pytest.raises(NoSlot) as caught:
            async with governed.slot(1, deadline(5)):
                pytest.fail("it began")
        return caught.value.retry_after_s, now_s() - began_s

    wait_s, lost_s = run(work)
    assert wait_s == pytest.approx(20, abs=1)
    assert lost_s <= 0.1


def test_after_the_deadline_no_request_is_made() -> None:
    async def work() -> None:
        with pytest.raises(NoSlot):
            async with governor(SharedInMemory()).slot(1, deadline(0)):
                pytest.fail("it began")

    run(work)


def test_who_is_told_to_try_again_at_once_and_cannot_tell_others_waits_a_round_trip() -> None:
    async def work() -> int:
        governed, asked = governor(Unreachable()), 0

        async def request() -> None:
            nonlocal asked
            asked += 1
            await asyncio.sleep(ROUND_TRIP_S)
            raise ProviderThrottled(retry_after_s=0.0)

        with pytest.raises(NoSlot):
            await governed_request(governed, 1, deadline(10), request)
        return asked

    assert run(work) <= 10 / (2 * ROUND_TRIP_S)


def test_a_full_window_ends_at_the_deadline_too() -> None:
    async def work() -> None:
        governed = governor(SharedInMemory(), most=1)
        async with governed.slot(1, deadline()):
            with pytest.raises(NoSlot):
                async with governed.slot(1, deadline(2)):
                    pytest.fail("it began")
        assert governed.window.in_flight == 0

    run(work)


def test_tokens_that_were_leased_by_a_cancelled_request_are_left_to_the_next() -> None:
    async def work() -> tuple[int, float]:
        budget = SharedInMemory()
        governed = governor(budget)
        await refuse(governed, retry_after_s=3)
        waiting = asyncio.create_task(answer(governed))
        await asyncio.sleep(1)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        changes = budget.changes
        began_s = await answer(governed)
        return budget.changes - changes, began_s

    leases, began_s = run(work)
    assert leases == 0
    assert began_s == pytest.approx(3, abs=0.1)


@pytest.mark.parametrize("cause", [TimeoutError(), ConnectionError()])
def test_a_provider_that_is_too_slow_gets_less_at_once_and_one_that_fails_does_not(cause: Exception) -> None:
    async def work() -> float:
        governed = governor(SharedInMemory())
        for _ in range(3):
            error = ProviderUnavailable()
            error.__cause__ = cause
            await fail(governed, error)
        return governed.window.size

    assert run(work) == (START / 8 if isinstance(cause, TimeoutError) else START)


def test_an_outage_that_says_for_how_long_pauses_every_request_without_making_a_limit() -> None:
    async def work() -> tuple[float, float | None]:
        budget = SharedInMemory()
        governed, other = governor(budget), governor(budget)
        await fail(governed, ProviderUnavailable(retry_after_s=5))
        await other.refresh()
        return min(await asyncio.gather(answer(governed), answer(other))), budget.budget.rate

    began_s, rate = run(work)
    assert began_s >= ROUND_TRIP_S + 5
    assert rate is None


@pytest.mark.parametrize("error", [ProviderUnavailable, ProviderThrottled])
def test_one_odd_header_pauses_everybody_for_no_more_than_a_minute(error: type[ProviderUnavailable]) -> None:
    async def work() -> float:
        budget = SharedInMemory()
        governed, other = governor(budget), governor(budget)
        await fail(governed, error(retry_after_s=3600))
        await other.refresh()
        return max(await asyncio.gather(answer(governed), answer(other)))

    assert 60 <= run(work) <= 75


def test_headers_that_say_that_nothing_is_left_spare_the_refusal() -> None:
    async def work() -> tuple[int, float | None]:
        budget = SharedInMemory()
        provider = LimitedProvider(tokens_a_second=1000, headers=True)
        governed = governor(budget, most=1)
        for _ in range(200):
            with suppress(ProviderThrottled):
                async with governed.slot(500, deadline()):
                    await provider.embed("", 500)
        return provider.refused, budget.budget.rate

    refused, rate = run(work)
    assert refused <= 2
    assert rate == pytest.approx(1000, rel=0.1)


NOTHING_LEFT = {"x-ratelimit-limit-tokens": "600", "x-ratelimit-remaining-tokens": "0"}


def test_an_answer_does_not_wait_until_its_headers_are_told() -> None:
    async def work() -> tuple[float, float | None]:
        budget = SharedInMemory()
        governed = governor(budget)
        async with budget.lock, governed.slot(100, deadline()):
            heard(NOTHING_LEFT)
        ended_s = now_s()
        await answer(governed)
        return ended_s, budget.budget.rate

    ended_s, rate = run(work)
    assert ended_s == 0
    assert rate == pytest.approx(10, rel=0.1)


def test_headers_of_long_ago_are_not_told() -> None:
    async def work() -> int:
        budget = SharedInMemory()
        governed = governor(budget)
        async with governed.slot(100, deadline()):
            heard(NOTHING_LEFT)
        await asyncio.sleep(60)
        await answer(governed)
        return budget.changes

    assert run(work) == 0


def test_headers_outside_of_a_slot_are_nobodys() -> None:
    heard({"x-ratelimit-limit-tokens": "1", "x-ratelimit-remaining-tokens": "0"})


@dataclass(slots=True)
class Unreachable:
    """A budget whose database is away, or refuses to do what it is asked to."""

    error: Exception = field(default_factory=DatabaseUnavailable)
    asked: list[str] = field(default_factory=list)

    async def read(self) -> Any:
        self.asked.append("read")
        raise self.error

    async def change(self, change: Any) -> Any:
        self.asked.append("change")
        raise self.error


def test_a_lease_that_fails_for_an_unforeseen_reason_stops_no_request() -> None:
    async def work() -> list[str]:
        budget = Unreachable(ValueError("a constraint"))
        governed = governor(budget)
        governed.is_limited = True
        await answer(governed)
        return budget.asked

    assert run(work) == ["change"]


@pytest.mark.parametrize("error", [DatabaseUnavailable(), ValueError("a constraint")])
def test_without_the_budget_a_refusal_still_counts_here_and_an_answer_is_still_an_answer(error: Exception) -> None:
    async def work() -> tuple[list[str], float]:
        budget = Unreachable(error)
        governed = governor(budget)
        await governed.refresh()
        await refuse(governed, retry_after_s=2)
        async with governed.slot(100, deadline()):
            heard(NOTHING_LEFT)
        await answer(governed)
        return budget.asked, now_s()

    asked, ended_s = run(work)
    assert asked == ["read", "change", "read", "change"]
    assert ended_s >= 2
