"""How many requests an environment has in flight, and when the next one may begin: a governor for each provider.

Two limits. The **window** is the environment's own: 16 requests at first, twice as many each round trip until the
provider refuses one; half of them then (once a round trip), and one more a round trip while it refuses none. It does
not grow while requests wait at the provider: what waits too long is given up, and paid twice. The **budget** of tokens
a second is shared with all environments that ask the same model of the same provider (`budgets.py`). It is asked only
once the provider has refused somebody: before that a slot costs an integer.
"""

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, TypeVar

from edda import budgets
from edda.budgets import Budget, RateLimits, Refusal, rate_limits
from edda.concurrency import Deadline
from edda.errors import ProviderThrottled, ProviderUnavailable, RetryableError

logger = logging.getLogger(__name__)
T = TypeVar("T")

START = 16
QUEUED = 4.0  # times as long as the fastest answer of late: it was not worked on at once
ALONE_S = 1.0  # refused with nothing else in flight, and not told for how long
SPARE = 0.1  # of a request is left when all goes well
LONGEST_PAUSE_S = 60.0  # whatever is asked for: a request a minute costs little, and one odd header stops everybody
LOOK_S = 0.5  # who has waited for longer looks whether there is a pause now


class NoSlot(ProviderThrottled):
    """The provider's limits leave no room for this request before the deadline: it was not made."""


class SharedBudget(Protocol):
    """Where the budget is kept: `store/budgets.py`. Raises DatabaseUnavailable."""

    async def read(self) -> tuple[Budget, float]:
        """The budget, and the time now on its clock."""

    async def change(self, change: Callable[[Budget, float], tuple[Budget, T]]) -> tuple[Budget, float, T]:
        """Replace it by what the function makes of it and the time, alone: the two, and the function's other result."""


@dataclass(slots=True)
class _Slot:
    """One request, and what the answer's headers say."""

    tokens: int
    began_s: float
    is_leased: bool  # its tokens were handed out
    rests_s: float = 0.0  # so long waits only who made it, once it has been refused
    limits: RateLimits | None = None


@dataclass(frozen=True, slots=True)
class _News:
    """The provider will refuse soon: from `at_s` on, a request has to wait for so long."""

    slot: _Slot
    wait_s: float
    at_s: float


_slot: ContextVar[_Slot | None] = ContextVar("edda_provider_slot", default=None)


def heard(headers: Mapping[str, str]) -> None:
    """The headers (names in lower case) of the answer to the request in whose slot this is called, if in any."""
    slot = _slot.get()
    if slot is not None:
        slot.limits = rate_limits(headers)


@dataclass(slots=True)
class Window:
    """How many requests may be in flight: slow start, additive increase, multiplicative decrease. First come, first
    served.
    """

    most: int
    size: float = field(init=False)
    has_met_a_limit: bool = False
    in_flight: int = 0
    _waiting: deque[asyncio.Future[None]] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self.size = float(min(START, self.most))

    async def enter(self) -> None:
        if self.in_flight < int(self.size) and not self._waiting:
            self.in_flight += 1
            return
        place = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if not place.cancelled():
                self.leave()  # let in and cancelled at the same moment
            raise

    def leave(self) -> None:
        self.in_flight -= 1
        self._let_in()

    def grow(self) -> None:
        self.size = min(float(self.most), self.size + (1 / self.size if self.has_met_a_limit else 1.0))
        self._let_in()

    def halve(self) -> None:
        self.size = max(1.0, self.size / 2)
        self.has_met_a_limit = True

    def _let_in(self) -> None:
        while self._waiting and self.in_flight < int(self.size):
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                self.in_flight += 1


async def governed(
    governor: "Governor | None", tokens: int, deadline: Deadline, request: Callable[[], Awaitable[T]]
) -> T:
    """Make a request in a slot, in another while the provider refuses it. Raises NoSlot, and what the request does."""
    while governor is not None:
        try:
            async with governor.slot(tokens, deadline):
                return await request()
        except NoSlot:
            raise
        except ProviderThrottled:
            continue  # the next slot waits
    return await request()


