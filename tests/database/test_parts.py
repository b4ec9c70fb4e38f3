"""A long file is parsed in parts, by one invocation or by many, and whatever comes between them."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from edda.concurrency import Deadline
from edda.errors import QueueUnavailable, RetryableError
from edda.messages import IngestVersion

from tests.database.parts import LINES, PARTS, TEXT, Clock, at_part, begin, fail_with, stored, the_version
from tests.database.test_sweep import age
from tests.database.test_usage import ledger
from tests.database.world import LineParser, World


async def test_parts_make_the_rows_that_the_whole_makes(parts: World) -> None:
    text = "\n".join(["again", *LINES, "again", "again", *LINES[:20]])
    await parts.bring_in("a.txt", text)
    in_parts = parts.rows("SELECT ordinal, chunk_id, text, char_start, char_end FROM chunks ORDER BY ordinal")
    in_ledger = ledger(parts)
    await parts.notice(await parts.delete("a.txt"))
    parts.parser.part_lines = 1000
    await parts.bring_in("b.txt", text)
    assert in_parts == parts.rows("SELECT ordinal, chunk_id, text, char_start, char_end FROM chunks ORDER BY ordinal")
    assert replace(in_ledger, provider_calls=0) == replace(ledger(parts, "b.txt"), provider_calls=0)
    assert in_ledger.tokens == in_ledger.tokens_planned == 50 * len(LINES[0]) + len("again")


async def test_texts_are_embedded_before_the_last_part_is_parsed_and_seen_after_it(parts: World) -> None:
    seen: list[tuple[int, int, list[str]]] = []

    async def embed_meanwhile() -> None:
        await parts.embed()
        seen.append((stored(parts), parts.vectors(), parts.visible("a.txt")))
        assert parts.statuses("a.txt") == ["parsing"]

    parts.parser.meanwhile = embed_meanwhile
    await parts.notice(await parts.put("a.txt", TEXT))
    assert seen == [(count, count, []) for count in (0, 10, 20, 30, 40)]
    assert parts.statuses("a.txt") == ["embedding"]
    await parts.embed()
    assert parts.visible("a.txt") == LINES


async def test_a_file_is_seen_at_once_when_its_last_part_was_embedded_before(parts: World) -> None:
    await parts.bring_in("first.txt", "\n".join(LINES[-10:]))

    async def embed_meanwhile() -> None:
        await parts.embed()

    parts.parser.meanwhile = embed_meanwhile
    await parts.notice(await parts.put("a.txt", TEXT))
    assert parts.visible("a.txt") == LINES


@pytest.mark.parametrize("embed_between", [True, False])
async def test_where_the_time_is_up_after_each_part_another_invocation_goes_on(
    parts: World, embed_between: bool, no_leaked_tasks: None
) -> None:
    clock = Clock(parts)
    record = await parts.put("a.txt", TEXT)
    await begin(parts, record, clock.deadline(25))
    for done in range(1, PARTS):
        assert (stored(parts), parts.statuses("a.txt"), parts.leases()) == (10 * done, ["parsing"], [])
        if embed_between:
            await parts.embed()
            assert parts.vectors() == 10 * done
        assert await parts.run_sweep() == {}  # it was rung for
        (body,) = parts.ingest_queue.take()
        await parts.ingestion.ingest(IngestVersion.model_validate_json(body), clock.deadline(25))
    assert parts.ingest_queue.take() == []
    assert parts.statuses("a.txt") == ["embedding"]
    await parts.embed()
    assert parts.visible("a.txt") == LINES
    assert parts.rows("SELECT attempt, releases, planned_chunks, parse_state FROM document_versions") == [
        (PARTS, PARTS - 1, 50, None)
    ]
    assert clock.now_s == 10 * PARTS


async def test_two_parts_are_parsed_where_there_is_time_for_two(parts: World) -> None:
    clock = Clock(parts)
    await begin(parts, await parts.put("a.txt", TEXT), clock.deadline(35))
    assert stored(parts) == 20


async def test_the_chunk_ids_do_not_depend_on_how_often_parsing_was_broken_off(parts: World) -> None:
    clock = Clock(parts)
    text = "\n".join([*LINES[:15], *LINES[:35]])
    await begin(parts, await parts.put("a.txt", text), clock.deadline(25))
    while parts.ingest_queue.messages:
        (body,) = parts.ingest_queue.take()
        await parts.ingestion.ingest(IngestVersion.model_validate_json(body), clock.deadline(25))
    await parts.embed()
    broken_off = parts.chunk_ids("a.txt")
    parts.parser.part_lines, parts.parser.meanwhile = 1000, None
    await parts.bring_in("b.txt", text)
    assert parts.chunk_ids("b.txt") == broken_off


@pytest.mark.parametrize("part", range(1, PARTS + 1))
async def test_when_a_worker_dies_over_a_part_the_next_begins_with_that_part(parts: World, part: int) -> None:
    at_part(parts, part, fail_with(parts, asyncio.CancelledError()))
    with pytest.raises(asyncio.CancelledError):
        await parts.notice(await parts.put("a.txt", TEXT))
    assert (stored(parts), len(parts.leases())) == (10 * (part - 1), 1)
    assert await parts.run_sweep() == {}
    age(parts, 60)
    parsed: list[int] = []

    async def look() -> None:
        parsed.append(stored(parts))

    parts.parser.meanwhile = look
    assert await parts.run_sweep() == {"versions_rung": 1}
    await parts.answer_ingest_queue()
    await parts.embed()
    assert parsed == list(range(10 * (part - 1), 50, 10))
    assert parts.visible("a.txt") == LINES


async def test_workers_that_die_over_one_part_each_end_no_file(parts: World) -> None:
    """Only those that die over the same part do."""
    record = await parts.put("a.txt", "\n".join(f"{line} {copy}" for copy in range(2) for line in LINES))
    for dead in range(1, 9):
        at_part(parts, dead + 1, fail_with(parts, asyncio.CancelledError()))
        with pytest.raises(asyncio.CancelledError):
            await parts.notice(record)
        age(parts, 60)
    await parts.notice(record)
    await parts.embed()
    assert parts.statuses("a.txt") == ["ready"]


async def test_a_part_that_kills_every_worker_ends_the_file(parts: World) -> None:
    record = await parts.put("a.txt", TEXT)
    for _ in range(6):
        at_part(parts, 3, fail_with(parts, asyncio.CancelledError()))
        with pytest.raises(asyncio.CancelledError):
            await parts.notice(record)
        age(parts, 60)
        done = await parts.run_sweep()
        if "given_up" in done:
            break
    assert parts.error_codes("a.txt") == ["attempts_exhausted"]
    assert stored(parts) == 20


async def test_a_file_whose_parts_go_on_is_not_given_up_however_old_it_is(parts: World) -> None:
    clock = Clock(parts)
    await begin(parts, await parts.put("a.txt", TEXT), clock.deadline(25))
    parts.ingest_queue.take()
    await parts.embed()
    parts.rows("UPDATE document_versions SET rung_at = NULL, created_at = created_at - interval '2 days'")
    assert await parts.run_sweep() == {"versions_rung": 1}
    parts.ingest_queue.take()
    age(parts, 90_000)
    assert await parts.run_sweep() == {"given_up": 1}


async def test_duplicate_deliveries_change_nothing(parts: World) -> None:
    clock = Clock(parts)
    record = await parts.put("a.txt", TEXT)
    await begin(parts, record, clock.deadline(25))
    bodies = parts.ingest_queue.take() * 3
    for body in bodies:
        await parts.ingestion.ingest(IngestVersion.model_validate_json(body), Deadline.after(30))
        await parts.notice(record)
    await parts.embed()
    assert (parts.visible("a.txt"), stored(parts)) == (LINES, 50)
    assert len(parts.embedder.texts) == 50


async def test_while_one_worker_is_at_a_part_another_leaves_the_file_alone(parts: World) -> None:
    record = await parts.put("a.txt", TEXT)

    async def hear_of_it_again() -> None:
        parts.parser.meanwhile = None
        await parts.notice(record)
        assert stored(parts) == 0

    parts.parser.meanwhile = hear_of_it_again
    await parts.notice(record)
    await parts.embed()
    assert parts.visible("a.txt") == LINES


async def test_a_deadline_in_the_middle_of_a_part_keeps_the_parts_before_it(parts: World) -> None:
    record = await parts.put("a.txt", TEXT)

    def hang() -> None:
        parts.parser.hangs = True

    at_part(parts, 3, hang)
    with pytest.raises(RetryableError):
        await parts.notice(record, seconds=1.5)
    assert (stored(parts), parts.statuses("a.txt")) == (20, ["parsing"])
    assert parts.rows("SELECT lease_until FROM document_versions") == [(None,)]
    parts.parser.hangs = False
    await parts.notice(record)
    await parts.embed()
    assert parts.visible("a.txt") == LINES


async def test_a_worker_whose_lease_was_taken_over_in_the_middle_writes_no_more(parts: World) -> None:
    """It sleeps while it parses the third part; another does the rest; it wakes up."""
    record = await parts.put("a.txt", TEXT)

    async def be_overtaken() -> None:
        if stored(parts) == 20:
            parts.parser.meanwhile = None
            age(parts, 60)
            await replace(parts.ingestion, parser=LineParser(part_lines=10)).ingest(
                the_version(parts), Deadline.after(30)
            )
            assert stored(parts) == 50

    parts.parser.meanwhile = be_overtaken
    await parts.notice(record)
    await parts.embed()
    assert (parts.visible("a.txt"), stored(parts)) == (LINES, 50)
    assert parts.rows("SELECT attempt FROM document_versions") == [(2,)]


async def test_a_worker_that_is_overtaken_by_one_that_parses_on_writes_no_more(parts: World, tmp_path: Path) -> None:
    """The other one has stored a part, and is not done: the cursor is the other's, and so is the right to move it."""
    clock = Clock(parts)
    store = parts.ingestion.store
    await begin(parts, await parts.put("a.txt", TEXT), clock.deadline(25))
    message = the_version(parts)
    zombie = await store.claim_version(message.tenant_id, message.version_id, 0)
    assert zombie is not None
    parts.parser.meanwhile = None
    path = tmp_path / "a.txt"
    path.write_text(TEXT)
    late = await parts.parser.parse(path, "a.txt", None, zombie.cursor)
    successor = await store.claim_version(message.tenant_id, message.version_id, 30)
    assert successor is not None
    assert successor.content_sha256 is not None
    assert await store.save_chunks(successor, late, successor.content_sha256)
    assert not await store.save_chunks(zombie, late, successor.content_sha256)
    assert stored(parts) == 20


