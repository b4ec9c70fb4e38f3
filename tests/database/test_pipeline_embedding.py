"""From messages to vectors: shared requests, refusals, leases, and the end of a version."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID

import psycopg
import pytest
from edda.concurrency import Deadline
from edda.embedding import Embedding
from edda.errors import (
    DatabaseUnavailable,
    EmbeddingRejected,
    ProviderMisconfigured,
    ProviderThrottled,
    ProviderUnavailable,
    RetryableError,
)
from edda.messages import EmbedBatch
from edda.models import DocumentStatus
from edda.observing import Observing
from edda.s3_events import object_changes
from edda.store.bucket import BucketStore, DeleteBrake
from edda.store.database import Database
from edda.store.embed import BatchLease, ContentHash, EmbedStore, Settled
from edda.store.ingest import BATCH_CHUNKS, IngestStore, ordinal_ranges
from edda.store.keys import KeyStore

from tests.database.world import World, connect

LINES = [f"line {number}" for number in range(100)]


@pytest.fixture
async def elsewhere(world: World) -> AsyncIterator[Database]:
    """The connection of another execution environment."""
    database = connect(world.urls.app)
    yield database
    await database.aclose()


def waiting(world: World) -> list[EmbedBatch]:
    return [EmbedBatch.model_validate_json(body) for body in world.embed_queue.messages]


async def claim(world: World, lease_s: float = 60) -> list[BatchLease]:
    leases = await world.embedding.store.claim_batches(world.tenant_id, waiting(world), lease_s)
    return [lease for lease in leases if lease is not None]


async def store_vectors(world: World, lease: BatchLease) -> None:
    await world.embedding.store.save(world.tenant_id, vectors_of(world, lease))


def vectors_of(world: World, *leases: BatchLease) -> dict[ContentHash, bytes]:
    return {text.content_hash: world.embedder.vector(text.text) for lease in leases for text in lease.texts}


async def finish(
    store: EmbedStore, lease: BatchLease, rejected: Mapping[ContentHash, EmbeddingRejected] | None = None
) -> DocumentStatus | None:
    """The status in which its version ended, if it did."""
    ended = await store.save(lease.batch.tenant_id, {}, [Settled(lease, rejected or {})])
    return ended.get(lease.batch.version_id)


def lock_waits(world: World) -> int:
    return int(
        world.rows(
            "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) "
            "WHERE NOT l.granted AND a.datname = current_database()"
        )[0][0]
    )


async def until_waiting(world: World, workers: int) -> None:
    """Until so many workers wait for a lock. The test's own timeout is the limit."""
    while lock_waits(world) < workers:  # noqa: ASYNC110 - Postgres has no event for it
        await asyncio.sleep(0.005)


# Requests ---------------------------------------------------------------------------------------------------------


async def test_texts_of_many_messages_share_provider_requests(world: World) -> None:
    for number in range(10):
        await world.notice(await world.put(f"{number}.txt", f"text of {number}"))
    assert len(world.embed_queue.messages) == 10
    await world.embed()
    assert len(world.embedder.requests) == 1


async def test_a_message_names_at_most_one_provider_request_of_chunks(world: World) -> None:
    await world.notice(await world.put("a.txt", "\n".join(LINES)))
    assert [(batch.first_ordinal, batch.last_ordinal) for batch in waiting(world)] == [(0, 63), (64, 99)]


