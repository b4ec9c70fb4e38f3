"""What environments share of a provider's limits: one row a provider, its address and model, of no tenant."""

from collections.abc import Callable
from dataclasses import asdict
from typing import TypeVar

from edda.budgets import Budget
from edda.store.database import Cursor, Database, Row, fetch_one
from edda.store.queries import queries

SQL = queries("budgets")
BRIEF = {"lock_timeout": "2s", "idle_timeout": "2s"}

T = TypeVar("T")


class BudgetStore:
    """The budget of one provider, by `budgets.provider_key`. The time is that of the database's clock."""

    def __init__(self, database: Database, provider_key: bytes) -> None:
        self._database = database
        self._provider_key = provider_key

    async def read(self) -> tuple[Budget, float]:
        """The budget and the time now. Raises DatabaseUnavailable."""
        async with self._database.transaction(None) as cursor:
            row = await fetch_one(cursor, SQL["read_budget"], {"provider_key": self._provider_key})
        return (Budget(), 0.0) if row is None else (_budget(row), row["now_s"])

    async def change(self, change: Callable[[Budget, float], tuple[Budget, T]]) -> tuple[Budget, float, T]:
        """Replace the budget by what a pure function of it and the time makes of it. Raises DatabaseUnavailable.

        The new budget, the time, and the function's other result. The row is locked for about two round trips.
        """
        async with self._database.transaction(None) as cursor:
            await cursor.execute(SQL["be_brief"], BRIEF)
            row = await self._lock(cursor)
            before = _budget(row)
            after, answer = change(before, row["now_s"])
            if after != before:
                await cursor.execute(SQL["write_budget"], asdict(after) | {"provider_key": self._provider_key})
            return after, row["now_s"], answer

    async def _lock(self, cursor: Cursor) -> Row:
        values = {"provider_key": self._provider_key, "growth": Budget().growth}
        row = await fetch_one(cursor, SQL["read_budget"] + " FOR UPDATE", values)
        if row is None:
            await cursor.execute(SQL["make_budget"], values)
            row = await fetch_one(cursor, SQL["read_budget"] + " FOR UPDATE", values)
        assert row is not None  # noqa: S101 - it was made, and nobody deletes it
        return row


def _budget(row: Row) -> Budget:
    values = {name: value for name, value in row.items() if name != "now_s"}
    return Budget(rate=values.pop("tokens_per_second"), **values)