async def test_a_part_that_takes_longer_to_store_than_the_lease_lasts_keeps_it(parts: World, tmp_path: Path) -> None:
    """Nothing can renew it meanwhile: there is one connection."""
    clock = Clock(parts)
    store = parts.ingestion.store
    await begin(parts, await parts.put("a.txt", TEXT), clock.deadline(25))
    message = the_version(parts)
    lease = await store.claim_version(message.tenant_id, message.version_id, 0)
    assert lease is not None
    assert lease.content_sha256 is not None
    parts.parser.meanwhile = None
    path = tmp_path / "a.txt"
    path.write_text(TEXT)
    outcome = await parts.parser.parse(path, "a.txt", None, lease.cursor)
    assert await store.save_chunks(lease, outcome, lease.content_sha256)
    assert await store.claim_version(message.tenant_id, message.version_id, 30) is None


async def test_messages_of_a_part_that_could_not_be_sent_are_sent_by_the_sweep(parts: World) -> None:
    parts.embed_queue.refuses = lambda body: True
    with pytest.raises(QueueUnavailable):
        await parts.notice(await parts.put("a.txt", TEXT))
    parts.embed_queue.refuses = lambda body: False
    assert stored(parts) == 10
    assert await parts.run_sweep() == {"batches_rung": 1, "versions_rung": 1}
    await parts.embed()
    assert parts.vectors() == 10
    await parts.answer_ingest_queue()
    await parts.embed()
    assert parts.visible("a.txt") == LINES


async def test_a_message_that_was_lost_is_sent_again_while_the_file_is_still_parsed(parts: World) -> None:
    clock = Clock(parts)
    await begin(parts, await parts.put("a.txt", TEXT), clock.deadline(25))
    parts.embed_queue.take()
    age(parts, 1_900)
    assert await parts.run_sweep() == {"batches_rung": 1, "versions_rung": 1}


async def test_where_the_queue_does_not_take_the_message_the_sweep_rings(parts: World) -> None:
    clock = Clock(parts)
    parts.ingest_queue.refuses = lambda body: True
    await begin(parts, await parts.put("a.txt", TEXT), clock.deadline(25))
    parts.ingest_queue.refuses = lambda body: False
    assert await parts.run_sweep() == {"versions_rung": 1}
    await parts.answer_ingest_queue()
    await parts.embed()
    assert stored(parts) > 10
