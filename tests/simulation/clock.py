"""An event loop whose time is virtual: when nothing is ready to run, the clock jumps to the next timer."""

import asyncio
import heapq
import selectors
from collections.abc import AsyncGenerator, Callable
from contextvars import Context
from typing import Any


class Stuck(RuntimeError):
    """Nothing is ready and no timer is set: the simulation would wait for ever."""


class _NoWaiting(selectors.SelectSelector):
    """There is no input to wait for: every input of a simulation is a call that returns. Waiting moves the clock."""

    def __init__(self, loop: "VirtualLoop") -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Stuck("every task waits for another one")
        if timeout > 0:
            self._loop.now_s += timeout
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """`loop.time()` starts at 0 and costs nothing; `asyncio.sleep` and `asyncio.timeout` follow it."""

    def __init__(self) -> None:
        self.now_s = 0.0
        super().__init__(_NoWaiting(self))

    def time(self) -> float:
        return self.now_s

    def _asyncgen_firstiter_hook(self, agen: AsyncGenerator[Any, Any]) -> None:
        """Nothing is kept: a loop ends with its schedule, and does not look for generators that are left over."""

    async def sleep(self, seconds: float) -> None:
        """As `asyncio.sleep`, but where nothing else would happen meanwhile no task has to take turns."""
        timers: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]  # not in the stubs
        while timers and timers[0].cancelled():
            heapq.heappop(timers)._scheduled = False  # type: ignore[attr-defined]  # as the loop itself does
            self._timer_cancelled_count -= 1  # type: ignore[attr-defined]  # as above
        then_s = self.now_s + seconds
        if self._ready or (timers and timers[0].when() <= then_s + self._clock_resolution):  # type: ignore[attr-defined]  # as above
            await asyncio.sleep(seconds)
        else:
            self.now_s += then_s - self.now_s  # to the last bit what the loop would make of it

    def postpone(self, seconds: float, whose: Callable[[Context], bool]) -> None:
        """Some timers go off later: a process whose clock stands still does not notice that time passes."""
        for handle in self._scheduled:  # type: ignore[attr-defined]  # asyncio's heap of timers
            if not handle.cancelled() and whose(handle._context):
                handle._when += seconds
        heapq.heapify(self._scheduled)  # type: ignore[attr-defined]  # as above
