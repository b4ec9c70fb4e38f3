"""The verbs behind the documents API."""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any, Generic, TypeVar
from uuid import UUID, uuid4

from edda.errors import Conflict, DocumentTooLarge, InvalidRequest, NotFound
from edda.filters import Filter
from edda.models import DocumentStatus, JsonObject, PresignedPost, Tenant
from edda.ports import ObjectStore
from edda.s3_events import API_FOLDER, METADATA_SUFFIX, came_over_https
from edda.store.conditions import compile_filter, with_status
from edda.store.database import Row
from edda.store.documents import Announcement, DocumentStore, DocumentView

Item = TypeVar("Item")

FORM_EXPIRES_S = 3600
# S3 looks at the clock when a transfer begins: what begins in the last minute may take its time.
PROMISE_EXPIRES_S = FORM_EXPIRES_S + 3600
DIRECT_EXPIRES_S = 900  # the object is put by this very request; what is missing then was never stored


@dataclass(frozen=True, slots=True)
class Description:
    """What a client says of a document."""

    name: str
    title: str | None
    tags: Sequence[str]
    metadata: JsonObject


@dataclass(frozen=True, slots=True)
class Promise:
    """A document whose file is yet to come, and the form to send it with."""

    document_id: UUID
    form: PresignedPost
    max_bytes: int


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """One page, and the cursor of the next if there is one."""

    items: list[Item]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class Documents:
    """The verbs of the api function. An id of another tenant is not found, like one that never was."""

    store: DocumentStore
    objects: ObjectStore
    max_document_bytes: int

    async def upload(
        self,
        tenant: Tenant,
        description: Description,
        body: bytes,
        content_type: str,
        idempotency_key: str | None = None,
    ) -> DocumentView:
        """Take a file. A repeated request (same key, same everything) is the same document and stores nothing new.

        Raises DocumentTooLarge, IdempotencyMismatch, Conflict, StorageUnavailable.
        """
        if len(body) > self.max_document_bytes:
            raise DocumentTooLarge
        request = ["upload", sha256(body).hexdigest(), content_type]
        document_id, object_key, is_new = await self._announce(
            tenant, description, request, idempotency_key, DIRECT_EXPIRES_S
        )
        if is_new or (await self._announced(tenant, document_id)).version_id is None:
            await self.objects.put(object_key, body, content_type)
        return await self._announced(tenant, document_id)

    async def promise(
        self,
        tenant: Tenant,
        description: Description,
        size_bytes: int | None = None,
        content_type: str | None = None,
        idempotency_key: str | None = None,
    ) -> Promise:
        """A document to be, and a form to post its file with. A repeated request gets a fresh form for the same one.

        Raises DocumentTooLarge, IdempotencyMismatch, Conflict.
        """
        if size_bytes is not None and size_bytes > self.max_document_bytes:
            raise DocumentTooLarge(f"The file may have up to {self.max_document_bytes} bytes.")
        request = ["promise", size_bytes, content_type]
        document_id, object_key, is_new = await self._announce(
            tenant, description, request, idempotency_key, PROMISE_EXPIRES_S
        )
        if not is_new:
            await self._announced(tenant, document_id)
        form = await self.objects.presign_post(object_key, content_type, self.max_document_bytes, FORM_EXPIRES_S)
        return Promise(document_id, form, self.max_document_bytes)

    async def get(self, tenant: Tenant, document_id: UUID) -> DocumentView:
        """Raises NotFound."""
        return await self.store.get(tenant.tenant_id, document_id)

    async def page(
        self,
        tenant: Tenant,
        filter_: Filter | None = None,
        status: DocumentStatus | None = None,
        cursor: str | None = None,
        limit: int = 20,
    ) -> Page[DocumentView]:
        """Newest first. Raises InvalidRequest for a cursor that no page gave."""
        after = None if cursor is None else _document_position(cursor)
        condition = with_status(compile_filter(filter_), status)
        views = await self.store.page(tenant.tenant_id, condition, after, limit + 1)
        last = views[limit - 1] if len(views) > limit else None
        next_cursor = None if last is None else _cursor(last.created_at.isoformat(), str(last.document_id))
        return Page(views[:limit], next_cursor)

    async def chunks(self, tenant: Tenant, document_id: UUID, cursor: str | None = None, limit: int = 20) -> Page[Row]:
        """In order. Raises NotFound, and InvalidRequest for a cursor that no page gave."""
        after = -1 if cursor is None else _chunk_position(cursor)
        rows = await self.store.chunks(tenant.tenant_id, document_id, after, limit + 1)
        next_cursor = _cursor(rows[limit - 1]["ordinal"]) if len(rows) > limit else None
        return Page(rows[:limit], next_cursor)

    async def update(self, tenant: Tenant, document_id: UUID, changes: JsonObject) -> DocumentView:
        """Change name, title, tags or metadata; nothing is embedded again. Raises NotFound."""
        if not changes:
            return await self.store.get(tenant.tenant_id, document_id)
        return await self.store.update(tenant.tenant_id, document_id, changes)

    async def delete(self, tenant: Tenant, document_id: UUID) -> None:
        """Delete what was made of the document at once, then the file itself. May be repeated.

        Raises NotFound, and StorageUnavailable when the file is still there: try again.
        """
        object_key = await self.store.delete(tenant.tenant_id, document_id)
        await self.objects.delete(object_key)
        if not came_over_https(object_key):
            await self.objects.delete(object_key + METADATA_SUFFIX)
        await self.store.object_is_deleted(tenant.tenant_id, document_id)

    async def _announce(
        self, tenant: Tenant, said: Description, request: list[Any], idempotency_key: str | None, expires_s: int
    ) -> tuple[UUID, str, bool]:
        document_id = uuid4()
        request = [*request, said.name, said.title, list(said.tags), said.metadata]
        announcement = Announcement(
            document_id=document_id,
            # The name is the client's, so it is no part of the key.
            object_key=f"{_folder(tenant)}{document_id}",
            name=said.name,
            title=said.title or None,
            tags=said.tags,
            metadata=said.metadata,
            expires_s=expires_s,
            idempotency_key=idempotency_key,
            request_sha256=sha256(json.dumps(request, sort_keys=True).encode()).digest(),
        )
        return await self.store.announce(tenant.tenant_id, announcement)

    async def _announced(self, tenant: Tenant, document_id: UUID) -> DocumentView:
        try:
            return await self.store.get(tenant.tenant_id, document_id)
        except NotFound:
            raise Conflict("The document made with this idempotency key has been deleted since.") from None


def _folder(tenant: Tenant) -> str:
    return f"{tenant.slug}/{API_FOLDER}/"


def invalid_cursor() -> InvalidRequest:
    """Made anew each time: an error that is raised again and again collects the frames of every request."""
    problem = {"field": "cursor", "message": "is not one that a page of this list gave as next_cursor"}
    return InvalidRequest(problems=[problem])


def _cursor(*position: str | int) -> str:
    """Opaque to clients, so that it may change."""
    return base64.urlsafe_b64encode(json.dumps(position).encode()).decode().rstrip("=")


def _position(cursor: str) -> list[Any]:
    position = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    return position if isinstance(position, list) else []


def _document_position(cursor: str) -> tuple[datetime, UUID]:
    try:
        created_at, document_id = _position(cursor)
        position = datetime.fromisoformat(created_at), UUID(document_id)
        if position[0].tzinfo is None:
            raise invalid_cursor()
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise invalid_cursor() from None
    return position


def _chunk_position(cursor: str) -> int:
    try:
        (ordinal,) = _position(cursor)
    except (ValueError, TypeError, RecursionError):
        raise invalid_cursor() from None
    if not isinstance(ordinal, int) or not 0 <= ordinal < 2**31:
        raise invalid_cursor()
    return ordinal
