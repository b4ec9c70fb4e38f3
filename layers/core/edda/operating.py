"""What an operator does: begin failed work again, empty a dead-letter queue, decide about held deletes."""

import json
import logging
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from uuid import UUID

from pydantic import ValidationError

from edda.errors import NotFound
from edda.messages import EmbedBatch, IngestVersion
from edda.models import Tenant
from edda.ports import Queue, QueuedMessage
from edda.s3_events import ObjectChange, object_changes
from edda.store.bucket import BucketStore
from edda.store.keys import KeyStore
from edda.store.redrive import RedriveStore

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Operating:
    """The verbs of `python -m edda.admin`, and of the migrate function where only that reaches the database."""

    store: RedriveStore
    bucket: BucketStore
    keys: KeyStore

    async def confirm_deletes(self, slug: str) -> dict[str, int]:
        """Delete what the brake holds; further deletes pass for a while. Raises NotFound."""
        tenant_id = (await self._tenant(slug)).tenant_id
        await self.bucket.release_brake(tenant_id, confirmed=True)
        deleted = 0
        while some := await self.bucket.confirm_some(tenant_id):
            deleted += some
        return {"deleted": deleted}

    async def discard_deletes(self, slug: str) -> dict[str, int]:
        """Keep what the brake holds, though its objects are gone. Raises NotFound."""
        tenant_id = (await self._tenant(slug)).tenant_id
        kept = await self.bucket.keep_held(tenant_id)
        await self.bucket.release_brake(tenant_id, confirmed=False)
        return {"kept": kept}

    async def redrive_document(self, document_id: UUID) -> dict[str, int]:
        """Begin a failed or partial document again, and ring anew for one under way. How often, by what was found.

        Raises NotFound.
        """
        for tenant in await self.keys.all_tenants():
            if found := await self.store.begin_again(tenant.tenant_id, document_id):
                return {found: 1}
        raise NotFound(f"There is no document {document_id}.")

    async def redrive_tenant(self, slug: str) -> dict[str, int]:
        """Begin all failed and partial documents of a tenant again. Raises NotFound."""
        tenant_id = (await self._tenant(slug)).tenant_id
        found = Counter({"begun": 0})
        after: UUID | None = None
        while document_ids := await self.store.to_begin_again(tenant_id, after):
            for after in document_ids:
                found[await self.store.begin_again(tenant_id, after) or "vanished"] += 1
        return dict(found)

    async def redrive_queue(self, dead_letters: Queue, queue: Queue) -> dict[str, int]:
        """Move messages back, but drop those whose work is done, deleted or replaced. What cannot be read stays."""
        counts = Counter({"moved": 0, "stale": 0, "unreadable": 0, "not_sent": 0})
        async for messages in _batches(dead_letters):
            settled: list[QueuedMessage] = []
            live: dict[str, list[QueuedMessage]] = {}  # by tenant: a redriven backlog is to be as fair as any
            for message in messages:
                is_stale = await self._is_stale(message.body)
                if is_stale is None:
                    counts["unreadable"] += 1
                elif is_stale:
                    settled.append(message)
                else:
                    live.setdefault(str(json.loads(message.body).get("tenant_id", "")), []).append(message)
            counts["stale"] += len(settled)
            for tenant, of_tenant in live.items():
                failed = set(await queue.send([message.body for message in of_tenant], group=tenant))
                moved = [message for index, message in enumerate(of_tenant) if index not in failed]
                counts.update(moved=len(moved), not_sent=len(failed))
                settled += moved
            await dead_letters.remove([message.receipt_handle for message in settled])
        return dict(counts)

    async def _is_stale(self, body: str) -> bool | None:
        """Is there nothing left to do for this message? None: nobody can read it."""
        try:
            content = json.loads(body)
            kind = content.get("type") if isinstance(content, dict) else None
            if kind == "ingest_version":
                version = IngestVersion.model_validate(content)
                return not await self.store.is_version_open(version.tenant_id, version.version_id)
            if kind == "embed_batch":
                return not await self.store.is_batch_open(EmbedBatch.model_validate(content))
            changes = list(object_changes(content))
        except (ValueError, ValidationError, AttributeError):
            logger.warning("a dead letter cannot be read; it stays", extra={"body": body[:200]})
            return None
        return not [change for change in changes if not await self._is_known(change)]

    async def _is_known(self, change: ObjectChange) -> bool:
        """Has this, or something newer, been written down already?"""
        tenant = None if "\0" in change.key else await self.keys.tenant_of_slug(change.key.partition("/")[0])
        if tenant is None:
            return True
        if change.is_metadata or not change.sequencer:
            return False
        known = await self.bucket.last_known(tenant.tenant_id, change.key)
        return change.sequencer <= known.sequencer

    async def _tenant(self, slug: str) -> Tenant:
        tenant = await self.keys.tenant_of_slug(slug)
        if tenant is None:
            raise NotFound(f"There is no tenant {slug!r}.")
        return tenant


async def _batches(queue: Queue) -> AsyncIterator[list[QueuedMessage]]:
    while messages := await queue.receive():
        yield messages
