"""An event loop whose time is virtual: when nothing is ready to run, the clock jumps to the next timer."""

import asyncio
import selectors


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
