"""Newest wins, by what S3 says of it and not by when we hear of it: restored, unnumbered, oddly numbered."""

import copy
from itertools import permutations

import pytest
from edda.concurrency import Deadline
from edda.errors import Corrupt, QueueUnavailable
from edda.messages import IngestVersion
from edda.store.bucket import Outcome, Sighting
from edda.store.documents import DocumentStore

from tests.database.world import Record, World


def numbered(record: Record, sequencer: str) -> Record:
    """The same event with another sequencer; '' for none, as some emulators and hand-made events have it."""
    changed = copy.deepcopy(record)
    changed["s3"]["object"]["sequencer"] = sequencer
    return changed


def restore(world: World, name: str) -> Record:
    world.objects.restore(world.key(name))
    return world.objects.events[-1]


@pytest.mark.parametrize("lost", [False, True])
async def test_a_delete_marker_that_is_removed_brings_the_document_back(world: World, lost: bool) -> None:
    put = await world.bring_in("a.txt", "one")
    delete = await world.delete("a.txt")
    await world.notice(delete)
    restored = restore(world, "a.txt")
    await world.notice(*([] if lost else [restored]))
    await world.run_sweep()
    await world.answer_ingest_queue()
    await world.embed()
    assert world.visible("a.txt") == ["one"]
    await world.notice(delete, put, restored)
    assert world.visible("a.txt") == ["one"]


@pytest.mark.parametrize("lost", [False, True])
async def test_deleting_the_newest_version_for_good_brings_the_one_before_it_back(world: World, lost: bool) -> None:
    await world.bring_in("a.txt", "old")
    newest = await world.bring_in("a.txt", "new")
    restored = restore(world, "a.txt")
    await world.notice(*([] if lost else [restored]))
    await world.run_sweep()
    await world.answer_ingest_queue()
    assert await world.embed() == {}
    assert world.visible("a.txt") == ["old"]
    await world.notice(newest)
    assert world.visible("a.txt") == ["old"]


async def test_an_old_version_copied_over_the_new_one_is_a_new_version(world: World) -> None:
    await world.bring_in("a.txt", "old")
    await world.bring_in("a.txt", "new")
    paid = len(world.embedder.texts)
    await world.bring_in("a.txt", "old")
    assert world.visible("a.txt") == ["old"]
    assert len(world.embedder.texts) == paid


@pytest.mark.parametrize("order", list(permutations(range(3))))
async def test_sequencers_of_different_lengths_are_padded_and_not_compared_as_strings(
    world: World, order: tuple[int, ...]
) -> None:
    """As plain strings the last would come before the second; as numbers, before both."""
    sequencers = ["0055AED6DCD90281", "0055aed6dcd90281e5", "0055AED7"]
    records = []
    for number, sequencer in enumerate(sequencers):
        records.append(numbered(await world.put("a.txt", f"version {number}"), sequencer))
        await world.notice(records[-1])
        await world.embed()
    await world.notice(*(records[position] for position in order))
    await world.embed()
    assert world.visible("a.txt") == ["version 2"]
    ((newest,),) = world.rows("SELECT max(sequencer) FROM document_versions")
    assert newest.startswith("0055aed7")


@pytest.mark.parametrize("order", list(permutations(range(3))))
async def test_events_without_sequencers_end_as_the_bucket_is(world: World, order: tuple[int, ...]) -> None:
    records = [await world.put("a.txt", "one"), await world.delete("a.txt"), await world.put("a.txt", "two")]
    for position in order:
        await world.notice(numbered(records[position], ""))
        await world.embed()
    assert world.visible("a.txt") == ["two"]
    await world.notice(numbered(await world.delete("a.txt"), ""), numbered(records[0], ""))
    assert world.visible("a.txt") == []


