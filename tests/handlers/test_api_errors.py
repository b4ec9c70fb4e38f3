"""What is wrong with a request, or with us: every answer is a problem of the same shape, and none is a surprise."""

import asyncio
import json
import logging
from typing import Any
from uuid import uuid4

import pytest
from edda.errors import DatabaseUnavailable
from edda.search_models import SearchRequest
from edda.services import ApiServices
from hypothesis import given
from hypothesis import strategies as st

from functions.api import app as api_app
from tests.handlers.stage import (
    FUZZ,
    Client,
    Context,
    Stage,
    assert_problem,
    call,
    http_event,
)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/v1/documents", "GET, POST"),
        ("POST", f"/v1/documents/{uuid4()}", "DELETE, GET, PATCH"),
        ("OPTIONS", "/v1/uploads", "POST"),
        ("POST", "/docs", "GET"),
    ],
)
def test_a_wrong_method_tells_the_right_ones(stage: Stage, method: str, path: str, allowed: str) -> None:
    answer = stage.client.send(method, path)
    assert_problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == allowed


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v2/documents", "/v1/documents/", "/v1/documents/a/b", "/v1/uploads/x", "/\n"]
)
def test_there_is_nothing_elsewhere(stage: Stage, path: str) -> None:
    assert_problem(stage.client.send("GET", path), 404, "not_found")


@pytest.mark.parametrize(
    "body",
    [
        "{",
        "{'name': 'a'}",
        '{"name": NaN}',
        '{"size_bytes": 1e999}',
        '{"size_bytes": Infinity}',
        '{"size_bytes": ' + "9" * 5000 + "}",
        '{"name": "a", "name": "b"}',
        "[" * 100_000,
        '{"a":' * 50_000 + "1" + "}" * 50_000,
        b'{"name": "\xff"}',
        '{"name": "\\ud800"}',
        '{"name": "a", "metadata": {"\\udfff": 1}}',
        b"\xef\xbb\xbf{}",
    ],
)
def test_what_is_no_json_is_refused(stage: Stage, body: str | bytes) -> None:
    assert_problem(stage.client.send("POST", "/v1/uploads", body=body), 400, "malformed_body")


def test_json_is_json_whatever_it_is_called(stage: Stage) -> None:
    for content_type in (
        "application/x-www-form-urlencoded",
        "text/plain",
        "multipart/form-data",
        "application/merge-patch+json",
    ):
        headers = {"content-type": content_type}
        for body in ('{"name": "a"}', b'{"name": "a"}'):
            assert stage.client.send("POST", "/v1/uploads", body=body, headers=headers).status == 201


@pytest.mark.parametrize("as_bytes", [True, False])
def test_a_json_body_has_a_limit(stage: Stage, as_bytes: bool) -> None:
    body = json.dumps({"name": "a" * 1024 * 1024})
    answer = stage.client.send("POST", "/v1/uploads", body=body.encode() if as_bytes else body)
    assert_problem(answer, 413, "payload_too_large")


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    ["name", "title", "tags", "metadata", "size_bytes", "content_type", *SearchRequest.model_fields]
)


@FUZZ
@given(
    route=st.sampled_from([("POST", "/v1/uploads"), ("PATCH", "/v1/documents/{}"), ("POST", "/v1/search")]),
    body=ANY_JSON | st.dictionaries(FIELDS, ANY_JSON, max_size=4),
)
def test_no_body_is_our_fault(stage: Stage, route: tuple[str, str], body: Any) -> None:
    method, path = route
    answer = stage.client.send(method, path.format(uuid4()), json=body)
    assert answer.status in {200, 201, 404, 422}, answer.body


@FUZZ
@given(
    path=st.text(max_size=20).map(lambda rest: "/v1/documents/" + rest)
    | st.text(max_size=20).map(lambda rest: "/" + rest),
    query=st.dictionaries(st.sampled_from(["cursor", "limit", "status", "filter", "x"]), st.text(max_size=20)),
    method=st.sampled_from(["GET", "DELETE", "HEAD", "TRACE"]),
)
def test_no_path_and_no_query_is_our_fault(stage: Stage, path: str, query: dict[str, str], method: str) -> None:
    assert stage.client.send(method, path, query=query).status in {200, 404, 405, 422}


def broken(error: Exception) -> Client:
    """A function that cannot get at its services."""

    async def provide() -> ApiServices:
        raise error

    return Client(api_app.build(provide), api_app.build(provide), api_app.build(provide), "edda_key")


def test_what_we_did_not_expect_tells_nothing_and_is_logged(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    client = broken(RuntimeError("password=hunter2"))
    for path in ("/v1/documents", "/v1/health"):
        with caplog.at_level(logging.ERROR):
            answer = client.send("GET", path)
        problem = assert_problem(answer, 500, "internal_error")
        assert "hunter2" not in json.dumps(problem)
        assert "RuntimeError" not in json.dumps(problem)
        record = caplog.records[-1]
        assert record.exc_info is not None
        assert record.__dict__["api_request_id"] == problem["request_id"]


@pytest.mark.parametrize("path", ["/v1/documents", "/v1/health"])
def test_a_database_that_is_asleep_is_worth_another_try(path: str) -> None:
    answer = broken(DatabaseUnavailable()).send("GET", path)
    assert_problem(answer, 503, "database_unavailable")
    assert int(answer.headers["retry-after"]) > 0


def test_an_answer_comes_before_lambda_is_killed(stage: Stage) -> None:
    async def provide() -> ApiServices:
        await asyncio.sleep(60)
        raise AssertionError

    request = http_event("GET", "/v1/health")
    answer = call(api_app.build(provide), request, Context(seconds=3.1))
    assert_problem(answer, 503, "temporarily_unavailable")


def test_a_connection_whose_query_was_cut_off_goes_on_working(stage: Stage) -> None:
    database = stage.world.database

    async def provide() -> ApiServices:
        async with database.transaction(stage.world.tenant_id) as cursor:
            await cursor.execute("SELECT pg_sleep(60)")
        raise AssertionError

    answer = call(api_app.build(provide), http_event("GET", "/v1/health"), Context(seconds=3.2))
    assert_problem(answer, 503, "temporarily_unavailable")
    for _ in range(3):
        assert stage.client.send("GET", "/v1/documents").status == 200


def test_health_needs_no_key(stage: Stage) -> None:
    answer = stage.stranger.send("GET", "/v1/health")
    assert (answer.status, answer.json) == (200, {"status": "ok"})
