"""From an event to a visible version: whatever the order, and however often it is told."""

import errno
import os
from hashlib import sha256
from itertools import permutations
from pathlib import Path

import pytest
from edda.concurrency import Deadline
from edda.errors import Corrupt, QueueUnavailable, RetryableError, StorageUnavailable
from edda.messages import IngestVersion
from edda.terms import query_terms, term_ids

from tests.database.world import MAX_CHUNKS, MAX_DOCUMENT_BYTES, World
from tests.postgres import DatabaseUrls

LINES = [f"line {number}" for number in range(100)]


async def test_a_file_in_the_bucket_becomes_visible_chunks_in_order(world: World) -> None:
    await world.bring_in("notes/lines.txt", "\n".join(LINES))
    assert world.statuses("notes/lines.txt") == ["ready"]
    assert world.visible("notes/lines.txt") == LINES
    assert world.leases() == []


async def test_every_column_of_a_chunk_is_stored_as_it_was_parsed(world: World) -> None:
    await world.bring_in("a.txt", "  first\nsecond  \n")
    rows = world.rows(
        "SELECT ordinal, text, tokens, char_start, char_end, page, heading_path, language FROM chunks ORDER BY ordinal"
    )
    assert rows == [
        (0, "first", 5, 0, 5, None, ["a.txt"], "en"),
        (1, "second", 6, 8, 14, None, ["a.txt"], "en"),
    ]


async def test_a_chunk_s_terms_are_those_of_its_text_and_of_the_title_that_its_document_was_given(world: World) -> None:
    await world.bring_in("a.txt", "one lorry")
    world.rows("UPDATE documents SET title = 'Courier handbook'")
    await world.bring_in("a.txt", "two lorries")
    rows = world.rows("SELECT c.text, t.terms FROM chunks c JOIN chunk_terms t USING (version_id, ordinal)")
    terms = {text: set(terms) for text, terms in rows}
    assert terms.keys() >= {"two lorries"}
    for word, wanted in (("lorry", True), ("courier", True), ("handbook", True), ("one", False)):
        numbers = set(term_ids(world.tenant_id, query_terms(word).terms))
        assert bool(numbers & terms["two lorries"]) is wanted, word


async def test_nothing_is_visible_before_every_vector_is_there(world: World) -> None:
    await world.notice(await world.put("a.txt", "one\ntwo"))
    assert (world.statuses("a.txt"), world.visible("a.txt")) == (["embedding"], [])


# Doubled, late, reversed ------------------------------------------------------------------------------------------


async def test_the_same_event_twice_makes_one_version_and_embeds_once(world: World) -> None:
    record = await world.put("a.txt", "one\ntwo")
    await world.notice(record, record)
    await world.embed()
    await world.notice(record)
    await world.embed()
    assert world.statuses("a.txt") == ["ready"]
    assert sorted(world.embedder.texts) == ["one", "two"]


async def test_a_message_delivered_again_after_the_work_is_done_costs_nothing(world: World) -> None:
    await world.notice(await world.put("a.txt", "one\ntwo"))
    messages = list(world.embed_queue.messages)
    await world.embed()
    world.embed_queue.messages = messages
    assert await world.embed() == {}
    assert len(world.embedder.requests) == 1


async def test_replaying_every_event_and_message_changes_nothing(world: World) -> None:
    records = [await world.put("a.txt", "one\ntwo"), await world.put("b.txt", "two\nthree")]
    records += [await world.put("a.txt", "one\nfour"), await world.delete("b.txt")]
    await world.notice(*records)
    messages = list(world.embed_queue.messages)
    await world.embed()
    await world.run_sweep()
    everything = "SELECT to_jsonb(d) - 'updated_at' FROM documents d ORDER BY object_key"
    versions = "SELECT to_jsonb(v) FROM document_versions v ORDER BY version_id"
    chunks = "SELECT to_jsonb(c) FROM chunks c ORDER BY version_id, ordinal"
    before = [world.rows(query) for query in (everything, versions, chunks)]
    paid = len(world.embedder.texts)
    await world.notice(*records)
    world.embed_queue.messages += messages
    await world.embed()
    await world.run_sweep()
    assert [world.rows(query) for query in (everything, versions, chunks)] == before
    assert len(world.embedder.texts) == paid


