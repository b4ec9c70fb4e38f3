"""Documents over HTTPS: listed, read, changed and deleted, on a real database."""

import json
from typing import Any

import pytest
from edda.runtime import run

from tests.handlers.stage import (
    HOSTILE,
    Client,
    Stage,
    assert_problem,
    document,
    stored,
)
from tests.postgres import as_owner

# Reading -----------------------------------------------------------------------------------------------------------


def walk(client: Client, path: str, items: str, **query: Any) -> list[Any]:
    """Every item of a list, page by page."""
    found, cursor = [], None
    while True:
        page = client.send("GET", path, query=query | ({"cursor": cursor} if cursor else {}))
        assert page.status == 200, page.body
        assert len(page.json[items]) <= query["limit"]
        found += page.json[items]
        if (cursor := page.json["next_cursor"]) is None:
            return found


@pytest.mark.parametrize("limit", [1, 2, 5, 100])
def test_a_list_is_walked_newest_first_without_a_gap(stage: Stage, limit: int) -> None:
    ids = [stage.client.upload(name=f"{n}.txt").json["document_id"] for n in range(5)]
    stage.other.upload()
    found = walk(stage.client, "/v1/documents", "documents", limit=limit)
    assert [one["document_id"] for one in found] == ids[::-1]


def test_documents_of_the_same_instant_are_each_listed_once(stage: Stage) -> None:
    ids = {stage.client.upload(name=f"{n}.txt").json["document_id"] for n in range(5)}
    as_owner(stage.world.urls, "UPDATE documents SET created_at = now() WHERE tenant_id = %s", [stage.world.tenant_id])
    found = [one["document_id"] for one in walk(stage.client, "/v1/documents", "documents", limit=2)]
    assert len(found) == 5
    assert set(found) == ids


def test_a_list_can_be_filtered(stage: Stage) -> None:
    ready = stage.ready(metadata='{"year": 2024, "with, comma": "a,b"}')
    stage.client.upload(metadata='{"year": 2023}')

    def listed(**query: Any) -> list[str]:
        found = stage.client.send("GET", "/v1/documents", query=query).json["documents"]
        return [one["document_id"] for one in found]

    assert listed(status="ready") == [ready]
    assert len(listed(status="waiting")) == 1
    assert listed(filter='{"field": "year", "op": "in", "value": [2024, 2025]}') == [ready]
    assert listed(filter='{"field": "with, comma", "op": "eq", "value": "a,b"}') == [ready]
    assert listed(filter='{"field": "media_type", "op": "eq", "value": "text/plain"}') == [ready]
    assert listed(filter='{"field": "year", "op": "gte", "value": 2024}', status="waiting") == []
    assert listed(filter=json.dumps({"field": HOSTILE, "op": "eq", "value": HOSTILE})) == []


@pytest.mark.parametrize(
    ("query", "code", "place"),
    [
        ({"limit": 0}, "invalid_request", "limit"),
        ({"limit": 101}, "invalid_request", "limit"),
        ({"limit": "ten"}, "invalid_request", "limit"),
        ({"status": "done"}, "invalid_request", "status"),
        ({"cursor": "x"}, "invalid_request", "cursor"),
        ({"cursor": "é" * 10}, "invalid_request", "cursor"),
        ({"cursor": "WyIyMDI2LTAxLTAxIiwgIngiXQ"}, "invalid_request", "cursor"),  # ["2026-01-01", "x"]
        ({"cursor": "bnVsbA"}, "invalid_request", "cursor"),  # null
        ({"cursor": "x" * 501}, "invalid_request", "cursor"),
        ({"filter": "{"}, "invalid_filter", "filter"),
        ({"filter": '{"year": 1}'}, "invalid_filter", "filter"),
        ({"filter": '{"field": "x", "op": "eq", "value": NaN}'}, "invalid_filter", "filter"),
    ],
)
def test_a_list_refuses_what_it_does_not_understand(stage: Stage, query: Any, code: str, place: str) -> None:
    answer = stage.client.send("GET", "/v1/documents", query=query)
    assert_problem(answer, 422, code)
    assert answer.fields == [place]


