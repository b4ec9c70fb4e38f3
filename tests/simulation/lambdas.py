"""Execution environments, and the ways in which they stop: killed, frozen, timed out.

Everything an environment does to the outside world goes through `step`. A killed one does nothing any more: its
connection is cut, its tasks are cancelled, and whatever they still try in their `finally` blocks ends at the next step.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar
from typing import TYPE_CHECKING, Any

from edda.store.database import IDLE_S

if TYPE_CHECKING:
    from tests.simulation.connections import EnvironmentDatabase
    from tests.simulation.services import Services
    from tests.simulation.world import World

# Whose task is it? Set for every task that runs in an environment.
running_in: "ContextVar[Environment | None]" = ContextVar("running_in", default=None)
FUNCTIONS = {"chunk", "embed", "sweep"}  # what may be killed; a client of the API just tries again


class Environment:
    """One execution environment of one function: a connection of its own, tasks of its own."""

    def __init__(self, world: "World", function: str, number: int) -> None:
        self.world = world
        self.function = function
        self.name = f"{function}-{number}"
        self.dead = False
        self.zombie = False  # Lambda has given it up, and it runs all the same
        self.tasks: set[asyncio.Task[Any]] = set()
        self.error: BaseException | None = None  # of its last invocation
        self.database: EnvironmentDatabase  # these three are given by who builds the environment
        self.services: Services
        self.handler: Callable[..., Coroutine[Any, Any, Any]]
        self._frozen_until_s = 0.0
        self._clock_lag_s = 0.0
        self.held_up_s = 0.0  # in this invocation: frozen, or behind somebody's lock

    def now_s(self) -> float:
        return self.world.loop.time()

    def note(self, text: str) -> None:
        self.world.note(f"{self.name} {text}")

    async def step(self, site: str) -> str | None:
        """A moment passes, in which others move; then what goes wrong at this site, if anything does."""
        if self.dead:
            raise asyncio.CancelledError
        if self.function in FUNCTIONS:
            await self._struck("step")
        await self.world.loop.sleep(self.world.latency_s())
        while (left_s := self._frozen_until_s - self.now_s()) > 0:  # noqa: ASYNC110 - it may be woken or frozen again
            await asyncio.sleep(min(left_s, 1.0))
        if self.dead:
            raise asyncio.CancelledError
        self.note(site)
        if site in {"sql", "connect"} and self.world.database_back_at_s > self.now_s():
            return "cut" if site == "sql" else "refused"
        fault = self.world.strike(site, self)
        if fault is not None and fault.kind == "outage":
            self.world.database_back_at_s = self.now_s() + fault.amount
            return "cut"
        return fault.kind if fault else None

    def freeze(self, seconds: float, *, clock_stops: bool = False) -> None:
        """From the next step on nothing happens for a while. Where its clock stops (a suspended virtual machine), the
        environment goes on as if no time had passed; otherwise it finds that its timers have gone off."""
        self.held_up_s += seconds
        until_s = max(self._frozen_until_s, self.now_s() + seconds)
        if clock_stops:
            self._stop_clock(until_s - max(self._frozen_until_s, self.now_s()))
        self._frozen_until_s = until_s
        if until_s - self.now_s() > IDLE_S:
            self.world.loop.call_later(IDLE_S, self._left_idle, context=Context())

    def _left_idle(self) -> None:
        """Postgres ends a transaction whose client has said nothing for so long."""
        if not self.dead and self._frozen_until_s > self.now_s() and self.database.is_idle_in_transaction():
            self.note("its transaction is ended")
            self.database.drop()

    def wake(self) -> None:
        """Before its time. Only of one whose clock has stopped."""
        left_s = self._frozen_until_s - self.now_s()
        if left_s > 0 and not self.dead:
            self._stop_clock(-left_s)
            self._frozen_until_s = self.now_s()

    def clock(self) -> float:
        """What it takes for the time."""
        return self.now_s() - self._clock_lag_s

    def _stop_clock(self, seconds: float) -> None:
        self._clock_lag_s += seconds
        self.world.loop.postpone(seconds, lambda context: context.get(running_in) is self)

    async def committed(self) -> str | None:
        """A transaction was committed."""
        fault = self.world.strike("commit", self)
        if fault is None or self.dead:
            return None
        if fault.kind == "killed_after_commit" and self.function in FUNCTIONS:
            await self.kill_from_within()
        return "cut_after"

    async def kill_from_within(self) -> None:
        self.kill("killed")
        await asyncio.Event().wait()

    def kill(self, how: str) -> None:
        """Without a signal, without a chance to clean up."""
        if self.dead:
            return
        self.note(how)
        self.dead = True
        self.world.deaths += 1
        self.world.disturbed_at_s = max(self.world.disturbed_at_s, self.now_s())
        self.database.drop()
        for task in self.tasks:
            task.cancel()

    async def _struck(self, site: str) -> None:
        fault = self.world.strike(site, self)
        if fault is None:
            return
        if fault.kind == "killed":
            await self.kill_from_within()
        if fault.kind == "zombie":
            self.zombie = True
        self.freeze(fault.amount, clock_stops=fault.kind == "zombie")
