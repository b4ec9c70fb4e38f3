"""What the sweep finds and ends. Everything here may run twice at once."""

from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

from edda.errors import EddaError
from edda.leasing import MAX_FAILURES
from edda.messages import EmbedBatch
from edda.store.database import Database, fetch_all, fetch_one
from edda.store.finishing import ALL, delete_some_chunks, finish_if_complete, hold_vectors
from edda.store.ingest import plan_batches
from edda.store.queries import queries
from edda.store.terms_anew import make_terms_anew

SQL, PIPELINE, SEARCH = queries("sweep"), queries("pipeline"), queries("search")


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the sweep leaves things alone, and when it gives them up.

    `grace_s`: work without a lease, after it was written. `resend_s`: a message that was sent. `max_failures`: workers
    that died over the same work. `give_up_s`: work that was given back again and again, for want of a service or time.
    `event_s`: an event of S3's that may still come. `walk_s`: between the beginnings of two walks through the bucket.
    `history_days`: rows of what is over, deleted documents and the usage ledger. Longer than the 366 days that can be
    asked for, and than any message lives.
    """

    grace_s: float = 45
    resend_s: float = 1800
    max_failures: int = MAX_FAILURES
    give_up_s: float = 86_400
    event_s: float = 300
    walk_s: float = 900
    history_days: int = 400


class SweepStore:
    """Looks at one tenant at a time, at most `limit` rows of a kind."""

    def __init__(self, database: Database, model_id: int, *, limit: int = 500) -> None:
        self._database = database
        self._model_id = model_id
        self._limit = limit

    async def stuck_versions(self, tenant_id: UUID, patience: Patience) -> list[tuple[UUID, bool]]:
        """Versions nobody is parsing, and whether they were tried often or long enough."""
        values = asdict(patience) | {"limit": self._limit}
        async with self._database.transaction(tenant_id) as cursor:
            rows = await fetch_all(cursor, SQL["stuck_versions"], values)
        return [(row["version_id"], row["exhausted"]) for row in rows]

    async def stuck_batches(self, tenant_id: UUID, patience: Patience) -> list[tuple[EmbedBatch, bool]]:
        """Batches nobody is embedding, and whether they were tried often or long enough."""
        values = asdict(patience) | {"limit": self._limit}
        async with self._database.transaction(tenant_id) as cursor:
            rows = await fetch_all(cursor, SQL["stuck_batches"], values)
        return [(EmbedBatch(tenant_id=tenant_id, **row), row["exhausted"]) for row in rows]

    async def finish_versions(self, tenant_id: UUID, grace_s: float) -> int:
        """End versions whose batches are all done; plan again what turns out to lack a vector. How many."""
        async with self._database.transaction(tenant_id) as cursor:
            await hold_vectors(cursor, tenant_id)
            values: dict[str, Any] = {"grace_s": grace_s, "limit": self._limit}
            rows = await fetch_all(cursor, SQL["unfinished_versions"], values)
            finished = 0
            for row in rows:
                if await finish_if_complete(cursor, row["version_id"], self._model_id) is not None:
                    finished += 1
                elif await fetch_one(cursor, SQL["lacks_vectors"], row) is not None:
                    await plan_batches(cursor, tenant_id, row["version_id"], self._model_id)
            return finished

    async def give_up(self, tenant_id: UUID, version_id: UUID, error: EddaError) -> bool:
        """Fail a version that was tried often enough. False when it has ended or somebody holds it."""
        async with self._database.transaction(tenant_id) as cursor:
            values = {"version_id": version_id, "code": error.code, "message": error.message}
            # The end of a version is told with its document's number: the document's lock comes first, as everywhere.
            await cursor.execute(SQL["lock_document_of_version"], values)
            return await fetch_one(cursor, SQL["give_up_version"], values) is not None

    async def superseded_versions(self, tenant_id: UUID) -> list[UUID]:
        """Versions that a newer one has replaced."""
        async with self._database.transaction(tenant_id) as cursor:
            rows = await fetch_all(cursor, SQL["superseded_versions"], {"limit": self._limit})
        return [row["version_id"] for row in rows]

    async def drop_version(self, tenant_id: UUID, version_id: UUID) -> bool:
        """Delete a superseded version, its chunks, and the vectors that nobody else uses: some in each transaction, so
        that what takes longer than there is time is gone on with."""
        values, below = {"version_id": version_id}, ALL
        while True:
            async with self._database.transaction(tenant_id) as cursor:
                await hold_vectors(cursor, tenant_id, to_delete=True)
                if await fetch_one(cursor, SQL["lock_superseded_version"], values) is None:
                    return False
                below = await delete_some_chunks(cursor, version_id, below)
                if not below:
                    await cursor.execute(PIPELINE["delete_version"], values)
                    return True

    async def versions_without_terms(self, tenant_id: UUID) -> list[UUID]:
        """Visible ones whose terms are to be made anew."""
        async with self._database.transaction(tenant_id) as cursor:
            rows = await fetch_all(cursor, SEARCH["versions_without_terms"], {"limit": self._limit})
        return [row["version_id"] for row in rows]

    async def make_terms_anew(self, tenant_id: UUID, version_id: UUID) -> int:
        """Of some of its chunks: how many. 0: all are made."""
        return await make_terms_anew(self._database, tenant_id, version_id)

    async def forget(self, tenant_id: UUID, patience: Patience) -> int:
        """Delete rows of what has long been over. How many."""
        values = asdict(patience) | {"limit": self._limit}
        forgotten = 0
        async with self._database.transaction(tenant_id) as cursor:
            for name in ("forget_documents", "forget_document_usage", "forget_tenant_usage"):
                await cursor.execute(SQL[name], values)
                forgotten += cursor.rowcount
        return forgotten