@pytest.mark.parametrize("limit", [1, 2, 100])
def test_chunks_are_walked_in_order(stage: Stage, limit: int) -> None:
    text = "One.\nTwo.\nThree.\nFour.\nFive.\n"
    document_id = stage.ready(text.encode())
    found = walk(stage.client, f"/v1/documents/{document_id}/chunks", "chunks", limit=limit)
    assert [chunk["text"] for chunk in found] == text.split()
    assert [chunk["ordinal"] for chunk in found] == [0, 1, 2, 3, 4]
    assert all(text[chunk["char_start"] : chunk["char_end"]] == chunk["text"] for chunk in found)
    assert all(chunk["error"] is None for chunk in found)


def test_a_chunk_that_the_provider_refused_says_so(stage: Stage) -> None:
    stage.world.embedder.refuses.add("Bad.")
    document_id = stage.ready(b"Good.\nBad.\n")
    partial = document(stage, document_id)
    assert (partial["status"], partial["chunks"]) == ("partial", {"planned": 2, "embedded": 1, "failed": 1})
    chunks = stage.client.send("GET", f"/v1/documents/{document_id}/chunks").json["chunks"]
    assert [chunk["error"] and chunk["error"]["code"] for chunk in chunks] == [None, "embedding_rejected"]


@pytest.mark.parametrize("cursor", ["x", "WyJ4Il0", "Wy0xXQ", "WzFlOTld", "WzQyOTQ5NjcyOTZd"])
def test_chunks_refuse_a_cursor_that_is_none(stage: Stage, cursor: str) -> None:
    document_id = stage.ready()
    answer = stage.client.send("GET", f"/v1/documents/{document_id}/chunks", query={"cursor": cursor})
    assert_problem(answer, 422, "invalid_request")


# Changing ----------------------------------------------------------------------------------------------------------


def test_a_change_is_seen_by_the_next_search_and_embeds_nothing(stage: Stage) -> None:
    document_id = stage.ready(b"Some text.", metadata='{"year": 2023, "team": "legal"}', tags="old", title="Old")
    requests = len(stage.world.embedder.requests)
    change = {"name": "new.txt", "title": None, "tags": ["new"], "metadata": {"year": 2024}}
    answer = stage.client.send("PATCH", f"/v1/documents/{document_id}", json=change)
    assert answer.status == 200
    assert {field: answer.json[field] for field in change} == change
    assert len(stage.world.embedder.requests) == requests
    (hit,) = stage.client.search("Some text.", filter={"field": "year", "op": "eq", "value": 2024}).json["hits"]
    assert (hit["name"], hit["tags"], hit["metadata"]) == ("new.txt", ["new"], {"year": 2024})
    assert stage.client.search("x", filter={"field": "team", "op": "eq", "value": "legal"}).json["hits"] == []


def test_words_of_a_title_are_searched_as_soon_as_it_is_changed(stage: Stage) -> None:
    document_id = stage.ready(b"Some text.", title="Old quuxes")
    stage.ready(b"Another text.", "b.txt")

    def found(query: str) -> list[str]:
        return [hit["title"] for hit in stage.client.search(query, mode="text").json["hits"]]

    assert found("quuxes") == ["Old quuxes"]
    for title, query, expected in [("Zorblaxes", "zorblax", ["Zorblaxes"]), (None, "zorblax", [])]:
        assert stage.client.send("PATCH", f"/v1/documents/{document_id}", json={"title": title}).status == 200
        assert found(query) == expected
        assert found("quuxes") == []
        assert len(found("text")) == 2


@pytest.mark.parametrize("field", ["name", "title", "tags", "metadata"])
def test_what_a_change_does_not_name_stays(stage: Stage, field: str) -> None:
    document_id = stage.client.upload(title="T", tags="a", metadata='{"y": 1}').json["document_id"]
    before = document(stage, document_id)
    new = {"name": "n", "title": "N", "tags": ["n"], "metadata": {}}[field]
    after = stage.client.send("PATCH", f"/v1/documents/{document_id}", json={field: new}).json
    del before["updated_at"], after["updated_at"]
    assert after == before | {field: new}


def test_an_empty_change_changes_nothing(stage: Stage) -> None:
    document_id = stage.client.upload().json["document_id"]
    before = document(stage, document_id)
    assert stage.client.send("PATCH", f"/v1/documents/{document_id}", json={}).json == before


