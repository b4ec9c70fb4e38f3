"""Events that never came, and a bucket that changed behind our back: the sweep's walk brings both into line."""

import asyncio
import random
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest
from edda.concurrency import Deadline
from edda.errors import StorageUnavailable
from edda.models import ObjectListing, StoredObject, Tenant
from edda.store.documents import DocumentStore
from edda.store.sweep import Patience

from tests.database.test_sweep import sweep_elsewhere
from tests.database.world import World, connect
from tests.fakes.objects import FakeObjectStore

GONE_BY_API = "UPDATE documents SET idempotency_key = 'x' WHERE object_key = %s"


async def settle(world: World) -> dict[str, int]:
    """A round of the sweep, and the work it rings for."""
    done = await world.run_sweep()
    await world.answer_ingest_queue()
    await world.embed()
    return done


# Objects without a row --------------------------------------------------------------------------------------------


async def test_an_object_whose_event_was_lost_is_taken_in_by_one_round(world: World) -> None:
    await world.put("a.txt", "one")
    assert await settle(world) == {"objects_taken_in": 1}
    assert world.visible("a.txt") == ["one"]
    assert await settle(world) == {}


async def test_its_metadata_file_is_taken_in_as_well(world: World) -> None:
    await world.put("a.txt", "one")
    await world.put("a.txt.metadata.json", '{"metadataAttributes": {"year": 2024}}')
    assert await settle(world) == {"objects_taken_in": 1, "metadata_read": 1}
    assert world.metadata("a.txt") == ({"year": 2024}, None)


async def test_a_metadata_file_whose_event_was_lost_is_read(world: World) -> None:
    await world.bring_in("a.txt", "one")
    await world.put("a.txt.metadata.json", '{"metadataAttributes": {"year": 2024}}')
    assert await settle(world) == {"metadata_read": 1}
    assert world.metadata("a.txt") == ({"year": 2024}, None)
    await world.put("a.txt.metadata.json", "no json")
    assert await settle(world) == {"metadata_read": 1}
    assert world.metadata("a.txt")[1] is not None
    await world.delete("a.txt.metadata.json")
    assert await settle(world) == {"metadata_read": 1}
    assert world.metadata("a.txt") == ({}, None)
    assert await settle(world) == {}
    assert world.embedder.texts == ["one"]


async def test_an_overwrite_whose_event_was_lost_replaces_the_old_version(world: World) -> None:
    await world.bring_in("a.txt", "old")
    await world.put("a.txt", "new")
    assert await settle(world) == {"objects_taken_in": 1}
    assert world.visible("a.txt") == ["new"]


async def test_the_event_that_comes_after_the_sweep_changes_nothing(world: World) -> None:
    record = await world.put("a.txt", "one")
    await settle(world)
    await world.notice(record)
    assert world.statuses("a.txt") == ["ready"]
    assert len(world.embedder.requests) == 1
    assert await settle(world) == {}


async def test_a_put_after_the_sweep_wins_over_what_the_sweep_saw(world: World) -> None:
    await world.put("a.txt", "one")
    await settle(world)
    await world.bring_in("a.txt", "two")
    assert world.visible("a.txt") == ["two"]


async def test_an_upload_announced_over_https_whose_event_was_lost_is_taken_in(world: World) -> None:
    name = ".edda/0193c7f0-0000-7000-8000-000000000001"
    world.rows(
        "INSERT INTO documents (document_id, tenant_id, object_key, name, upload_expires_at) "
        "VALUES (gen_random_uuid(), %s, %s, 'report.pdf', now() + interval '1 hour')",
        world.tenant_id,
        world.key(name),
    )
    assert await settle(world) == {}
    await world.put(name, "one")
    assert await settle(world) == {"objects_taken_in": 1}
    assert world.visible(name) == ["one"]


async def test_what_is_young_may_have_its_event_on_the_way(world: World) -> None:
    await world.put("a.txt", "one")
    patience = Patience(grace_s=0, event_s=300, walk_s=0)
    assert not any((await replace(world.sweep, patience=patience).sweep(Deadline.after(30))).values())
    later = replace(world.sweep, patience=patience, now=lambda: datetime.now(UTC) + timedelta(seconds=301))
    assert (await later.sweep(Deadline.after(30)))["objects_taken_in"] == 1


@pytest.mark.parametrize("key", ["stranger/a.txt", "acme/folder/", "acme/a.txt.metadata.json", "acme-2/a.txt"])
async def test_what_is_no_document_is_left_alone(world: World, key: str) -> None:
    await world.objects.put(key, b"one", "text/plain")
    assert await settle(world) == {}
    assert world.rows("SELECT count(*) FROM documents") == [(0,)]


