"""The usage ledger. `charge` and `refuse_over_cap` are for transactions that do the work, cursor in hand."""

from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass, fields
from datetime import date
from decimal import Decimal
from typing import Annotated
from uuid import UUID

import pydantic.dataclasses
from pydantic import Field

from edda.errors import QuotaExceeded
from edda.models import Account, Tenant, Usage
from edda.store.database import Cursor, Database, Row, execute_as_owner, fetch_all, fetch_one
from edda.store.queries import queries

SQL = queries("usage")
FIELDS = [field.name for field in fields(Usage)]

Charges = Mapping[Account, Usage]


async def charge(cursor: Cursor, tenant_id: UUID, model_id: int, charges: Charges) -> None:
    """Add to the ledger: the last statements of a transaction, for they lock what all of the tenant's work needs."""
    accounts = [account for account, usage in charges.items() if any(astuple(usage))]
    if not accounts:
        return
    values = {name: [getattr(charges[account], name) for account in accounts] for name in FIELDS} | {
        "tenant_id": tenant_id,
        "model_id": model_id,
        "document_ids": [account.document_id for account in accounts],
        "days": [account.day for account in accounts],
    }
    await cursor.execute(SQL["charge_documents"], values)
    await cursor.execute(SQL["charge_tenant"], values)


async def today(cursor: Cursor) -> date:
    """The ledger's day: the database's clock, in UTC."""
    row = await fetch_one(cursor, SQL["day_of_usage"], {})
    assert row is not None  # noqa: S101 - it has no condition
    day: date = row["day"]
    return day


async def refuse_over_cap(cursor: Cursor, tenant_id: UUID, *, used_up: bool = False) -> None:
    """Raises QuotaExceeded when more is planned than a cap allows; with `used_up` also when nothing more would fit.

    After `charge`, in its transaction: the ledger's row is locked then, and two plans cannot share the same rest.
    """
    for cap in await fetch_all(cursor, SQL["caps"], {"tenant_id": tenant_id}):
        if cap["used"] > cap["allowed"] or (used_up and cap["used"] == cap["allowed"]):
            raise QuotaExceeded(
                f"The cap {cap['name']} of {cap['allowed']} leaves no room for this; "
                f"{cap['name'].replace('_', ' ')} count anew on {cap['resets_on']} (UTC).",
                retry_after_s=cap["resets_in_s"],
            )


@dataclass(frozen=True, slots=True)
class UsageReport:
    """What the API shows: days in order, and the caps with what counts towards each now."""

    days: list[Row]
    caps: list[Row]


class UsageStore:
    """Reads the ledger of one tenant at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def by_day(self, tenant_id: UUID, first_day: date, last_day: date, document_id: UUID | None) -> UsageReport:
        """Of the tenant, or of one of its documents."""
        values = {
            "tenant_id": tenant_id,
            "first_day": first_day,
            "last_day": last_day,
            "document_id": document_id,
        }
        async with self._database.transaction(tenant_id) as cursor:
            name = "usage_by_day" if document_id is None else "document_usage_by_day"
            return UsageReport(
                days=await fetch_all(cursor, SQL[name], values), caps=await fetch_all(cursor, SQL["caps"], values)
            )

    async def by_document(
        self, tenant_id: UUID, first_day: date, last_day: date, after: UUID | None, limit: int
    ) -> list[Row]:
        """Of each document in these days, in the order of their ids, from the one after `after`."""
        values = {
            "tenant_id": tenant_id,
            "first_day": first_day,
            "last_day": last_day,
            "after": after,
            "limit": limit,
        }
        async with self._database.transaction(tenant_id) as cursor:
            return await fetch_all(cursor, SQL["usage_by_document"], values)


Tokens = Annotated[int, Field(ge=0, lt=2**63)]
Dollars = Annotated[Decimal, Field(ge=0, lt=10**12)]


@pydantic.dataclasses.dataclass(frozen=True, slots=True, config={"extra": "forbid"})
class Caps:
    """What a tenant may use; None is without limit. Days and months are UTC's, costs are dollars.

    Raises pydantic.ValidationError.
    """

    tokens_per_day: Tokens | None = None
    tokens_per_month: Tokens | None = None
    cost_per_day: Dollars | None = None
    cost_per_month: Dollars | None = None


async def set_caps(owner_conninfo: str, tenant: Tenant, caps: Caps) -> None:
    """Replace a tenant's caps; they count from the next plan on. Runs as the schema's owner."""
    values = asdict(caps) | {"tenant_id": tenant.tenant_id}
    await execute_as_owner(owner_conninfo, tenant.tenant_id, SQL["set_caps"], values)
