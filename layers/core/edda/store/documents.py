"""What the api function reads and writes."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg import sql
from psycopg.types.json import Jsonb

from edda.errors import IdempotencyMismatch, NotFound
from edda.models import DocumentStatus
from edda.s3_events import just_after
from edda.store.conditions import Condition
from edda.store.database import Cursor, Database, Row, fetch_all, fetch_one
from edda.store.finishing import forget_versions, hold_vectors
from edda.store.queries import queries
from edda.store.terms_anew import make_terms_anew
from edda.store.usage import refuse_over_cap

SQL, PIPELINE = queries("documents"), queries("pipeline")
BUCKET = queries("bucket")


@dataclass(frozen=True, slots=True)
class Announcement:
    """A document about to be uploaded. `request_sha256` is what an idempotency key is held against."""

    document_id: UUID
    object_key: str
    name: str
    title: str | None
    tags: Sequence[str]
    metadata: dict[str, Any]
    expires_s: int
    idempotency_key: str | None
    request_sha256: bytes | None


@dataclass(frozen=True, slots=True)
class ChunkCounts:
    """Progress of a version. `planned` is None until the file has been parsed."""

    planned: int | None
    embedded: int
    failed: int


@dataclass(frozen=True, slots=True)
class DocumentView:
    """A document as the API shows it. The status is that of its newest version."""

    document_id: UUID
    name: str
    title: str | None
    tags: tuple[str, ...]
    metadata: dict[str, Any]
    metadata_problem: str | None
    deletion_held: bool  # its object is gone, and the delete brake waits for an operator
    object_key: str
    status: DocumentStatus
    error_code: str | None
    error_message: str | None
    searchable: bool  # a version, perhaps an older one, answers
    version_id: UUID | None
    current_version_id: UUID | None
    size_bytes: int | None
    media_type: str | None
    language: str | None
    characters: int | None
    chunks: ChunkCounts
    created_at: datetime
    updated_at: datetime
    uploaded_at: datetime | None  # when the newest version was first seen
    chunked_at: datetime | None
    finished_at: datetime | None


class DocumentStore:
    """Documents of one tenant at a time. An id of another tenant does not exist here."""

    def __init__(self, database: Database, model_id: int) -> None:
        self._database = database
        self._model_id = model_id

    async def announce(self, tenant_id: UUID, announcement: Announcement) -> tuple[UUID, str, bool]:
        """Write the row that an upload will fill: document id, object key, and whether it is new.

        With an idempotency key seen before it is the earlier document; raises IdempotencyMismatch when that was
        made by another request, and QuotaExceeded when it would be a new one and a cap is used up.
        """
        values = {
            "tenant_id": tenant_id,
            "document_id": announcement.document_id,
            "object_key": announcement.object_key,
            "name": announcement.name,
            "title": announcement.title,
            "tags": list(announcement.tags),
            "metadata": Jsonb(announcement.metadata),
            "expires_s": announcement.expires_s,
            "idempotency_key": announcement.idempotency_key,
            "request_sha256": announcement.request_sha256,
        }
        async with self._database.transaction(tenant_id) as cursor:
            if await fetch_one(cursor, SQL["announce_document"], values) is not None:
                await refuse_over_cap(cursor, tenant_id, used_up=True)
                return announcement.document_id, announcement.object_key, True
            earlier = await fetch_one(cursor, SQL["find_by_idempotency_key"], values)
            if earlier is None or bytes(earlier["request_sha256"]) != announcement.request_sha256:
                raise IdempotencyMismatch
            await cursor.execute(SQL["renew_upload"], values | {"document_id": earlier["document_id"]})
            return earlier["document_id"], earlier["object_key"], False

    async def get(self, tenant_id: UUID, document_id: UUID) -> DocumentView:
        """Raises NotFound."""
        async with self._database.transaction(tenant_id) as cursor:
            views = await self._select(cursor, sql.SQL("AND d.document_id = %(id)s"), {"id": document_id})
        if not views:
            raise NotFound
        return views[0]

    async def page(
        self, tenant_id: UUID, condition: Condition, after: tuple[datetime, UUID] | None, limit: int
    ) -> list[DocumentView]:
        """Newest first. `after` is the position (created_at, document_id) of the last document seen."""
        rest = sql.SQL(
            "AND ({condition}) {after} ORDER BY d.created_at DESC, d.document_id DESC LIMIT %(limit)s"
        ).format(
            condition=condition.clause,
            after=sql.SQL("AND (d.created_at, d.document_id) < (%(after_created_at)s, %(after_id)s)" if after else ""),
        )
        values = {**condition.values, "limit": limit}
        if after is not None:
            values |= {"after_created_at": after[0], "after_id": after[1]}
        async with self._database.transaction(tenant_id) as cursor:
            return await self._select(cursor, rest, values)

    async def chunks(self, tenant_id: UUID, document_id: UUID, after: int, limit: int) -> list[Row]:
        """Chunks with an ordinal above `after`, in order, of the version that search sees. Raises NotFound."""
        document = await self.get(tenant_id, document_id)
        version_id = document.current_version_id or document.version_id
        async with self._database.transaction(tenant_id) as cursor:
            values = {"version_id": version_id, "after": after, "limit": limit}
            return await fetch_all(cursor, SQL["list_chunks"], values)

    async def update(self, tenant_id: UUID, document_id: UUID, changes: dict[str, Any]) -> DocumentView:
        """Change name, title, tags or metadata: only the keys that are given. Raises NotFound.

        Words of a new title are searched at once in the first chunks, in others when the sweep has come by.
        """
        values: dict[str, Any] = {"document_id": document_id}
        for field in ("name", "title", "tags", "metadata"):
            values |= {f"set_{field}": field in changes, field: changes.get(field)}
        values["metadata"] = Jsonb(changes.get("metadata") or {})
        values["tags"] = list(changes.get("tags") or ())
        async with self._database.transaction(tenant_id) as cursor:
            if "title" in changes:
                await cursor.execute(PIPELINE["lock_document"], values)
                await cursor.execute(SQL["title_is_changed"], values)
            updated = await fetch_one(cursor, SQL["update_document"], values)
            if updated is None:
                raise NotFound
        if "title" in changes and updated["current_version_id"] is not None:
            await make_terms_anew(self._database, tenant_id, updated["current_version_id"])
        return await self.get(tenant_id, document_id)

    async def delete(self, tenant_id: UUID, document_id: UUID) -> str:
        """Tombstone the document and drop what was made of it. Its object key. Raises NotFound.

        May be repeated: a document that was deleted before is still found here, so that a retry can finish the job.
        Until `object_is_deleted` is called the sweep takes care that the object goes as well.
        """
        async with self._database.transaction(tenant_id) as cursor:
            await hold_vectors(cursor, tenant_id, to_delete=True)
            document = await fetch_one(cursor, SQL["lock_to_delete"], {"document_id": document_id})
            if document is None:
                raise NotFound
            if not document["deleted"]:
                known = await fetch_one(cursor, BUCKET["last_known"], document)
                sequencer = just_after(known["sequencer"] or "" if known else "")
                await forget_versions(cursor, tenant_id, document_id, sequencer, object_to_delete=True)
        return str(document["object_key"])

    async def object_is_deleted(self, tenant_id: UUID, document_id: UUID) -> None:
        """The object of a deleted document is known to be gone."""
        async with self._database.transaction(tenant_id) as cursor:
            await cursor.execute(BUCKET["object_is_deleted"], {"document_id": document_id})

    async def _select(self, cursor: Cursor, rest: sql.Composable, values: dict[str, Any]) -> list[DocumentView]:
        await cursor.execute(sql.SQL(" ").join([sql.SQL(SQL["select_documents"]), rest]), values)
        rows = await cursor.fetchall()
        version_ids = [row["version_id"] for row in rows if row["version_id"] is not None]
        counts: dict[UUID, Row] = {}
        if version_ids:
            values = {"model_id": self._model_id, "version_ids": version_ids}
            counts = {row["version_id"]: row for row in await fetch_all(cursor, SQL["count_chunks"], values)}
        return [_view(row, counts.get(row["version_id"], {})) for row in rows]


UPLOAD_MISSING = ("upload_not_received", "The upload was announced but no file arrived before it expired.")


def _view(row: Row, counted: Row) -> DocumentView:
    status, error_code, error_message = row["status"], row["error_code"], row["error_message"]
    if status is None:
        status = DocumentStatus.WAITING
        if row["upload_expired"]:
            status, (error_code, error_message) = DocumentStatus.FAILED, UPLOAD_MISSING
    return DocumentView(
        document_id=row["document_id"],
        name=row["name"],
        title=row["title"],
        tags=tuple(row["tags"]),
        metadata=row["metadata"],
        metadata_problem=row["metadata_problem"],
        deletion_held=row["deletion_held"],
        object_key=row["object_key"],
        status=DocumentStatus(status),
        error_code=error_code,
        error_message=error_message,
        searchable=row["current_version_id"] is not None,
        version_id=row["version_id"],
        current_version_id=row["current_version_id"],
        size_bytes=row["size_bytes"],
        media_type=row["media_type"],
        language=row["language"],
        characters=row["characters"],
        chunks=ChunkCounts(row["planned_chunks"], counted.get("embedded", 0), counted.get("failed", 0)),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        uploaded_at=row["version_created_at"],
        chunked_at=row["chunked_at"],
        finished_at=row["finished_at"],
    )
