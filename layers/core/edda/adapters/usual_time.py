"""How long a provider usually takes. What takes many times as long will not come, and is asked for again.

Otherwise one connection in a hundred that hangs costs a whole invocation half a minute, the limit for slow providers.
As long as other answers come, a provider may only be letting requests wait: what is asked again then is paid twice.
"""

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from edda.concurrency import Deadline

ENOUGH = 4  # answers to judge by
TIMES = 10.0  # a provider that queues requests takes many times its first answers' time, and would be paid twice
LEAST_S = 5.0


@dataclass(slots=True)
class UsualTime:
    """Learns from the last answers, and becomes more patient when waiting was in vain: the provider may have slowed."""

    _answers: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=50))
    _in_vain: int = 0
    _waiting: dict[asyncio.Timeout, tuple[float, Deadline]] = field(default_factory=dict)

    @asynccontextmanager
    async def patience(self, size: int, deadline: Deadline) -> AsyncIterator[None]:
        """Wait for the answer to a request of this size. Raises TimeoutError at the deadline, and when neither this nor
        any other answer has come for too long.
        """
        async with asyncio.timeout(None) as limit:
            self._waiting[limit] = self.longest_s(size), deadline
            self._begin_anew(limit)
            try:
                yield
            finally:
                del self._waiting[limit]

    def longest_s(self, size: int) -> float:
        """How long to wait for the answer to a request of this size: for ever, where none like it has been answered."""
        times_s = [seconds for answered, seconds in self._answers if 2 * answered >= size]
        if len(times_s) < ENOUGH:
            return math.inf
        return max(LEAST_S, TIMES * max(times_s)) * 2.0 ** min(self._in_vain, 10)

    def answered(self, size: int, seconds: float) -> None:
        self._answers.append((size, seconds))
        self._in_vain = 0
        for limit in self._waiting:
            self._begin_anew(limit)

    def given_up(self) -> None:
        self._in_vain += 1

    def _begin_anew(self, limit: asyncio.Timeout) -> None:
        longest_s, deadline = self._waiting[limit]
        if not limit.expired():
            limit.reschedule(asyncio.get_running_loop().time() + min(longest_s, deadline.remaining_s()))
