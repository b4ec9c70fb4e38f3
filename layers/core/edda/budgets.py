"""What all environments that ask one provider know together: a pause, and how many tokens a second there are.

Pure: a row of these values is kept in Postgres (`store/budgets.py`), and changed by the functions here.

A provider that has refused nothing yet has no rate, and nothing is counted. From the first refusal on tokens are handed
out in slices of about a second, in the order in which environments ask, each from a moment on at which the provider
will have them. So nobody polls, nobody overtakes, and who has much to do waits behind those who asked before.

The rate is measured: of what was handed out between two refusals, the provider has let through just what it allows. It
then grows a little until the next refusal. One unit serves limits of tokens and of requests: among requests of about
one size, so many tokens are so many requests.

Some providers refuse a share of requests whatever is asked of them. A limit's refusals end when less is asked, so those
that go on below a rate that the provider has let through before are **sporadic**: the former rate is restored, and for
some minutes 1.5 times their share changes nothing. Assumed is that a limit that was lowered refuses more than that.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import NamedTuple

SLICE_S = 1.0  # tokens of so many seconds are handed out at once
BURST_S = 1.0  # what was not asked for in time may be asked for so much later
GROWS_FOR_S = 10.0  # at one step
FIRST_GROWTH, LEAST_GROWTH = 0.05, 0.001  # of the rate, a second; the first is a guess
QUIET_S = 60.0  # without a refusal for so long, the limit is looked for further up
QUIET_GROWTH, MOST_GROWTH = 0.02, 0.1  # then; with the square of the quiet time
FORGET_S = 3600.0  # and for so long, there may be none any more
MOST_CUT = 2.5  # times less, at one refusal: soon after another one little was measured
MARGIN = 0.98  # of the rate that was measured
MEASURED_S = 30.0  # what was measured before weighs as much as so many seconds at most
GROWING_S = 10.0  # and this while the limit is looked for further up
KNOWN_S = 10.0  # a rate that was measured for less is no former rate
LOWER = 0.97  # of the former rate: refusals at less are not because of it
SPORADIC = 4  # so many of them are no accident
MOST_SPORADIC = 0.25  # of the requests; more may be a limit that is being looked for
SPORADIC_FOR_S = 600.0  # then a limit is looked for again
TOLERANCE, EXCESS = 1.5, 5  # as many times the share, and so many more than that, are tolerated
REQUEST_S = 10.0  # a request in so long is the least rate: a spell of refusals alone says nothing of a limit


def provider_key(provider: str, base_url: str, model: str) -> bytes:
    """What names a budget: who asks the same model at the same place shares one, whatever the API key."""
    return sha256("\n".join((provider, base_url.rstrip("/"), model)).encode()).digest()


@dataclass(frozen=True, slots=True)
class Budget:
    """What all environments know of one provider. Times are the database's, in seconds."""

    rate: float | None = None  # tokens a second; None: no limit has been met
    growth: float = FIRST_GROWTH  # of the rate, a second
    changed_at_s: float = 0.0
    next_at_s: float = 0.0  # what comes in until then is handed out
    resumes_at_s: float = 0.0  # before then nobody asks the provider
    refused_at_s: float = 0.0
    measured_since_s: float = 0.0
    granted: float = 0.0  # tokens handed out since then, and not refused
    former: float = 0.0  # rate at which refusals began that are not over
    asked: float = 0.0  # requests since then, at a lower rate or since refusals are tolerated
    lost: float = 0.0  # those of them that were refused
    sporadic: float = 0.0  # share of requests that is refused whatever the rate


