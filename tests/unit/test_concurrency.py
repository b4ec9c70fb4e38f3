"""The bounded fan-out: how many run, what a failure does, and that nothing is left behind."""

import asyncio
from collections.abc import Iterator
from contextlib import aclosing
from functools import partial

import pytest
from edda.concurrency import Deadline, Job, as_finished, bounded

from tests.fakes.leaks import no_leaked_tasks  # noqa: F401 - a fixture

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_leaked_tasks")]

SOON = 30.0  # far away for a test that works


def ints(*jobs: Job[int]) -> list[Job[int]]:
    return list(jobs)


async def let_others_run() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


async def give(value: int) -> int:
    return value


async def fail() -> int:
    raise ValueError("broken")


class Gauge:
    """A job that counts how many of it run, and waits until it is told to go on."""

    def __init__(self) -> None:
        self.started = self.running = self.most = self.cleaned_up = 0
        self.go_on = asyncio.Event()

    async def __call__(self) -> int:
        self.started += 1
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.go_on.wait()
            return self.started
        finally:
            await asyncio.sleep(0)
            self.running -= 1
            self.cleaned_up += 1


async def test_results_are_in_the_order_of_the_jobs_whatever_ends_first() -> None:
    second_is_done = asyncio.Event()

    async def first() -> int:
        await second_is_done.wait()
        return 1

    async def second() -> int:
        second_is_done.set()
        return 2

    assert await bounded(2, [first, second], Deadline.after(SOON)) == [1, 2]


async def test_as_many_run_as_the_limit_says_and_no_more() -> None:
    gauge = Gauge()
    everything = asyncio.create_task(bounded(3, [gauge] * 10, Deadline.after(SOON)))
    await let_others_run()
    assert gauge.running == 3
    gauge.go_on.set()
    assert len(await everything) == 10
    assert gauge.most == 3


async def test_a_failure_takes_the_place_of_its_result_and_the_siblings_go_on() -> None:
    one, broken, two = await bounded(1, ints(partial(give, 1), fail, partial(give, 2)), Deadline.after(SOON))
    assert (one, two) == (1, 2)
    assert isinstance(broken, ValueError)


async def test_the_deadline_ends_what_runs_and_starts_nothing_more() -> None:
    gauge = Gauge()
    outcomes = await bounded(2, [gauge] * 5, Deadline.after(0.02))
    assert [type(outcome) for outcome in outcomes] == [TimeoutError] * 5
    assert (gauge.started, gauge.cleaned_up) == (2, 2)


async def test_what_was_done_before_the_deadline_counts() -> None:
    done, late = await bounded(2, ints(partial(give, 1), Gauge()), Deadline.after(0.02))
    assert done == 1
    assert isinstance(late, TimeoutError)


async def test_a_job_that_cancels_itself_does_not_vanish() -> None:
    async def cancel_itself() -> int:
        raise asyncio.CancelledError

    outcomes = await bounded(1, ints(cancel_itself, partial(give, 1)), Deadline.after(SOON))
    assert isinstance(outcomes[0], RuntimeError)
    assert outcomes[1] == 1


async def test_cancelling_the_caller_cancels_the_jobs_and_waits_for_them() -> None:
    gauge = Gauge()
    everything = asyncio.create_task(bounded(3, [gauge] * 10, Deadline.after(SOON)))
    await let_others_run()
    everything.cancel()
    with pytest.raises(asyncio.CancelledError):
        await everything
    assert (gauge.started, gauge.cleaned_up) == (3, 3)


async def test_leaving_the_loop_early_ends_the_jobs_at_once() -> None:
    gauge = Gauge()
    async with aclosing(as_finished(3, ints(partial(give, 1), gauge, gauge), Deadline.after(SOON))) as finished:
        async for ended in finished:
            assert ended == [(0, 1)]
            break
    assert gauge.started == gauge.cleaned_up


async def test_an_error_in_the_readers_loop_ends_the_jobs_and_is_the_readers_own() -> None:
    gauge = Gauge()

    async def read() -> None:
        async with aclosing(as_finished(2, ints(partial(give, 1), gauge), Deadline.after(SOON))) as finished:
            async for _ in finished:
                raise KeyError

    with pytest.raises(KeyError):
        await read()
    assert gauge.started == gauge.cleaned_up


async def test_each_result_is_there_as_soon_as_its_job_has_ended() -> None:
    gauge = Gauge()
    async with aclosing(as_finished(2, ints(gauge, partial(give, 7)), Deadline.after(SOON))) as finished:
        assert await anext(finished) == [(1, 7)]
        gauge.go_on.set()
        assert (await anext(finished))[0][0] == 0


async def test_a_slow_reader_slows_the_jobs() -> None:
    started = 0

    async def job() -> None:
        nonlocal started
        started += 1

    async with aclosing(as_finished(2, [job] * 100, Deadline.after(SOON))) as finished:
        first = len(await anext(finished))
        await let_others_run()
        assert started <= first + 2 * 2
        assert first + sum([len(ended) async for ended in finished]) == 100


async def test_jobs_are_taken_only_when_there_is_room() -> None:
    taken = 0
    gauge = Gauge()

    def jobs() -> Iterator[Job[int]]:
        nonlocal taken
        for _ in range(100):
            taken += 1
            yield gauge

    everything = asyncio.create_task(bounded(4, jobs(), Deadline.after(SOON)))
    await let_others_run()
    assert taken == 4
    gauge.go_on.set()
    assert len(await everything) == 100


async def test_an_iterable_that_breaks_is_an_error_and_not_an_early_end() -> None:
    def jobs() -> Iterator[Job[int]]:
        yield partial(give, 1)
        raise KeyError("broken iterable")

    with pytest.raises(ExceptionGroup) as raised:
        await bounded(2, jobs(), Deadline.after(SOON))
    assert raised.group_contains(KeyError)


async def test_no_jobs_have_no_results() -> None:
    assert await bounded(3, [], Deadline.after(SOON)) == []


async def test_a_limit_below_one_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="limit"):
        await bounded(0, [partial(give, 1)], Deadline.after(SOON))


async def test_a_deadline_counts_down_on_its_own_clock_and_stops_at_zero() -> None:
    now = 100.0
    deadline = Deadline.after(5, clock=lambda: now)
    assert (deadline.remaining_s(), deadline.expired) == (5.0, False)
    now = 104.0
    assert deadline.remaining_s() == 1.0
    now = 200.0
    assert (deadline.remaining_s(), deadline.expired) == (0.0, True)


async def test_the_sooner_of_two_deadlines_wins() -> None:
    deadline = Deadline.after(5, clock=lambda: 0.0)
    assert deadline.sooner(2).remaining_s() == 2
    assert deadline.sooner(9).remaining_s() == 5