# Documents without an object --------------------------------------------------------------------------------------


async def test_a_document_whose_delete_event_was_lost_is_deleted(world: World) -> None:
    await world.bring_in("a.txt", "one")
    await world.bring_in("b.txt", "two")
    await world.delete("a.txt")
    assert await settle(world) == {"documents_deleted": 1}
    assert (world.visible("a.txt"), world.visible("b.txt")) == ([], ["two"])
    assert await settle(world) == {}


async def test_a_document_whose_object_was_erased_without_a_trace_is_deleted(world: World) -> None:
    for name in ("a.txt", "b.txt", "c.txt"):
        await world.bring_in(name, name)
    for name in ("a.txt", "c.txt"):
        world.objects.erase(world.key(name))
    assert await settle(world) == {"documents_deleted": 2}
    assert world.visible("b.txt") == ["b.txt"]


async def test_a_put_after_a_delete_that_the_sweep_found_brings_the_document_back(world: World) -> None:
    await world.bring_in("a.txt", "one")
    late_delete = await world.delete("a.txt")
    await settle(world)
    await world.bring_in("a.txt", "two")
    await world.notice(late_delete)
    assert world.visible("a.txt") == ["two"]


async def test_a_put_that_came_before_a_delete_the_sweep_found_stays_away(world: World) -> None:
    await world.bring_in("a.txt", "one")
    late = await world.put("a.txt", "two")
    await world.delete("a.txt")
    await settle(world)
    await world.notice(late)
    await world.embed()
    assert world.visible("a.txt") == []
    assert world.rows("SELECT count(*) FROM document_versions") == [(0,)]


# Orphans ----------------------------------------------------------------------------------------------------------


async def test_an_object_that_comes_after_its_document_was_deleted_over_https_is_deleted(world: World) -> None:
    name = ".edda/0193c7f0-0000-7000-8000-000000000001"
    record = await world.bring_in(name, "one")
    world.rows(GONE_BY_API, world.key(name))
    await world.notice(await world.delete(name))
    await world.put(name, "replayed form")
    assert await settle(world) == {"objects_deleted": 1}
    assert await world.objects.read(world.key(name), 100) is None
    await world.notice(record)
    assert world.visible(name) == []
    assert await settle(world) == {}


async def test_the_object_of_a_deleted_document_goes_though_the_request_could_not_delete_it(world: World) -> None:
    await world.bring_in("a.txt", "one")
    ((document_id,),) = world.rows("SELECT document_id FROM documents")
    await DocumentStore(world.database, world.model.model_id).delete(world.tenant_id, document_id)
    assert await settle(world) == {"objects_deleted": 1}
    assert await world.objects.read(world.key("a.txt"), 100) is None
    assert await settle(world) == {}
    assert world.visible("a.txt") == []


async def test_a_version_in_flight_that_was_replaced_goes_away_and_is_embedded_no_further(world: World) -> None:
    await world.notice(await world.put("a.txt", "old\nshared"))
    await world.bring_in("a.txt", "new\nshared")
    assert sorted(world.embedder.texts) == ["new", "shared"]
    assert await settle(world) == {"versions_dropped": 1}
    assert world.statuses("a.txt") == ["ready"]
    assert world.rows("SELECT text FROM chunks ORDER BY ordinal") == [("new",), ("shared",)]
    assert world.rows("SELECT count(*) FROM embed_batches WHERE done_at IS NULL") == [(0,)]


async def test_a_version_replaced_before_it_was_parsed_is_never_parsed(world: World) -> None:
    first = await world.put("a.txt", "old")
    await world.bring_in("a.txt", "new")
    await world.notice(first)
    await settle(world)
    assert world.embedder.texts == ["new"]
    assert world.statuses("a.txt") == ["ready"]


async def test_a_version_replaced_while_it_is_parsed_stores_nothing(world: World) -> None:
    record = await world.put("a.txt", "old")

    async def replace_it() -> None:
        world.parser.meanwhile = None
        await world.notice(await world.put("a.txt", "new"))

    world.parser.meanwhile = replace_it
    await world.notice(record)
    await settle(world)
    assert world.visible("a.txt") == ["new"]
    assert world.embedder.texts == ["new"]


async def test_failed_versions_do_not_pile_up(world: World) -> None:
    await world.bring_in("a.txt", "good")
    for _ in range(3):
        await world.bring_in("a.txt", " ")
    await settle(world)
    assert world.error_codes("a.txt") == [None, "no_text"]
    assert world.visible("a.txt") == ["good"]


# Rounds -----------------------------------------------------------------------------------------------------------


@dataclass
class SlowListings(FakeObjectStore):
    """Pages of three objects, each of which takes eight seconds."""

    clock_s: float = 0

    async def page(self, prefix: str, after_key: str, limit: int) -> ObjectListing:
        self.clock_s += 8
        return await super().page(prefix, after_key, 3)


