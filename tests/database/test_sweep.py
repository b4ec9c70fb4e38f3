"""What was lost, stuck or superseded is driven to an end: once, however often and by however many sweeps."""

import asyncio
from dataclasses import replace

import pytest
from edda.concurrency import Deadline
from edda.errors import QueueUnavailable, RetryableError
from edda.messages import EmbedBatch, IngestVersion
from edda.observing import Observing
from edda.store.bucket import BucketStore, DeleteBrake
from edda.store.database import Database
from edda.store.ingest import IngestStore
from edda.store.keys import KeyStore
from edda.store.sweep import Patience, SweepStore
from edda.sweeping import AttemptsExhausted, Sweep

from tests.database.world import World, connect

LINES = [f"line {number}" for number in range(100)]


def sweep_elsewhere(world: World, database: Database) -> Sweep:
    """The sweep of another execution environment."""
    bucket = BucketStore(database, DeleteBrake())
    return replace(
        world.sweep,
        store=SweepStore(database, world.model.model_id),
        ingest_store=IngestStore(database, world.model.model_id),
        bucket=bucket,
        keys=KeyStore(database),
        observing=Observing(bucket, world.objects),
    )


async def leave_unparsed(world: World, name: str = "a.txt", text: str = "one") -> None:
    """A version whose parsing was begun and could not be done."""
    error, world.parser.error = world.parser.error, RetryableError()
    with pytest.raises(RetryableError):
        await world.notice(await world.put(name, text))
    world.parser.error = error


def age(world: World, seconds: int) -> None:
    """Everything that was written or sent is so much older."""
    past = f"- interval '{seconds} seconds'"
    world.rows(f"UPDATE document_versions SET created_at = created_at {past}, chunked_at = chunked_at {past}, "
               f"parted_at = parted_at {past}, lease_until = lease_until {past}, rung_at = rung_at {past}")  # fmt: skip
    world.rows(f"UPDATE embed_batches SET sent_at = sent_at {past}, lease_until = lease_until {past}")


async def test_a_sweep_of_nothing_does_nothing(world: World) -> None:
    assert await world.run_sweep() == {}
    await world.bring_in("a.txt", "one")
    assert await world.run_sweep() == {}


async def test_a_version_nobody_parses_is_rung_for_once_and_driven_to_its_end(world: World) -> None:
    await leave_unparsed(world)
    assert await world.run_sweep() == {"versions_rung": 1}
    assert await world.run_sweep() == {}
    await world.answer_ingest_queue()
    await world.embed()
    assert world.visible("a.txt") == ["one"]
    assert await world.run_sweep() == {}


async def test_a_ring_nobody_answered_is_repeated_after_a_while(world: World) -> None:
    await leave_unparsed(world)
    assert await world.run_sweep() == {"versions_rung": 1}
    age(world, 1801)
    assert await world.run_sweep() == {"versions_rung": 1}


async def test_a_ring_the_queue_did_not_take_is_repeated_by_the_next_sweep(world: World) -> None:
    await leave_unparsed(world)
    world.ingest_queue.refuses = lambda body: True
    assert await world.run_sweep() == {}
    world.ingest_queue.refuses = lambda body: False
    assert await world.run_sweep() == {"versions_rung": 1}


async def test_a_worker_that_died_after_it_was_rung_for_is_noticed_when_its_lease_ends(world: World) -> None:
    await leave_unparsed(world)
    await world.run_sweep()
    message = IngestVersion.model_validate_json(world.ingest_queue.take()[0])
    lease = await world.ingestion.store.claim_version(world.tenant_id, message.version_id, 60)
    assert lease is not None
    assert await world.run_sweep() == {}
    age(world, 61)
    assert await world.run_sweep() == {"versions_rung": 1}


async def test_work_that_is_younger_than_the_grace_period_is_left_alone(world: World) -> None:
    await leave_unparsed(world)
    world.embed_queue.refuses = lambda body: True
    with pytest.raises(QueueUnavailable):
        await world.notice(await world.put("b.txt", "two"))
    patient = replace(world.sweep, patience=Patience())
    assert not any((await patient.sweep(Deadline.after(30))).values())
    age(world, 121)
    world.embed_queue.refuses = lambda body: False
    done = await patient.sweep(Deadline.after(30))
    assert (done["versions_rung"], done["batches_rung"]) == (1, 1)


async def test_a_version_somebody_is_parsing_is_left_alone(world: World) -> None:
    record = await world.put("a.txt", "one")

    async def sweep_meanwhile() -> None:
        assert await world.run_sweep() == {}

    world.parser.meanwhile = sweep_meanwhile
    await world.notice(record)
    assert world.statuses("a.txt") == ["embedding"]


