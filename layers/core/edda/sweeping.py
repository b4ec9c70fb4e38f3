"""Whatever was lost, stuck, superseded or orphaned is found and driven to an end.

A round looks at every tenant's rows, then walks through the bucket: page by page, each tenant in turn, and where the
time is up the next round goes on. Nothing that happens to one tenant ends the round of the others.
"""

import asyncio
import logging
import random
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import UUID

from edda.concurrency import Deadline, bounded
from edda.delivering import Delivery
from edda.errors import EddaError
from edda.messages import IngestVersion, Message
from edda.models import ListedObject, Tenant
from edda.observing import UNVERSIONED, Observing
from edda.ports import ObjectStore, Queue
from edda.s3_events import METADATA_SUFFIX, came_over_https, document_key_of
from edda.store.bucket import BucketStore, KnownObject, Outcome
from edda.store.ingest import IngestStore
from edda.store.keys import KeyStore
from edda.store.sweep import Patience, SweepStore

logger = logging.getLogger(__name__)


class AttemptsExhausted(EddaError):
    """The work was begun again and again and never came to an end."""

    code = "attempts_exhausted"
    default_message = "Processing was tried several times and never came to an end; an operator should look."


def utc_now() -> datetime:
    return datetime.now(UTC)


DELIVER_S = 20.0  # of a sweep's 52: slow receivers must not keep lost work from being found
TURN_S = 10.0  # the longest that one tenant may hold up the others
MARGIN_S = 1.0  # enough to write down how far a walk went
ROWS_SHARE = 0.6  # of the round's time is for rows; what is left of it is for the bucket
TERMS_SHARE = 0.5  # of what is left then is for terms that are made anew
PAGE = 1000  # objects of one listing: S3's most
GROUP = 32  # differing objects between two looks at the clock
CONCURRENT_LOOKS = 8  # at S3; what is written takes turns on the one connection
DELETES = 100  # of objects, in one turn

OUTCOMES = {
    Outcome.TAKEN_IN: "objects_taken_in",
    Outcome.DELETED: "documents_deleted",
    Outcome.HELD: "deletes_held",
    Outcome.UNWANTED: "objects_deleted",
}


