"""Governors in virtual time."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from edda.concurrency import Deadline
from edda.governing import Governor, SharedBudget

from tests.simulation.clock import VirtualLoop

T = TypeVar("T")
MOST = 48  # in flight, as the OpenAI adapter allows


def run(work: Callable[[], Awaitable[T]]) -> T:
    """In virtual time."""

    async def main() -> T:
        return await work()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main())


def governor(budget: SharedBudget, most: int = MOST, seed: int = 1) -> Governor:
    return Governor(budget, most, clock=asyncio.get_running_loop().time, chance=random.Random(seed).random)


def deadline(seconds: float = 600) -> Deadline:
    return Deadline.after(seconds, asyncio.get_running_loop().time)
