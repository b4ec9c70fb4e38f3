"""The end of a version, shared by every function that may bring it about. Cursor in hand, inside a transaction."""

from typing import Any
from uuid import UUID

from edda.errors import EmbeddingRejected
from edda.models import DocumentStatus
from edda.store.database import Cursor, fetch_all, fetch_one
from edda.store.queries import queries

SQL = queries("pipeline")
ALL = 2**31 - 1  # is above every ordinal
MOST_AT_ONCE = 20_000  # chunks deleted by one statement: a long file's are too many to be kept in memory


async def hold_vectors(cursor: Cursor, tenant_id: UUID, *, to_delete: bool = False) -> None:
    """Nobody may delete a vector as unused while somebody plans to use it: a lock per tenant, shared by planners."""
    shared = "" if to_delete else "_shared"
    query = f"SELECT pg_advisory_xact_lock{shared}(hashtextextended(%s, 0))"
    await cursor.execute(query, [f"edda vectors {tenant_id}"])


async def finish_if_complete(cursor: Cursor, version_id: UUID, model_id: int) -> DocumentStatus | None:
    """Derive the status from the rows, under a lock: two workers that finish together make one transition.

    Returns the final status, or None while chunks are missing.
    """
    owner = await fetch_one(cursor, SQL["document_of_version"], {"version_id": version_id})
    if owner is None:
        return None
    # Always the document before the version, so that two workers never wait for each other.
    await cursor.execute(SQL["lock_document"], owner)
    version = await fetch_one(cursor, SQL["lock_version"], {"version_id": version_id})
    if version is None or version["status"] != DocumentStatus.EMBEDDING:
        return None
    open_batch = await fetch_one(cursor, SQL["has_open_batch"], {"version_id": version_id})
    if open_batch is None or open_batch["open"]:
        return None
    count = await fetch_one(cursor, SQL["recount"], {"version_id": version_id, "model_id": model_id})
    assert count is not None  # noqa: S101 - an aggregate returns a row
    if not count["stored"] == version["planned_chunks"] == count["embedded"] + count["rejected"]:
        return None
    values: dict[str, Any] = {
        "version_id": version_id,
        "document_id": version["document_id"],
        "code": None,
        "message": None,
        "status": DocumentStatus.PARTIAL if count["rejected"] else DocumentStatus.READY,
    }
    if count["embedded"] == 0:
        values |= {
            "status": DocumentStatus.FAILED,
            "code": EmbeddingRejected.code,
            "message": "The embedding provider rejected every chunk of this document.",
        }
    await cursor.execute(SQL["finish_version"], values)
    if values["status"] != DocumentStatus.FAILED:
        await cursor.execute(SQL["publish_version"], values)
        await cursor.execute(SQL["supersede_older"], values)
    return DocumentStatus(values["status"])


async def forget_versions(
    cursor: Cursor, tenant_id: UUID, document_id: UUID, sequencer: str, *, object_to_delete: bool = False
) -> None:
    """Tombstone a document and drop its versions, chunks and the vectors nobody else uses.

    A long one is over at once as well, but its rows are left to the sweep: to delete them may take longer than the
    caller has, and all the time nobody else could plan to use a vector of this tenant's.
    """
    await hold_vectors(cursor, tenant_id, to_delete=True)
    values = {"document_id": document_id, "sequencer": sequencer, "object_to_delete": object_to_delete}
    await cursor.execute(SQL["lock_document"], values)
    versions = await fetch_all(cursor, SQL["versions_of_document"], values)
    is_long = sum(version["parsed_chunks"] for version in versions) > MOST_AT_ONCE
    if is_long:
        await cursor.execute(SQL["abandon_versions"], values)
    await cursor.execute(SQL["delete_document"], values)
    if is_long:
        return
    for version in versions:
        await delete_some_chunks(cursor, version["version_id"], ALL)
    await cursor.execute(SQL["delete_versions"], values)


async def delete_some_chunks(cursor: Cursor, version_id: UUID, below: int) -> int:
    """Delete chunks of a version with ordinals below this, the last first, and of their vectors those that no other
    chunk needs. Below which ordinal there may be more. Needs hold_vectors(to_delete=True)."""
    values = {"version_id": version_id, "below": below, "limit": MOST_AT_ONCE}
    rows = await fetch_all(cursor, SQL["delete_chunks"], values)
    lowest = min((row["ordinal"] for row in rows), default=below)
    await cursor.execute(SQL["delete_chunk_terms"], values | {"lowest": lowest})
    content_hashes = sorted({row["content_hash"] for row in rows})
    await cursor.execute(SQL["delete_orphaned_embeddings"], {"content_hashes": content_hashes})
    return lowest if len(rows) == MOST_AT_ONCE else 0