@dataclass(frozen=True, slots=True)
class Sweep:
    """The verb of the sweep function."""

    store: SweepStore
    ingest_store: IngestStore
    bucket: BucketStore
    keys: KeyStore
    observing: Observing
    objects: ObjectStore
    ingest_queue: Queue
    embed_queue: Queue
    patience: Patience = field(default_factory=Patience)
    delivery: Delivery | None = None
    now: Callable[[], datetime] = utc_now
    shuffle: Callable[[list[Tenant]], None] = random.shuffle

    async def sweep(self, deadline: Deadline) -> dict[str, int]:
        """One round over all tenants. What was done, by kind. Running twice at once does no harm.

        Tenants come in another order each time, so that a round which ends early is not always at the same one's cost.
        """
        done: Counter[str] = Counter()
        if self.delivery is not None:
            done.update(await self.delivery.deliver_all(deadline.sooner(DELIVER_S)))
        tenants = await self.keys.all_tenants()
        self.shuffle(tenants)
        for_rows = deadline.sooner(deadline.remaining_s() * ROWS_SHARE)
        for tenant in tenants:
            if for_rows.expired:
                done["tenants_left"] += 1
            else:
                await self._turn(tenant, partial(self._sweep_rows, tenant, done), for_rows, done)
        for_terms = deadline.sooner(deadline.remaining_s() * TERMS_SHARE)
        for tenant in tenants:
            if not for_terms.expired:
                await self._turn(tenant, partial(self._make_terms, tenant, done), for_terms, done)
        walking = deque(tenants)
        while walking and deadline.remaining_s() > MARGIN_S:
            tenant = walking.popleft()
            if await self._turn(tenant, partial(self._walk, tenant, done), deadline, done):
                walking.append(tenant)
        return dict(done)

    async def _turn(
        self, tenant: Tenant, work: Callable[[Deadline], Awaitable[bool]], deadline: Deadline, done: Counter[str]
    ) -> bool:
        """One tenant's turn: is there more to do? An error, or too much of it, is that tenant's alone."""
        turn = deadline.sooner(TURN_S)
        try:
            async with asyncio.timeout(turn.remaining_s()):
                return await work(turn)
        except TimeoutError:
            logger.warning("sweeping a tenant took too long", extra={"tenant": tenant.slug})
            done["tenants_left"] += 1
        except Exception:
            logger.exception("sweeping a tenant failed", extra={"tenant": tenant.slug})
            done["tenants_failed"] += 1
        return False

    async def _sweep_rows(self, tenant: Tenant, done: Counter[str], turn: Deadline) -> bool:
        done["versions_finished"] += await self.store.finish_versions(tenant.tenant_id, self.patience.grace_s)
        await self._ring_for_versions(tenant, done)
        await self._ring_for_batches(tenant, done)
        await self._delete_objects(tenant, done)
        done["deletes_waiting"] += await self.bucket.count_held(tenant.tenant_id)
        for version_id in await self.store.superseded_versions(tenant.tenant_id):
            if turn.expired:
                break
            done["versions_dropped"] += await self.store.drop_version(tenant.tenant_id, version_id)
        done["rows_forgotten"] += await self.store.forget(tenant.tenant_id, self.patience)
        return False

    async def _make_terms(self, tenant: Tenant, done: Counter[str], turn: Deadline) -> bool:
        """Of documents with a new title, and of what an earlier release stored."""
        until = turn.sooner(turn.remaining_s() - MARGIN_S)
        for version_id in await self.store.versions_without_terms(tenant.tenant_id):
            while not until.expired and (made := await self.store.make_terms_anew(tenant.tenant_id, version_id)):
                done["terms_made"] += made
        return False

    async def _delete_objects(self, tenant: Tenant, done: Counter[str]) -> None:
        """Of documents that were deleted over HTTPS, when that request could not delete the object as well."""
        grace_s = self.patience.grace_s
        for document_id, key in await self.bucket.objects_to_delete(tenant.tenant_id, grace_s, DELETES):
            await self.objects.delete(key)
            if not came_over_https(key):
                await self.objects.delete(key + METADATA_SUFFIX)
            await self.bucket.object_is_deleted(tenant.tenant_id, document_id)
            done["objects_deleted"] += 1

    async def _walk(self, tenant: Tenant, done: Counter[str], turn: Deadline) -> bool:
        """Compare one page of the tenant's folder with its documents: lost events show as differences."""
        tenant_id = tenant.tenant_id
        walk = await self.bucket.walk(tenant_id, self.patience.walk_s)
        if walk is None:
            return False
        listing = await self.objects.page(f"{tenant.slug}/", walk.after_key, PAGE)
        documents = await self.bucket.known_objects(tenant_id, walk.after_key, listing.until, PAGE)
        until = documents[-1].object_key if len(documents) == PAGE else listing.until
        listed = {one.key: one for one in listing.objects if until is None or one.key <= until}
        known = {one.object_key: one for one in documents}
        keys = sorted(listed.keys() | known.keys())
        differing = [key for key in keys if self._differ(key, listed.get(key), known.get(key))]
        taken_in: list[UUID] = []
        for start in range(0, len(differing), GROUP):
            group = differing[start : start + GROUP]
            jobs = [partial(self._reconcile, tenant_id, key, taken_in, done) for key in group]
            outcomes = await bounded(CONCURRENT_LOOKS, jobs, turn.sooner(turn.remaining_s() - MARGIN_S))
            for outcome in outcomes:
                if isinstance(outcome, Exception) and not isinstance(outcome, TimeoutError):
                    raise outcome
            if any(isinstance(outcome, TimeoutError) for outcome in outcomes):
                until = differing[start - 1] if start else walk.after_key  # and from there the next turn
                break
        await self._ring(tenant_id, taken_in)
        compared = [one for one in listed.values() if until is None or one.key <= until]
        await self._compare_metadata(tenant_id, compared, done)
        return until != walk.after_key and await self.bucket.advance(tenant_id, walk, until) is not None

    def _differ(self, key: str, listed: ListedObject | None, known: KnownObject | None) -> bool:
        """Does the bucket show what the database does not know?"""
        if listed is not None and self._is_young(listed):
            return False
        if listed is None or listed.removed:
            return known is not None and not known.deleted and known.hold is None and known.s3_version_id is not None
        if key.endswith("/") or document_key_of(key) != key:
            return False
        return known is None or known.deleted or known.hold is not None or known.s3_version_id != listed.version_id

    async def _compare_metadata(self, tenant_id: UUID, listed: Sequence[ListedObject], done: Counter[str]) -> None:
        """Metadata files whose events were lost are read now."""
        files = {document_key_of(one.key): one for one in listed if document_key_of(one.key) != one.key}
        if not files:
            return
        for document_key, read in (await self.bucket.metadata_versions(tenant_id, list(files))).items():
            file = files[document_key]
            there = "" if file.removed else file.version_id or UNVERSIONED
            if there != read and not self._is_young(file):
                await self.observing.read_metadata(tenant_id, document_key)
                done["metadata_read"] += 1

    def _is_young(self, listed: ListedObject) -> bool:
        """Its event may still be on its way."""
        return listed.last_modified > self.now() - timedelta(seconds=self.patience.event_s)

    async def _reconcile(self, tenant_id: UUID, key: str, taken_in: list[UUID], done: Counter[str]) -> None:
        """One object's trouble is not its neighbours': the next walk comes by again."""
        try:
            noted = await self.observing.observe(tenant_id, key)
            if noted.outcome is Outcome.UNWANTED:
                await self.objects.delete(key)
        except EddaError as error:
            logger.warning("object could not be compared", extra={"object_key": key, "code": error.code})
            done["objects_failed"] += 1
            return
        if noted.outcome is Outcome.TAKEN_IN and noted.version_id is not None:
            taken_in.append(noted.version_id)
        if kind := OUTCOMES.get(noted.outcome):
            done[kind] += 1

    async def _ring(self, tenant_id: UUID, version_ids: Sequence[UUID]) -> int:
        """Ring for these versions: how many the queue took. The others are rung for by a later round."""
        messages = [IngestVersion(tenant_id=tenant_id, version_id=version_id) for version_id in version_ids]
        failed = set(await _send(self.ingest_queue, messages, tenant_id))
        sent = [message.version_id for index, message in enumerate(messages) if index not in failed]
        if sent:
            await self.ingest_store.mark_rung(tenant_id, sent)
        return len(sent)

    async def _ring_for_versions(self, tenant: Tenant, done: Counter[str]) -> None:
        to_ring = []
        for version_id, exhausted in await self.store.stuck_versions(tenant.tenant_id, self.patience):
            if not exhausted:
                to_ring.append(version_id)
            else:
                done["given_up"] += await self.store.give_up(tenant.tenant_id, version_id, AttemptsExhausted())
        done["versions_rung"] += await self._ring(tenant.tenant_id, to_ring)

    async def _ring_for_batches(self, tenant: Tenant, done: Counter[str]) -> None:
        batches = []
        for batch, exhausted in await self.store.stuck_batches(tenant.tenant_id, self.patience):
            if not exhausted:
                batches.append(batch)
            else:
                done["given_up"] += await self.store.give_up(tenant.tenant_id, batch.version_id, AttemptsExhausted())
        failed = set(await _send(self.embed_queue, batches, tenant.tenant_id))
        for index, batch in enumerate(batches):
            if index not in failed:
                await self.ingest_store.mark_sent(tenant.tenant_id, batch.version_id, [batch.first_ordinal])
        done["batches_rung"] += len(batches) - len(failed)


async def _send(queue: Queue, messages: Sequence[Message], tenant_id: UUID) -> list[int]:
    bodies = [message.model_dump_json() for message in messages]
    return await queue.send(bodies, group=str(tenant_id)) if bodies else []
