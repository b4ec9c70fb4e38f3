"""What the embed function reads and writes: for all messages of one event, a transaction a tenant."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple
from uuid import UUID

from edda.errors import EmbeddingRejected
from edda.leasing import MAX_FAILURES
from edda.messages import EmbedBatch
from edda.models import Account, DocumentStatus, Usage
from edda.store.database import Cursor, Database, FloatVectors, Uuids, fetch_all
from edda.store.finishing import finish_if_complete, hold_vectors
from edda.store.queries import queries
from edda.store.usage import Charges, charge

SQL = queries("pipeline")
NO_CHARGES: Charges = {}
VECTORS_A_STATEMENT = 1024  # 6 MB at 1,536 dimensions: more would be memory, not speed

ContentHash = bytes  # 16 bytes, as Postgres sorts them


class TextToEmbed(NamedTuple):
    """A text without a vector, and its identity."""

    content_hash: ContentHash
    text: str
    tokens: int


@dataclass(frozen=True, slots=True)
class BatchLease:
    """The right to embed one batch until the lease ends. `awaited`: texts that others embed now, or another of these
    batches."""

    batch: EmbedBatch
    attempt: int
    texts: Sequence[TextToEmbed]
    account: Account
    awaited: frozenset[ContentHash] = frozenset()

    @property
    def name(self) -> tuple[UUID, int]:
        return self.batch.version_id, self.batch.first_ordinal


@dataclass(frozen=True, slots=True)
class Settled:
    """A batch whose every text has a vector or was refused: these were."""

    lease: BatchLease
    rejected: Mapping[ContentHash, EmbeddingRejected] = field(default_factory=dict)


class EmbedStore:
    """Hands out batches of texts and stores their vectors."""

    def __init__(self, database: Database, model_id: int) -> None:
        self._database = database
        self._model_id = model_id

    async def claim_batches(
        self, tenant_id: UUID, batches: Sequence[EmbedBatch], lease_s: float
    ) -> list[BatchLease | None]:
        """Take the leases, read what is missing and reserve its tokens in the ledger. In the order of the batches.

        None: it is done, its version is gone, another worker has it, or it is here twice.
        """
        async with self._database.transaction(tenant_id) as cursor:
            await cursor.execute(SQL["lock_claims"], {"tenant_id": tenant_id})
            values: dict[str, Any] = {
                "version_ids": [batch.version_id for batch in batches],
                "first_ordinals": [batch.first_ordinal for batch in batches],
                "max_failures": MAX_FAILURES,
            }
            claimed = await fetch_all(cursor, SQL["claim_batches"], values)
            texts, awaited = await self._texts_to_embed(cursor, tenant_id, claimed)
            leases = [
                {
                    "version_id": row["version_id"],
                    "first_ordinal": row["first_ordinal"],
                    "lease_s": lease_s,
                    "content_hashes": Uuids(text.content_hash for text in mine),
                }
                for row, mine in zip(claimed, texts, strict=True)
            ]
            await cursor.executemany(SQL["lease_batch"], leases)
            taken: list[BatchLease | None] = [None] * len(batches)
            charges: dict[Account, Usage] = {}
            for row, mine, others in zip(claimed, texts, awaited, strict=True):
                account = Account(row["document_id"], row["day"])
                reserved = charges.setdefault(account, Usage())
                reserved.tokens_unsettled += sum(text.tokens for text in mine)
                position = row["position"]
                taken[position] = BatchLease(batches[position], row["attempt"], mine, account, frozenset(others))
            await charge(cursor, tenant_id, self._model_id, charges)
            return taken

    async def _texts_to_embed(
        self, cursor: Cursor, tenant_id: UUID, claimed: Sequence[Mapping[str, Any]]
    ) -> tuple[list[list[TextToEmbed]], list[set[ContentHash]]]:
        """For each batch its texts without a vector, and those of them that somebody else embeds. No text twice."""
        values: dict[str, Any] = {
            "tenant_id": tenant_id,
            "model_id": self._model_id,
            "version_ids": [row["version_id"] for row in claimed],
            "first_ordinals": [row["first_ordinal"] for row in claimed],
            "last_ordinals": [row["last_ordinal"] for row in claimed],
        }
        await cursor.execute(SQL["texts_to_embed"], values, binary=True)
        texts: list[list[TextToEmbed]] = [[] for _ in claimed]
        awaited: list[set[ContentHash]] = [set() for _ in claimed]
        owners: dict[ContentHash, int] = {}
        for row in await cursor.fetchall():
            content_hash, batch = row["content_hash"], row["batch"]
            if row["held"]:
                awaited[batch].add(content_hash)
                continue
            if content_hash not in owners:
                owners[content_hash] = batch
                texts[batch].append(TextToEmbed(content_hash, row["text"], row["tokens"]))
            elif owners[content_hash] != batch:
                awaited[batch].add(content_hash)
        return texts, awaited

    async def without_vector(self, tenant_id: UUID, content_hashes: Collection[ContentHash]) -> set[ContentHash]:
        """Which of these texts have no vector yet."""
        async with self._database.transaction(tenant_id) as cursor:
            values = {"tenant_id": tenant_id, "model_id": self._model_id, "content_hashes": Uuids(content_hashes)}
            rows = await fetch_all(cursor, SQL["texts_without_vector"], values)
            return {row["content_hash"] for row in rows}

    async def renew_leases(self, leases: Sequence[BatchLease], lease_s: float) -> None:
        """The work on one tenant's batches goes on. Without effect on leases that were lost."""
        async with self._database.transaction(leases[0].batch.tenant_id) as cursor:
            await cursor.execute(SQL["renew_batches"], _fences(leases) | {"lease_s": lease_s})

    async def save(
        self,
        tenant_id: UUID,
        vectors: Mapping[ContentHash, bytes],
        settled: Sequence[Settled] = (),
        charges: Charges = NO_CHARGES,
    ) -> dict[UUID, DocumentStatus]:
        """Store vectors (float32) by content hash, end batches, and with the last of a version the version: the final
        status of each that ended.

        Vectors that are there already stay as they are. The vector of a text that was deleted while the provider worked
        is not stored: nobody would ever delete it. What was paid is written even where a lease was lost.
        """
        async with self._database.transaction(tenant_id) as cursor:
            await hold_vectors(cursor, tenant_id)
            await self._insert(cursor, tenant_id, vectors)
            ended = await self._end(cursor, settled) if settled else {}
            await charge(cursor, tenant_id, self._model_id, charges)
            return ended

    async def _insert(self, cursor: Cursor, tenant_id: UUID, vectors: Mapping[ContentHash, bytes]) -> None:
        hashes = iter(sorted(vectors))
        while some := list(islice(hashes, VECTORS_A_STATEMENT)):
            values = {
                "tenant_id": tenant_id,
                "model_id": self._model_id,
                "content_hashes": Uuids(some),
                "vectors": FloatVectors(vectors[content_hash] for content_hash in some),
            }
            await cursor.execute(SQL["insert_embeddings"], values)

    async def _end(self, cursor: Cursor, settled: Sequence[Settled]) -> dict[UUID, DocumentStatus]:
        rows = await fetch_all(cursor, SQL["batches_are_done"], _fences([each.lease for each in settled]))
        done = {(row["version_id"], row["first_ordinal"]) for row in rows}
        mine = [each for each in settled if each.lease.name in done]
        # In the order of their documents, so that workers that end several never wait in a circle; before chunks are
        # marked, for the next part of a file may have a refused text too.
        versions = sorted({(each.lease.account.document_id, each.lease.batch.version_id) for each in mine})
        for document_id, _ in versions:
            await cursor.execute(SQL["lock_document"], {"document_id": document_id})
        for each in mine:
            if each.rejected:
                rejections = {
                    "version_id": each.lease.batch.version_id,
                    "code": EmbeddingRejected.code,
                    "content_hashes": Uuids(each.rejected),
                    "messages": [error.message for error in each.rejected.values()],
                }
                await cursor.execute(SQL["reject_chunks"], rejections)
        ended: dict[UUID, DocumentStatus] = {}
        for _, version_id in versions:
            status = await finish_if_complete(cursor, version_id, self._model_id)
            if status is not None:
                ended[version_id] = status
        return ended

    async def release_batches(
        self, tenant_id: UUID, leases: Sequence[BatchLease], charges: Charges = NO_CHARGES
    ) -> None:
        """Give one tenant's leases back: these batches could not be done now. What they cost is written."""
        async with self._database.transaction(tenant_id) as cursor:
            await cursor.execute(SQL["release_batches"], _fences(leases))
            await charge(cursor, tenant_id, self._model_id, charges)


def _fences(leases: Sequence[BatchLease]) -> dict[str, Any]:
    """In one order everywhere: these rows are locked."""
    ordered = sorted(leases, key=lambda lease: lease.name)
    return {
        "version_ids": [lease.batch.version_id for lease in ordered],
        "first_ordinals": [lease.batch.first_ordinal for lease in ordered],
        "attempts": [lease.attempt for lease in ordered],
    }
