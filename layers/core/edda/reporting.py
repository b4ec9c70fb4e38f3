"""The verbs behind the usage API."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

from edda.documents import Page, invalid_cursor
from edda.errors import InvalidRequest
from edda.models import Tenant
from edda.store.database import Row
from edda.store.usage import UsageReport, UsageStore

MAX_DAYS = 366


@dataclass(frozen=True, slots=True)
class Reporting:
    """What a tenant's documents cost. Days are UTC; without any given, this month's."""

    store: UsageStore

    async def by_day(
        self, tenant: Tenant, first_day: date | None, last_day: date | None, document_id: UUID | None = None
    ) -> UsageReport:
        """Of all documents, or of one. Raises InvalidRequest for days that are no range, or too long a one."""
        return await self.store.by_day(tenant.tenant_id, *_range(first_day, last_day), document_id)

    async def by_document(
        self, tenant: Tenant, first_day: date | None, last_day: date | None, cursor: str | None, limit: int
    ) -> Page[Row]:
        """Of each document, in the order of their ids. Raises InvalidRequest, also for a cursor that no page gave."""
        after = None if cursor is None else _position(cursor)
        rows = await self.store.by_document(tenant.tenant_id, *_range(first_day, last_day), after, limit + 1)
        next_cursor = str(rows[limit - 1]["document_id"]) if len(rows) > limit else None
        return Page(rows[:limit], next_cursor)


def _range(first_day: date | None, last_day: date | None) -> tuple[date, date]:
    last = last_day or datetime.now(UTC).date()
    first = first_day or last.replace(day=1)
    if not timedelta(0) <= last - first < timedelta(days=MAX_DAYS):
        raise InvalidRequest(
            problems=[{"field": "first_day", "message": f"must be up to {MAX_DAYS - 1} days before last_day"}]
        )
    return first, last


def _position(cursor: str) -> UUID:
    try:
        return UUID(cursor)
    except ValueError:
        raise invalid_cursor() from None
