"""The one bounded fan-out, and the deadline that ends it.

`bounded` gives back everything at once; `as_finished` gives back results when they are there, so that the next step
(a write) overlaps with what is still running, and takes what has come meanwhile together. Both promise the same:

- at most `limit` jobs run at once, and no job starts after the deadline;
- a failure does nothing to the siblings: a job's exception takes the place of its result, and a job that the
  deadline catches, running or waiting, has TimeoutError there;
- cancelling the caller (or leaving the loop over `as_finished`) cancels what runs and waits until it has ended.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Self, TypeVar

T = TypeVar("T")
Job = Callable[[], Awaitable[T]]


@dataclass(frozen=True, slots=True)
class Deadline:
    """A point in time after which nothing new may start.

    `at_s` is a reading of `clock`, which never runs backwards; a simulator hands in its own.
    """

    at_s: float
    clock: Callable[[], float] = time.monotonic

    @classmethod
    def after(cls, seconds: float, clock: Callable[[], float] = time.monotonic) -> Self:
        return cls(clock() + seconds, clock)

    def remaining_s(self) -> float:
        """Seconds left, 0.0 when there are none."""
        return max(0.0, self.at_s - self.clock())

    @property
    def expired(self) -> bool:
        return self.remaining_s() == 0.0

    def sooner(self, seconds: float) -> "Deadline":
        """This deadline, or `seconds` from now if that is earlier."""
        return Deadline(min(self.at_s, self.clock() + seconds), self.clock)


async def bounded(limit: int, jobs: Iterable[Job[T]], deadline: Deadline) -> list[T | Exception]:
    """Run every job, at most `limit` at once: for each, in order, its result or its exception."""
    outcomes: dict[int, T | Exception] = {}
    async with aclosing(as_finished(limit, jobs, deadline)) as finished:
        async for ended in finished:
            outcomes |= ended
    return [outcomes[index] for index in sorted(outcomes)]


async def as_finished(
    limit: int, jobs: Iterable[Job[T]], deadline: Deadline
) -> AsyncGenerator[list[tuple[int, T | Exception]], None]:
    """Run every job, at most `limit` at once: (position, result or exception) of each that ended since the last look.

    Jobs are taken from the iterable only when there is room, and at most twice `limit` run or wait to be read: a slow
    reader slows the jobs. Loop over it inside `contextlib.aclosing`, so that leaving early ends the jobs at once.
    """
    if limit < 1:
        raise ValueError("limit must be at least 1")
    finished: asyncio.Queue[tuple[int, T | Exception] | None] = asyncio.Queue()
    room = asyncio.Semaphore(2 * limit)  # running plus unread
    waiting = enumerate(jobs)

    async def work() -> None:
        while True:
            await room.acquire()
            index, job = next(waiting, (0, None))
            if job is None:
                return
            finished.put_nowait((index, await _outcome(job, deadline)))

    async def crew() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(limit):
                group.create_task(work())

    # The group lives in a task of its own: a TaskGroup held open across a `yield` would cancel the reader.
    running = asyncio.create_task(crew())
    running.add_done_callback(lambda _: finished.put_nowait(None))
    try:
        while (item := await finished.get()) is not None:
            ended = [item]
            while not finished.empty() and (item := finished.get_nowait()) is not None:
                ended.append(item)
            for _ in ended:
                room.release()
            yield ended
            if item is None:
                break
        await running  # raises if `jobs` itself broke
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def _outcome(job: Job[T], deadline: Deadline) -> T | Exception:
    if deadline.expired:
        return TimeoutError("The deadline had passed before this could start.")
    try:
        async with asyncio.timeout(deadline.remaining_s()):
            return await job()
    except Exception as error:
        return error
    except asyncio.CancelledError:
        if (task := asyncio.current_task()) and task.cancelling():
            raise
        return RuntimeError("The job cancelled itself.")  # or it would be missing without a trace
