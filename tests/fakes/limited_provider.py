"""Providers that refuse what is above a limit, in virtual time, and a budget that tasks share as environments do."""

import asyncio
import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from edda.budgets import Budget
from edda.errors import DatabaseUnavailable, ProviderThrottled
from edda.governing import heard

T = TypeVar("T")
DATABASE_S = 0.005  # a transaction
ROUND_TRIP_S = 0.02  # to the provider and back: a refusal takes no longer


def now_s() -> float:
    return asyncio.get_running_loop().time()


@dataclass(slots=True)
class SharedInMemory:
    """Changes are made one after another, each in the time that a transaction takes."""

    budget: Budget = field(default_factory=Budget)
    reads: int = 0
    changes: int = 0
    is_away: bool = False
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def read(self) -> tuple[Budget, float]:
        self.reads += 1
        await asyncio.sleep(DATABASE_S)
        return self.budget, self._now_s()

    async def change(self, change: Callable[[Budget, float], tuple[Budget, T]]) -> tuple[Budget, float, T]:
        async with self.lock:
            self.changes += 1
            await asyncio.sleep(DATABASE_S)
            if self.is_away:
                raise DatabaseUnavailable
            now_s = self._now_s()
            self.budget, answer = change(self.budget, now_s)
            return self.budget, now_s, answer

    def _now_s(self) -> float:
        """Another clock than the environments'."""
        return now_s() + 1_000_000


@dataclass(slots=True)
class LimitedProvider:
    """Latency with jitter, a bucket of tokens that fills by the second, and a number of requests at once; 0: no limit.

    `says`: Retry-After, in whole seconds. `headers`: OpenAI's, with how much is left. `refuses_s`: between these two
    times everything is refused, "try again in a second". `places`: more requests wait their turn. `sporadic`: this
    share is refused whatever is asked, once it has waited: half without a word, the others "try again in a second".
    """

    tokens_a_second: float = 0.0
    burst_s: float = 5.0
    window_s: float = 0.0  # instead of a bucket: so many seconds' tokens at once, and then none before the next window
    at_once: int = 0
    says: bool = True
    headers: bool = False
    refuses_s: tuple[float, float] = (0.0, 0.0)
    places: int = 0
    sporadic: float = 0.0
    seconds: Callable[[random.Random], float] = lambda chance: 0.25 * chance.lognormvariate(0, 0.15)
    chance: random.Random = field(default_factory=lambda: random.Random(1))
    in_flight: int = 0
    most_in_flight: int = 0
    answered: dict[str, int] = field(default_factory=dict)  # tokens, by who asked
    refused: int = 0
    refused_at_s: list[float] = field(default_factory=list)
    asked_at_s: deque[float] = field(default_factory=lambda: deque(maxlen=10_000))
    _queue: asyncio.Semaphore | None = None
    _left: float = math.inf
    _filled_at_s: float = -math.inf

    def most_tokens(self, seconds: float) -> float:
        """What its rate allows in so long."""
        whole = math.ceil(seconds / self.window_s) * self.window_s if self.window_s else seconds + self.burst_s
        return self.tokens_a_second * whole

    async def embed(self, who: str, tokens: int) -> None:
        """One request. Raises ProviderThrottled."""
        await asyncio.sleep(ROUND_TRIP_S / 2)
        self.asked_at_s.append(now_s())
        wait_s = self._take(tokens)
        if wait_s > 0 or (self.at_once and self.in_flight >= self.at_once):
            self.refused += 1
            self.refused_at_s.append(now_s())
            if self.headers:
                heard(self._headers())
            await asyncio.sleep(ROUND_TRIP_S / 2)
            raise ProviderThrottled(retry_after_s=float(math.ceil(wait_s)) if self.says and wait_s > 0 else None)
        if self.places:
            await self._wait_and_work()
        if self.sporadic and (drawn := self.chance.random()) < self.sporadic:
            self.refused += 1
            self.refused_at_s.append(now_s())
            await asyncio.sleep(ROUND_TRIP_S / 2)
            raise ProviderThrottled(retry_after_s=1.0 if 2 * drawn < self.sporadic else None)
        self._left -= tokens
        if self.headers:
            heard(self._headers())
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            if not self.places:
                await asyncio.sleep(self.seconds(self.chance))
        finally:
            self.in_flight -= 1
        self.answered[who] = self.answered.get(who, 0) + tokens

    async def _wait_and_work(self) -> None:
        if self._queue is None:
            self._queue = asyncio.Semaphore(self.places)
        async with self._queue:
            await asyncio.sleep(self.seconds(self.chance))

    def _take(self, tokens: int) -> float:
        """How long until so much is there."""
        if self.refuses_s[0] <= now_s() < self.refuses_s[1]:
            return 1.0
        if not self.tokens_a_second:
            return 0.0
        now = now_s()
        if self.window_s:
            window = math.floor(now / self.window_s)
            if self._filled_at_s < window * self.window_s:
                self._left, self._filled_at_s = self.tokens_a_second * self.window_s, window * self.window_s
            return 0.0 if self._left >= tokens else (window + 1) * self.window_s - now
        most = self.tokens_a_second * self.burst_s
        since_s = now - self._filled_at_s
        self._left = min(most, self._left + since_s * self.tokens_a_second) if math.isfinite(since_s) else most
        self._filled_at_s = now
        return max(0.0, (min(tokens, most) - self._left) / self.tokens_a_second)

    def _headers(self) -> dict[str, str]:
        return {
            "x-ratelimit-limit-tokens": str(int(self.tokens_a_second * 60)),
            "x-ratelimit-remaining-tokens": str(max(0, int(self._left))),
        }
