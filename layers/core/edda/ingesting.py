"""From an object in the bucket to chunks in the database and messages on the embed queue."""

import asyncio
import errno
import logging
from collections.abc import Awaitable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar
from uuid import UUID

from edda.concurrency import Deadline
from edda.delivering import Delivery
from edda.errors import (
    DocumentError,
    DocumentTooLarge,
    NoText,
    ObjectVanished,
    QueueUnavailable,
    RetryableError,
    TooManyChunks,
)
from edda.leasing import LEASE_S, renewed
from edda.messages import IngestVersion
from edda.models import ParseCursor, ParseOutcome
from edda.observing import Observing
from edda.ports import ObjectStore, Parser, Queue
from edda.s3_events import ObjectChange, came_over_https
from edda.scratch import scratch_folder
from edda.store.bucket import Outcome
from edda.store.ingest import IngestStore, LaneFull, VersionLease
from edda.store.keys import KeyStore

logger = logging.getLogger(__name__)
MOST_LONGER = 2  # a part may take so many times as long as the longest before it
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Lane:
    """Where files wait whose tenant has its share of the workers: `queue` delivers fairly among tenants.

    S3's own messages name no tenant to the queue, so a large upload of one would keep all others waiting. What is in
    the lane is begun by whichever worker is free: the share keeps no worker idle.
    """

    queue: Queue
    share: int


