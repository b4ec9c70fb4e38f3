"""From messages on the embed queue to vectors in the database: many messages share provider requests."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from uuid import UUID

from edda.batching import RetryPolicy, embed_all
from edda.concurrency import Deadline
from edda.delivering import Delivery
from edda.errors import DatabaseUnavailable, EddaError, EmbeddingRejected, RetryableError
from edda.leasing import LEASE_S, renewed
from edda.messages import EmbedBatch
from edda.metering import Meter
from edda.ports import Embedder
from edda.store.database import HalfVector
from edda.store.embed import BatchLease, EmbedStore, TextToEmbed
from edda.vectors import to_halfvec_binary

logger = logging.getLogger(__name__)

# How often it is looked whether another worker has stored a text.
OTHERS_PAUSE_S = 0.5


@dataclass(slots=True)
class _Work:
    """One tenant's leased batches, and what has become of their texts so far. Equal texts are embedded once."""

    leases: list[BatchLease] = field(default_factory=list)
    rejected: dict[UUID, EmbeddingRejected] = field(default_factory=dict)
    stored: set[UUID] = field(default_factory=set)
    ended_a_version: bool = False

    def texts(self) -> list[TextToEmbed]:
        return list({text.content_hash: text for lease in self.leases for text in lease.texts}.values())

    def is_settled(self, lease: BatchLease) -> bool:
        settled = self.stored | self.rejected.keys()
        return settled >= lease.awaited and all(text.content_hash in settled for text in lease.texts)

    def awaited(self) -> set[UUID]:
        """What others embed, and not another batch of this worker's."""
        awaited = {content_hash for lease in self.leases for content_hash in lease.awaited}
        return awaited - self.stored - {text.content_hash for text in self.texts()}


@dataclass(frozen=True, slots=True)
class Embedding:
    """The verb of the embed function."""

    store: EmbedStore
    embedder: Embedder
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    delivery: Delivery | None = None  # without it, events wait for the sweep
    others_s: float = 5.0  # how long a text that another worker embeds is waited for

    async def embed_batches(self, batches: Sequence[EmbedBatch], deadline: Deadline) -> dict[int, EddaError]:
        """Embed what these messages name. For each position that must be delivered again, the reason.

        One message's failure does nothing to the others. Done batches, vanished versions and batches another worker
        holds need no second delivery: the database knows of them, and the sweep rings again if it must.
        """
        work: dict[UUID, _Work] = {}
        async with renewed(partial(self._renew, work)):
            failures = await self._embed_batches(batches, work, deadline)
        if self.delivery is not None:
            await self.delivery.promptly([tenant for tenant, done in work.items() if done.ended_a_version], deadline)
        return failures

    async def _renew(self, work: Mapping[UUID, _Work]) -> None:
        for tenant_work in list(work.values()):
            await self.store.renew_leases(list(tenant_work.leases), LEASE_S)

    async def _embed_batches(
        self, batches: Sequence[EmbedBatch], work: dict[UUID, _Work], deadline: Deadline
    ) -> dict[int, EddaError]:
        failures: dict[int, EddaError] = {}
        positions: dict[tuple[UUID, int], int] = {}
        for position, batch in enumerate(batches):
            try:
                lease = await self.store.claim_batch(batch, LEASE_S)
            except RetryableError as error:
                failures[position] = error
                continue
            if lease is not None:
                work.setdefault(batch.tenant_id, _Work()).leases.append(lease)
                positions[batch.version_id, batch.first_ordinal] = position
        # Who has little is not kept waiting by who has much.
        for tenant_id, tenant_work in sorted(work.items(), key=lambda item: len(item[1].texts())):
            for lease, problem in await self._embed_tenant(tenant_id, tenant_work, deadline):
                failures[positions[lease.batch.version_id, lease.batch.first_ordinal]] = problem
        return failures

    async def _embed_tenant(
        self, tenant_id: UUID, work: _Work, deadline: Deadline
    ) -> list[tuple[BatchLease, EddaError]]:
        """Embed one tenant's texts, write each provider batch as it comes, then finish what is whole."""
        problem: EddaError = RetryableError("The work was not done in time.")
        meter = Meter(self.embedder, work.leases)
        try:
            problem = await self._embed_texts(tenant_id, work, meter, deadline) or problem
            await self._await_others(tenant_id, work, deadline)
        except EddaError as error:
            problem = error
        unfinished = []
        for lease in work.leases:
            try:
                if not work.is_settled(lease):
                    raise problem
                texts = lease.awaited | {text.content_hash for text in lease.texts}
                rejected = {one: error for one, error in work.rejected.items() if one in texts}
                status = await self.store.finish_batch(lease, rejected, meter.settle([lease]))
                work.ended_a_version = work.ended_a_version or status is not None
            except EddaError as error:
                unfinished.append((lease, error))
        await self._release([lease for lease, _ in unfinished], meter)
        return unfinished

    async def _embed_texts(self, tenant_id: UUID, work: _Work, meter: Meter, deadline: Deadline) -> EddaError | None:
        """The last error of a provider batch that has to be tried again, if there was one."""
        problem: EddaError | None = None
        texts = work.texts()
        finished = embed_all(
            meter, [text.text for text in texts], [text.tokens for text in texts], deadline, self.retry
        )
        async with aclosing(finished):
            async for batch in finished:
                if batch.error is not None:
                    problem = batch.error
                    logger.warning(
                        "provider batch failed", extra={"code": batch.error.code, "texts": len(batch.indices)}
                    )
                    continue
                vectors: dict[UUID, HalfVector] = {}
                for index, vector in zip(batch.indices, batch.vectors, strict=True):
                    content_hash = texts[index].content_hash
                    if isinstance(vector, EmbeddingRejected):
                        work.rejected[content_hash] = vector
                    else:
                        vectors[content_hash] = HalfVector(to_halfvec_binary(vector))
                await self._save(tenant_id, work, vectors, meter)
        return problem

    async def _await_others(self, tenant_id: UUID, work: _Work, deadline: Deadline) -> None:
        """The same text in two documents is paid for once: who comes second waits a while for the vector, and then
        has the message delivered again.
        """
        until = deadline.sooner(self.others_s)
        while awaited := work.awaited():
            work.stored |= awaited - await self.store.without_vector(tenant_id, awaited)
            if until.expired:
                return
            await asyncio.sleep(OTHERS_PAUSE_S)

    async def _save(self, tenant_id: UUID, work: _Work, vectors: Mapping[UUID, HalfVector], meter: Meter) -> None:
        if not vectors:
            return
        try:
            await self.store.save_vectors(tenant_id, vectors, meter.settle())
        except DatabaseUnavailable:
            # They are paid, so there is a second try. The first may have happened: what it charges is not repeated.
            await self.store.save_vectors(tenant_id, vectors)
        work.stored |= vectors.keys()

    async def _release(self, leases: Sequence[BatchLease], meter: Meter) -> None:
        try:
            await self.store.release_batches(leases, meter.settle(leases))
        except RetryableError:
            logger.warning("leases could not be released; they expire", extra={"leases": len(leases)})
