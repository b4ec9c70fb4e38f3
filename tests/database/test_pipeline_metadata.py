"""`name.ext.metadata.json` beside an object: before it, after it, wrong, gone."""

import json
from typing import Any

import pytest
from edda.errors import StorageUnavailable
from edda.object_metadata import MAX_FILE_BYTES

from tests.database.world import World


def sidecar(**attributes: Any) -> str:
    return json.dumps({"metadataAttributes": attributes})


async def test_a_metadata_file_that_comes_before_its_document_is_taken_over(world: World) -> None:
    await world.notice(await world.put("a.txt.metadata.json", sidecar(year=2024)))
    assert world.rows("SELECT count(*) FROM documents") == [(0,)]
    await world.bring_in("a.txt", "one")
    assert world.metadata("a.txt") == ({"year": 2024}, None)


async def test_a_metadata_file_that_comes_after_its_document_is_taken_over_without_embedding(world: World) -> None:
    await world.bring_in("a.txt", "one")
    world.embedder.requests.clear()
    await world.bring_in("a.txt.metadata.json", sidecar(year=2024, tags=["x", "y"]))
    assert world.metadata("a.txt") == ({"year": 2024, "tags": ["x", "y"]}, None)
    assert world.embedder.requests == []
    assert world.rows("SELECT count(*) FROM documents") == [(1,)]


async def test_the_last_metadata_file_counts_however_late_its_events_are(world: World) -> None:
    await world.bring_in("a.txt", "one")
    first = await world.put("a.txt.metadata.json", sidecar(year=1))
    second = await world.put("a.txt.metadata.json", sidecar(year=2))
    await world.notice(second, first, first)
    assert world.metadata("a.txt") == ({"year": 2}, None)


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("no json", "not JSON"),
        ("{", "not JSON"),
        ("[1]", "metadataAttributes"),
        ("{}", "metadataAttributes"),
        (sidecar(nested={"a": {"b": 1}}), "unknown type"),
        ('{"metadataAttributes": {"x": NaN}}', "NaN"),
        ('{"metadataAttributes": {"x": 1e999}}', "number"),
        (sidecar(x="a\0b"), "NUL"),
        ('{"metadataAttributes": {"x": "\\ud800"}}', "NUL"),
        ("[" * 100_000, "not JSON"),
        (sidecar(x="y" * (MAX_FILE_BYTES + 1)), "larger than"),
        (b"\xff\xfe\xfd", "not JSON"),
    ],
)
async def test_a_metadata_file_that_cannot_be_read_is_a_warning_and_the_old_values_stay(
    world: World, body: str | bytes, problem: str
) -> None:
    await world.bring_in("a.txt", "one")
    await world.notice(await world.put("a.txt.metadata.json", sidecar(year=2024)))
    await world.notice(await world.put("a.txt.metadata.json", body))
    metadata, warning = world.metadata("a.txt")
    assert metadata == {"year": 2024}
    assert warning is not None
    assert problem in warning
    assert world.statuses("a.txt") == ["ready"]


async def test_a_metadata_file_that_cannot_be_read_does_not_stop_the_document(world: World) -> None:
    await world.put("a.txt.metadata.json", "no json")
    await world.bring_in("a.txt", "one")
    assert world.visible("a.txt") == ["one"]
    assert world.metadata("a.txt")[1] is not None


async def test_a_corrected_metadata_file_clears_the_warning(world: World) -> None:
    await world.bring_in("a.txt", "one")
    await world.notice(await world.put("a.txt.metadata.json", "no json"))
    await world.notice(await world.put("a.txt.metadata.json", sidecar(year=2024)))
    assert world.metadata("a.txt") == ({"year": 2024}, None)


async def test_removing_the_metadata_file_removes_the_metadata(world: World) -> None:
    await world.bring_in("a.txt", "one")
    await world.notice(await world.put("a.txt.metadata.json", sidecar(year=2024)))
    await world.notice(await world.delete("a.txt.metadata.json"))
    assert world.metadata("a.txt") == ({}, None)
    assert world.visible("a.txt") == ["one"]


async def test_removing_a_document_leaves_its_metadata_file_for_the_next_one(world: World) -> None:
    await world.bring_in("a.txt", "one")
    await world.notice(await world.put("a.txt.metadata.json", sidecar(year=2024)))
    await world.notice(await world.delete("a.txt"))
    await world.bring_in("a.txt", "two")
    assert world.metadata("a.txt") == ({"year": 2024}, None)


async def test_a_document_without_a_metadata_file_keeps_what_the_api_gave_it(world: World) -> None:
    await world.bring_in("a.txt", "one")
    world.rows('UPDATE documents SET metadata = \'{"by": "api"}\'')
    await world.bring_in("a.txt", "two")
    assert world.metadata("a.txt") == ({"by": "api"}, None)


async def test_metadata_that_storage_could_not_give_comes_with_the_next_delivery(world: World) -> None:
    await world.bring_in("a.txt", "one")
    record = await world.put("a.txt.metadata.json", sidecar(year=2024))
    world.objects.outage = True
    with pytest.raises(StorageUnavailable):
        await world.notice(record)
    world.objects.outage = False
    await world.notice(record)
    assert world.metadata("a.txt") == ({"year": 2024}, None)


@pytest.mark.parametrize("name", ["ü.txt", "a b+c%.txt", "deep/er/a.txt"])
async def test_a_metadata_file_finds_its_document_by_any_name(world: World, name: str) -> None:
    await world.bring_in(name, "one")
    await world.notice(await world.put(f"{name}.metadata.json", sidecar(year=2024)))
    assert world.metadata(name) == ({"year": 2024}, None)