async def test_a_version_whose_workers_died_too_often_fails_with_its_reason(world: World) -> None:
    await leave_unparsed(world)
    for _ in range(5):
        await world.run_sweep()
        message = IngestVersion.model_validate_json(world.ingest_queue.take()[0])
        assert await world.ingestion.store.claim_version(world.tenant_id, message.version_id, 60) is not None
        age(world, 61)
    assert await world.run_sweep() == {"given_up": 1}
    assert (world.statuses("a.txt"), world.error_codes("a.txt")) == (["failed"], ["attempts_exhausted"])
    assert await world.run_sweep() == {}


async def test_an_outage_uses_up_no_attempts_until_it_has_lasted_for_a_day(world: World) -> None:
    await leave_unparsed(world)
    world.parser.error = RetryableError()
    for _ in range(10):
        assert await world.run_sweep() == {"versions_rung": 1}
        with pytest.raises(RetryableError):
            await world.answer_ingest_queue()
    age(world, 86_401)
    assert await world.run_sweep() == {"given_up": 1}


async def test_giving_up_on_a_new_version_leaves_the_old_one_visible(world: World) -> None:
    await world.bring_in("a.txt", "old")
    await leave_unparsed(world, "a.txt", "new")
    world.rows("UPDATE document_versions SET attempt = 9 WHERE finished_at IS NULL")
    assert await world.run_sweep() == {"given_up": 1}
    assert world.visible("a.txt") == ["old"]


async def test_nobody_gives_up_on_a_version_that_somebody_has_taken_since(world: World) -> None:
    record = await world.put("a.txt", "one")

    async def give_up_meanwhile() -> None:
        ((version_id,),) = world.rows("SELECT version_id FROM document_versions")
        assert await world.sweep.store.give_up(world.tenant_id, version_id, AttemptsExhausted()) is False

    world.parser.meanwhile = give_up_meanwhile
    await world.notice(record)
    assert world.statuses("a.txt") == ["embedding"]


async def test_batches_that_were_never_sent_are_sent_once(world: World) -> None:
    world.embed_queue.refuses = lambda body: True
    with pytest.raises(QueueUnavailable):
        await world.notice(await world.put("a.txt", "\n".join(LINES)))
    world.embed_queue.refuses = lambda body: False
    assert await world.run_sweep() == {"batches_rung": 2}
    assert await world.run_sweep() == {}
    await world.embed()
    assert world.visible("a.txt") == LINES


async def test_a_message_that_was_lost_is_sent_again_after_a_while(world: World) -> None:
    await world.notice(await world.put("a.txt", "one"))
    world.embed_queue.take()
    assert await world.run_sweep() == {}
    age(world, 1801)
    assert await world.run_sweep() == {"batches_rung": 1}
    await world.embed()
    assert world.visible("a.txt") == ["one"]


async def test_a_batch_whose_worker_died_is_rung_for_once_when_its_lease_ends(world: World) -> None:
    await world.notice(await world.put("a.txt", "one"))
    (body,) = world.embed_queue.take()
    await world.claim_batch(EmbedBatch.model_validate_json(body), 60)
    assert await world.run_sweep() == {}
    age(world, 61)
    assert await world.run_sweep() == {"batches_rung": 1}
    assert await world.run_sweep() == {}
    await world.embed()
    assert world.visible("a.txt") == ["one"]


async def test_a_batch_tried_too_often_fails_its_version(world: World) -> None:
    await world.notice(await world.put("a.txt", "one"))
    world.rows("UPDATE embed_batches SET attempt = 5")
    age(world, 1801)
    assert await world.run_sweep() == {"given_up": 1}
    assert world.error_codes("a.txt") == ["attempts_exhausted"]
    assert await world.embed() == {}
    assert world.embedder.requests == []


async def test_a_version_whose_last_worker_died_before_it_could_say_so_is_finished(world: World) -> None:
    await world.notice(await world.put("a.txt", "one"))
    world.rows("UPDATE embed_batches SET done_at = now()")
    world.rows(
        "INSERT INTO embeddings SELECT tenant_id, %s, content_hash, %s::halfvec FROM chunks",
        world.model.model_id,
        str([1.0] + [0.0] * 63),
    )
    assert await world.run_sweep() == {"versions_finished": 1}
    assert world.visible("a.txt") == ["one"]