@dataclass(frozen=True, slots=True)
class Ingestion:
    """The verbs of the chunk function."""

    store: IngestStore
    keys: KeyStore
    observing: Observing
    objects: ObjectStore
    parser: Parser
    ingest_queue: Queue
    embed_queue: Queue
    max_document_bytes: int
    max_chunks: int
    delivery: Delivery | None = None  # without it, events wait for the sweep
    lane: Lane | None = None  # without it, files are begun in the order in which they are heard of

    async def object_changed(self, change: ObjectChange, deadline: Deadline) -> None:
        """Bring the database into line with one change in the bucket. May be repeated, may come late.

        Raises RetryableError when it must be tried again.
        """
        slug, _, rest = change.key.partition("/")
        # Postgres holds no NUL: such a key can neither be looked up nor stored.
        tenant = None if "\0" in change.key else await self.keys.tenant_of_slug(slug)
        if tenant is None or not rest or rest.endswith("/"):
            # Nobody owns it, or it is a console's folder marker: there is no one to tell but the operator.
            logger.warning("object outside of any tenant's folder", extra={"object_key": change.key})
            return
        if change.is_metadata:
            await self.observing.read_metadata(tenant.tenant_id, change.document_key)
            return
        noted = await self.observing.observe(tenant.tenant_id, change.key, change)
        if noted.version_id is not None:
            await self._begin(IngestVersion(tenant_id=tenant.tenant_id, version_id=noted.version_id), deadline)
        elif noted.outcome is Outcome.DELETED:
            await self._tell(tenant.tenant_id, deadline)

    async def ingest(self, message: IngestVersion, deadline: Deadline, *, share: int | None = None) -> None:
        """Parse a registered version and send its chunks on, unless that is done or under way.

        A long file is parsed in parts, and what does not fit into this invocation is rung for anew.
        Raises LaneFull when its tenant has `share` others in work.
        """
        lease_s = min(LEASE_S, deadline.remaining_s())
        lease = await self.store.claim_version(message.tenant_id, message.version_id, lease_s, share=share)
        is_over = True
        if lease is not None:
            async with renewed(partial(self.store.renew_lease, lease, LEASE_S)):
                is_over = await self._ingest_claimed(lease, deadline)
        await self.send_batches(message.tenant_id, message.version_id)
        if not is_over:
            await self._ring(message)
        if lease is not None:
            await self._tell(message.tenant_id, deadline)

    async def send_batches(self, tenant_id: UUID, version_id: UUID) -> None:
        """Ring for every batch not known to be rung for. Raises QueueUnavailable when some could not be sent."""
        batches = await self.store.unsent_batches(tenant_id, version_id)
        if not batches:
            return
        bodies = [batch.model_dump_json() for batch in batches]
        failed = set(await self.embed_queue.send(bodies, group=str(tenant_id)))
        sent = [batch.first_ordinal for index, batch in enumerate(batches) if index not in failed]
        await self.store.mark_sent(tenant_id, version_id, sent)
        if failed:
            raise QueueUnavailable(f"{len(failed)} of {len(batches)} messages could not be sent.")

    async def _tell(self, tenant_id: UUID, deadline: Deadline) -> None:
        """A version or a document may just have ended."""
        if self.delivery is not None:
            await self.delivery.promptly([tenant_id], deadline)

    async def _begin(self, message: IngestVersion, deadline: Deadline) -> None:
        """Ingest a version at once or, when its tenant has its share of the workers, send it to the lane."""
        if self.lane is None:
            await self.ingest(message, deadline)
            return
        try:
            await self.ingest(message, deadline, share=self.lane.share)
        except LaneFull:
            if await self.lane.queue.send([message.model_dump_json()], group=str(message.tenant_id)):
                await self.ingest(message, deadline)  # the queue did not take it
            else:
                await self.store.mark_rung(message.tenant_id, [message.version_id])

    async def _ring(self, message: IngestVersion) -> None:
        """Another invocation shall go on. If the queue does not take it, the sweep rings."""
        if not await self.ingest_queue.send([message.model_dump_json()], group=str(message.tenant_id)):
            await self.store.mark_rung(message.tenant_id, [message.version_id])

    async def _ingest_claimed(self, lease: VersionLease, deadline: Deadline) -> bool:
        """False when there are more parts than this invocation has time for."""
        try:
            if lease.cursor is None:
                if not came_over_https(lease.object_key):
                    await self.observing.read_metadata(lease.tenant_id, lease.object_key)
                await self.store.refuse_over_cap(lease.tenant_id)  # before a file is read for nothing
            is_over = await self._ingest_parts(lease, deadline)
        except DocumentError as error:
            logger.info("document failed", extra={"version_id": str(lease.version_id), "code": error.code})
            await self.store.fail_version(lease, error)
            return True
        except RetryableError:
            await self.store.release_version(lease)
            raise
        if not is_over:
            await self.store.release_version(lease)
        return is_over

    async def _ingest_parts(self, lease: VersionLease, deadline: Deadline) -> bool:
        """One part after another, from where the lease found the file: each is stored, and its messages are sent,
        before the next is parsed. False when the time for another may not be left."""
        with scratch_folder() as folder:
            path = Path(folder, "document")
            digest = await _before(deadline, self._download(lease, path))
            cursor, longest_s = lease.cursor, 0.0
            while True:
                left_s = deadline.remaining_s()
                outcome = await _before(deadline, self._parse(lease, path, cursor))
                if not await self.store.save_chunks(lease, outcome, digest):
                    extra = {"version_id": str(lease.version_id), "attempt": lease.attempt}
                    logger.warning("lease was lost", extra=extra)
                    return True
                cursor = outcome.next
                if cursor is None:
                    return True
                await self.send_batches(lease.tenant_id, lease.version_id)
                longest_s = max(longest_s, left_s - deadline.remaining_s())
                if deadline.remaining_s() < MOST_LONGER * longest_s:
                    return False

    async def _download(self, lease: VersionLease, path: Path) -> bytes:
        """The file, and its SHA-256. Raises ObjectVanished when it is not the one whose parts are stored already: a
        bucket without versions shows what is there now; RetryableError when the disk is full."""
        if lease.size_bytes == 0:
            raise NoText
        if lease.size_bytes > self.max_document_bytes:
            raise DocumentTooLarge
        try:
            digest = await self.objects.download(lease.object_key, lease.s3_version_id, path, self.max_document_bytes)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise RetryableError("The function's disk is full.") from error
        if lease.cursor is not None and lease.content_sha256 != digest:
            raise ObjectVanished
        return digest

    async def _parse(self, lease: VersionLease, path: Path, cursor: ParseCursor | None) -> ParseOutcome:
        outcome = await self.parser.parse(path, lease.name, lease.content_type, cursor)
        chunks = outcome.first_ordinal + len(outcome.chunks)
        if chunks == 0 and outcome.next is None:
            raise NoText
        if chunks > self.max_chunks:
            raise TooManyChunks
        return outcome


async def _before(deadline: Deadline, work: Awaitable[T]) -> T:
    """Lambda kills without a signal: stop first, so that the lease can be given back. Raises RetryableError."""
    try:
        async with asyncio.timeout(deadline.remaining_s()):
            return await work
    except TimeoutError as error:
        raise RetryableError("The function's time was up.") from error