async def test_the_newest_version_without_a_sequencer_replaces_one_that_has_one_and_the_other_way_round(
    world: World,
) -> None:
    await world.bring_in("a.txt", "one")
    for text in ("two", "three"):
        await world.notice(numbered(await world.put("a.txt", text), ""))
        await world.embed()
    assert world.visible("a.txt") == ["three"]
    await world.bring_in("a.txt", "four")
    assert world.visible("a.txt") == ["four"]


async def test_the_old_version_answers_for_ever_when_the_new_one_fails_also_after_a_sweep_and_late_events(
    world: World,
) -> None:
    first = await world.bring_in("a.txt", "old")
    world.parser.error = Corrupt()
    second = await world.put("a.txt", "broken")
    await world.notice(second, first, second)
    for _ in range(2):
        await world.run_sweep()
    assert world.visible("a.txt") == ["old"]
    assert world.error_codes("a.txt") == [None, "corrupt"]


@pytest.mark.parametrize("told", [{}, {"late": True}, {"late": True, "lost": True}])
async def test_what_was_deleted_is_not_found_though_what_was_put_after_it_cannot_be_read(
    world: World, told: dict[str, bool]
) -> None:
    """Whether its delete's event comes in time, after the put's, or never."""
    await world.bring_in("a.txt", "old")
    world.parser.error = Corrupt()
    deleted = await world.delete("a.txt")
    if not told.get("late"):
        await world.notice(deleted)
    await world.notice(await world.put("a.txt", "broken"))
    if not told.get("lost"):
        await world.notice(deleted)
    assert world.visible("a.txt") == []
    await world.run_sweep()
    assert world.error_codes("a.txt") == ["corrupt"]
    assert world.rows("SELECT text FROM chunks UNION ALL SELECT content_hash::text FROM embeddings") == []


async def test_what_a_lifecycle_rule_erased_goes_on_answering_where_the_new_one_cannot_be_read(world: World) -> None:
    await world.bring_in("a.txt", "old")
    world.parser.error = Corrupt()
    broken = await world.put("a.txt", "broken")
    del world.objects.objects[world.key("a.txt")][0]
    await world.notice(broken)
    await world.run_sweep()
    assert world.visible("a.txt") == ["old"]


async def test_a_newest_version_that_was_erased_is_not_found_though_the_one_before_it_cannot_be_read(
    world: World,
) -> None:
    world.parser.error = Corrupt()
    await world.notice(await world.put("a.txt", "broken"))
    world.parser.error = None
    await world.bring_in("a.txt", "erased")
    world.parser.error = Corrupt()
    world.objects.restore(world.key("a.txt"))
    await world.notice(world.objects.events[-1])
    assert world.visible("a.txt") == []
    assert world.error_codes("a.txt")[-1] == "corrupt"


async def test_a_version_that_came_to_be_seen_meanwhile_is_looked_at_again(world: World) -> None:
    await world.notice(await world.put("a.txt", "one"))
    key, bucket = world.key("a.txt"), world.sweep.bucket
    stored = await world.objects.head(key)
    before = Sighting(key, "a.txt", await bucket.last_known(world.tenant_id, key))
    await world.embed()
    assert (await bucket.object_is_there(world.tenant_id, before, stored)).outcome is Outcome.OVERTAKEN


async def test_while_several_versions_are_in_flight_the_last_ready_one_answers(world: World) -> None:
    await world.bring_in("a.txt", "old")
    for number in range(3):
        await world.notice(await world.put("a.txt", f"in flight {number}"))
        assert world.visible("a.txt") == ["old"]
    await world.embed()
    assert world.visible("a.txt") == ["in flight 2"]
    assert world.embedder.texts == ["old", "in flight 2"]


