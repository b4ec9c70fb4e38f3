"""Events on their way out. Triggers write them (migration 0002), in the transaction of what they tell of."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from edda.models import Tenant
from edda.store.database import Database, execute_as_owner, fetch_all, fetch_one
from edda.store.queries import queries

SQL = queries("events")

Channel = Literal["event_bus", "webhook"]


@dataclass(frozen=True, slots=True)
class Persistence:
    """How often and how long a delivery is tried. Waits double, and are cut by up to a half at random.

    The first wait is also how long a worker may take over an attempt, so half of it must be longer than that.
    """

    first_wait_s: float = 30
    longest_wait_s: float = 3600
    give_up_s: float = 3 * 86_400
    keep_s: float = 30 * 86_400


@dataclass(frozen=True, slots=True)
class ClaimedDelivery:
    """An event to be sent now. `url` and `secret` are None where it is not for a webhook, or that has been removed."""

    event_id: UUID
    channel: Channel
    type: str
    body: dict[str, Any]
    created_at: datetime
    sequence: int
    url: str | None
    secret: str | None


@dataclass(frozen=True, slots=True)
class FailedDelivery:
    """What went wrong, in words without secrets; `is_final`: it would go wrong again."""

    delivery: ClaimedDelivery
    error: str
    is_final: bool = False


class EventStore:
    """The outbox of one tenant at a time."""

    def __init__(self, database: Database, persistence: Persistence = Persistence()) -> None:
        self._database = database
        self._persistence = persistence

    async def claim(
        self, tenant_id: UUID, channels: Sequence[Channel], limit: int, *, only_first: bool
    ) -> list[ClaimedDelivery]:
        """What is due, oldest first, up to `limit` to each channel: this worker's until its next attempt is due."""
        values = {
            "tenant_id": tenant_id,
            "channels": list(channels),
            "limit": limit,
            "only_first": only_first,
            "first_wait_s": self._persistence.first_wait_s,
            "longest_wait_s": self._persistence.longest_wait_s,
        }
        async with self._database.transaction(tenant_id) as cursor:
            rows = await fetch_all(cursor, SQL["claim_deliveries"], values)
        return sorted((ClaimedDelivery(**row) for row in rows), key=lambda each: (each.created_at, each.sequence))

    async def settle(
        self, tenant_id: UUID, delivered: Sequence[ClaimedDelivery], failed: Sequence[FailedDelivery]
    ) -> int:
        """Note what became of claimed deliveries. How many of those that failed are given up."""
        abandoned = 0
        async with self._database.transaction(tenant_id) as cursor:
            values = {
                "tenant_id": tenant_id,
                "event_ids": [each.event_id for each in delivered],
                "channels": [each.channel for each in delivered],
            }
            await cursor.execute(SQL["deliveries_are_done"], values)
            for each in failed:
                values = {
                    "event_id": each.delivery.event_id,
                    "channel": each.delivery.channel,
                    "error": each.error,
                    "is_final": each.is_final,
                    "give_up_s": self._persistence.give_up_s,
                }
                row = await fetch_one(cursor, SQL["delivery_failed"], values)
                abandoned += row is not None and row["abandoned"]
        return abandoned

    async def forget(self, tenant_id: UUID, channels: Sequence[Channel], limit: int) -> int:
        """Delete old events, and deliveries to channels that there are not. How many events."""
        values = {
            "tenant_id": tenant_id,
            "channels": list(channels),
            "limit": limit,
            "keep_s": self._persistence.keep_s,
        }
        async with self._database.transaction(tenant_id) as cursor:
            await cursor.execute(SQL["drop_deliveries"], values)
            return len(await fetch_all(cursor, SQL["forget_events"], values))


async def set_webhook(owner_conninfo: str, tenant: Tenant, url: str, secret: str) -> None:
    """Where a tenant's events go from now on, and what signs them. Runs as the schema's owner."""
    values = {"tenant_id": tenant.tenant_id, "url": url, "secret": secret}
    await execute_as_owner(owner_conninfo, tenant.tenant_id, SQL["set_webhook"], values)


async def remove_webhook(owner_conninfo: str, tenant: Tenant) -> None:
    """No more events are sent; those under way are given up at their next attempt. Runs as the schema's owner."""
    await execute_as_owner(owner_conninfo, tenant.tenant_id, SQL["remove_webhook"], {"tenant_id": tenant.tenant_id})
