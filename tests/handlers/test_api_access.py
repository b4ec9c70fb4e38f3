"""Who is asking: without a key nothing is told, and nobody sees what is anothers."""

import json
from uuid import uuid4

import pytest
from edda.runtime import run
from edda.store.keys import create_key, revoke_key

from tests.handlers.stage import (
    Client,
    Stage,
    assert_problem,
    document,
)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": "Bearer "},
        {"authorization": "Bearer x"},
        {"authorization": "Bearer ' OR 1=1 --"},
        {"authorization": f"Bearer edda_{'0' * 12}_{'A' * 43}"},
        {"authorization": f"Basic edda_{'0' * 12}_{'A' * 43}"},
        {"x-api-key": "x"},
    ],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/documents"),
        ("POST", "/v1/documents"),
        ("POST", "/v1/search"),
        ("GET", "/nowhere"),
        ("POST", "/v1/uploads"),
    ],
)
def test_without_a_valid_key_nothing_is_told(stage: Stage, headers: dict[str, str], method: str, path: str) -> None:
    answer = stage.stranger.send(method, path, headers=headers, body="{")
    assert_problem(answer, 401, "unauthorized")
    assert answer.headers["www-authenticate"].startswith("Bearer")


def test_a_revoked_key_is_no_key(stage: Stage) -> None:
    assert stage.client.key is not None
    key = run(create_key(stage.world.urls.owner, stage.world.tenant, "second"))
    client = Client(stage.api, stage.search_function, stage.answer_function, key)
    assert client.send("GET", "/v1/documents").status == 200
    assert run(revoke_key(stage.world.urls.owner, key.split("_")[1]))
    assert_problem(client.send("GET", "/v1/documents"), 401, "unauthorized")
    assert stage.client.send("GET", "/v1/documents").status == 200


@pytest.mark.parametrize(
    "header", [("authorization", "bearer {}"), ("Authorization", "BEARER  {}"), ("x-api-key", "{}")]
)
def test_a_key_may_come_in_either_header(stage: Stage, header: tuple[str, str]) -> None:
    name, value = header
    headers = {name: value.format(stage.client.key)}
    assert stage.stranger.send("GET", "/v1/documents", headers=headers).status == 200


def routes_of_one_document(stage: Stage) -> list[tuple[str, str]]:
    """From the OpenAPI document, so that a new route is in the matrix by itself."""
    paths = stage.stranger.send("GET", "/openapi.json").json["paths"]
    return [(method.upper(), path) for path, item in paths.items() if "{document_id}" in path for method in item]


def test_a_foreign_id_is_like_one_that_never_was(stage: Stage) -> None:
    mine = stage.ready()
    routes = routes_of_one_document(stage)
    assert len(routes) >= 4
    for method, path in routes:
        answers = [
            stage.other.send(method, path.format(document_id=document_id), body='{"name": "x"}')
            for document_id in (mine, str(uuid4()), "7", "no-uuid", f"{{{mine}}}", mine.replace("-", ""), "%00")
        ]
        for answer in answers:
            assert_problem(answer, 404, "not_found")
        assert len({answer.body for answer in answers}) == 1
        assert len({tuple(answer.headers.items()) for answer in answers}) == 1
    assert document(stage, mine)["name"] == "a.txt"
    assert stage.other.send("GET", "/v1/documents").json["documents"] == []
    assert stage.other.search("Some text.").json["hits"] == []
    by_id = {"field": "document_id", "op": "eq", "value": mine}
    assert stage.other.search("Some text.", filter=by_id).json["hits"] == []
    assert stage.other.send("GET", "/v1/documents", query={"filter": json.dumps(by_id)}).json["documents"] == []


def test_a_cursor_of_another_tenant_shows_nothing_of_theirs(stage: Stage) -> None:
    for n in range(3):
        stage.client.upload(name=f"{n}.txt")
    own = stage.other.upload(name="own.txt").json["document_id"]
    stage.client.upload(name="newest.txt")
    cursor = stage.client.send("GET", "/v1/documents", query={"limit": 1}).json["next_cursor"]
    found = stage.other.send("GET", "/v1/documents", query={"cursor": cursor}).json["documents"]
    assert [one["document_id"] for one in found] == [own]
