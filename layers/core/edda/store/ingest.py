"""What the chunk function reads and writes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb
from psycopg.types.numeric import Int4

from edda.errors import DocumentError
from edda.identity import chunk_ids
from edda.leasing import LEASE_S, MAX_FAILURES
from edda.messages import EmbedBatch
from edda.models import Account, ParseCursor, ParseOutcome, Usage
from edda.store.database import Cursor, Database, fetch_all, fetch_one
from edda.store.finishing import finish_if_complete, hold_vectors
from edda.store.lexical import insert_terms, term_rows
from edda.store.queries import queries
from edda.store.usage import charge, refuse_over_cap, today

SQL = queries("pipeline")
BATCH_CHUNKS = 512  # chunks named by one message: some provider requests' worth, so that an event fills a worker


@dataclass(frozen=True, slots=True)
class VersionLease:
    """The right to parse one version until the lease ends. `attempt` fences writes of an earlier holder."""

    tenant_id: UUID
    version_id: UUID
    document_id: UUID
    attempt: int
    object_key: str
    s3_version_id: str
    name: str
    content_type: str | None
    size_bytes: int
    cursor: ParseCursor | None = None  # where parsing goes on; None: at the beginning
    content_sha256: bytes | None = None  # of the file whose parts are stored
    title: str | None = None  # that it was given


class LaneFull(Exception):
    """The tenant has its share of the workers."""


class IngestStore:
    """Hands out versions to parse and stores what was parsed."""

    def __init__(self, database: Database, model_id: int, *, batch_chunks: int = BATCH_CHUNKS) -> None:
        self._database = database
        self._model_id = model_id
        self._batch_chunks = batch_chunks

    async def claim_version(
        self, tenant_id: UUID, version_id: UUID, lease_s: float, *, share: int | None = None
    ) -> VersionLease | None:
        """Take the lease. None when there is nothing to do, or another worker is at it.

        Raises LaneFull, and takes nothing, when the tenant has `share` files in work already.
        """
        async with self._database.transaction(tenant_id) as cursor:
            values: dict[str, Any] = {
                "tenant_id": tenant_id,
                "version_id": version_id,
                "lease_s": lease_s,
                "max_failures": MAX_FAILURES,
            }
            if share is not None:
                await cursor.execute(SQL["lock_lane"], values)
            row = await fetch_one(cursor, SQL["claim_version"], values)
            if row is None:
                return None
            if share is not None:
                counted = await fetch_one(cursor, SQL["others_in_work"], values)
                if counted is not None and counted["others"] >= share:
                    raise LaneFull
            state = row["parse_state"]
            return VersionLease(
                tenant_id=tenant_id,
                version_id=version_id,
                document_id=row["document_id"],
                attempt=row["attempt"],
                object_key=row["object_key"],
                s3_version_id=row["s3_version_id"],
                name=row["name"],
                content_type=row["media_type"],
                size_bytes=row["size_bytes"],
                cursor=None if state is None else ParseCursor(row["parsed_chunks"], state),
                content_sha256=row["content_sha256"],
                title=row["title"],
            )

    async def renew_lease(self, lease: VersionLease, lease_s: float) -> None:
        """The work goes on: nobody else shall begin it. Without effect on a lease that was lost."""
        async with self._database.transaction(lease.tenant_id) as cursor:
            values = {"version_id": lease.version_id, "attempt": lease.attempt, "lease_s": lease_s}
            await cursor.execute(SQL["renew_version"], values)

    async def mark_rung(self, tenant_id: UUID, version_ids: Sequence[UUID]) -> None:
        """A message was sent for each of these versions: the sweep need not send another for a while."""
        async with self._database.transaction(tenant_id) as cursor:
            await cursor.execute(SQL["versions_are_rung"], {"version_ids": list(version_ids)})

    async def save_chunks(self, lease: VersionLease, outcome: ParseOutcome, content_sha256: bytes) -> bool:
        """Store every chunk of a part and plan its embedding, in one transaction. False when the lease was lost.

        With it goes how far parsing has got; after the last part the version is no longer parsed but embedded.
        Raises QuotaExceeded, and stores nothing, when what has yet to be embedded is more than the tenant's caps allow.
        """
        terms = await term_rows(lease.tenant_id, outcome.chunks, lease.title or outcome.title)
        async with self._database.transaction(lease.tenant_id) as cursor:
            await hold_vectors(cursor, lease.tenant_id)
            fence = {"version_id": lease.version_id, "attempt": lease.attempt}
            # The document before its version, as everywhere, so that two workers never wait for each other.
            await cursor.execute(SQL["lock_document"], {"document_id": lease.document_id})
            if await fetch_one(cursor, SQL["fence_version"], fence) is None:
                return False
            await _insert_chunks(cursor, lease, outcome)
            await insert_terms(cursor, lease.tenant_id, lease.version_id, terms)
            tokens = await plan_batches(
                cursor,
                lease.tenant_id,
                lease.version_id,
                self._model_id,
                first_ordinal=outcome.first_ordinal,
                batch_chunks=self._batch_chunks,
            )
            values = {
                "version_id": lease.version_id,
                "parsed_chunks": outcome.first_ordinal + len(outcome.chunks),
                "parse_state": Jsonb(outcome.next.state) if outcome.next else None,
                "media_type": outcome.media_type,
                "language": outcome.language,
                "title": outcome.title,
                "characters": outcome.characters,
                "content_sha256": content_sha256,
            }
            usage = Usage(chunks=len(outcome.chunks), tokens_planned=tokens)
            if outcome.next is not None:
                await cursor.execute(SQL["part_is_chunked"], values | {"lease_s": LEASE_S})
            else:
                await cursor.execute(SQL["version_is_chunked"], values)
                # Everything may be embedded already: the same text was seen before, or this part came late.
                await finish_if_complete(cursor, lease.version_id, self._model_id)
                usage.bytes = lease.size_bytes
            account = Account(lease.document_id, await today(cursor))
            await charge(cursor, lease.tenant_id, self._model_id, {account: usage})
            if tokens:
                await refuse_over_cap(cursor, lease.tenant_id)
            return True

    async def refuse_over_cap(self, tenant_id: UUID) -> None:
        """Raises QuotaExceeded when one of the tenant's usage caps is used up."""
        async with self._database.transaction(tenant_id) as cursor:
            await refuse_over_cap(cursor, tenant_id, used_up=True)

    async def unsent_batches(self, tenant_id: UUID, version_id: UUID) -> list[EmbedBatch]:
        """Messages not yet known to be sent."""
        async with self._database.transaction(tenant_id) as cursor:
            rows = await fetch_all(cursor, SQL["unsent_batches"], {"version_id": version_id})
            return [EmbedBatch(tenant_id=tenant_id, **row) for row in rows]

    async def mark_sent(self, tenant_id: UUID, version_id: UUID, first_ordinals: Sequence[int]) -> None:
        """These messages are known to be sent."""
        async with self._database.transaction(tenant_id) as cursor:
            values = {"version_id": version_id, "first_ordinals": list(first_ordinals)}
            await cursor.execute(SQL["batches_are_sent"], values)

    async def fail_version(self, lease: VersionLease, error: DocumentError) -> None:
        """Record a permanent failure; an earlier version, if there is one, goes on answering."""
        async with self._database.transaction(lease.tenant_id) as cursor:
            values = {
                "version_id": lease.version_id,
                "attempt": lease.attempt,
                "code": error.code,
                "message": error.message,
            }
            await cursor.execute(SQL["lock_document"], {"document_id": lease.document_id})
            await cursor.execute(SQL["fail_version"], values)

    async def release_version(self, lease: VersionLease) -> None:
        """Give the lease back: the work could not be done now."""
        async with self._database.transaction(lease.tenant_id) as cursor:
            await cursor.execute(SQL["release_version"], {"version_id": lease.version_id, "attempt": lease.attempt})