@pytest.mark.parametrize("order", list(permutations(range(3))))
async def test_the_newest_version_wins_in_whatever_order_the_events_come(world: World, order: tuple[int, ...]) -> None:
    records = [await world.put("a.txt", f"version {number}\nshared") for number in range(3)]
    for position in order:
        await world.notice(records[position])
    world.embed_queue.messages.reverse()
    await world.embed()
    assert world.visible("a.txt") == ["version 2", "shared"]


@pytest.mark.parametrize("order", list(permutations(range(4))))
async def test_put_delete_put_delete_ends_as_it_should_in_whatever_order_the_events_come(
    world: World, order: tuple[int, ...]
) -> None:
    records = [await world.put("a.txt", "one"), await world.delete("a.txt")]
    records += [await world.put("a.txt", "two"), await world.delete("a.txt")]
    for position in order:
        await world.notice(records[position])
        await world.embed()
    assert world.visible("a.txt") == []
    assert world.rows("SELECT count(*) FROM chunks") == [(0,)]
    assert world.vectors() == 0


@pytest.mark.parametrize("order", list(permutations(range(3))))
async def test_put_delete_put_ends_with_the_last_put_in_whatever_order_the_events_come(
    world: World, order: tuple[int, ...]
) -> None:
    records = [await world.put("a.txt", "one"), await world.delete("a.txt"), await world.put("a.txt", "two")]
    for position in order:
        await world.notice(records[position])
        await world.embed()
    assert world.visible("a.txt") == ["two"]


async def test_the_old_version_answers_until_the_new_one_is_ready(world: World) -> None:
    await world.bring_in("a.txt", "old")
    await world.notice(await world.put("a.txt", "new"))
    assert world.visible("a.txt") == ["old"]
    await world.embed()
    assert world.visible("a.txt") == ["new"]


async def test_the_old_version_goes_on_answering_when_the_new_one_fails(world: World) -> None:
    await world.bring_in("a.txt", "old")
    world.parser.error = Corrupt()
    await world.bring_in("a.txt", "new")
    assert world.statuses("a.txt") == ["ready", "failed"]
    assert world.error_codes("a.txt") == [None, "corrupt"]
    await world.run_sweep()
    assert world.visible("a.txt") == ["old"]


async def test_an_overwrite_while_the_first_version_is_in_flight_never_mixes_the_two(world: World) -> None:
    first = await world.put("a.txt", "old one\nshared")
    await world.notice(first)
    messages = world.embed_queue.take()
    await world.bring_in("a.txt", "new one\nshared")
    world.embed_queue.messages = messages
    await world.embed()
    assert world.visible("a.txt") == ["new one", "shared"]
    assert world.error_codes("a.txt") == ["superseded", None]


# Identity ---------------------------------------------------------------------------------------------------------


async def test_the_same_bytes_again_keep_their_chunk_ids_and_cost_no_call(world: World) -> None:
    await world.bring_in("a.txt", "\n".join(LINES))
    ids, paid = world.chunk_ids("a.txt"), len(world.embedder.requests)
    await world.bring_in("a.txt", "\n".join(LINES))
    assert world.statuses("a.txt") == ["ready", "ready"]
    assert world.chunk_ids("a.txt") == ids
    assert len(world.embedder.requests) == paid


async def test_the_same_file_under_another_name_has_the_same_chunk_ids_and_costs_no_call(world: World) -> None:
    await world.bring_in("a.txt", "one\ntwo")
    await world.bring_in("b/c.txt", "one\ntwo")
    assert world.chunk_ids("a.txt") == world.chunk_ids("b/c.txt")
    assert len(world.embedder.requests) == 1


async def test_an_edited_file_embeds_only_its_new_texts(world: World) -> None:
    await world.bring_in("a.txt", "\n".join(LINES))
    world.embedder.requests.clear()
    await world.bring_in("a.txt", "\n".join(["a new beginning", *LINES[:50], "a new middle", *LINES[50:]]))
    assert sorted(world.embedder.texts) == ["a new beginning", "a new middle"]
    assert len(world.visible("a.txt")) == 102


