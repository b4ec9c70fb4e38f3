"""A lease is short and renewed: work that goes on is not begun by others, and a dead worker's is begun again soon."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from edda import embedding, ingesting, leasing
from edda.concurrency import Deadline
from edda.errors import DatabaseUnavailable, RetryableError
from edda.leasing import renewed
from edda.messages import EmbedBatch
from edda.store.embed import BatchLease, Settled

from tests.database.world import World

LEASE_S = 0.5
A_VERSION = "SELECT lease_until FROM document_versions WHERE lease_until > now()"
A_BATCH = "SELECT lease_until FROM embed_batches WHERE lease_until > now()"


@pytest.fixture
def short_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leasing, "RENEWAL_S", LEASE_S / 10)
    for module in (ingesting, embedding):
        monkeypatch.setattr(module, "LEASE_S", LEASE_S)


def outlasting(world: World, lease: str) -> Callable[[], Awaitable[None]]:
    """Work that lasts until its lease, a query, has been renewed past its first end."""

    async def work() -> None:
        ((first,),) = world.rows(lease)
        async with asyncio.timeout(20):
            while not world.rows(f"{lease} AND now() > %s", first):  # noqa: ASYNC110 - it is Postgres's clock
                await asyncio.sleep(0.02)

    return work


async def test_a_file_that_takes_longer_than_a_lease_is_parsed_by_one_worker(
    world: World, short_leases: None, no_leaked_tasks: None
) -> None:
    record = await world.put("a.txt", "one")
    outlast = outlasting(world, A_VERSION)

    async def hear_of_it_again() -> None:
        await outlast()
        world.parser.error = RetryableError("somebody else has begun")
        await world.notice(record)
        world.parser.error = None

    world.parser.meanwhile = hear_of_it_again
    await world.notice(record)
    assert world.rows("SELECT status, attempt FROM document_versions") == [("embedding", 1)]
    await world.embed()
    assert world.visible("a.txt") == ["one"]


async def test_texts_that_take_longer_than_a_lease_are_paid_for_once(
    world: World, short_leases: None, no_leaked_tasks: None
) -> None:
    await world.notice(await world.put("a.txt", "one"))
    batch = EmbedBatch.model_validate_json(world.embed_queue.messages[0])
    outlast = outlasting(world, A_BATCH)

    async def deliver_again() -> None:
        world.embedder.meanwhile = None
        await outlast()
        assert await world.embedding.embed_batches([batch], Deadline.after(30)) == {}

    world.embedder.meanwhile = deliver_again
    await world.embed()
    assert world.embedder.texts == ["one"]
    assert world.visible("a.txt") == ["one"]


async def test_a_version_that_was_taken_over_or_given_back_is_not_renewed(world: World) -> None:
    store = world.ingestion.store
    world.parser.error = RetryableError()
    with pytest.raises(RetryableError):
        await world.notice(await world.put("a.txt", "one"))
    ((version_id,),) = world.rows("SELECT version_id FROM document_versions")
    zombie = await store.claim_version(world.tenant_id, version_id, 0)
    successor = await store.claim_version(world.tenant_id, version_id, 0)
    assert zombie is not None
    assert successor is not None
    await store.renew_lease(zombie, 30)
    assert world.rows(A_VERSION) == []
    await store.renew_lease(successor, 30)
    assert len(world.rows(A_VERSION)) == 1
    await store.release_version(successor)
    await store.renew_lease(successor, 30)
    assert world.leases() == []


async def zombie_and_successor(world: World, lease_s: float) -> tuple[BatchLease, BatchLease]:
    """Of one batch: the first lease was over at once."""
    await world.notice(await world.put("a.txt", "one"))
    batch = EmbedBatch.model_validate_json(world.embed_queue.messages[0])
    zombie, successor = await world.claim_batch(batch, 0), await world.claim_batch(batch, lease_s)
    assert zombie is not None
    assert successor is not None
    return zombie, successor


async def test_a_batch_that_was_taken_over_given_back_or_done_is_not_renewed(world: World) -> None:
    store = world.embedding.store
    zombie, successor = await zombie_and_successor(world, 0)
    await store.renew_leases([zombie], 30)
    assert world.rows(A_BATCH) == []
    await store.renew_leases([zombie, successor], 30)
    assert len(world.rows(A_BATCH)) == 1
    await store.release_batches(world.tenant_id, [successor])
    await store.renew_leases([successor], 30)
    assert world.leases() == []
    await world.embed()
    await store.renew_leases([successor], 30)
    assert world.leases() == []


async def test_who_was_overtaken_ends_a_batch_that_nobody_has_now(world: World) -> None:
    store = world.embedding.store
    zombie, successor = await zombie_and_successor(world, 30)
    vectors = {text.content_hash: bytes(4 * world.embedding.embedder.dimensions) for text in zombie.texts}
    assert await store.save(world.tenant_id, vectors, [Settled(zombie)]) == {}, "the successor is at it"
    await store.release_batches(world.tenant_id, [successor])
    assert list((await store.save(world.tenant_id, vectors, [Settled(zombie)])).values()) == ["ready"]


async def test_a_renewal_that_fails_is_tried_again_and_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, no_leaked_tasks: None
) -> None:
    monkeypatch.setattr(leasing, "RENEWAL_S", 0.001)
    third = asyncio.Event()
    renewals = 0

    async def renew() -> None:
        nonlocal renewals
        renewals += 1
        if renewals < 3:
            raise DatabaseUnavailable
        third.set()

    async with renewed(renew):
        await asyncio.wait_for(third.wait(), 30)
    over = renewals
    await asyncio.sleep(0.01)
    assert renewals == over


async def test_what_a_dead_worker_held_is_rung_for_when_its_lease_is_over(world: World) -> None:
    """Its message comes again much later; and what it never got to hold is rung for as soon."""
    await world.notice(await world.put("a.txt", "one"))
    batch = EmbedBatch.model_validate_json(world.embed_queue.take()[0])
    assert await world.claim_batch(batch, leasing.LEASE_S) is not None
    assert await world.run_sweep() == {}
    world.rows(f"UPDATE embed_batches SET lease_until = lease_until - interval '{leasing.LEASE_S} seconds'")
    assert await world.run_sweep() == {"batches_rung": 1}
    await world.embed()
    assert world.visible("a.txt") == ["one"]


async def test_what_five_workers_died_over_nobody_begins_again_and_the_sweep_ends(world: World) -> None:
    store = world.ingestion.store
    world.parser.error = RetryableError()
    with pytest.raises(RetryableError):
        await world.notice(await world.put("a.txt", "one"))
    world.parser.error = None
    ((version_id,),) = world.rows("SELECT version_id FROM document_versions")
    for _ in range(leasing.MAX_FAILURES):  # beside the first, who gave it back
        assert await store.claim_version(world.tenant_id, version_id, 0) is not None
    assert await store.claim_version(world.tenant_id, version_id, 30) is None
    assert await world.run_sweep() == {"given_up": 1}
    assert world.error_codes("a.txt") == ["attempts_exhausted"]


async def test_a_batch_that_five_workers_died_over_nobody_begins_again(world: World) -> None:
    await world.notice(await world.put("a.txt", "one"))
    batch = EmbedBatch.model_validate_json(world.embed_queue.take()[0])
    for _ in range(leasing.MAX_FAILURES):
        assert await world.claim_batch(batch, 0) is not None
    assert await world.claim_batch(batch, 30) is None
    assert await world.run_sweep() == {"given_up": 1}
    assert world.error_codes("a.txt") == ["attempts_exhausted"]
