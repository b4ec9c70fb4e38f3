"""What a function's entry point needs from its execution environment: the one event loop, and the deadline."""

import asyncio
import random
from collections.abc import Awaitable, Coroutine
from typing import Any, Protocol, TypeVar

from edda.concurrency import Deadline

T = TypeVar("T")

# What is left of the time for recording outcomes after the work was stopped.
RESERVE_S = 3.0
# And of that, what is left for the answer when nothing else has stopped the work.
LAST_S = 1.0

_runner: asyncio.Runner | None = None


class LambdaContext(Protocol):
    """What is used of Lambda's context."""

    def get_remaining_time_in_millis(self) -> int: ...


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run on the one loop of this execution environment.

    `asyncio.run` would make a new loop for each invocation, and clients bound to the first one break on the second.
    """
    global _runner  # noqa: PLW0603 - one per environment is the point
    if _runner is None:
        _runner = asyncio.Runner()
        random.seed()  # environments restored from one snapshot would all wait for the same "random" time
    return _runner.run(coroutine)


def deadline(context: LambdaContext, reserve_s: float = RESERVE_S) -> Deadline:
    """When the work must stop, so that what it has done can still be recorded before Lambda kills it."""
    return Deadline.after(context.get_remaining_time_in_millis() / 1000 - reserve_s)


async def cut_off(work: Awaitable[T], until: Deadline, reserve_s: float = RESERVE_S) -> T:
    """Stop what has overrun its deadline, a connect or a send that hangs, before Lambda does it without a word.

    Cancelling psycopg makes it ask the server to stop, which may be just as dead: the outer limit ends that as well.
    Raises TimeoutError.
    """
    limit_s = until.remaining_s() + reserve_s - LAST_S
    async with asyncio.timeout(limit_s), asyncio.timeout(limit_s - 0.5):
        return await work
