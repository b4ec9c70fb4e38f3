"""Failed work is begun again, and dead letters go back without those that have nothing to say any more."""

from json import dumps
from uuid import uuid4

import pytest
from edda.errors import Corrupt, NotFound, RetryableError
from edda.operating import Operating
from edda.store.bucket import BucketStore, DeleteBrake
from edda.store.keys import KeyStore
from edda.store.redrive import RedriveStore

from tests.database.test_delete_brake import braked, library
from tests.database.world import World
from tests.fakes.queue import FakeQueue


@pytest.fixture
def operating(world: World) -> Operating:
    return Operating(RedriveStore(world.database), BucketStore(world.database, DeleteBrake()), KeyStore(world.database))


async def drive(world: World) -> None:
    """The sweep rings for what was begun again, and the functions answer."""
    await world.run_sweep()
    await world.answer_ingest_queue()
    await world.embed()


# Documents --------------------------------------------------------------------------------------------------------


async def test_a_failed_document_is_begun_again_and_becomes_ready(world: World, operating: Operating) -> None:
    world.parser.error = Corrupt()
    await world.bring_in("a.txt", "one")
    world.parser.error = None
    ((document_id,),) = world.rows("SELECT document_id FROM documents")
    assert await operating.redrive_document(document_id) == {"begun": 1}
    assert await operating.redrive_document(document_id) == {"under_way": 1}
    await drive(world)
    assert world.visible("a.txt") == ["one"]
    assert await operating.redrive_document(document_id) == {"ready": 1}
    await world.run_sweep()
    assert world.statuses("a.txt") == ["ready"]


async def test_a_partial_document_answers_until_its_refused_chunks_are_embedded_and_pays_for_these_alone(
    world: World, operating: Operating
) -> None:
    world.embedder.refuses = {"bad"}
    await world.bring_in("a.txt", "good\nbad\nfine")
    world.embedder.refuses = set()
    world.embedder.requests.clear()
    assert await operating.redrive_tenant("acme") == {"begun": 1}
    assert world.visible("a.txt") == ["good", "fine"]
    await drive(world)
    assert world.visible("a.txt") == ["good", "bad", "fine"]
    assert world.embedder.texts == ["bad"]


async def test_redriving_a_tenant_begins_what_failed_and_nothing_else(world: World, operating: Operating) -> None:
    other = await World.build(world.urls, world.model, "globex", objects=world.objects)
    await world.bring_in("ready.txt", "one")
    await world.bring_in("empty.txt", "")
    await world.bring_in("deleted.txt", "")
    await world.notice(await world.delete("deleted.txt"))
    await world.bring_in("better now.txt", "")
    await world.bring_in("better now.txt", "two")
    await world.bring_in("worse now.txt", "three")
    await world.bring_in("worse now.txt", "")
    await other.bring_in("theirs.txt", "")
    assert await operating.redrive_tenant("acme") == {"begun": 2}
    await drive(world)
    assert world.error_codes("empty.txt")[-1] == "no_text"
    assert world.visible("worse now.txt") == ["three"]
    assert other.statuses("theirs.txt") == ["failed"]
    await other.database.aclose()


async def test_a_document_under_way_whose_messages_were_lost_is_rung_for_without_waiting(
    world: World, operating: Operating
) -> None:
    world.parser.error = RetryableError()
    with pytest.raises(RetryableError):
        await world.notice(await world.put("a.txt", "one"))
    world.parser.error = None
    ((document_id,),) = world.rows("SELECT document_id FROM documents")
    assert await world.run_sweep() == {"versions_rung": 1}
    world.ingest_queue.take()
    assert await world.run_sweep() == {}
    assert await operating.redrive_document(document_id) == {"under_way": 1}
    assert await world.run_sweep() == {"versions_rung": 1}
    await world.answer_ingest_queue()
    world.embed_queue.take()
    assert await world.run_sweep() == {}
    assert await operating.redrive_document(document_id) == {"under_way": 1}
    assert await world.run_sweep() == {"batches_rung": 1}
    await world.embed()
    assert world.visible("a.txt") == ["one"]


async def test_work_in_somebodys_hands_is_not_rung_for_by_a_redrive(world: World, operating: Operating) -> None:
    async def redrive() -> None:
        world.parser.meanwhile = world.embedder.meanwhile = None
        ((document_id,),) = world.rows("SELECT document_id FROM documents")
        assert await operating.redrive_document(document_id) == {"under_way": 1}
        assert await world.run_sweep() == {}

    world.parser.meanwhile = world.embedder.meanwhile = redrive
    await world.notice(await world.put("a.txt", "one"))
    world.embedder.meanwhile = redrive
    await world.embed()
    assert world.embedder.texts == ["one"]


