"""A provider's usual time: learned from answers to requests of about the same size."""

import math

from edda.adapters.usual_time import LEAST_S, UsualTime


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
