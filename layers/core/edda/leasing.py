"""Leases are short, so that the work of a worker that died is soon begun again, and renewed while the work goes on."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

from edda.ports import Queue

logger = logging.getLogger(__name__)

# With a sweep every minute, work goes on within two after its worker was killed. A renewal may be missed once.
LEASE_S = 45.0
RENEWAL_S = 15.0
MAX_FAILURES = 5  # workers that died over the same work: nobody else begins on it, and the sweep ends it
HIDE_S = 2.0  # a queue that does not answer must not keep the work waiting for longer


@asynccontextmanager
async def renewed(renew: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Renew, again and again, for as long as the body runs. What goes wrong with it is the next renewal's to mend:
    a lease that was lost is noticed by its fence.
    """

    async def renew_on() -> None:
        while True:
            await asyncio.sleep(RENEWAL_S)
            try:
                await renew()
            except Exception:
                logger.warning("lease could not be renewed", exc_info=True)

    renewing = asyncio.create_task(renew_on())
    try:
        yield
    finally:
        renewing.cancel()
        await asyncio.gather(renewing, return_exceptions=True)


@asynccontextmanager
async def held(queue: Queue, records: Iterable[dict[str, Any]]) -> AsyncIterator[None]:
    """Messages in hand are hidden for a little longer than a lease lasts, again and again while the body runs.

    Their queue would hide them for six times the function's own time. Where a worker dies before it has written that
    there is work, only its message tells, and has to come again as soon as another could begin.
    """
    handles = [record["receiptHandle"] for record in records if "receiptHandle" in record]
    hide = partial(queue.delay, dict.fromkeys(handles, int(LEASE_S + RENEWAL_S)))
    with suppress(TimeoutError):
        async with asyncio.timeout(HIDE_S):
            await hide()
    async with renewed(hide):
        yield