class Governor:
    """One for each provider that an environment asks. `clock` in seconds, `chance` in [0, 1)."""

    def __init__(
        self,
        budget: SharedBudget,
        most: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.window = Window(most)
        self._times: deque[tuple[int, float]] = deque(maxlen=200)  # tokens and seconds of requests
        self._budget = budget
        self._clock = clock
        self._chance = chance
        self._began_s = clock()  # since then there have always been requests
        self._accepted = 0  # tokens that the provider has let through since then
        self._returned = 0  # leased tokens that it did not, since the budget was told
        self._asked = self._lost = 0  # leased requests, and those that were refused, since the budget was told
        self._tolerates = False  # refusals that have nothing to do with limits?
        self.is_limited = False  # has the provider refused somebody, as far as is known?
        self._resumes_at_s = 0.0
        self._reduced_at_s = 0.0
        self._news: _News | None = None  # is told by the next request: no answer waits until it is
        self._turn = asyncio.Lock()  # one asks for tokens, the others wait behind it
        self._wanted = 0  # tokens, by all who wait for some
        self._tokens = 0.0  # leased and not spent
        self._usable_at_s = 0.0

    async def refresh(self) -> None:
        """Look at the budget, where others may have met a limit. Raises nothing."""
        with _best_effort():
            self._saw(*await self._budget.read())

    def _saw(self, budget: Budget, now_s: float) -> None:
        self.is_limited = budget.rate is not None
        self._tolerates = budgets.tolerates(budget, now_s)
        self._pause(budget.resumes_at_s - now_s)

    @asynccontextmanager
    async def slot(self, tokens: int, deadline: Deadline) -> AsyncIterator[None]:
        """Wait until a request of so many tokens may begin; what it comes to is learnt from how the block ends.

        Raises NoSlot when that is not before the deadline; where it is known, it says when. An error of the block is
        raised on; after a ProviderThrottled the caller need not wait, for its next slot will.
        """
        tokens = max(1, tokens)
        if deadline.expired:  # asyncio.timeout ends only what waits
            raise NoSlot
        try:
            async with asyncio.timeout(deadline.remaining_s()):
                await self._enter(tokens, deadline)
        except TimeoutError:
            raise NoSlot from None
        slot = _Slot(tokens, self._clock(), self.is_limited)
        if self.window.in_flight == 1:  # after a pause
            self._began_s, self._accepted = slot.began_s, 0
        context = _slot.set(slot)
        self._asked += slot.is_leased
        try:
            yield
            self._accepted += tokens
            self._answered(tokens, self._clock() - slot.began_s)
        except ProviderThrottled as error:
            self._returned += tokens if slot.is_leased else 0
            await self._refused(slot, error.retry_after_s)
            raise
        except ProviderUnavailable as error:
            await self._unavailable(slot, error)
            raise
        else:
            if slot.limits is not None:
                self._heard(slot, slot.limits)
        finally:
            _slot.reset(context)
            self.window.leave()
            if slot.rests_s > 0:
                await asyncio.sleep(min(slot.rests_s, deadline.remaining_s()))

    async def _enter(self, tokens: int, deadline: Deadline) -> None:
        await self.window.enter()
        try:
            if self.is_limited or self._news is not None or self._waits_s() > 0:
                self._wanted += tokens
                try:
                    async with self._turn:
                        await self._spend(tokens, deadline)
                finally:
                    self._wanted -= tokens
        except BaseException:
            self.window.leave()
            raise

    async def _spend(self, tokens: int, deadline: Deadline) -> None:
        """Take tokens of the lease, of a new one where there are too few, once it has begun and no pause is on."""
        while True:
            if (news := self._news) is not None:
                self._news = None
                since_s = self._clock() - news.at_s
                if since_s <= news.wait_s + LOOK_S:
                    await self._tell(news.slot, max(0.0, news.wait_s - since_s), is_soon=True)
            if self.is_limited and self._tokens < tokens:
                await self._lease(tokens, deadline)
            if (wait_s := self._waits_s()) > 0:
                await self._wait(wait_s, deadline)
            elif not self.is_limited or self._tokens >= tokens:
                break
        self._tokens = max(0.0, self._tokens - tokens)

    async def _lease(self, tokens: int, deadline: Deadline) -> None:
        least, most = tokens - self._tokens, self._wanted - self._tokens
        ask = partial(budgets.lease, least=least, most=most, within_s=deadline.remaining_s())
        try:
            with self._returning() as returned:
                told, now_s, lease = await self._budget.change(partial(ask, returned=returned))
                self._tolerates = budgets.tolerates(told, now_s)
        except RetryableError:
            raise
        except Exception:
            logger.exception("provider budget failed")
            self.is_limited = False  # the window and the provider's own word are left
            return
        if lease.tokens is None:
            self.is_limited = False
            self._pause(lease.starts_in_s)
        elif lease.tokens:
            self._tokens += lease.tokens
            self._usable_at_s = self._clock() + lease.starts_in_s
        else:
            raise NoSlot(retry_after_s=lease.starts_in_s)

    def _waits_s(self) -> float:
        return max(self._resumes_at_s, self._usable_at_s) - self._clock()

    async def _wait(self, wait_s: float, deadline: Deadline) -> None:
        if wait_s >= deadline.remaining_s():
            raise NoSlot(retry_after_s=wait_s)
        await asyncio.sleep(wait_s)
        if wait_s > LOOK_S:  # perhaps another environment was refused meanwhile
            await self.refresh()

    def _answered(self, tokens: int, seconds: float) -> None:
        self._times.append((tokens, seconds))
        least_s = min(known_s for known, known_s in self._times if 2 * known >= tokens)
        if seconds <= QUEUED * least_s:
            self.window.grow()

    async def _refused(self, slot: _Slot, retry_after_s: float | None) -> None:
        """Half the window, once a round trip; and where the provider says for how long, everybody waits.

        Where refusals are known to be sporadic, only the request itself waits: its next slot comes later.
        """
        self._lost += slot.is_leased
        if self._tolerates:
            slot.rests_s = min(max(retry_after_s or 0.0, LOOK_S * self._chance()), LONGEST_PAUSE_S)
            await self._tell(slot, slot.rests_s)
            return
        is_new = slot.began_s >= self._reduced_at_s
        was_alone = self.window.size < 2
        now_s = self._clock()
        round_trip_s = min(ALONE_S, now_s - slot.began_s)  # who was refused may have queued for long
        if is_new:
            self._reduced_at_s = now_s
            self.window.halve()
            too_many = max(0.0, self._tokens - slot.tokens)  # leased at a rate that is too high
            self._returned += int(too_many)
            self._tokens -= too_many
        if retry_after_s is None and was_alone:
            retry_after_s = ALONE_S
        if retry_after_s is None:  # too many at once: after about a round trip, there are fewer
            self._pause(round_trip_s * (1 + self._chance()))
            return
        retry_after_s = min(
            max(retry_after_s, round_trip_s), LONGEST_PAUSE_S
        )  # 0 is said, too, and may be all that is known
        news = now_s + retry_after_s - self._resumes_at_s > LOOK_S
        self._pause(retry_after_s)
        if is_new or news:
            await self._tell(slot, retry_after_s)

    async def _unavailable(self, slot: _Slot, error: ProviderUnavailable) -> None:
        """A provider that does not answer in time has too much to do; another error says nothing about limits."""
        if isinstance(error.__cause__, TimeoutError) and slot.began_s >= self._reduced_at_s:
            self._reduced_at_s = self._clock()
            self.window.halve()
        if error.retry_after_s:
            wait_s = min(error.retry_after_s, LONGEST_PAUSE_S)
            self._pause(wait_s)
            with _best_effort():
                await self._budget.change(partial(budgets.paused, wait_s=wait_s))

    def _heard(self, slot: _Slot, limits: RateLimits) -> None:
        """Be told before the provider refuses: when it has too little left to go on like this."""
        requests = SPARE if self.is_limited else self.window.in_flight
        stated = limits.rate(slot.tokens)
        if stated and slot.began_s >= self._reduced_at_s and not limits.allows(requests * slot.tokens, requests):
            self._reduced_at_s = self._clock()
            self._news = _News(slot, limits.wait_s(min(1, requests) * slot.tokens), self._reduced_at_s)

    async def _tell(self, slot: _Slot, wait_s: float, *, is_soon: bool = False) -> None:
        """Tell all environments. From here on tokens are leased."""
        stated = slot.limits.rate(slot.tokens) if slot.limits else None
        guess = stated or self._guess(slot.tokens, wait_s)

        def tell(budget: Budget, now_s: float) -> tuple[Budget, None]:
            ago_s = self._clock() - slot.began_s  # now, for there may have been a queue
            asked, self._asked, lost, self._lost = self._asked, 0, self._lost, 0
            refusal = Refusal(slot.tokens, wait_s, ago_s, returned, guess, is_soon, asked, lost)
            return budgets.refused(budget, now_s, refusal)

        with _best_effort(), self._returning() as returned:
            told, now_s, _ = await self._budget.change(tell)
            self._saw(told, now_s)

    @contextmanager
    def _returning(self) -> Iterator[int]:
        """The tokens to tell the budget of; they are kept if that fails."""
        returned, self._returned = self._returned, 0
        try:
            yield returned
        except BaseException:
            self._returned += returned
            raise

    def _guess(self, tokens: int, wait_s: float) -> float:
        """What was let through so far, for the time that it has to last; of a short wait it is known what it is for:
        one request."""
        so_far = (self._accepted + self.window.in_flight * tokens) / (self._clock() - self._began_s + wait_s)
        most = tokens / (wait_s - 1) if 1 < wait_s <= 10 else so_far
        return max(tokens / max(wait_s, 1.0), min(so_far, most))

    def _pause(self, wait_s: float) -> None:
        if wait_s > 0:
            self._resumes_at_s = max(self._resumes_at_s, self._clock() + wait_s)


@contextmanager
def _best_effort() -> Iterator[None]:
    """What is not told now shows at the next refusal; the request's own outcome matters more."""
    try:
        yield
    except RetryableError as error:
        logger.warning("provider budget could not be reached", extra={"code": error.code})
    except Exception:
        logger.exception("provider budget failed")
