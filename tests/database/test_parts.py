"""A long file is parsed in parts, by one invocation or by many, and whatever comes between them."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from edda.concurrency import Deadline
from edda.errors import Corrupt, EmbeddingRejected, NotFound, ObjectVanished, QueueUnavailable, RetryableError
from edda.messages import IngestVersion
from edda.s3_events import object_changes
from edda.store import finishing
from edda.store.documents import DocumentStore
from edda.store.usage import Caps, set_caps

from tests.database.test_sweep import age
from tests.database.test_usage import ledger
from tests.database.world import LineParser, Record, World
from tests.fakes.objects import FakeObjectStore

LINES = [f"line {number:03}" for number in range(50)]
TEXT = "\n".join(LINES)
PARTS = 5


@pytest.fixture
def parts(world: World) -> World:
    world.parser.part_lines = len(LINES) // PARTS
    return world


class Clock:
    """Time goes on only while a part is parsed: ten seconds each."""

    def __init__(self, world: World) -> None:
        self.now_s = 0.0
        world.parser.meanwhile = self.tick

    async def tick(self) -> None:
        self.now_s += 10

    def deadline(self, seconds: float) -> Deadline:
        return Deadline.after(seconds, self)

    def __call__(self) -> float:
        return self.now_s


async def begin(world: World, record: Record, deadline: Deadline) -> None:
    """The chunk function hears of this change."""
    (change,) = object_changes({"Records": [record]})
    await world.ingestion.object_changed(change, deadline)


def the_version(world: World) -> IngestVersion:
    """What to say to the chunk function so that it goes on."""
    ((version_id,),) = world.rows("SELECT version_id FROM document_versions")
    return IngestVersion(tenant_id=world.tenant_id, version_id=version_id)


def stored(world: World) -> int:
    return int(world.rows("SELECT count(*) FROM chunks")[0][0])


def at_part(world: World, number: int, then: Callable[[], None]) -> None:
    """Something happens when this part, from 1, is about to be parsed; the parts before it are stored."""

    async def look() -> None:
        if stored(world) == (number - 1) * len(LINES) // PARTS:
            world.parser.meanwhile = None
            then()

    world.parser.meanwhile = look


def fail_with(world: World, error: BaseException) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


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


async def test_a_new_upload_in_the_middle_ends_the_old_one(parts: World) -> None:
    """What was embedded of the old one and is in the new one too is not paid for again; the rest goes."""
    clock = Clock(parts)
    await begin(parts, await parts.put("a.txt", TEXT), clock.deadline(35))
    await parts.embed()
    assert parts.vectors() == 20
    new = [*LINES[:15], "new"]
    parts.parser.meanwhile = None
    await parts.notice(await parts.put("a.txt", "\n".join(new)))
    await parts.answer_ingest_queue()  # for the old one
    await parts.embed()
    assert parts.statuses("a.txt") == ["failed", "ready"]
    assert parts.visible("a.txt") == new
    assert len(parts.embedder.texts) == 21
    await parts.run_sweep()
    assert (stored(parts), parts.vectors()) == (16, 16)


async def test_a_new_upload_while_a_part_is_parsed_ends_the_old_one(parts: World) -> None:
    async def put_anew() -> None:
        if stored(parts) == 20:
            parts.parser.meanwhile = None
            await parts.notice(await parts.put("a.txt", "new"))

    parts.parser.meanwhile = put_anew
    await parts.notice(await parts.put("a.txt", TEXT))
    await parts.embed()
    assert parts.visible("a.txt") == ["new"]
    await parts.run_sweep()
    assert (stored(parts), parts.vectors()) == (1, 1)


@pytest.mark.parametrize("embed_first", [True, False])
async def test_a_delete_in_the_middle_leaves_nothing(parts: World, embed_first: bool) -> None:
    async def delete() -> None:
        if stored(parts) == 30:
            parts.parser.meanwhile = None
            if embed_first:
                await parts.embed()
            await parts.notice(await parts.delete("a.txt"))

    parts.parser.meanwhile = delete
    await parts.notice(await parts.put("a.txt", TEXT))
    await parts.embed()
    await parts.answer_ingest_queue()
    assert (stored(parts), parts.vectors(), parts.rows("SELECT * FROM embed_batches")) == (0, 0, [])


@pytest.mark.parametrize("replaced", [True, False])
async def test_a_long_file_is_deleted_piece_by_piece(
    parts: World, monkeypatch: pytest.MonkeyPatch, replaced: bool
) -> None:
    """More chunks than are deleted at once, and texts that another file needs."""
    monkeypatch.setattr(finishing, "MOST_AT_ONCE", 7)
    await parts.bring_in("b.txt", "\n".join(LINES[:5]))
    await parts.bring_in("a.txt", TEXT)
    if replaced:
        await parts.bring_in("a.txt", LINES[49])
    else:
        await parts.notice(await parts.delete("a.txt"))
        assert parts.visible("a.txt") == []
        assert stored(parts) == 55  # nobody waits for it
    assert await parts.run_sweep() == {"versions_dropped": 1}
    assert (stored(parts), parts.vectors()) == ((6, 6) if replaced else (5, 5))
    assert parts.visible("b.txt") == LINES[:5]


async def test_a_long_file_that_is_deleted_over_https_is_gone_at_once(
    parts: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finishing, "MOST_AT_ONCE", 7)
    await parts.bring_in("a.txt", TEXT)
    await parts.notice(await parts.put("a.txt", TEXT + "\nmore"))  # and a version in flight
    documents = DocumentStore(parts.database, parts.model.model_id)
    ((document_id,),) = parts.rows("SELECT document_id FROM documents")
    await documents.delete(parts.tenant_id, document_id)
    with pytest.raises(NotFound):
        await documents.get(parts.tenant_id, document_id)
    assert await parts.embed() == {}
    assert len(parts.embedder.texts) == len(LINES)  # nothing more is paid for
    assert (await parts.run_sweep())["versions_dropped"] == 2
    assert (stored(parts), parts.vectors()) == (0, 0)
    told = parts.rows("SELECT type FROM document_events ORDER BY sequence")
    assert [one for (one,) in told] == ["document.ready", "document.failed", "document.deleted"]


@pytest.mark.parametrize("dropped", [True, False])
async def test_a_long_file_that_is_restored_after_its_delete_is_there_again(
    parts: World, monkeypatch: pytest.MonkeyPatch, dropped: bool
) -> None:
    """The same version of the object, whether the sweep has dropped what was made of it or has yet to."""
    monkeypatch.setattr(finishing, "MOST_AT_ONCE", 7)
    await parts.bring_in("a.txt", TEXT)
    await parts.notice(await parts.delete("a.txt"))
    if dropped:
        await parts.run_sweep()
    parts.objects.restore(parts.key("a.txt"))
    await parts.notice(parts.objects.events[-1])
    await parts.embed()
    assert parts.visible("a.txt") == LINES
    await parts.run_sweep()
    assert parts.visible("a.txt") == LINES
    assert (stored(parts), parts.vectors()) == (50, 50)


async def test_a_file_that_fails_in_its_third_part_fails_and_the_earlier_version_answers(parts: World) -> None:
    await parts.bring_in("a.txt", "old")

    def break_off() -> None:
        parts.parser.error = Corrupt()

    async def look() -> None:
        if stored(parts) == 21:
            break_off()

    parts.parser.meanwhile = look
    await parts.notice(await parts.put("a.txt", TEXT))
    assert parts.statuses("a.txt") == ["ready", "failed"]
    assert parts.error_codes("a.txt") == [None, "corrupt"]
    await parts.embed()
    assert len(parts.embedder.texts) == 1  # nothing more is paid for
    assert parts.visible("a.txt") == ["old"]
    await parts.notice(await parts.delete("a.txt"))
    assert (stored(parts), parts.vectors()) == (0, 0)


async def test_a_text_that_is_refused_counts_wherever_it_comes_again(parts: World) -> None:
    parts.embedder.refuses = {"bad"}
    lines = ["bad", *LINES[:19], "bad", *LINES[19:29]]

    async def embed_meanwhile() -> None:
        await parts.embed()

    parts.parser.meanwhile = embed_meanwhile
    await parts.notice(await parts.put("a.txt", "\n".join(lines)))
    await parts.embed()
    assert parts.statuses("a.txt") == ["partial"]
    assert parts.visible("a.txt") == LINES[:29]
    assert parts.rows("SELECT count(*) FROM chunks WHERE error_code = %s", EmbeddingRejected.code) == [(2,)]


async def test_a_cap_ends_the_file_at_the_part_that_is_too_much(parts: World) -> None:
    await set_caps(parts.urls.owner, parts.tenant, Caps(tokens_per_day=25 * len(LINES[0])))
    await parts.notice(await parts.put("a.txt", TEXT))
    await parts.embed()
    assert parts.error_codes("a.txt") == ["quota_exceeded"]
    assert ledger(parts).tokens_planned == 20 * len(LINES[0])
    assert ledger(parts).chunks == stored(parts) == 20


async def test_a_file_that_uses_its_cap_up_to_the_last_token_is_parsed_to_its_end(parts: World) -> None:
    clock = Clock(parts)
    await set_caps(parts.urls.owner, parts.tenant, Caps(tokens_per_day=20 * len(LINES[0])))
    await begin(parts, await parts.put("a.txt", "\n".join(LINES[:20] * 2)), clock.deadline(25))
    while bodies := parts.ingest_queue.take():
        await parts.ingestion.ingest(IngestVersion.model_validate_json(bodies[0]), clock.deadline(25))
    await parts.embed()
    assert parts.statuses("a.txt") == ["ready"]


async def test_chunks_are_counted_over_all_parts(parts: World) -> None:
    parts.ingestion = replace(parts.ingestion, max_chunks=29)
    await parts.notice(await parts.put("a.txt", TEXT))
    assert parts.error_codes("a.txt") == ["too_many_chunks"]
    await parts.bring_in("b.txt", "\n".join(LINES[:29]))
    assert parts.statuses("b.txt") == ["ready"]


async def test_a_file_is_without_text_when_all_its_parts_are(parts: World) -> None:
    await parts.notice(await parts.put("blank.txt", "\n" * 25))
    assert parts.error_codes("blank.txt") == ["no_text"]
    await parts.bring_in("late.txt", "\n" * 25 + "word")
    assert parts.visible("late.txt") == ["word"]


async def test_another_object_in_the_place_of_the_first_is_not_read_on(world: World) -> None:
    """Without versions the bucket shows what is there now; the event of that is still to come."""
    bucket = FakeObjectStore(versioned=False)
    parts = await World.build(world.urls, world.model, "initech", database=world.database, objects=bucket)
    parts.parser.part_lines = 10
    clock = Clock(parts)
    await begin(parts, await parts.put("a.txt", TEXT), clock.deadline(25))
    record = await parts.put("a.txt", TEXT.replace("line", "other"))
    await parts.answer_ingest_queue()
    assert parts.error_codes("a.txt") == [ObjectVanished.code]
    parts.parser.meanwhile = None
    await parts.notice(record)
    await parts.embed()
    assert parts.visible("a.txt") == [line.replace("line", "other") for line in LINES]


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