def test_metadata_that_is_set_takes_the_warning_away(stage: Stage) -> None:
    run(stage.world.put("a.txt", "Text."))
    run(stage.world.put("a.txt.metadata.json", "no JSON"))
    stage.digest()
    (found,) = stage.client.send("GET", "/v1/documents").json["documents"]
    assert [warning["code"] for warning in found["warnings"]] == ["invalid_metadata"]
    changed = stage.client.send("PATCH", f"/v1/documents/{found['document_id']}", json={"metadata": {"y": 1}})
    assert changed.json["warnings"] == []


@pytest.mark.parametrize(
    ("change", "places"),
    [
        ({"name": None}, ["name"]),
        ({"tags": None}, ["tags"]),
        ({"metadata": None}, ["metadata"]),
        ({"metadata": {"a": {"b": 1}}}, ["metadata"]),
        ({"status": "ready"}, ["status"]),
        ({"name": "", "tags": [""]}, ["name", "tags.0"]),
        ([], ["body"]),
        (None, ["body"]),
        ("text", ["body"]),
    ],
)
def test_a_change_with_a_mistake_names_the_fields(stage: Stage, change: Any, places: list[str]) -> None:
    document_id = stage.client.upload().json["document_id"]
    answer = stage.client.send("PATCH", f"/v1/documents/{document_id}", json=change)
    assert_problem(answer, 422, "invalid_request")
    assert answer.fields == places


# Deleting ----------------------------------------------------------------------------------------------------------


def test_a_deleted_document_is_gone_everywhere_at_once(stage: Stage) -> None:
    document_id = stage.ready()
    answer = stage.client.send("DELETE", f"/v1/documents/{document_id}")
    assert (answer.status, answer.body) == (204, b"")
    assert_problem(stage.client.send("GET", f"/v1/documents/{document_id}"), 404, "not_found")
    assert_problem(stage.client.send("GET", f"/v1/documents/{document_id}/chunks"), 404, "not_found")
    assert_problem(stage.client.send("PATCH", f"/v1/documents/{document_id}", json={"name": "x"}), 404, "not_found")
    assert stage.client.send("GET", "/v1/documents").json["documents"] == []
    assert stage.client.search().json["hits"] == []
    assert stored(stage, document_id) is None
    for table in ("document_versions", "chunks", "embeddings"):
        assert as_owner(
            stage.world.urls, f"SELECT count(*) FROM {table} WHERE tenant_id = %s", [stage.world.tenant_id]
        ) == [(0,)]


def test_a_delete_may_be_repeated(stage: Stage) -> None:
    document_id = stage.ready()
    for _ in range(3):
        assert stage.client.send("DELETE", f"/v1/documents/{document_id}").status == 204
        stage.digest()


def test_a_delete_that_could_not_reach_the_file_is_finished_by_a_retry(stage: Stage) -> None:
    document_id = stage.ready()
    stage.world.objects.outage = True
    assert_problem(stage.client.send("DELETE", f"/v1/documents/{document_id}"), 503, "storage_unavailable")
    assert stage.client.search().json["hits"] == []
    stage.world.objects.outage = False
    assert stage.client.send("DELETE", f"/v1/documents/{document_id}").status == 204
    assert stored(stage, document_id) is None


def test_deleting_a_file_of_the_bucket_takes_its_metadata_along(stage: Stage) -> None:
    run(stage.world.put("folder/a.txt", "Text."))
    run(stage.world.put("folder/a.txt.metadata.json", '{"metadataAttributes": {"y": 1}}'))
    stage.digest()
    (found,) = stage.client.send("GET", "/v1/documents").json["documents"]
    assert (found["metadata"], found["object_key"]) == ({"y": 1}, stage.world.key("folder/a.txt"))
    assert stage.client.send("DELETE", f"/v1/documents/{found['document_id']}").status == 204
    for name in ("folder/a.txt", "folder/a.txt.metadata.json"):
        assert run(stage.world.objects.read(stage.world.key(name), 1000)) is None


def test_a_document_whose_deletion_is_held_says_so_and_is_found(stage: Stage) -> None:
    document_id = stage.ready()
    stage.world.rows("UPDATE documents SET hold = 'held' WHERE document_id = %s", document_id)
    shown = stage.client.send("GET", f"/v1/documents/{document_id}").json
    assert [warning["code"] for warning in shown["warnings"]] == ["deletion_held"]
    assert [hit["document_id"] for hit in stage.client.search().json["hits"]] == [document_id]
    assert stage.client.send("DELETE", f"/v1/documents/{document_id}").status == 204
    assert stage.client.send("GET", f"/v1/documents/{document_id}").status == 404
