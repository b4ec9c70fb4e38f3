"""What ends a long file: a new upload, a delete, a failure, a cap."""

from dataclasses import replace

import pytest
from edda.errors import Corrupt, EmbeddingRejected, NotFound, ObjectVanished
from edda.messages import IngestVersion
from edda.store import finishing
from edda.store.documents import DocumentStore
from edda.store.usage import Caps, set_caps

from tests.database.parts import LINES, TEXT, Clock, begin, stored
from tests.database.test_usage import ledger
from tests.database.world import World
from tests.fakes.objects import FakeObjectStore


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
