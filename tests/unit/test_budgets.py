"""What environments share of a provider's limits, as functions of it and the time."""

from dataclasses import replace

import pytest
from edda.budgets import (
    BURST_S,
    EXCESS,
    FORGET_S,
    MARGIN,
    QUIET_S,
    Budget,
    Lease,
    RateLimits,
    Refusal,
    lease,
    paused,
    provider_key,
    rate_limits,
    refused,
    tolerates,
)
from hypothesis import given
from hypothesis import strategies as st

NOW_S = 1_000_000.0


def limited(rate: float = 1000.0) -> Budget:
    """A budget whose rate has just been learnt, with nothing handed out and no growth."""
    return Budget(
        rate=rate,
        growth=0.0,
        changed_at_s=NOW_S,
        next_at_s=NOW_S,
        resumes_at_s=NOW_S,
        refused_at_s=NOW_S,
        measured_since_s=NOW_S,
    )


def ask(
    budget: Budget, now_s: float, least: float = 100, most: float = 100, within_s: float = 60
) -> tuple[Budget, Lease]:
    return lease(budget, now_s, least=least, most=most, within_s=within_s, returned=0)


def refusal(wait_s: float = 2.0, began_ago_s: float = 0.1, guess: float = 500.0, *, is_soon: bool = False) -> Refusal:
    return Refusal(100, wait_s, began_ago_s, 0, guess, is_soon)


def test_a_provider_that_has_refused_nothing_has_no_limit() -> None:
    assert ask(Budget(), NOW_S) == (Budget(), Lease(None, 0.0))


@given(
    st.lists(st.tuples(st.floats(0, 2), st.integers(1, 3000), st.integers(0, 20_000)), min_size=1, max_size=50),
    st.floats(0, 5),
)
def test_no_more_is_handed_out_for_any_time_than_the_rate_allows(
    asks: list[tuple[float, int, int]], within_s: float
) -> None:
    budget, now_s, slices = limited(), NOW_S, list[tuple[float, float, float]]()
    for after_s, least, more in asks:
        now_s += after_s
        budget, given_out = ask(budget, now_s, least, least + more, within_s)
        assert given_out.tokens is not None
        if given_out.tokens == 0:
            assert given_out.starts_in_s > within_s
        else:
            assert least <= given_out.tokens <= max(least, 1000)
            earliest_s = now_s - max(BURST_S, least / 1000)
            slices.append((earliest_s, now_s + given_out.starts_in_s, given_out.tokens))
    for first, (earliest_s, _, _) in enumerate(slices):
        for last in range(first, len(slices)):
            together = sum(tokens for _, _, tokens in slices[first : last + 1])
            assert together <= 1000 * (slices[last][1] - earliest_s) + 0.1


def test_who_cannot_wait_takes_nothing_from_those_who_can() -> None:
    budget, _ = ask(limited(), NOW_S, 1000, 1000)
    before, none = ask(budget, NOW_S, within_s=1.05)
    assert before == budget
    assert none.tokens == 0.0
    assert none.starts_in_s == pytest.approx(1.1)  # once it has come in


def test_the_first_refusal_makes_a_rate_and_a_pause_for_all() -> None:
    told, _ = refused(Budget(), NOW_S, refusal(wait_s=2.0, guess=500.0))
    assert (told.rate, told.resumes_at_s) == (500.0, NOW_S + 2.0)
    _, given_out = ask(told, NOW_S)
    assert given_out.starts_in_s == 2.0


def test_the_rate_becomes_what_was_let_through_since_the_last_refusal() -> None:
    budget = limited()
    for _ in range(40):  # 40 s of 1,000 tokens, of which 8,000 came back
        budget, _ = ask(budget, budget.next_at_s, 1000, 1000)
    budget, _ = lease(budget, NOW_S + 40, least=1, most=1, within_s=1, returned=8000)
    told, _ = refused(budget, NOW_S + 40, replace(refusal(), wait_s=0.0))
    assert told.rate == pytest.approx(MARGIN * 32_000 / 40, rel=0.02)


def test_a_refusal_of_what_was_sent_before_the_last_one_was_over_only_lengthens_the_pause() -> None:
    told, _ = refused(limited(), NOW_S + 10, refusal(wait_s=1.0))
    again, _ = refused(told, NOW_S + 10.5, refusal(wait_s=3.0, began_ago_s=0.6))
    assert again.rate == told.rate
    assert again.resumes_at_s == NOW_S + 13.5


def test_a_refusal_that_is_near_moves_all_leases_that_are_to_come() -> None:
    budget, _ = ask(limited(), NOW_S + 10, 5000, 5000)
    told, _ = refused(budget, NOW_S + 10, refusal(wait_s=0.25, is_soon=True))
    assert told.next_at_s == pytest.approx(budget.next_at_s + 0.25)


def test_the_rate_grows_only_while_there_is_more_to_do_and_sooner_after_a_quiet_time() -> None:
    budget = replace(limited(), growth=0.001)
    idle, _ = ask(budget, NOW_S + 5, 10, 10)
    assert idle.rate == 1000
    pressed, _ = ask(replace(budget, next_at_s=NOW_S + 6), NOW_S + 5)
    assert pressed.rate == pytest.approx(1005)
    quiet = replace(budget, next_at_s=NOW_S + QUIET_S + 6, changed_at_s=NOW_S + QUIET_S)
    found, _ = ask(quiet, NOW_S + QUIET_S + 5)
    assert found.rate == pytest.approx(1000 * (1 + 5 * 0.02 * (65 / 60) ** 2))
    quieter = replace(quiet, next_at_s=NOW_S + 601, changed_at_s=NOW_S + 599)
    found, _ = ask(quieter, NOW_S + 600)
    assert found.rate == pytest.approx(1100)