async def test_equal_texts_are_embedded_once(world: World) -> None:
    await world.bring_in("a.txt", "\n".join(["same", "other"] * 200))
    assert sorted(world.embedder.texts) == ["other", "same"]
    assert world.visible("a.txt") == ["same", "other"] * 200
    assert len(set(world.chunk_ids("a.txt"))) == 400


async def test_two_tenants_share_neither_vectors_nor_chunk_ids(
    world: World, pipeline_database_urls: DatabaseUrls
) -> None:
    other = await World.build(pipeline_database_urls, world.model, "globex")
    await world.bring_in("a.txt", "one")
    await other.bring_in("a.txt", "one")
    assert world.visible("a.txt") == other.visible("a.txt") == ["one"]
    assert world.chunk_ids("a.txt") != other.chunk_ids("a.txt")
    assert world.vectors() == 2
    await other.notice(await other.delete("a.txt"))
    assert world.visible("a.txt") == ["one"]
    await other.database.aclose()


# Bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd",
        "a/../b.txt",
        "with space.txt",
        "a+b.txt",
        "100%.txt",
        "%2e%2e%2f.txt",
        "line\nbreak.txt",
        "\U0001f600.txt",
        "a//b.txt",
        'it\'s "quoted".txt',
        "ü.txt",
        "x" * 1000,
        ".metadata.json",
    ],
)
async def test_a_key_of_any_shape_is_data_and_nothing_else(world: World, name: str) -> None:
    await world.bring_in(name, "one")
    assert world.visible(name) == ["one"]


async def test_a_key_that_postgres_cannot_hold_is_left_alone(world: World, caplog: pytest.LogCaptureFixture) -> None:
    await world.notice(await world.put("nul\0.txt", "one"))
    assert world.rows("SELECT count(*) FROM documents") == [(0,)]
    assert "outside of any tenant's folder" in caplog.text


@pytest.mark.parametrize(
    "key", ["stranger/a.txt", "a.txt", "/a.txt", "../acme/a.txt", "acme/", "acme/folder/", "ACME/a"]
)
async def test_what_belongs_to_no_tenant_is_logged_and_left_alone(
    world: World, caplog: pytest.LogCaptureFixture, key: str
) -> None:
    await world.objects.put(key, b"one", "text/plain")
    await world.notice(*world.objects.events)
    assert world.rows("SELECT count(*) FROM documents") == [(0,)]
    assert "outside of any tenant's folder" in caplog.text


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "no_text"),
        ("  \n\n ", "no_text"),
        ("x" * (MAX_DOCUMENT_BYTES + 1), "document_too_large"),
        ("x\n" * (MAX_CHUNKS + 1), "too_many_chunks"),
    ],
)
async def test_a_file_that_cannot_be_taken_fails_with_its_reason(world: World, text: str, code: str) -> None:
    await world.bring_in("a.txt", text)
    assert world.statuses("a.txt") == ["failed"]
    assert world.error_codes("a.txt") == [code]
    assert world.leases() == []


async def test_an_object_that_is_gone_before_it_is_seen_is_no_error(world: World) -> None:
    record = await world.put("a.txt", "one")
    world.objects.erase(world.key("a.txt"))
    await world.notice(record)
    assert world.rows("SELECT count(*) FROM documents") == [(0,)]


async def test_an_object_that_is_gone_before_it_is_read_fails_with_its_reason(world: World) -> None:
    world.parser.error = RetryableError()
    with pytest.raises(RetryableError):
        await world.notice(await world.put("a.txt", "one"))
    world.objects.erase(world.key("a.txt"))
    ((version_id,),) = world.rows("SELECT version_id FROM document_versions")
    message = IngestVersion(tenant_id=world.tenant_id, version_id=version_id)
    await world.ingestion.ingest(message, Deadline.after(30))
    assert world.error_codes("a.txt") == ["object_vanished"]
    assert await world.run_sweep() == {"documents_deleted": 1}


async def test_a_failed_version_is_not_tried_again_by_a_late_event(world: World) -> None:
    world.parser.error = Corrupt()
    record = await world.put("a.txt", "one")
    await world.notice(record)
    world.parser.error = None
    await world.notice(record)
    assert world.statuses("a.txt") == ["failed"]


async def test_a_message_about_a_version_that_does_not_exist_is_nothing_to_do(world: World) -> None:
    await world.ingestion.ingest(
        IngestVersion(tenant_id=world.tenant_id, version_id=world.tenant_id), Deadline.after(30)
    )