async def test_a_sighting_that_something_has_overtaken_is_not_written_down(world: World) -> None:
    """Two workers look; the slower one saw the object before it was deleted, or deleted before it was put again."""
    await world.bring_in("a.txt", "one")
    key, bucket = world.key("a.txt"), world.sweep.bucket
    stored = await world.objects.head(key)
    before = Sighting(key, "a.txt", await bucket.last_known(world.tenant_id, key))
    await world.notice(await world.delete("a.txt"))
    assert (await bucket.object_is_there(world.tenant_id, before, stored)).outcome is Outcome.OVERTAKEN
    gone = Sighting(key, "a.txt", await bucket.last_known(world.tenant_id, key))
    await world.bring_in("a.txt", "two")
    assert (await bucket.object_is_gone(world.tenant_id, gone)).outcome is Outcome.OVERTAKEN
    assert world.visible("a.txt") == ["two"]


async def test_an_event_does_not_replace_what_was_seen_after_its_look(world: World) -> None:
    """One worker looks for the second put and is frozen; another, for the first, sees the third."""
    first, second = await world.put("a.txt", "one"), await world.put("a.txt", "two")
    key, bucket = world.key("a.txt"), world.sweep.bucket
    stored = await world.objects.head(key)
    sequencer = second["s3"]["object"]["sequencer"]
    last_known = await bucket.last_known(world.tenant_id, key)
    frozen = Sighting(key, "a.txt", last_known, sequencer, exact=True)
    await world.put("a.txt", "three")
    await world.notice(first)
    assert (await bucket.object_is_there(world.tenant_id, frozen, stored)).outcome is Outcome.OVERTAKEN
    await world.notice(second)
    await world.embed()
    assert world.visible("a.txt") == ["three"]


@pytest.mark.parametrize("order", list(permutations(range(4))))
async def test_in_an_unversioned_bucket_sequencers_alone_tell_versions_apart(
    world: World, order: tuple[int, ...]
) -> None:
    world.objects.versioned = False
    records = [await world.put("a.txt", "one"), await world.delete("a.txt")]
    records += [await world.put("a.txt", "two"), await world.put("a.txt", "three")]
    for position in order:
        await world.notice(records[position], records[position])
        await world.embed()
    assert world.visible("a.txt") == ["three"]
    await world.bring_in("a.txt", "four")
    assert world.visible("a.txt") == ["four"]
    await world.notice(await world.delete("a.txt"), *records)
    await world.run_sweep()
    assert world.visible("a.txt") == []


async def test_a_sighting_from_before_a_delete_over_https_does_not_bring_the_document_back(world: World) -> None:
    await world.bring_in("a.txt", "one")
    key, bucket = world.key("a.txt"), world.sweep.bucket
    stored = await world.objects.head(key)
    before = Sighting(key, "a.txt", await bucket.last_known(world.tenant_id, key))
    ((document_id,),) = world.rows("SELECT document_id FROM documents")
    store = DocumentStore(world.database, world.model.model_id)
    await store.delete(world.tenant_id, document_id)
    assert (await bucket.object_is_there(world.tenant_id, before, stored)).outcome is Outcome.UNWANTED
    await world.delete("a.txt")
    await store.object_is_deleted(world.tenant_id, document_id)
    assert (await bucket.object_is_there(world.tenant_id, before, stored)).outcome is Outcome.OVERTAKEN
    await world.bring_in("a.txt", "put after it")
    assert world.visible("a.txt") == ["put after it"]


async def test_messages_of_an_abandoned_version_that_were_not_sent_never_are(world: World) -> None:
    world.embed_queue.refuses = lambda body: True
    with pytest.raises(QueueUnavailable):
        await world.notice(await world.put("a.txt", "old"))
    ((old,),) = world.rows("SELECT version_id FROM document_versions")
    world.embed_queue.refuses = lambda body: False
    await world.notice(await world.put("a.txt", "new"))
    await world.ingestion.ingest(IngestVersion(tenant_id=world.tenant_id, version_id=old), Deadline.after(30))
    await world.run_sweep()
    assert len(world.embed_queue.messages) == 1
    await world.embed()
    assert world.embedder.texts == ["new"]
