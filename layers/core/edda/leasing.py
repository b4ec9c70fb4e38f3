"""Leases are short, so that the work of a worker that died is soon begun again, and renewed while the work goes on."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

logger = logging.getLogger(__name__)

# With a sweep every minute, work goes on within two after its worker was killed. A renewal may be missed twice.
LEASE_S = 45.0
RENEWAL_S = 15.0


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