def test_refusals_alone_make_the_rate_no_less_than_a_request_in_ten_seconds() -> None:
    budget = limited()
    for again in range(10):
        budget, _ = refused(budget, NOW_S + 30 * again, refusal())
    assert budget.rate == 10
    first, _ = refused(Budget(), NOW_S, refusal(guess=0.001))
    assert first.rate == 10


def test_what_is_handed_out_and_not_sent_yet_is_no_part_of_what_was_measured() -> None:
    """The limit is looked for further up, so what was let through long ago no longer counts."""
    grown = replace(limited(4000), granted=200_000, changed_at_s=NOW_S + 100, next_at_s=NOW_S + 105)
    looked, _ = ask(grown, NOW_S + 100)
    told, _ = refused(looked, NOW_S + 100, replace(refusal(), wait_s=0.0))
    assert told.rate == pytest.approx(MARGIN * 180_000 / 100, rel=0.03)


def lowered() -> Budget:
    """Refusals go on far below the rate at which they began."""
    return replace(limited(500), former=1000, asked=0, lost=0)


def test_refusals_that_a_lower_rate_does_not_end_are_tolerated_at_the_former_one() -> None:
    budget = lowered()
    for again in range(1, 5):
        assert not tolerates(budget, NOW_S + 10 * again)
        budget, _ = refused(budget, NOW_S + 10 * again, replace(refusal(), asked=50))
    now_s = NOW_S + 41
    assert tolerates(budget, now_s)
    assert budget.rate == 1000
    assert budget.sporadic == pytest.approx(6 / 200)
    told, _ = refused(budget, now_s, replace(refusal(wait_s=30), asked=50))
    assert (told.rate, told.resumes_at_s) == (budget.rate, budget.resumes_at_s)
    assert not tolerates(budget, now_s + 3600)


def test_many_more_than_those_that_are_tolerated_are_a_limit_again() -> None:
    budget = replace(lowered(), rate=1000, sporadic=0.02)
    for again in range(1, EXCESS + 2):
        assert tolerates(budget, NOW_S + again)
        budget, _ = refused(budget, NOW_S + again, replace(refusal(), asked=2))
    assert not tolerates(budget, NOW_S + EXCESS + 2)
    assert budget.rate is not None
    assert budget.rate < 1000


def test_a_limit_that_is_still_being_looked_for_is_no_reason_to_tolerate_refusals() -> None:
    budget = lowered()
    for again in range(1, 20):
        budget, _ = refused(budget, NOW_S + 10 * again, replace(refusal(), asked=3))
    assert budget.sporadic == 0


def test_a_limit_that_was_not_met_for_long_is_forgotten() -> None:
    budget, given_out = ask(limited(), NOW_S + FORGET_S + 1)
    assert (budget.rate, given_out) == (None, Lease(None, 0.0))


def test_a_pause_is_never_shortened() -> None:
    budget, _ = paused(limited(), NOW_S, 30)
    budget, _ = paused(budget, NOW_S + 1, 2)
    assert budget.resumes_at_s == NOW_S + 30


def test_a_key_is_of_provider_place_and_model() -> None:
    key = provider_key("openai", "https://api.openai.com/v1", "m")
    assert key == provider_key("openai", "https://api.openai.com/v1/", "m")
    assert len({key, provider_key("openai", "https://a/v1", "m"), provider_key("a", "https://a/v1", "m")}) == 3
    assert len(key) == 32


@pytest.mark.parametrize(
    ("headers", "limits"),
    [
        ({}, None),
        ({"x-ratelimit-limit-tokens": "many"}, None),
        (
            {"x-ratelimit-limit-tokens": "1000000", "x-ratelimit-remaining-tokens": " 20 "},
            RateLimits(tokens_a_minute=1_000_000, tokens_left=20),
        ),
        (
            {"x-ratelimit-limit-requests": "600", "x-ratelimit-remaining-requests": "0"},
            RateLimits(requests_a_minute=600, requests_left=0),
        ),
    ],
)
def test_limits_are_read_from_headers(headers: dict[str, str], limits: RateLimits | None) -> None:
    assert rate_limits(headers) == limits


def test_the_tighter_of_two_stated_limits_counts() -> None:
    limits = RateLimits(tokens_a_minute=60_000, tokens_left=30_000, requests_a_minute=60, requests_left=0)
    assert limits.rate(100) == 100  # one request a second
    assert limits.rate(5000) == 1000
    assert limits.wait_s(100) == 1.0
    assert replace(limits, requests_left=5).wait_s(100) == 0.0
    assert replace(limits, requests_left=5, tokens_left=0).wait_s(500) == 0.5
    assert RateLimits(tokens_left=0).wait_s(100) == 0.0  # of what, is not said
    assert not limits.allows(100, 1)
    assert replace(limits, requests_left=5).allows(30_000, 5)
    assert not replace(limits, requests_left=5).allows(30_001, 5)
    assert RateLimits(requests_left=2).allows(1e9, 2)
