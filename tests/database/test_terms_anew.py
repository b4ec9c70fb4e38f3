"""Terms follow the document's title, and what an earlier release stored gets its terms: once, by whichever sweep."""

import asyncio

import psycopg
import pytest
from edda.store import terms_anew
from edda.store.conditions import compile_filter
from edda.store.documents import DocumentStore
from edda.store.search import SearchStore
from edda.store.terms_anew import AT_ONCE, make_terms_anew
from edda.terms import query_terms

from tests.database.world import World

LINES = [f"line {number}" for number in range(AT_ONCE * 2 + 10)]


async def found(world: World, query: str) -> int:
    """How many chunks, by words alone."""
    store = SearchStore(world.database, world.model)
    return len(await store.candidates(world.tenant_id, None, query_terms(query), compile_filter(None), 10_000))


async def change_title(world: World, title: str | None) -> None:
    (document_id,) = world.rows("SELECT document_id FROM documents")[0]
    await DocumentStore(world.database, world.model.model_id).update(world.tenant_id, document_id, {"title": title})


def to_do(world: World) -> list[int | None]:
    return [row[0] for row in world.rows("SELECT terms_from FROM document_versions ORDER BY created_at")]


async def test_terms_of_a_long_document_follow_its_title(world: World) -> None:
    await world.bring_in("a.txt", "\n".join(LINES))
    assert to_do(world) == [None]
    await change_title(world, "Quuxes")
    await change_title(world, "Zorblaxes")
    assert (await found(world, "quux"), await found(world, "zorblax")) == (0, AT_ONCE)
    assert await world.run_sweep() == {"terms_made": AT_ONCE + 10}
    assert (await found(world, "zorblax"), await found(world, "line")) == (len(LINES), len(LINES))
    assert to_do(world) == [None]
    assert await world.run_sweep() == {}
    await change_title(world, "Zorblaxes")
    assert to_do(world) == [None], "it is the same title"


async def test_a_title_that_is_changed_while_the_file_is_parsed(world: World) -> None:
    await world.notice(await world.put("a.txt", "an old line"))

    async def meanwhile() -> None:
        world.parser.meanwhile = None
        await change_title(world, "Zorblaxes")

    world.parser.meanwhile = meanwhile
    await world.bring_in("a.txt", "one\ntwo")
    assert await found(world, "zorblax") == 0
    assert await world.run_sweep() == {"terms_made": 2, "versions_dropped": 1}
    assert await found(world, "zorblax") == 2


@pytest.mark.parametrize(
    "stored", ["UPDATE chunk_terms SET weights = '{}/1000000000', terms = '{}'", "DELETE FROM chunk_terms"]
)
async def test_what_an_earlier_release_stored_is_found_by_words_after_a_sweep(world: World, stored: str) -> None:
    """Before there were terms, or while this release was deployed."""
    await world.bring_in("a.txt", "\n".join(LINES))
    world.rows(stored)
    world.rows("UPDATE document_versions SET terms_from = 0")
    assert await found(world, "line") == 0
    assert await world.run_sweep() == {"terms_made": len(LINES)}
    assert await found(world, "line") == len(LINES)


async def test_a_title_that_is_changed_while_terms_are_made_wins(world: World) -> None:
    await world.bring_in("a.txt", "one\ntwo")
    (version_id,) = world.rows("SELECT version_id FROM document_versions")[0]
    world.rows("UPDATE document_versions SET terms_from = -1")
    with psycopg.connect(world.urls.owner) as other:
        other.execute("UPDATE documents SET title = 'Zorblaxes'")
        made = asyncio.create_task(make_terms_anew(world.database, world.tenant_id, version_id))
        async with asyncio.timeout(20):
            # Until it has read the chunks, and would write.
            while not world.rows("SELECT 1 FROM pg_locks WHERE NOT granted"):  # noqa: ASYNC110 - a server has no event
                await asyncio.sleep(0.01)
    assert await made == 0
    assert await make_terms_anew(world.database, world.tenant_id, version_id) == 2
    assert await found(world, "zorblax") == 2


async def test_terms_that_two_make_at_once_are_there_once(world: World) -> None:
    await world.bring_in("a.txt", "\n".join(LINES))
    world.rows("UPDATE document_versions SET terms_from = -1")
    await asyncio.gather(world.run_sweep(), world.run_sweep())
    assert to_do(world) == [None]
    assert world.rows("SELECT count(*) FROM chunk_terms") == [(len(LINES),)]


async def test_a_file_whose_first_part_an_earlier_release_stored(world: World) -> None:
    """While one is deployed, its function may store the first part of a long file, and ours the last."""
    world.parser.part_lines = 10
    parts = 0

    async def meanwhile() -> None:
        nonlocal parts
        parts += 1
        if parts == 2:
            world.rows("DELETE FROM chunk_terms")

    world.parser.meanwhile = meanwhile
    await world.bring_in("a.txt", "\n".join(f"line {number}" for number in range(20)))
    assert parts == 2
    assert await found(world, "line") == 10
    assert await world.run_sweep() == {"terms_made": 20}
    assert (await found(world, "line"), to_do(world)) == (20, [None])


async def test_a_step_is_bounded_by_characters(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks may be long: a step that is longer than a turn would be begun anew for ever."""
    monkeypatch.setattr(terms_anew, "CHARACTERS", 20)
    await world.bring_in("a.txt", "\n".join(["a line", "another line", "x" * 100, "the last line"]))
    world.rows("UPDATE document_versions SET terms_from = -1")
    ((version_id,),) = world.rows("SELECT version_id FROM document_versions")
    steps = []
    while made := await make_terms_anew(world.database, world.tenant_id, version_id):
        steps.append(made)
    assert steps == [3, 1]
    assert to_do(world) == [None]
