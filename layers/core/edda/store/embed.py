"""What the embed function reads and writes."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from edda.errors import EmbeddingRejected
from edda.leasing import MAX_FAILURES
from edda.messages import EmbedBatch
from edda.models import Account, DocumentStatus, Usage
from edda.store.database import Database, HalfVector, fetch_all, fetch_one
from edda.store.finishing import finish_if_complete, hold_vectors
from edda.store.queries import queries
from edda.store.usage import Charges, charge

SQL = queries("pipeline")
NO_CHARGES: Charges = {}


@dataclass(frozen=True, slots=True)
class TextToEmbed:
    """A text without a vector, and its identity."""

    content_hash: UUID
    text: str
    tokens: int


@dataclass(frozen=True, slots=True)
class BatchLease:
    """The right to embed one batch until the lease ends. `awaited`: texts that another batch's worker embeds now."""

    batch: EmbedBatch
    attempt: int
    texts: tuple[TextToEmbed, ...]
    account: Account
    awaited: frozenset[UUID] = frozenset()

    @property
    def name(self) -> tuple[UUID, int]:
        return self.batch.version_id, self.batch.first_ordinal


class EmbedStore:
    """Hands out batches of texts and stores their vectors."""

    def __init__(self, database: Database, model_id: int) -> None:
        self._database = database
        self._model_id = model_id

    async def claim_batch(self, batch: EmbedBatch, lease_s: float) -> BatchLease | None:
        """Take the lease, read what is missing and reserve its tokens in the ledger.

        None: it is done, its version is gone, or another worker has it.
        """
        async with self._database.transaction(batch.tenant_id) as cursor:
            values = {
                "tenant_id": batch.tenant_id,
                "version_id": batch.version_id,
                "first_ordinal": batch.first_ordinal,
                "lease_s": lease_s,
                "max_failures": MAX_FAILURES,
                "model_id": self._model_id,
            }
            await cursor.execute(SQL["lock_claims"], values)
            claimed = await fetch_one(cursor, SQL["claim_batch"], values)
            if claimed is None:
                return None
            rows = await fetch_all(cursor, SQL["texts_to_embed"], values | {"last_ordinal": claimed["last_ordinal"]})
            awaited = frozenset(row["content_hash"] for row in rows if row["held"])
            texts = tuple(
                TextToEmbed(row["content_hash"], row["text"], row["tokens"]) for row in rows if not row["held"]
            )
            values["content_hashes"] = [text.content_hash for text in texts]
            lease = await fetch_one(cursor, SQL["lease_batch"], values)
            assert lease is not None  # noqa: S101 - the row is locked
            account = Account(claimed["document_id"], claimed["day"])
            reserved = Usage(tokens_unsettled=sum(text.tokens for text in texts))
            await charge(cursor, batch.tenant_id, self._model_id, {account: reserved})
            return BatchLease(batch, lease["attempt"], texts, account, awaited)

    async def without_vector(self, tenant_id: UUID, content_hashes: Collection[UUID]) -> set[UUID]:
        """Which of these texts have no vector yet."""
        async with self._database.transaction(tenant_id) as cursor:
            values = {"tenant_id": tenant_id, "model_id": self._model_id, "content_hashes": list(content_hashes)}
            rows = await fetch_all(cursor, SQL["texts_without_vector"], values)
            return {row["content_hash"] for row in rows}

    async def renew_leases(self, leases: Sequence[BatchLease], lease_s: float) -> None:
        """The work on one tenant's batches goes on. Without effect on leases that were lost."""
        async with self._database.transaction(leases[0].batch.tenant_id) as cursor:
            values = {
                "version_ids": [lease.batch.version_id for lease in leases],
                "first_ordinals": [lease.batch.first_ordinal for lease in leases],
                "attempts": [lease.attempt for lease in leases],
                "lease_s": lease_s,
            }
            await cursor.execute(SQL["renew_batches"], values)

    async def save_vectors(
        self, tenant_id: UUID, vectors: Mapping[UUID, HalfVector], charges: Charges = NO_CHARGES
    ) -> None:
        """Store vectors by content hash. Those that are there already stay as they are.

        The vector of a text that was deleted while the provider worked is not stored: nobody would ever delete it.
        """
        async with self._database.transaction(tenant_id) as cursor:
            await hold_vectors(cursor, tenant_id)
            hashes = sorted(vectors)
            values = {
                "tenant_id": tenant_id,
                "model_id": self._model_id,
                "content_hashes": hashes,
                "vectors": [vectors[content_hash] for content_hash in hashes],
            }
            await cursor.execute(SQL["insert_embeddings"], values)
            await charge(cursor, tenant_id, self._model_id, charges)

    async def finish_batch(
        self, lease: BatchLease, rejected: Mapping[UUID, EmbeddingRejected], charges: Charges = NO_CHARGES
    ) -> DocumentStatus | None:
        """The batch is done; so is its version, if this was the last. The version's final status, or None.

        What it cost is written even where the lease was lost: that was paid as well.
        """
        batch = lease.batch
        async with self._database.transaction(batch.tenant_id) as cursor:
            await hold_vectors(cursor, batch.tenant_id)
            values = {
                "version_id": batch.version_id,
                "first_ordinal": batch.first_ordinal,
                "attempt": lease.attempt,
                "code": EmbeddingRejected.code,
                "content_hashes": list(rejected),
                "messages": [error.message for error in rejected.values()],
            }
            status = None
            if await fetch_one(cursor, SQL["batch_is_done"], values) is not None:
                if rejected:
                    await cursor.execute(SQL["reject_chunks"], values)
                status = await finish_if_complete(cursor, batch.version_id, self._model_id)
            await charge(cursor, batch.tenant_id, self._model_id, charges)
            return status

    async def release_batches(self, leases: Sequence[BatchLease], charges: Charges = NO_CHARGES) -> None:
        """Give one tenant's leases back: these batches could not be done now. What they cost goes with the first."""
        for position, lease in enumerate(leases):
            async with self._database.transaction(lease.batch.tenant_id) as cursor:
                values = {
                    "version_id": lease.batch.version_id,
                    "first_ordinal": lease.batch.first_ordinal,
                    "attempt": lease.attempt,
                }
                await cursor.execute(SQL["release_batch"], values)
                await charge(cursor, lease.batch.tenant_id, self._model_id, NO_CHARGES if position else charges)