async def test_deleted_and_waiting_documents_are_named_as_what_they_are(world: World, operating: Operating) -> None:
    await world.bring_in("a.txt", "")
    ((document_id,),) = world.rows("SELECT document_id FROM documents")
    await world.notice(await world.delete("a.txt"))
    assert await operating.redrive_document(document_id) == {"deleted": 1}
    world.rows("UPDATE documents SET deleted_at = NULL")
    assert await operating.redrive_document(document_id) == {"waiting": 1}


async def test_what_does_not_exist_is_said_not_to(world: World, operating: Operating) -> None:
    with pytest.raises(NotFound, match="no document"):
        await operating.redrive_document(uuid4())
    for verb in (operating.redrive_tenant, operating.confirm_deletes, operating.discard_deletes):
        with pytest.raises(NotFound, match="no tenant 'nobody'"):
            await verb("nobody")


# Dead letters -----------------------------------------------------------------------------------------------------


async def test_dead_embed_messages_go_back_unless_their_work_is_done_replaced_or_deleted(
    world: World, operating: Operating
) -> None:
    for name in ("open.txt", "done.txt", "replaced.txt", "deleted.txt"):
        await world.notice(await world.put(name, f"{name} old"))
    dead = FakeQueue(world.embed_queue.take())
    live = FakeQueue()
    await world.notice(await world.put("replaced.txt", "new"), await world.delete("deleted.txt"))
    world.embed_queue.messages = [body for body in dead.messages if is_of(world, "done.txt", body)]
    await world.embed()
    assert await operating.redrive_queue(dead, live) == {"moved": 1, "stale": 3, "unreadable": 0, "not_sent": 0}
    assert [is_of(world, "open.txt", body) for body in live.messages] == [True]
    assert live.groups == [str(world.tenant_id)]
    assert dead.hidden == {}


def is_of(world: World, name: str, body: str) -> bool:
    query = "SELECT v.version_id FROM document_versions v JOIN documents d USING (document_id) WHERE d.object_key = %s"
    return any(str(version_id) in body for (version_id,) in world.rows(query, world.key(name)))


async def test_dead_ingest_messages_go_back_unless_something_newer_is_known(world: World, operating: Operating) -> None:
    def body(record: object) -> str:
        return dumps({"Records": [record]})

    replaced = await world.put("a.txt", "old")
    await world.bring_in("a.txt", "new")
    deleted = await world.put("b.txt", "two")
    await world.notice(await world.delete("b.txt"))
    lost = await world.put("c.txt", "three")
    strange = {"eventName": "ObjectCreated:Put", "s3": {"object": {"key": "stranger/a.txt", "sequencer": "00"}}}
    await world.notice(await world.put("d.txt", ""))
    ((version_id,),) = world.rows("SELECT version_id FROM document_versions WHERE status = 'failed'")
    ended = dumps({"v": 1, "type": "ingest_version", "tenant_id": str(world.tenant_id), "version_id": str(version_id)})
    unreadable = ["no json", "[]", '{"v": 9, "type": "ingest_version"}', "null"]
    stale = [body(replaced), body(deleted), body(strange), ended, '{"Event": "s3:TestEvent"}']
    dead, live = FakeQueue([*unreadable, *stale, body(lost)] * 2), FakeQueue()
    assert await operating.redrive_queue(dead, live) == {"moved": 2, "stale": 10, "unreadable": 8, "not_sent": 0}
    assert live.messages == [body(lost)] * 2
    assert sorted(dead.hidden.values()) == sorted(unreadable * 2)


async def test_a_message_the_queue_does_not_take_stays_a_dead_letter(world: World, operating: Operating) -> None:
    await world.notice(await world.put("a.txt", "one"), await world.put("b.txt", "two"))
    bodies = world.embed_queue.take()
    dead, live = FakeQueue(list(bodies)), FakeQueue(refuses=lambda body: body == bodies[0])
    assert (await operating.redrive_queue(dead, live))["not_sent"] == 1
    assert live.messages == bodies[1:]
    assert list(dead.hidden.values()) == bodies[:1]


# Held deletes -----------------------------------------------------------------------------------------------------


async def test_confirming_and_discarding_say_how_many(world: World, operating: Operating) -> None:
    names = await library(braked(world), 10)
    for name in names:
        await world.notice(await world.delete(name))
    world.rows("UPDATE documents SET hold = 'kept' WHERE object_key > %s AND hold IS NOT NULL", world.key("06.txt"))
    assert await operating.confirm_deletes("acme") == {"deleted": 4}
    assert await operating.confirm_deletes("acme") == {"deleted": 0}
    world.rows("UPDATE documents SET hold = 'held' WHERE hold IS NOT NULL")
    assert await operating.discard_deletes("acme") == {"kept": 3}
    assert await operating.discard_deletes("acme") == {"kept": 0}