async def _insert_chunks(cursor: Cursor, lease: VersionLease, outcome: ParseOutcome) -> None:
    hashes = [chunk.content_hash for chunk in outcome.chunks]
    before: dict[UUID, int] = {}
    if outcome.first_ordinal:
        values = {"tenant_id": lease.tenant_id, "version_id": lease.version_id, "content_hashes": list(set(hashes))}
        before = {row["content_hash"]: row["times"] for row in await fetch_all(cursor, SQL["occurrences"], values)}
    ids = chunk_ids(lease.tenant_id, hashes, before)
    rows = (
        (
            lease.tenant_id,
            lease.version_id,
            Int4(chunk.ordinal),
            chunk_id,
            chunk.content_hash,
            chunk.text,
            Int4(chunk.tokens),
            Int4(chunk.char_start),
            Int4(chunk.char_end),
            None if chunk.page is None else Int4(chunk.page),
            list(chunk.heading_path),
            chunk.language,
        )
        for chunk_id, chunk in zip(ids, outcome.chunks, strict=True)
    )
    await cursor.executemany(SQL["insert_chunk"], rows)


async def plan_batches(
    cursor: Cursor,
    tenant_id: UUID,
    version_id: UUID,
    model_id: int,
    *,
    first_ordinal: int = 0,
    batch_chunks: int = BATCH_CHUNKS,
) -> int:
    """One batch row per message, covering every chunk from an ordinal on whose text has no vector yet. The tokens of
    these texts."""
    values: dict[str, Any] = {"version_id": version_id, "model_id": model_id, "first_ordinal": first_ordinal}
    missing = await fetch_all(cursor, SQL["missing_ordinals"], values)
    ranges = list(ordinal_ranges(sorted(row["ordinal"] for row in missing), batch_chunks))
    values = {
        "tenant_id": tenant_id,
        "version_id": version_id,
        "first_ordinals": [first for first, _ in ranges],
        "last_ordinals": [last for _, last in ranges],
    }
    await cursor.execute(SQL["insert_batches"], values)
    return sum(row["tokens"] for row in missing)


def ordinal_ranges(ordinals: Sequence[int], size: int = BATCH_CHUNKS) -> Iterable[tuple[int, int]]:
    """First and last of every run of at most `size` of the given ordinals (sorted)."""
    cuts = [*range(0, len(ordinals), size), len(ordinals)]
    return ((ordinals[start], ordinals[end - 1]) for start, end in pairwise(cuts))
