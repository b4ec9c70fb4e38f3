"""A mass delete in the bucket stops; one document at a time over HTTPS does not."""

import asyncio
from dataclasses import replace

import pytest
from edda.concurrency import Deadline
from edda.observing import Observing
from edda.store.bucket import BucketStore, DeleteBrake
from edda.store.documents import DocumentStore
from edda.sweeping import Sweep

from tests.database.world import World, connect

BRAKE = DeleteBrake(percent=20, minimum=3)


def braked(world: World, brake: DeleteBrake = BRAKE) -> World:
    """The same world under another brake."""
    bucket = BucketStore(world.database, brake)
    observing = Observing(bucket, world.objects)
    world.ingestion = replace(world.ingestion, observing=observing)
    world.sweep = replace(world.sweep, bucket=bucket, observing=observing)
    return world


async def library(world: World, books: int) -> list[str]:
    names = [f"{number:02}.txt" for number in range(books)]
    for name in names:
        await world.notice(await world.put(name, name))
    await world.embed()
    return names


def left(world: World, names: list[str]) -> int:
    return len([name for name in names if world.visible(name)])


async def test_above_the_share_deletes_are_held_and_the_documents_go_on_answering(world: World) -> None:
    names = await library(braked(world), 20)
    for name in names:
        await world.notice(await world.delete(name))
    assert left(world, names) == 16  # 20 % of 20 are gone
    assert world.rows("SELECT count(*) FROM documents WHERE hold = 'held'") == [(16,)]


async def test_the_sweep_is_braked_as_well_and_says_what_waits(world: World) -> None:
    names = await library(braked(world), 20)
    for name in names:
        world.objects.erase(world.key(name))
    assert await world.run_sweep() == {"documents_deleted": 4, "deletes_held": 16}
    assert await world.run_sweep() == {"deletes_waiting": 16}
    assert left(world, names) == 16


async def test_a_small_tenant_may_empty_its_folder(world: World) -> None:
    names = await library(braked(world), 3)
    for name in names:
        await world.notice(await world.delete(name))
    assert left(world, names) == 0


async def test_a_brake_at_a_hundred_percent_never_holds(world: World) -> None:
    names = await library(braked(world, DeleteBrake(percent=100, minimum=0)), 8)
    for name in names:
        await world.notice(await world.delete(name))
    assert left(world, names) == 0


async def test_deletes_spread_over_time_are_not_held_but_a_brake_that_is_on_does_not_let_go_by_itself(
    world: World,
) -> None:
    names = await library(braked(world), 10)
    for name in names[:3]:
        await world.notice(await world.delete(name))
    world.rows("UPDATE delete_brakes SET began_at = began_at - interval '2 hours'")
    for name in names[3:7]:
        await world.notice(await world.delete(name))
    assert left(world, names) == 4
    world.rows("UPDATE delete_brakes SET began_at = began_at - interval '2 hours'")
    await world.notice(await world.delete(names[7]))
    assert left(world, names) == 4


async def test_the_events_of_held_deletes_may_come_again_and_change_nothing(world: World) -> None:
    names = await library(braked(world), 10)
    records = [await world.delete(name) for name in names]
    await world.notice(*records)
    before = world.rows("SELECT to_jsonb(d) FROM documents d ORDER BY object_key")
    await world.notice(*records)
    await world.run_sweep()
    assert world.rows("SELECT to_jsonb(d) FROM documents d ORDER BY object_key") == before


async def test_a_confirmed_delete_reaches_every_held_document_and_lets_the_rest_through(world: World) -> None:
    names = await library(braked(world), 20)
    for name in names[:10]:
        await world.notice(await world.delete(name))
    bucket = world.sweep.bucket
    while await bucket.confirm_some(world.tenant_id, limit=2):
        pass
    await bucket.release_brake(world.tenant_id, confirmed=True)
    assert left(world, names) == 10
    for name in names[10:]:
        await world.notice(await world.delete(name))
    assert left(world, names) == 0
    assert world.vectors() == 0
    assert await world.run_sweep() == {}


async def test_a_discarded_delete_keeps_the_documents_until_they_are_put_or_deleted_anew(world: World) -> None:
    names = await library(braked(world), 10)
    records = [await world.delete(name) for name in names]
    await world.notice(*records)
    bucket = world.sweep.bucket
    assert await bucket.keep_held(world.tenant_id) == 7
    await bucket.release_brake(world.tenant_id, confirmed=False)
    await world.notice(*records)
    assert await world.run_sweep() == {}
    kept = [name for name in names if world.visible(name)]
    assert len(kept) == 7
    await world.bring_in(kept[0], "put again")
    await world.notice(await world.delete(kept[1]))
    assert world.visible(kept[0]) == ["put again"]
    assert world.visible(kept[1]) == []
    assert world.visible(kept[2]) == [kept[2]]


@pytest.mark.parametrize("lost", [False, True])
async def test_an_object_that_is_restored_is_held_no_more(world: World, lost: bool) -> None:
    names = await library(braked(world), 10)
    for name in names:
        await world.notice(await world.delete(name))
    for name in names:
        world.objects.restore(world.key(name))
        await world.notice(*([] if lost else world.objects.events[-1:]))
    await world.run_sweep()
    await world.answer_ingest_queue()
    await world.embed()
    assert left(world, names) == 10
    assert world.rows("SELECT count(*) FROM documents WHERE hold IS NOT NULL") == [(0,)]


async def test_a_put_is_not_lost_when_held_deletes_are_confirmed(world: World) -> None:
    names = await library(braked(world), 10)
    for name in names:
        await world.notice(await world.delete(name))
    await world.bring_in(names[9], "put again")
    await world.sweep.bucket.confirm_some(world.tenant_id)
    assert left(world, names) == 1
    assert world.visible(names[9]) == ["put again"]


async def test_deleting_over_https_is_never_held_and_reaches_a_held_document(world: World) -> None:
    names = await library(braked(world), 10)
    await world.notice(await world.delete(names[9]))
    store = DocumentStore(world.database, world.model.model_id)
    for (document_id,) in world.rows("SELECT document_id FROM documents WHERE deleted_at IS NULL"):
        await store.delete(world.tenant_id, document_id)
    assert left(world, names) == 0
    assert world.rows("SELECT count(*) FROM documents WHERE hold IS NOT NULL") == [(0,)]


async def test_one_tenants_brake_does_not_hold_anothers_deletes(world: World) -> None:
    other = braked(await World.build(world.urls, world.model, "globex"))
    names, others = await library(braked(world), 10), await library(other, 10)
    for name in names:
        await world.notice(await world.delete(name))
    for name in others[:3]:
        await other.notice(await other.delete(name))
    assert (left(world, names), left(other, others)) == (7, 7)
    assert other.rows("SELECT count(*) FROM documents WHERE hold IS NOT NULL") == [(7,)]
    await other.database.aclose()


async def test_two_workers_at_once_delete_no_more_than_the_share(world: World) -> None:
    names = await library(braked(world), 20)
    for name in names:
        world.objects.erase(world.key(name))
    database = connect(world.urls.app)
    bucket = BucketStore(database, BRAKE)
    second: Sweep = replace(world.sweep, bucket=bucket, observing=Observing(bucket, world.objects))
    await asyncio.gather(world.sweep.sweep(Deadline.after(30)), second.sweep(Deadline.after(30)))
    await database.aclose()
    assert left(world, names) == 16
