"""From messages on the embed queue to vectors in the database: many messages share provider requests.

While one write is under way, requests go on, and what they bring meanwhile is written together. Tenants share the
requests in flight, but no request.
"""

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from uuid import UUID

from edda.batching import EmbeddedBatch, NotAsked, RetryPolicy, batch_indices, embed_all
from edda.concurrency import Deadline
from edda.delivering import Delivery
from edda.errors import DatabaseUnavailable, EddaError, EmbeddingRejected, RetryableError
from edda.governing import Governor, governed
from edda.leasing import LEASE_S, renewed
from edda.messages import EmbedBatch
from edda.metering import Meter
from edda.ports import Embedder
from edda.store.embed import BatchLease, ContentHash, EmbedStore, Settled, TextToEmbed

logger = logging.getLogger(__name__)

# How often it is looked whether another worker has stored a text.
OTHERS_PAUSE_S = 0.5
LEAST_TEXTS = 32  # a request's own cost is that of some ten texts


class _Work:
    """One tenant's leased batches, and what has become of their texts so far."""

    def __init__(self, tenant_id: UUID, leases: Sequence[BatchLease], embedder: Embedder) -> None:
        self.tenant_id = tenant_id
        self.texts = [text for lease in leases for text in lease.texts]
        self.meter = Meter(embedder, leases)
        self.vectors: dict[ContentHash, bytes] = {}  # not written yet
        self.rejected: dict[ContentHash, EmbeddingRejected] = {}
        self.problem: EddaError = RetryableError("The work was not done in time.")
        self.ended_a_version = False
        self.is_stuck = False  # what the provider brings cannot be written now
        self._unfinished = leases
        self._missing = {lease.name: lease.awaited.union(text.content_hash for text in lease.texts) for lease in leases}

    @property
    def unfinished(self) -> Sequence[BatchLease]:
        return self._unfinished

    def take(self, texts: Iterable[TextToEmbed], vectors: Iterable[bytes | EmbeddingRejected]) -> None:
        for text, vector in zip(texts, vectors, strict=True):
            if isinstance(vector, EmbeddingRejected):
                self.rejected[text.content_hash] = vector
            else:
                self.vectors[text.content_hash] = vector

    def settled(self) -> list[Settled]:
        """The batches that are done as soon as the vectors are written."""
        known = self.vectors.keys() | self.rejected.keys()
        settled = [lease for lease in self._unfinished if self._missing[lease.name] <= known]
        if not self.rejected:
            return [Settled(lease) for lease in settled]
        return [
            Settled(lease, {one: self.rejected[one] for one in self._missing[lease.name] & self.rejected.keys()})
            for lease in settled
        ]

    def written(self, content_hashes: Iterable[ContentHash], settled: Sequence[Settled] = ()) -> None:
        stored = frozenset(content_hashes)
        ended = {one.lease.name for one in settled}
        self._unfinished = [lease for lease in self._unfinished if lease.name not in ended]
        for lease in self._unfinished:
            self._missing[lease.name] -= stored

    def awaited(self) -> set[ContentHash]:
        """What others embed, and not another batch of this worker's."""
        awaited = {one for lease in self._unfinished for one in lease.awaited & self._missing[lease.name]}
        return awaited.difference(text.content_hash for text in self.texts) if awaited else awaited


