"""What beginning again needs to know and to write."""

from typing import Any
from uuid import UUID

from edda.messages import EmbedBatch
from edda.s3_events import just_after
from edda.store.bucket import begin_version, object_state
from edda.store.database import Database, fetch_all, fetch_one
from edda.store.queries import queries

SQL = queries("redrive")


class RedriveStore:
    """Looks at one tenant at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def sees_one_tenant_only(self) -> bool:
        """Is this role under row-level security? A superuser is not, and what is meant for one would reach all."""
        async with self._database.transaction(None) as cursor:
            row = await fetch_one(cursor, SQL["row_security"], {})
        return bool(row and row["active"])

    async def to_begin_again(self, tenant_id: UUID, after: UUID | None, limit: int = 500) -> list[UUID]:
        """Documents whose newest version is failed or partial, by id."""
        async with self._database.transaction(tenant_id) as cursor:
            rows = await fetch_all(cursor, SQL["to_begin_again"], {"after": after, "limit": limit})
        return [row["document_id"] for row in rows]

    async def begin_again(self, tenant_id: UUID, document_id: UUID) -> str | None:
        """Make a new version of the same object version, which the next sweep rings for. What was found.

        A version of its own: until it is ready, a partial one goes on answering. Only what is missing is embedded. One
        that is under way already is rung for anew, unless somebody has it in hand.
        """
        async with self._database.transaction(tenant_id) as cursor:
            values: dict[str, Any] = {"tenant_id": tenant_id, "document_id": document_id}
            locked = await fetch_one(cursor, SQL["lock_document"], values)
            if locked is None:
                return None
            state = await object_state(cursor, locked)
            if state["deleted"]:
                return "deleted"
            if state["version_id"] is None:
                return "waiting"
            if not state["finished"]:
                await cursor.execute(SQL["ring_soon"], state)
                await cursor.execute(SQL["ring_soon_for_batches"], state)
                return "under_way"
            if state["status"] == "ready":
                return "ready"
            values |= {name: state[name] for name in ("s3_version_id", "modified_at", "size_bytes", "media_type")}
            version_id = await begin_version(cursor, values | {"sequencer": just_after(state["last_known"])})
            await cursor.execute(SQL["ring_soon"], {"version_id": version_id})
            return "begun"

    async def is_version_open(self, tenant_id: UUID, version_id: UUID) -> bool:
        """Is there work to do on this version?"""
        async with self._database.transaction(tenant_id) as cursor:
            return await fetch_one(cursor, SQL["open_version"], {"version_id": version_id}) is not None

    async def is_batch_open(self, batch: EmbedBatch) -> bool:
        """Is there work to do on this batch?"""
        async with self._database.transaction(batch.tenant_id) as cursor:
            values = {"version_id": batch.version_id, "first_ordinal": batch.first_ordinal}
            return await fetch_one(cursor, SQL["open_batch"], values) is not None