# Time and other services ------------------------------------------------------------------------------------------


async def test_a_deadline_that_passes_inside_the_parser_gives_the_lease_back(world: World) -> None:
    world.parser.hangs = True
    record = await world.put("a.txt", "one")
    with pytest.raises(RetryableError):
        await world.notice(record, seconds=0.05)
    assert world.leases() == []
    world.parser.hangs = False
    await world.notice(record)
    await world.embed()
    assert world.visible("a.txt") == ["one"]


async def test_while_storage_is_out_nothing_is_lost(world: World) -> None:
    record = await world.put("a.txt", "one")
    world.objects.outage = True
    with pytest.raises(StorageUnavailable):
        await world.notice(record)
    world.objects.outage = False
    await world.notice(record)
    await world.embed()
    assert world.visible("a.txt") == ["one"]


async def test_a_full_disk_is_waited_out(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> bytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    record = await world.put("a.txt", "one")
    with monkeypatch.context() as full:
        full.setattr(type(world.objects), "download", fail)
        with pytest.raises(RetryableError):
            await world.notice(record)
    assert world.leases() == []
    assert world.statuses("a.txt") == ["parsing"]
    await world.notice(record)
    await world.embed()
    assert world.visible("a.txt") == ["one"]


async def test_a_lease_that_was_taken_over_cannot_write_any_more(world: World, tmp_path: Path) -> None:
    """A worker stops past its lease, another takes over, and the first one wakes up."""
    store = world.ingestion.store
    world.parser.error = RetryableError()
    with pytest.raises(RetryableError):
        await world.notice(await world.put("a.txt", "one"))
    ((version_id,),) = world.rows("SELECT version_id FROM document_versions")
    zombie = await store.claim_version(world.tenant_id, version_id, 0)
    assert zombie is not None
    successor = await store.claim_version(world.tenant_id, version_id, 30)
    assert successor is not None
    world.parser.error = None
    (tmp_path / "a.txt").write_text("one")
    outcome = await world.parser.parse(tmp_path / "a.txt", "a.txt", None)
    digest = sha256(b"one").digest()
    assert await store.save_chunks(zombie, outcome, digest) is False
    await store.fail_version(zombie, Corrupt())
    await store.release_version(zombie)
    assert world.statuses("a.txt") == ["parsing"]
    assert len(world.leases()) == 1
    assert await store.save_chunks(successor, outcome, digest) is True
    await world.ingestion.send_batches(world.tenant_id, version_id)
    await world.embed()
    assert world.visible("a.txt") == ["one"]


async def test_while_one_worker_holds_a_version_another_leaves_it_alone(world: World) -> None:
    record = await world.put("a.txt", "one")

    async def hear_of_it_again() -> None:
        world.parser.meanwhile = None
        await world.notice(record)
        assert world.statuses("a.txt") == ["parsing"]

    world.parser.meanwhile = hear_of_it_again
    await world.notice(record)
    assert world.statuses("a.txt") == ["embedding"]
    await world.embed()


async def test_messages_that_could_not_be_sent_are_sent_by_the_next_delivery(world: World) -> None:
    world.embed_queue.refuses = lambda body: '"first_ordinal":64' in body
    record = await world.put("a.txt", "\n".join(f"line {number}" for number in range(200)))
    with pytest.raises(QueueUnavailable):
        await world.notice(record)
    assert world.rows("SELECT first_ordinal FROM embed_batches WHERE sent_at IS NULL") == [(64,)]
    await world.embed()
    assert world.statuses("a.txt") == ["embedding"]
    world.embed_queue.refuses = lambda body: False
    await world.notice(record)
    assert len(world.embed_queue.messages) == 1
    await world.embed()
    assert world.statuses("a.txt") == ["ready"]


async def test_messages_that_could_not_be_sent_are_sent_by_the_sweep(world: World) -> None:
    world.embed_queue.refuses = lambda body: True
    with pytest.raises(QueueUnavailable):
        await world.notice(await world.put("a.txt", "\n".join(LINES)))
    world.embed_queue.refuses = lambda body: False
    assert await world.run_sweep() == {"batches_rung": 2}
    await world.embed()
    assert world.visible("a.txt") == LINES