@dataclass(frozen=True, slots=True)
class Embedding:
    """The verb of the embed function."""

    store: EmbedStore
    embedder: Embedder
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    delivery: Delivery | None = None  # without it, events wait for the sweep
    governor: Governor | None = None  # without it, nobody is asked but the embedder's own limits
    others_s: float = 5.0  # how long a text that another worker embeds is waited for

    async def embed_batches(self, batches: Sequence[EmbedBatch], deadline: Deadline) -> dict[int, EddaError]:
        """Embed what these messages name. For each position that must be delivered again, the reason.

        One message's failure does nothing to the others. Done batches, vanished versions and batches another worker
        holds need no second delivery: the database knows of them, and the sweep rings again if it must.
        """
        work: dict[UUID, _Work] = {}
        async with renewed(partial(self._renew, work)):
            failures = await self._claim(batches, work)
            # Who has little is not kept waiting by who has much.
            tenants = sorted(work.values(), key=lambda one: len(one.texts))
            try:
                if self.governor is not None and any(one.texts for one in tenants):
                    await self.governor.refresh()
                await self._embed(tenants, deadline)
                await self._await_others(tenants, deadline)
            except Exception as error:
                for one in tenants:
                    one.problem = _problem(error)
            positions = {(batch.version_id, batch.first_ordinal): position for position, batch in enumerate(batches)}
            for one in tenants:
                failures |= {positions[lease.name]: one.problem for lease in await self._leave(one)}
        if self.delivery is not None:
            await self.delivery.promptly([one.tenant_id for one in tenants if one.ended_a_version], deadline)
        return failures

    async def _claim(self, batches: Sequence[EmbedBatch], work: dict[UUID, _Work]) -> dict[int, EddaError]:
        """Take every tenant's leases. The positions of those who could not be asked for."""
        failures: dict[int, EddaError] = {}
        for tenant_id in dict.fromkeys(batch.tenant_id for batch in batches):
            positions = [position for position, batch in enumerate(batches) if batch.tenant_id == tenant_id]
            try:
                claimed = await self.store.claim_batches(tenant_id, [batches[one] for one in positions], LEASE_S)
            except Exception as error:
                failures |= dict.fromkeys(positions, _problem(error))
                continue
            work[tenant_id] = _Work(tenant_id, [lease for lease in claimed if lease is not None], self.embedder)
        return failures

    async def _renew(self, work: Mapping[UUID, _Work]) -> None:
        for one in list(work.values()):
            if one.unfinished:
                try:
                    await self.store.renew_leases(one.unfinished, LEASE_S)
                except Exception as error:
                    _problem(error)
                    logger.warning("leases could not be renewed", extra={"leases": len(one.unfinished)})

    async def _embed(self, tenants: Sequence[_Work], deadline: Deadline) -> None:
        """Write what has come, again and again, until every request has ended."""
        limits = self.embedder.limits
        most_texts = self._texts_a_request(sum(len(one.texts) for one in tenants))
        owners: list[_Work] = []
        texts: list[TextToEmbed] = []
        requests: list[range] = []
        for one in tenants:
            tokens = [text.tokens for text in one.texts]
            for cut in batch_indices(tokens, most_texts, limits.max_tokens_per_request):
                requests.append(range(len(texts) + cut.start, len(texts) + cut.stop))
            owners += [one] * len(one.texts)
            texts += one.texts

        async def ask(indices: Sequence[int]) -> Sequence[bytes | EmbeddingRejected]:
            if owners[indices[0]].is_stuck:
                raise NotAsked(owners[indices[0]].problem)
            asked = [texts[index] for index in indices]
            request = partial(owners[indices[0]].meter.embed, asked, deadline)
            return await governed(self.governor, sum(text.tokens for text in asked), deadline, request)

        ended = embed_all(ask, requests, limits.max_concurrent_requests, deadline, self.retry)
        async with aclosing(ended):
            async for batches in ended:
                for batch in batches:
                    _take(owners[batch.indices[0]], [texts[index] for index in batch.indices], batch)
                for one in dict.fromkeys(owners[batch.indices[0]] for batch in batches):
                    await self._save(one)

    def _texts_a_request(self, texts: int) -> int:
        """Few texts are spread over the requests that may be in flight: a small request is answered sooner. Who has
        met the provider's limits does not make more of them than need be.
        """
        limits = self.embedder.limits
        at_once = limits.max_concurrent_requests
        if self.governor is not None:
            if self.governor.is_limited:
                return limits.max_texts_per_request
            at_once = min(at_once, int(self.governor.window.size))
        evenly = -(-texts // at_once)
        return min(limits.max_texts_per_request, max(LEAST_TEXTS, evenly))

    async def _await_others(self, tenants: Sequence[_Work], deadline: Deadline) -> None:
        """The same text in two documents is paid for once: who comes second waits a while for the vector, and then
        has the message delivered again.
        """
        until = deadline.sooner(self.others_s)
        while waiting := [(one, awaited) for one in tenants if (awaited := one.awaited())]:
            for one, awaited in waiting:
                one.written(awaited - await self.store.without_vector(one.tenant_id, awaited))
            if until.expired:
                return
            await asyncio.sleep(OTHERS_PAUSE_S)

    async def _save(self, work: _Work) -> None:
        """Write the vectors that have come, and end the batches that are whole with them. What cannot be written is
        kept: nothing more is asked for, and it is tried once more at the end."""
        settled = work.settled()
        vectors, work.vectors = work.vectors, {}
        if not vectors and not settled:
            return
        charges = work.meter.settle(one.lease for one in settled)
        try:
            try:
                ended = await self.store.save(work.tenant_id, vectors, settled, charges)
            except DatabaseUnavailable:
                # The first try may have happened: what it charges is not repeated, and what it ended is told.
                ended = await self.store.save(work.tenant_id, vectors, settled)
                work.ended_a_version = True
        except Exception as error:
            work.vectors = vectors
            work.problem, work.is_stuck = _problem(error), True
            return
        work.written(vectors, settled)
        work.ended_a_version = work.ended_a_version or bool(ended)

    async def _leave(self, work: _Work) -> Sequence[BatchLease]:
        """End what is whole, and give back what is not: the leases that were given back."""
        await self._save(work)
        charges = work.meter.settle(work.unfinished)
        try:
            if work.unfinished or charges:
                await self.store.release_batches(work.tenant_id, work.unfinished, charges)
        except Exception as error:
            _problem(error)  # the leases expire
        return work.unfinished


def _problem(error: Exception) -> EddaError:
    """What is wrong with one tenant's work is not its neighbours' affair, whatever it is."""
    if isinstance(error, EddaError):
        return error
    logger.error("unforeseen", exc_info=error)
    return RetryableError("Something went wrong that nobody has foreseen.")


def _take(work: _Work, texts: Sequence[TextToEmbed], batch: EmbeddedBatch) -> None:
    if batch.error is None:
        work.take(texts, batch.vectors)
    else:
        work.problem = batch.error
        logger.warning("provider batch failed", extra={"code": batch.error.code, "texts": len(texts)})
