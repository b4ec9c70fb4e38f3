"""How long a provider usually takes. What takes many times as long will not come, and is asked for again.

Otherwise one connection in a hundred that hangs costs a whole invocation a minute, the limit for slow providers. But a
provider may only be letting requests wait, and what is asked again then is paid twice. So two things are measured: for
how long no answer came to any request, and how late an answer is, counted from the first one to a later request.
"""

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from edda.concurrency import Deadline

ENOUGH = 4  # answers to judge by
TIMES = 10.0
LEAST_S = 5.0


@dataclass(slots=True, eq=False)
class Wait:
    """For one answer."""

    size: int
    began_s: float
    longest_s: float  # since any answer
    deadline_s: float
    limit: asyncio.Timeout
    overtaken_s: float = math.inf  # when a request that began later was answered

    def ends_at(self, when_s: float) -> None:
        if not self.limit.expired():
            self.limit.reschedule(min(when_s, self.deadline_s))


@dataclass(frozen=True, slots=True)
class _Answered:
    size: int
    seconds: float
    late_s: float


@dataclass(slots=True)
class UsualTime:
    """Learns from the last answers, and becomes more patient when waiting was in vain: the provider may have slowed.
    `silence_s`: how long to wait at most, since anything was answered last.
    """

    silence_s: float
    _answers: deque[_Answered] = field(default_factory=lambda: deque(maxlen=50))
    _in_vain: int = 0
    _waiting: set[Wait] = field(default_factory=set)

    @asynccontextmanager
    async def patience(self, size: int, deadline: Deadline) -> AsyncIterator[Wait]:
        """Wait for the answer to a request of this size. Raises TimeoutError when it will not come by the deadline."""
        try:
            async with asyncio.timeout(None) as limit:
                now_s = asyncio.get_running_loop().time()
                wait = Wait(size, now_s, self.longest_s(size), now_s + deadline.remaining_s(), limit)
                wait.ends_at(now_s + wait.longest_s)
                self._waiting.add(wait)
                try:
                    yield wait
                finally:
                    self._waiting.remove(wait)
        except TimeoutError:
            if limit.expired() and not deadline.expired:
                self._in_vain += 1
            raise

    def answered(self, wait: Wait) -> None:
        """It was answered well."""
        now_s = asyncio.get_running_loop().time()
        self._answers.append(_Answered(wait.size, now_s - wait.began_s, max(0.0, now_s - wait.overtaken_s)))
        self._in_vain = 0
        for other in self._waiting:
            if other.overtaken_s == math.inf and other.began_s < wait.began_s:
                other.overtaken_s = now_s
                other.deadline_s = min(other.deadline_s, now_s + self.latest_s(other.size))
            other.ends_at(now_s + other.longest_s)

    def longest_s(self, size: int) -> float:
        """How long to wait for the answer to a request of this size since anything was answered last."""
        return self._many_times([one.seconds for one in self._answers if 2 * one.size >= size])

    def latest_s(self, size: int) -> float:
        """How long to wait for the answer to a request of this size since a later one was answered."""
        return self._many_times([one.late_s for one in self._answers if 2 * one.size >= size])

    def _many_times(self, known_s: list[float]) -> float:
        if len(known_s) < ENOUGH:
            return self.silence_s
        return min(self.silence_s, max(LEAST_S, TIMES * max(known_s)) * 2.0 ** min(self._in_vain, 10))