@pytest.mark.parametrize("n", [0, 1, BATCH_CHUNKS - 1, BATCH_CHUNKS, BATCH_CHUNKS + 1, 3 * BATCH_CHUNKS])
def test_ordinal_ranges_hold_every_ordinal_once(n: int) -> None:
    ordinals = [3 * number for number in range(n)]
    ranges = list(ordinal_ranges(ordinals))
    held = [ordinal for first, last in ranges for ordinal in ordinals if first <= ordinal <= last]
    assert held == ordinals
    assert len(ranges) == -(-n // BATCH_CHUNKS)


async def test_the_same_text_in_two_waiting_documents_is_embedded_once(world: World) -> None:
    for name in ("a.txt", "b.txt"):
        await world.notice(await world.put(name, "shared"))
    await world.embed()
    assert world.embedder.texts == ["shared"]
    assert world.visible("a.txt") == world.visible("b.txt") == ["shared"]


async def test_the_same_message_twice_in_one_batch_is_embedded_once(world: World) -> None:
    await world.notice(await world.put("a.txt", "one"))
    world.embed_queue.messages *= 2
    assert await world.embed() == {}
    assert world.embedder.texts == ["one"]
    assert world.statuses("a.txt") == ["ready"]


async def test_a_message_about_nothing_that_exists_is_done(world: World) -> None:
    nothing = EmbedBatch(tenant_id=world.tenant_id, version_id=world.tenant_id, first_ordinal=0, last_ordinal=9)
    assert await world.embedding.embed_batches([nothing], Deadline.after(30)) == {}
    assert world.embedder.requests == []


async def test_a_message_in_another_tenants_name_finds_nothing(world: World) -> None:
    other = await World.build(world.urls, world.model, "globex")
    await world.notice(await world.put("a.txt", "one"))
    (batch,) = waiting(world)
    foreign = batch.model_copy(update={"tenant_id": other.tenant_id})
    assert await world.embedding.embed_batches([foreign], Deadline.after(30)) == {}
    assert world.embedder.requests == []
    assert world.statuses("a.txt") == ["embedding"]
    await other.database.aclose()


# Refusals and faults ----------------------------------------------------------------------------------------------


async def test_one_refused_text_leaves_the_document_partial_and_says_so_on_its_chunk(world: World) -> None:
    world.embedder.refuses = {"line 7"}
    await world.bring_in("a.txt", "\n".join(LINES))
    assert world.statuses("a.txt") == ["partial"]
    assert world.visible("a.txt") == [line for line in LINES if line != "line 7"]
    rejected = world.rows("SELECT text, error_code, error_message FROM chunks WHERE error_code IS NOT NULL")
    assert rejected == [("line 7", "embedding_rejected", EmbeddingRejected.default_message)]


async def test_every_chunk_with_a_refused_text_says_so(world: World) -> None:
    world.embedder.refuses = {"bad"}
    await world.bring_in("a.txt", "\n".join(["bad", *LINES, "bad"]))
    assert world.statuses("a.txt") == ["partial"]
    assert world.rows("SELECT ordinal FROM chunks WHERE error_code IS NOT NULL ORDER BY 1") == [(0,), (101,)]


async def test_when_every_text_is_refused_the_document_fails(world: World) -> None:
    world.embedder.refuses = set(LINES)
    await world.bring_in("a.txt", "\n".join(LINES))
    assert (world.statuses("a.txt"), world.error_codes("a.txt")) == (["failed"], ["embedding_rejected"])
    assert world.visible("a.txt") == []


async def test_a_new_version_of_refused_texts_leaves_the_old_one_visible(world: World) -> None:
    await world.bring_in("a.txt", "good")
    world.embedder.refuses = {"bad"}
    await world.bring_in("a.txt", "bad")
    assert world.visible("a.txt") == ["good"]


async def test_a_text_refused_once_is_asked_again_for_the_next_document(world: World) -> None:
    world.embedder.refuses = {"line 7"}
    await world.bring_in("a.txt", "line 6\nline 7")
    world.embedder.refuses = set()
    await world.bring_in("b.txt", "line 7")
    assert world.visible("b.txt") == ["line 7"]
    assert world.visible("a.txt") == ["line 6", "line 7"]


async def test_a_failed_provider_batch_brings_back_only_its_own_messages(world: World) -> None:
    for name in ("a.txt", "b.txt"):
        await world.notice(await world.put(name, "\n".join(f"{name} {number}" for number in range(16))))
    world.embedder.script = [ProviderThrottled()]
    failures = await world.embed()
    assert [error.code for error in failures.values()] == ["provider_throttled"]
    assert sorted([*world.statuses("a.txt"), *world.statuses("b.txt")]) == ["embedding", "ready"]
    assert world.leases() == []
    assert await world.embed() == {}
    assert world.statuses("a.txt") == world.statuses("b.txt") == ["ready"]
    assert len(world.embedder.texts) == 48  # the 16 that failed were asked for twice, the others once


async def test_texts_that_were_stored_before_a_failure_are_not_paid_for_again(world: World) -> None:
    await world.notice(await world.put("a.txt", "\n".join(LINES[:64])))
    world.embedder.script = [ProviderUnavailable()]
    assert len(await world.embed()) == 1
    world.embedder.requests.clear()
    assert await world.embed() == {}
    assert len(world.embedder.texts) == 16


async def test_a_misconfigured_provider_stops_everything_and_loses_nothing(world: World) -> None:
    await world.notice(await world.put("a.txt", "one"), await world.put("b.txt", "two"))
    world.embedder.script = [ProviderMisconfigured("wrong key")]
    failures = await world.embed()
    assert {error.code for error in failures.values()} == {"provider_misconfigured"}
    assert len(failures) == 2
    assert world.leases() == []
    await world.embed()
    assert world.statuses("a.txt") == world.statuses("b.txt") == ["ready"]


async def test_when_no_time_is_left_everything_comes_back_and_leases_are_given_back(world: World) -> None:
    await world.notice(await world.put("a.txt", "one"))
    assert [error.code for error in (await world.embed(seconds=0)).values()] == ["provider_unavailable"]
    assert world.leases() == []
    await world.embed()
    assert world.statuses("a.txt") == ["ready"]


async def test_one_tenants_trouble_does_nothing_to_another(world: World) -> None:
    other = await World.build(world.urls, world.model, "globex")
    await world.notice(await world.put("a.txt", "mine"))
    await other.notice(await other.put("a.txt", "theirs"))
    world.embed_queue.messages += other.embed_queue.take()
    world.embedder.script = [ProviderUnavailable()]
    assert list(await world.embed()) == [0]
    assert world.statuses("a.txt") == ["embedding"]
    assert other.statuses("a.txt") == ["ready"]
    await other.database.aclose()


async def test_vectors_that_could_not_be_written_are_written_when_the_database_is_back(world: World) -> None:
    """Two tries in vain, nothing more is asked for, and the third, at the end, stores what is paid."""

    class Away(EmbedStore):
        tries = 0

        async def save(self, *what: Any) -> Any:
            self.tries += 1
            if self.tries <= 2:
                raise DatabaseUnavailable
            return await super().save(*what)

    await world.notice(await world.put("a.txt", "\n".join(LINES)))
    batches = waiting(world)
    store = Away(world.database, world.model.model_id)
    failures = await replace(world.embedding, store=store).embed_batches(batches, Deadline.after(30))
    assert store.tries == 3
    assert world.vectors() == len(world.embedder.texts) > 0
    assert await world.embedding.embed_batches([batches[one] for one in failures], Deadline.after(30)) == {}
    assert world.vectors() == len(LINES)
    assert sorted(world.embedder.texts) == sorted(LINES)


async def test_what_nobody_has_foreseen_in_one_tenants_work_does_nothing_to_anothers(world: World) -> None:
    other = await World.build(world.urls, world.model, "globex")

    class Broken(EmbedStore):
        async def claim_batches(self, tenant_id: UUID, *what: Any) -> Any:
            if tenant_id == other.tenant_id:
                raise psycopg.errors.CheckViolation
            return await super().claim_batches(tenant_id, *what)

    for one in (world, other):
        await one.notice(await one.put("a.txt", "one"))
    batches = [*waiting(other), *waiting(world)]
    broken = replace(world.embedding, store=Broken(world.database, world.model.model_id))
    assert list(await broken.embed_batches(batches, Deadline.after(30))) == [0]
    assert world.statuses("a.txt") == ["ready"]
    assert other.statuses("a.txt") == ["embedding"]
    assert await world.embedding.embed_batches(waiting(other), Deadline.after(30)) == {}
    assert other.statuses("a.txt") == ["ready"]
    await other.database.aclose()


# Leases -----------------------------------------------------------------------------------------------------------


async def test_a_batch_another_worker_holds_is_left_to_it(world: World) -> None:
    await world.notice(await world.put("a.txt", "one"))
    (lease,) = await claim(world)
    assert await world.embed() == {}
    assert world.embedder.requests == []
    await store_vectors(world, lease)
    assert await finish(world.embedding.store, lease) == DocumentStatus.READY


async def test_a_worker_whose_lease_was_taken_over_can_neither_finish_nor_refuse_nor_release(world: World) -> None:
    store = world.embedding.store
    await world.notice(await world.put("a.txt", "one"))
    (zombie,) = await claim(world, lease_s=0)
    (successor,) = await claim(world)
    assert successor.attempt == zombie.attempt + 1
    rejected = {zombie.texts[0].content_hash: EmbeddingRejected()}
    assert await finish(store, zombie, rejected) is None
    await store.release_batches(world.tenant_id, [zombie])
    assert world.rows("SELECT count(*) FROM chunks WHERE error_code IS NOT NULL") == [(0,)]
    assert len(world.leases()) == 1
    await store_vectors(world, successor)
    assert await finish(store, successor) == DocumentStatus.READY


async def test_killed_after_the_vectors_and_before_the_end_pays_nothing_twice(world: World) -> None:
    await world.notice(await world.put("a.txt", "one\ntwo"))
    (lease,) = await claim(world, lease_s=0)
    await store_vectors(world, lease)
    assert await world.embed() == {}
    assert world.embedder.requests == []
    assert world.statuses("a.txt") == ["ready"]


async def test_a_vector_that_is_there_is_never_written_again(world: World) -> None:
    await world.notice(await world.put("a.txt", "one"))
    (lease,) = await claim(world)
    await store_vectors(world, lease)
    before = world.rows("SELECT xmin::text, ctid::text FROM embeddings")
    await store_vectors(world, lease)
    assert world.rows("SELECT xmin::text, ctid::text FROM embeddings") == before
    await finish(world.embedding.store, lease)


# Two at once ------------------------------------------------------------------------------------------------------


async def test_two_workers_that_finish_the_last_two_batches_at_once_make_one_transition(
    world: World, elsewhere: Database
) -> None:
    await world.notice(await world.put("a.txt", "\n".join(LINES)))
    leases = await claim(world)
    for lease in leases:
        await store_vectors(world, lease)
    stores = [world.embedding.store, EmbedStore(elsewhere, world.model.model_id)]
    # A third party holds the document, so that both workers have done their write and stand at the same point.
    async with await psycopg.AsyncConnection.connect(world.urls.owner) as holder:
        await holder.execute("SELECT FROM documents FOR UPDATE")
        finishing = [asyncio.create_task(finish(store, lease)) for store, lease in zip(stores, leases, strict=True)]
        await until_waiting(world, 2)
        await holder.commit()
    outcomes = await asyncio.gather(*finishing)
    assert sorted(outcomes, key=str) == [None, DocumentStatus.READY]
    assert world.visible("a.txt") == LINES


async def test_two_workers_writing_the_same_texts_at_once_do_not_deadlock(world: World, elsewhere: Database) -> None:
    texts = [f"text {number}" for number in range(500)]
    await world.notice(await world.put("a.txt", "\n".join(texts)))
    leases = await claim(world)
    vectors = vectors_of(world, *leases)
    backwards = dict(reversed(vectors.items()))
    stores = [world.embedding.store, EmbedStore(elsewhere, world.model.model_id)]
    await asyncio.gather(stores[0].save(world.tenant_id, vectors), stores[1].save(world.tenant_id, backwards))
    assert world.vectors() == 500


async def test_a_vector_is_not_deleted_between_the_plan_to_use_it_and_the_plans_commit(
    world: World, elsewhere: Database
) -> None:
    """Document b plans to use the vectors of a, and before that is committed, a is deleted."""
    await world.bring_in("a.txt", "one\ntwo")
    world.parser.error = RetryableError()
    record = await world.put("b.txt", "one\ntwo\nthree")
    with pytest.raises(RetryableError):
        await world.notice(record)
    world.parser.error = None
    ((version_id,),) = world.rows("SELECT version_id FROM document_versions WHERE finished_at IS NULL")
    removal = await world.delete("a.txt")
    other = replace(
        world.ingestion,
        store=IngestStore(elsewhere, world.model.model_id),
        keys=KeyStore(elsewhere),
        observing=Observing(BucketStore(elsewhere, DeleteBrake()), world.objects),
    )
    async with await psycopg.AsyncConnection.connect(world.urls.owner) as holder:
        # The batch of b's one missing text seems to be there already: b stops after it has looked what is missing.
        await holder.execute("SET LOCAL session_replication_role = replica")
        await holder.execute("INSERT INTO embed_batches VALUES (%s, %s, 2, 2)", [world.tenant_id, version_id])
        planning = asyncio.create_task(world.notice(record))
        await until_waiting(world, 1)
        (change,) = object_changes({"Records": [removal]})
        deleting = asyncio.create_task(other.object_changed(change, Deadline.after(30)))
        while lock_waits(world) < 2 and not deleting.done():  # noqa: ASYNC110 - Postgres has no event for it
            await asyncio.sleep(0.005)
        await holder.rollback()
    await asyncio.gather(planning, deleting)
    await world.embed()
    assert world.visible("b.txt") == ["one", "two", "three"]
    assert world.visible("a.txt") == []


async def test_many_workers_at_once_end_in_one_ready_version_each(world: World) -> None:
    """Six environments, thirty documents that share texts, every message delivered twice."""
    for number in range(30):
        body = "\n".join([f"of {number}", *LINES[number : number + 70]])
        await world.notice(await world.put(f"{number}.txt", body))
    messages = waiting(world) * 2
    databases = [connect(world.urls.app) for _ in range(6)]
    workers = [
        Embedding(EmbedStore(database, world.model.model_id), world.embedder, world.embedding.retry)
        for database in databases
    ]
    failures = await asyncio.gather(
        *(worker.embed_batches(messages[number::6], Deadline.after(30)) for number, worker in enumerate(workers))
    )
    for database in databases:
        await database.aclose()
    assert failures == [{}] * 6
    assert world.rows("SELECT status, count(*) FROM document_versions GROUP BY 1") == [("ready", 30)]
