"""Events to whoever waits for them: once right after the commit, and from then on by the sweep until they arrive."""

import asyncio
import json
import logging
import random
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from uuid import UUID

from edda.concurrency import Deadline, bounded
from edda.errors import EddaError, WebhookFailed
from edda.models import BusEvent
from edda.ports import EventBus, Webhooks
from edda.signing import signed_headers
from edda.store.events import Channel, ClaimedDelivery, EventStore, FailedDelivery
from edda.store.keys import KeyStore

logger = logging.getLogger(__name__)

LEAST_S = 1.0  # with less time than that, a receiver would be blamed for our hurry
PROMPT_S = 2.0  # what a receiver may cost a function that has other work
TENANT_S = 10.0  # what one tenant's receiver may cost a sweep
SETTLE_S = 2.0  # for noting what became of the last attempts when the time is up
EVENTS_AT_ONCE = 50  # to each channel
POSTS_AT_ONCE = 10
TENANTS_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Delivery:
    """Sends events at least once. Without a bus, webhooks alone are served."""

    store: EventStore
    keys: KeyStore
    webhooks: Webhooks
    bus: EventBus | None

    async def promptly(self, tenant_ids: Iterable[UUID], deadline: Deadline) -> None:
        """One try for what has just been committed. Whatever goes wrong is left to the sweep."""
        until = deadline.sooner(PROMPT_S)
        for tenant_id in tenant_ids:
            if until.remaining_s() < LEAST_S:
                return
            try:
                await self._round(tenant_id, until, Counter(), only_first=True)
            except Exception:  # the work itself is done: nothing here may bring it back
                logger.exception("events wait for the sweep")

    async def deliver_all(self, deadline: Deadline) -> dict[str, int]:
        """All that is due, of all tenants, a few tenants at a time and in no fixed order. What was done, by kind."""
        done: Counter[str] = Counter()
        tenants = await self.keys.all_tenants()
        random.shuffle(tenants)  # where time is short, it is not always short for the same ones
        jobs = [partial(self._deliver_tenant, tenant.tenant_id, deadline, done) for tenant in tenants]
        end = Deadline(deadline.at_s + SETTLE_S, deadline.clock)
        for outcome in await bounded(TENANTS_AT_ONCE, jobs, end):
            if isinstance(outcome, Exception) and not isinstance(outcome, TimeoutError):
                raise outcome
        return dict(done)

    @property
    def _channels(self) -> list[Channel]:
        return ["webhook"] if self.bus is None else ["event_bus", "webhook"]

    async def _deliver_tenant(self, tenant_id: UUID, deadline: Deadline, done: Counter[str]) -> None:
        until = deadline.sooner(TENANT_S)  # from when its turn comes
        while until.remaining_s() >= LEAST_S and await self._round(tenant_id, until, done, only_first=False):
            pass
        if not until.expired:
            done["events_forgotten"] += await self.store.forget(tenant_id, self._channels, 10 * EVENTS_AT_ONCE)

    async def _round(self, tenant_id: UUID, until: Deadline, done: Counter[str], *, only_first: bool) -> bool:
        """Some of what is due. Is there reason to go on?"""
        claimed = await self.store.claim(tenant_id, self._channels, EVENTS_AT_ONCE, only_first=only_first)
        if not claimed:
            return False
        failed = [
            *await self._to_bus([each for each in claimed if each.channel == "event_bus"], until),
            *await self._to_webhook([each for each in claimed if each.channel == "webhook"], until),
        ]
        not_delivered = {(each.delivery.event_id, each.delivery.channel) for each in failed}
        delivered = [each for each in claimed if (each.event_id, each.channel) not in not_delivered]
        abandoned = await self.store.settle(tenant_id, delivered, failed)
        done["events_delivered"] += len(delivered)
        done["deliveries_failed"] += len(failed)
        done["deliveries_abandoned"] += abandoned
        if abandoned:
            logger.error("deliveries abandoned", extra={"tenant_id": str(tenant_id), "deliveries": abandoned})
        return not failed and len(claimed) >= EVENTS_AT_ONCE

    async def _to_bus(self, claimed: Sequence[ClaimedDelivery], until: Deadline) -> list[FailedDelivery]:
        if self.bus is None or not claimed:
            return []
        events = [BusEvent(each.type, each.created_at, _as_json(each)) for each in claimed]
        try:
            async with asyncio.timeout(until.remaining_s()):
                refused = await self.bus.send(events)
        except TimeoutError:
            refused = list(range(len(events)))
        return [FailedDelivery(claimed[index], "the event bus did not take it") for index in refused]

    async def _to_webhook(self, claimed: Sequence[ClaimedDelivery], until: Deadline) -> list[FailedDelivery]:
        outcomes = await bounded(POSTS_AT_ONCE, [partial(self._post, each, until) for each in claimed], until)
        failed = []
        for each, outcome in zip(claimed, outcomes, strict=True):
            if isinstance(outcome, WebhookFailed):
                failed.append(FailedDelivery(each, outcome.message, outcome.is_final))
            elif isinstance(outcome, TimeoutError | EddaError):
                failed.append(FailedDelivery(each, "there was no time left"))
            elif isinstance(outcome, Exception):
                raise outcome
        return failed

    async def _post(self, delivery: ClaimedDelivery, until: Deadline) -> None:
        if delivery.url is None or delivery.secret is None:
            raise WebhookFailed("The webhook has been removed.", is_final=True)
        body = _as_json(delivery).encode()
        # The wall clock, for receivers compare it with theirs.
        headers = signed_headers(delivery.secret, str(delivery.event_id), int(time.time()), body)
        await self.webhooks.post(delivery.url, headers, body, until)


def _as_json(delivery: ClaimedDelivery) -> str:
    return json.dumps(delivery.body, ensure_ascii=False, separators=(",", ":"))