async def test_a_version_that_turns_out_to_lack_a_vector_is_planned_again(world: World) -> None:
    await world.notice(await world.put("a.txt", "\n".join(LINES)))
    world.embed_queue.take()
    world.rows("UPDATE embed_batches SET done_at = now()")
    done = await world.run_sweep()
    assert done.get("batches_rung") == 1
    assert "versions_finished" not in done
    await world.embed()
    assert world.visible("a.txt") == LINES


async def test_a_finished_version_is_never_planned_again(world: World) -> None:
    """Another worker finishes it between the sweep's look and its lock."""
    world.embedder.refuses = {"bad"}
    await world.bring_in("a.txt", "good\nbad")
    ((version_id,),) = world.rows("SELECT version_id FROM document_versions")
    batches = world.rows("SELECT * FROM embed_batches")
    world.rows("UPDATE document_versions SET status = 'embedding', finished_at = NULL")
    stale = asyncio.create_task(_finish_late(world))
    await stale
    assert world.rows("SELECT status FROM document_versions WHERE version_id = %s", version_id) == [("partial",)]
    assert world.rows("SELECT * FROM embed_batches") == batches


async def _finish_late(world: World) -> None:
    """A sweep that has seen the version as unfinished, and gets its lock only after somebody else finished it."""
    import psycopg

    from tests.database.test_pipeline_embedding import until_waiting

    async with await psycopg.AsyncConnection.connect(world.urls.owner) as holder:
        await holder.execute("SELECT FROM documents FOR UPDATE")
        sweeping = asyncio.create_task(world.sweep.store.finish_versions(world.tenant_id, 0))
        await until_waiting(world, 1)
        await holder.execute("UPDATE document_versions SET status = 'partial', finished_at = now()")
        await holder.commit()
    await sweeping


# Superseded -------------------------------------------------------------------------------------------------------


async def test_superseded_chunks_and_their_vectors_are_dropped_and_shared_vectors_stay(world: World) -> None:
    await world.bring_in("a.txt", "old\nshared with b\nkept")
    await world.bring_in("b.txt", "shared with b")
    await world.bring_in("a.txt", "new\nkept")
    assert await world.run_sweep() == {"versions_dropped": 1}
    assert await world.run_sweep() == {}
    assert world.visible("a.txt") == ["new", "kept"]
    assert world.visible("b.txt") == ["shared with b"]
    assert world.rows("SELECT count(*) FROM chunks") == [(3,)]
    assert world.vectors() == 3


async def test_a_late_old_version_is_dropped_though_it_was_finished_last(world: World) -> None:
    old = await world.put("a.txt", "old")
    await world.bring_in("a.txt", "new")
    await world.notice(old)
    await world.embed()
    assert world.visible("a.txt") == ["new"]
    await world.run_sweep()
    assert world.rows("SELECT text FROM chunks") == [("new",)]


async def test_the_visible_version_is_kept_while_a_newer_one_is_not_ready(world: World) -> None:
    await world.bring_in("a.txt", "old")
    await world.notice(await world.put("a.txt", "new"))
    assert await world.run_sweep() == {}
    assert world.visible("a.txt") == ["old"]


# Several ----------------------------------------------------------------------------------------------------------


async def test_two_sweeps_at_once_do_everything_and_harm_nothing(world: World) -> None:
    await world.bring_in("old.txt", "one\ntwo")
    await world.bring_in("old.txt", "two\nthree")
    for number in range(5):
        await leave_unparsed(world, f"unparsed {number}.txt", f"text {number}")
    world.embed_queue.refuses = lambda body: True
    for number in range(5):
        with pytest.raises(QueueUnavailable):
            await world.notice(await world.put(f"unsent {number}.txt", f"more {number}"))
    world.embed_queue.refuses = lambda body: False
    database = connect(world.urls.app)
    second = sweep_elsewhere(world, database)
    await asyncio.gather(world.run_sweep(), second.sweep(Deadline.after(30)))
    await database.aclose()
    await world.answer_ingest_queue()
    await world.embed()
    assert world.rows("SELECT status, count(*) FROM document_versions GROUP BY 1") == [("ready", 11)]
    assert len(world.embedder.texts) == 13  # one, two, three and the ten others: nothing twice
    assert await world.run_sweep() == {}


async def test_every_tenant_is_swept(world: World) -> None:
    other = await World.build(world.urls, world.model, "globex", objects=world.objects)
    await leave_unparsed(world)
    await leave_unparsed(other)
    assert await world.run_sweep() == {"versions_rung": 2}
    await other.database.aclose()


async def test_a_sweep_without_time_left_begins_nothing(world: World) -> None:
    await leave_unparsed(world)
    assert await world.sweep.sweep(Deadline.after(0)) == {"tenants_left": 1}