class Lease(NamedTuple):
    """So many tokens, from so many seconds on. None: as many as one likes; 0: not in time."""

    tokens: float | None
    starts_in_s: float


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a provider said to one request, or will soon say to the next (`is_soon`)."""

    tokens: float
    wait_s: float
    began_ago_s: float  # when the request was sent
    returned: float  # tokens of leases that the provider did not take, this request's among them
    rate_guess: float  # tokens a second, if nothing better is known
    is_soon: bool = False
    asked: int = 1  # requests of that environment since it told of the last refusal
    lost: int = 1  # those of them that were refused


def tolerates(budget: Budget, now_s: float) -> bool:
    """Are refusals known to have nothing to do with the rate?"""
    return budget.sporadic > 0 and now_s - budget.refused_at_s <= SPORADIC_FOR_S


def lease(
    budget: Budget, now_s: float, *, least: float, most: float, within_s: float, returned: float
) -> tuple[Budget, Lease]:
    """Hand out a slice that begins within so many seconds: about a second's tokens, but enough for one request.

    `returned` are tokens of earlier leases that the provider did not take.
    """
    budget = replace(budget, granted=budget.granted - returned)
    if budget.rate is None or now_s - budget.refused_at_s > FORGET_S:
        return replace(budget, rate=None), Lease(None, max(0.0, budget.resumes_at_s - now_s))
    idle_until_s = now_s - max(BURST_S, least / budget.rate)
    paid_from_s = max(budget.next_at_s, idle_until_s)
    rate, measured_since_s, granted = budget.rate, budget.measured_since_s, budget.granted
    if paid_from_s + least / rate > now_s:  # there is more to do than the rate allows
        quiet_s, growth = now_s - max(budget.refused_at_s, budget.resumes_at_s), budget.growth
        measured_s = now_s - measured_since_s
        sent = granted - rate * max(0.0, budget.next_at_s - now_s)
        if quiet_s > QUIET_S:
            growth = max(growth, min(MOST_GROWTH, QUIET_GROWTH * (quiet_s / QUIET_S) ** 2))
            if measured_s > GROWING_S and rate * measured_s > 1.5 * sent:  # what is older was another rate
                granted -= sent * (1 - GROWING_S / measured_s)
                measured_since_s = now_s - GROWING_S
        rate *= 1 + growth * min(GROWS_FOR_S, max(0.0, now_s - budget.changed_at_s))
    tokens = max(least, min(most, rate * SLICE_S))
    paid_until_s = paid_from_s + tokens / rate
    starts_in_s = max(0.0, paid_until_s - now_s, budget.resumes_at_s - now_s)
    if starts_in_s > within_s:
        return budget, Lease(0.0, starts_in_s)
    changed = replace(
        budget,
        rate=rate,
        changed_at_s=now_s,
        next_at_s=paid_until_s,
        measured_since_s=measured_since_s + paid_from_s - budget.next_at_s,  # without idle times
        granted=granted + tokens,
    )
    return changed, Lease(tokens, starts_in_s)


def refused(budget: Budget, now_s: float, refusal: Refusal) -> tuple[Budget, None]:
    """Nobody asks before the provider said so, and the rate becomes what it has let through since the last refusal.

    A request that was sent before the last refusal was over only lengthens the pause. A refusal that is tolerated is
    only counted.
    """
    asked, lost = budget.asked + refusal.asked, budget.lost + refusal.lost
    if tolerates(budget, now_s) and not refusal.is_soon:
        excess = lost - TOLERANCE * budget.sporadic * asked
        if excess <= EXCESS:
            if excess < 0:
                asked = lost = 0
            return replace(budget, granted=budget.granted - refusal.returned, asked=asked, lost=lost), None
    until_s = now_s + refusal.wait_s
    # Then there is enough for a request like this one.
    next_at_s = budget.next_at_s + (refusal.wait_s if refusal.is_soon else 0.0)
    paused = replace(
        budget,
        resumes_at_s=max(budget.resumes_at_s, until_s),
        next_at_s=next_at_s,
        granted=budget.granted - refusal.returned,
        asked=asked,
        lost=lost,
    )
    if now_s - refusal.began_ago_s <= budget.resumes_at_s:
        return paused, None
    former = budget.former
    sporadic = budget.sporadic if tolerates(budget, now_s) and refusal.is_soon else 0.0
    if budget.rate is None:
        former = 0.0
        rate, growth = refusal.rate_guess, FIRST_GROWTH
        measured = measured_s = unsent = 0.0
    else:
        unsent = budget.rate * max(0.0, budget.next_at_s - now_s)  # leases that have not begun
        measured_s = max(until_s - budget.measured_since_s, 0.001)
        measured = max(0.0, paused.granted - unsent) / measured_s
        least = max(budget.rate / MOST_CUT, refusal.tokens / max(refusal.wait_s, measured_s, 1.0))
        rate = MARGIN * min(budget.rate, max(measured, least))
        # The less was measured, the more it may be off.
        growth = min(FIRST_GROWTH, max(LEAST_GROWTH, 1 / measured_s**2))
        if now_s - budget.refused_at_s > QUIET_S or budget.rate > former:
            former = measured if measured_s >= KNOWN_S else 0.0
            asked = lost = 0
        elif budget.rate > LOWER * former:
            asked = lost = 0
        elif SPORADIC <= lost <= MOST_SPORADIC * asked:
            rate, growth, sporadic = former, MOST_GROWTH, (lost + 2) / asked
            asked = lost = 0
    rate = max(rate, refusal.tokens / REQUEST_S)
    # Refusals that follow each other closely, and not because of leases from before, say that the limit is another now.
    since_last_s = now_s - budget.refused_at_s + max(0.0, budget.next_at_s - now_s)
    measured_s = min(measured_s, MEASURED_S, 4 * since_last_s)
    told = replace(
        paused,
        rate=rate,
        growth=growth,
        changed_at_s=now_s,
        next_at_s=max(next_at_s, until_s - refusal.tokens / rate),
        refused_at_s=now_s,
        measured_since_s=until_s - measured_s,
        granted=measured * measured_s + unsent,
        former=former,
        asked=asked,
        lost=lost,
        sporadic=sporadic,
    )
    return told, None


def paused(budget: Budget, now_s: float, wait_s: float) -> tuple[Budget, None]:
    """Nobody asks for so long."""
    return replace(budget, resumes_at_s=max(budget.resumes_at_s, now_s + wait_s)), None


@dataclass(frozen=True, slots=True)
class RateLimits:
    """What a provider says of its limits in the headers of an answer. None: not a word of it."""

    tokens_a_minute: float | None = None
    tokens_left: float | None = None
    requests_a_minute: float | None = None
    requests_left: float | None = None

    def rate(self, tokens: float) -> float | None:
        """Tokens a second that are allowed, in requests of so many tokens."""
        rates = []
        if self.tokens_a_minute:
            rates.append(self.tokens_a_minute / 60)
        if self.requests_a_minute:
            rates.append(self.requests_a_minute / 60 * tokens)
        return min(rates, default=None)

    def allows(self, tokens: float, requests: float) -> bool:
        """Is so much left?"""
        enough_tokens = self.tokens_left is None or self.tokens_left >= tokens
        return enough_tokens and (self.requests_left is None or self.requests_left >= requests)

    def wait_s(self, tokens: float) -> float:
        """How long until a request of so many tokens is allowed, if nobody makes another."""
        waits_s = [0.0]
        if self.tokens_a_minute and self.tokens_left is not None:
            waits_s.append((tokens - self.tokens_left) / self.tokens_a_minute * 60)
        if self.requests_a_minute and self.requests_left is not None:
            waits_s.append((1.0 - self.requests_left) / self.requests_a_minute * 60)
        return max(waits_s)


def rate_limits(headers: Mapping[str, str]) -> RateLimits | None:
    """OpenAI's headers, which many others send too; names in lower case. None where there are none."""
    names = ("limit-tokens", "remaining-tokens", "limit-requests", "remaining-requests")
    found = [_number(headers.get(f"x-ratelimit-{name}")) for name in names]
    return RateLimits(*found) if any(one is not None for one in found) else None


def _number(text: str | None) -> float | None:
    return float(text) if text is not None and re.fullmatch(r"\d{1,15}", text.strip()) else None