async def test_a_large_bucket_is_walked_over_many_rounds_each_going_on_where_the_last_ended(world: World) -> None:
    for number in range(20):
        await world.put(f"{number:02}.txt", str(number))
    slow = SlowListings(objects=world.objects.objects)
    sweep = replace(world.sweep, objects=slow)
    taken_in = []
    for _ in range(3):
        done = await sweep.sweep(Deadline.after(30, lambda: slow.clock_s))
        taken_in.append(done.get("objects_taken_in"))
    assert taken_in == [9, 9, 2]


async def test_a_walk_that_ended_begins_again_only_after_its_interval(world: World) -> None:
    patient = replace(world.sweep, patience=Patience(grace_s=0, event_s=0, walk_s=900))
    assert not any((await patient.sweep(Deadline.after(30))).values())
    await world.put("a.txt", "one")
    assert "objects_taken_in" not in await patient.sweep(Deadline.after(30))
    world.rows("UPDATE bucket_walks SET began_at = began_at - interval '901 seconds'")
    assert (await patient.sweep(Deadline.after(30)))["objects_taken_in"] == 1


async def test_two_walks_at_once_take_everything_in_once(world: World) -> None:
    for number in range(25):
        await world.put(f"{number}.txt", f"text {number}")
    small = SlowListings(objects=world.objects.objects)
    database = connect(world.urls.app)
    first, second = replace(world.sweep, objects=small), replace(sweep_elsewhere(world, database), objects=small)
    await asyncio.gather(first.sweep(Deadline.after(30)), second.sweep(Deadline.after(30)))
    await database.aclose()
    await settle(world)
    assert world.rows("SELECT status, count(*) FROM document_versions GROUP BY 1") == [("ready", 25)]
    assert len(world.embedder.texts) == 25


@dataclass
class PoisonedFolder(FakeObjectStore):
    """One tenant's folder cannot be listed, and one object of the other's cannot be looked at."""

    async def page(self, prefix: str, after_key: str, limit: int) -> ObjectListing:
        if prefix == "globex/":
            raise ZeroDivisionError
        return await super().page(prefix, after_key, limit)

    async def head(self, key: str, version_id: str = "") -> StoredObject:
        if key.endswith("poison.txt"):
            raise StorageUnavailable
        return await super().head(key, version_id)


@pytest.mark.parametrize("reverse", [False, True])
async def test_one_tenants_error_and_one_objects_error_do_not_end_the_round(world: World, reverse: bool) -> None:
    other = await World.build(world.urls, world.model, "globex", objects=world.objects)
    for name in ("a.txt", "poison.txt", "z.txt"):
        await world.put(name, name)
    await other.put("a.txt", "theirs")
    poisoned = PoisonedFolder(objects=world.objects.objects)

    def order(tenants: list[Tenant]) -> None:
        tenants.sort(key=lambda tenant: tenant.slug, reverse=reverse)

    sweep = replace(
        world.sweep, objects=poisoned, observing=replace(world.sweep.observing, objects=poisoned), shuffle=order
    )
    done = await sweep.sweep(Deadline.after(30))
    assert (done["objects_taken_in"], done["objects_failed"], done["tenants_failed"]) == (2, 1, 1)
    assert await world.run_sweep() == {"objects_taken_in": 2}
    await other.database.aclose()


async def test_bucket_and_documents_agree_after_any_changes_whose_events_were_lost_late_or_doubled(
    world: World,
) -> None:
    """Random puts, deletes, restores; each event is lost, doubled or shuffled; then two rounds of the sweep."""
    chance = random.Random(4)
    names = [f"{number}.txt" for number in range(4)]
    for _ in range(6):
        events = []
        for step in range(12):
            name = chance.choice(names)
            what = chance.random()
            if what < 0.6:
                await world.put(name, f"{name} {step}\nshared {chance.randrange(3)}")
            elif what < 0.8:
                await world.delete(name)
            elif world.objects.objects.get(world.key(name)):
                world.objects.restore(world.key(name))
            else:
                continue
            events += [world.objects.events[-1]] * chance.choice([0, 1, 1, 2])
            if chance.random() < 0.3:
                chance.shuffle(events)
                await world.notice(*events[: len(events) // 2])
                del events[: len(events) // 2]
                await world.embed()
        chance.shuffle(events)
        await world.notice(*events)
        await world.embed()
        await settle(world)
        await settle(world)
        for name in names:
            body = await world.objects.read(world.key(name), 1000)
            assert world.visible(name) == ([] if body is None else body.decode().split("\n"))
        assert await settle(world) == {}
