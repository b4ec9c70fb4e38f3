"""A provider's usual time: learned from answers to requests of about the same size."""

import asyncio
import math

import pytest
from edda.adapters import usual_time
from edda.adapters.usual_time import LEAST_S, UsualTime
from edda.concurrency import Deadline


def learned(*seconds: float, size: int = 100) -> UsualTime:
    usual = UsualTime()
    for one in seconds:
        usual.answered(size, one)
    return usual


def test_before_there_are_answers_it_waits_for_ever() -> None:
    assert UsualTime().longest_s(1) == math.inf
    assert learned(1, 1, 1).longest_s(100) == math.inf


def test_it_waits_some_times_as_long_as_the_slowest_answer() -> None:
    assert learned(1, 2, 1, 1).longest_s(100) == 20


def test_a_fast_provider_has_some_seconds_all_the_same() -> None:
    assert learned(0.01, 0.01, 0.01, 0.01).longest_s(100) == LEAST_S


def test_answers_to_much_smaller_requests_say_nothing() -> None:
    usual = learned(1, 1, 1, 1)
    assert usual.longest_s(200) == 10
    assert usual.longest_s(201) == math.inf


def test_waiting_in_vain_makes_patient_and_an_answer_ends_that() -> None:
    usual = learned(1, 1, 1, 1)
    usual.given_up()
    usual.given_up()
    assert usual.longest_s(100) == 40
    usual.answered(100, 10)
    assert usual.longest_s(100) == 100


def test_old_answers_are_forgotten() -> None:
    usual = learned(20, *[1.0] * 50)
    assert usual.longest_s(100) == 10


@pytest.mark.anyio
async def test_as_long_as_other_answers_come_a_provider_only_lets_requests_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(usual_time, "LEAST_S", 0.2)
    usual = learned(0.001, 0.001, 0.001, 0.001)
    began = asyncio.get_running_loop().time()

    async def others() -> None:
        for _ in range(10):
            await asyncio.sleep(0.05)
            usual.answered(100, 0.001)

    answers = asyncio.create_task(others())
    with pytest.raises(TimeoutError):
        async with usual.patience(100, Deadline.after(30)):
            await asyncio.Event().wait()
    await answers
    assert 0.6 < asyncio.get_running_loop().time() - began < 10


@pytest.mark.anyio
async def test_the_deadline_ends_every_wait() -> None:
    with pytest.raises(TimeoutError):
        async with learned(1, 1, 1, 1).patience(100, Deadline.after(0.05)):
            await asyncio.Event().wait()
