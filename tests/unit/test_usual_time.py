"""A provider's usual time: learned from answers to requests of about the same size."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest
from edda.adapters.usual_time import LEAST_S, TIMES, UsualTime
from edda.concurrency import Deadline

from tests.simulation.clock import VirtualLoop

T = TypeVar("T")
SILENCE_S = 60


def run(work: Callable[[], Awaitable[T]]) -> T:
    """In virtual time."""

    async def main() -> T:
        return await work()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main())


def deadline(seconds: float = 1_000) -> Deadline:
    return Deadline.after(seconds, asyncio.get_running_loop().time)


async def answer(usual: UsualTime, seconds: float, size: int = 100) -> None:
    async with usual.patience(size, deadline()) as wait:
        await asyncio.sleep(seconds)
    usual.answered(wait)


async def in_vain(usual: UsualTime, size: int = 100, until: Deadline | None = None) -> float:
    """How long a request was waited for that is never answered."""
    now = asyncio.get_running_loop().time
    began_s = now()
    with pytest.raises(TimeoutError):
        async with usual.patience(size, until or deadline()):
            await asyncio.Event().wait()
    return now() - began_s


def longest_after(*seconds: float, size: int = 100) -> float:
    """How long is waited after such answers, one after the other."""

    async def work() -> float:
        usual = UsualTime(SILENCE_S)
        for one in seconds:
            await answer(usual, one)
        return await in_vain(usual, size)

    return run(work)


def test_before_there_are_answers_it_waits_as_long_as_may_be() -> None:
    assert longest_after() == SILENCE_S
    assert longest_after(1, 1, 1) == SILENCE_S


def test_it_waits_some_times_as_long_as_the_slowest_answer() -> None:
    assert longest_after(1, 2, 1, 1) == pytest.approx(2 * TIMES)


def test_a_fast_provider_has_some_seconds_all_the_same() -> None:
    assert longest_after(0.01, 0.01, 0.01, 0.01) == LEAST_S


def test_it_never_waits_longer_in_silence_than_may_be() -> None:
    assert longest_after(1, 1, 1, 10) == SILENCE_S


def test_answers_to_much_smaller_requests_say_nothing() -> None:
    assert longest_after(1, 1, 1, 1, size=200) == pytest.approx(TIMES)
    assert longest_after(1, 1, 1, 1, size=201) == SILENCE_S


def test_old_answers_are_forgotten() -> None:
    assert longest_after(20, *[1.0] * 50) == pytest.approx(TIMES)


def test_waiting_in_vain_makes_patient_and_an_answer_ends_that() -> None:
    async def work() -> list[float]:
        usual = UsualTime(SILENCE_S)
        for _ in range(4):
            await answer(usual, 1)
        waited = []
        for _ in range(3):
            waited.append(await in_vain(usual))
        await answer(usual, 1)
        return [*waited, await in_vain(usual)]

    assert run(work) == pytest.approx([TIMES, 2 * TIMES, 4 * TIMES, TIMES])


def test_a_provider_that_lets_requests_wait_is_waited_for() -> None:
    """One at a time, first come, first served: the last of 200 waits twenty times as long as any is worked on."""

    async def work() -> None:
        usual, place = UsualTime(SILENCE_S), asyncio.Lock()

        async def request() -> None:
            async with usual.patience(100, deadline()) as wait, place:
                await asyncio.sleep(1)
            usual.answered(wait)

        async with asyncio.TaskGroup() as group:
            for _ in range(200):
                group.create_task(request())

    run(work)


def test_what_others_have_overtaken_by_much_is_given_up_while_answers_go_on() -> None:
    async def work() -> float:
        usual = UsualTime(SILENCE_S)
        for _ in range(4):
            await answer(usual, 1)
        lost = asyncio.create_task(in_vain(usual))
        await asyncio.sleep(0.5)
        while not lost.done():
            await answer(usual, 1)
        return await lost

    assert run(work) == pytest.approx(1.5 + LEAST_S)


def test_who_is_late_now_and_then_is_not_given_up() -> None:
    """Several machines behind one address: some requests are overtaken, and come."""

    async def work() -> None:
        usual = UsualTime(SILENCE_S)
        for _ in range(10):
            async with asyncio.TaskGroup() as group:
                group.create_task(answer(usual, 4))
                await asyncio.sleep(0.5)
                for _ in range(3):
                    await answer(usual, 1)
        async with asyncio.TaskGroup() as group:
            group.create_task(answer(usual, 20))
            for _ in range(19):
                await asyncio.sleep(0.1)
                await answer(usual, 0.9)

    run(work)


def test_the_deadline_ends_every_wait() -> None:
    async def work() -> float:
        return await in_vain(UsualTime(SILENCE_S), until=deadline(7))

    assert run(work) == 7
