"""What was deleted is gone, whenever its event comes, and stays away until it is put again."""

from edda.errors import Corrupt
from edda.s3_events import padded_sequencer
from edda.store.bucket import LastKnown, Outcome, Sighting

from tests.database.world import World


async def test_deleting_an_object_drops_its_chunks_and_vectors(world: World) -> None:
    await world.bring_in("a.txt", "one\nshared")
    await world.bring_in("b.txt", "two\nshared")
    await world.notice(await world.delete("a.txt"))
    assert world.visible("a.txt") == []
    assert world.visible("b.txt") == ["two", "shared"]
    assert world.vectors() == 2


async def test_a_put_that_comes_after_its_delete_makes_no_zombie(world: World) -> None:
    put, delete = await world.put("a.txt", "one"), await world.delete("a.txt")
    await world.notice(delete, put)
    await world.embed()
    assert world.rows("SELECT count(*) FROM document_versions") == [(0,)]


async def test_a_delete_that_a_newer_put_has_overtaken_does_nothing(world: World) -> None:
    await world.bring_in("a.txt", "old")
    delete, put = await world.delete("a.txt"), await world.put("a.txt", "new")
    await world.notice(put)
    await world.embed()
    await world.notice(delete)
    assert world.visible("a.txt") == ["new"]


async def test_a_delete_counts_though_the_object_is_there_again(world: World) -> None:
    await world.bring_in("a.txt", "old")
    delete, put = await world.delete("a.txt"), await world.put("a.txt", "new")
    await world.notice(delete)
    assert world.visible("a.txt") == []
    await world.notice(put)
    await world.embed()
    assert world.visible("a.txt") == ["new"]


async def test_a_put_between_looking_and_deleting_is_not_deleted(world: World) -> None:
    """The delete was found true; before it is written, the object is put again and that event is quicker."""
    await world.bring_in("a.txt", "old")
    delete = await world.delete("a.txt")
    await world.bring_in("a.txt", "new")
    sequencer = padded_sequencer(delete["s3"]["object"]["sequencer"])
    sighting = Sighting(world.key("a.txt"), "a.txt", last_known=LastKnown(), sequencer=sequencer, exact=True)
    noted = await world.sweep.bucket.object_is_gone(world.tenant_id, sighting)
    assert noted.outcome is Outcome.OVERTAKEN
    assert world.visible("a.txt") == ["new"]


async def test_a_newer_put_revives_a_deleted_document(world: World) -> None:
    await world.bring_in("a.txt", "old")
    await world.notice(await world.delete("a.txt"))
    await world.bring_in("a.txt", "new")
    assert world.visible("a.txt") == ["new"]
    assert world.rows("SELECT count(*) FROM documents") == [(1,)]


async def test_what_was_put_before_the_delete_stays_away_after_the_revival(world: World) -> None:
    first, deleted = await world.put("a.txt", "first"), await world.delete("a.txt")
    await world.notice(deleted)
    world.parser.error = Corrupt()
    await world.bring_in("a.txt", "broken")
    world.parser.error = None
    await world.notice(first)
    await world.embed()
    assert world.visible("a.txt") == []
    assert world.statuses("a.txt") == ["failed"]


async def test_a_document_announced_over_https_is_never_revived(world: World) -> None:
    name = ".edda/0193c7f0-0000-7000-8000-000000000001"
    world.rows(
        "INSERT INTO documents (document_id, tenant_id, object_key, name, upload_expires_at) "
        "VALUES (gen_random_uuid(), %s, %s, 'report.pdf', now())",
        world.tenant_id,
        world.key(name),
    )
    await world.bring_in(name, "one")
    assert world.visible(name) == ["one"]
    await world.notice(await world.delete(name))
    await world.bring_in(name, "again")
    assert world.visible(name) == []
    assert world.statuses(name) == []


async def test_deleting_while_it_is_parsed_leaves_nothing_behind(world: World) -> None:
    record = await world.put("a.txt", "one")
    await world.notice(record)
    (message,) = world.embed_queue.take()
    await world.notice(await world.delete("a.txt"))
    world.embed_queue.messages = [message]
    assert await world.embed() == {}
    assert world.embedder.requests == []


async def test_deleting_while_the_provider_answers_leaves_no_vector_behind(world: World) -> None:
    """The batch was claimed, then the document went, then the vectors come."""
    await world.notice(await world.put("a.txt", "one\ntwo"))

    async def delete() -> None:
        await world.notice(await world.delete("a.txt"))

    world.embedder.meanwhile = delete
    assert await world.embed() == {}
    assert world.vectors() == 0
