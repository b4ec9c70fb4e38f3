"""The documents API, from the HTTP event to the rows and the object, on a real database."""

import asyncio
import json
import logging
import re
from typing import Any
from uuid import UUID, uuid4

import pytest
from edda.documents import Description, Documents
from edda.errors import DatabaseUnavailable
from edda.runtime import run
from edda.services import ApiServices
from edda.store.documents import DocumentStore
from edda.store.keys import create_key, revoke_key
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openapi_spec_validator import validate

from functions.api import app as api_app
from tests.database.world import connect
from tests.handlers.stage import MAX_DOCUMENT_BYTES, Answer, Client, Context, Stage, call, event, http_event
from tests.postgres import as_owner

HOSTILE = "author' = 'alice' OR '1'='1' --"
FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def assert_problem(answer: Answer, status: int, code: str) -> dict[str, Any]:
    """Every refusal is a problem of the same shape."""
    assert answer.status == status, answer.body
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json
    assert problem["type"] == f"urn:edda:problem:{code}"
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["request_id"] == event("search-question")["requestContext"]["requestId"]
    assert problem["title"]
    assert problem["detail"]
    return problem


def document(stage: Stage, document_id: str) -> Any:
    answer = stage.client.send("GET", f"/v1/documents/{document_id}")
    assert answer.status == 200, answer.body
    return answer.json


def stored(stage: Stage, document_id: str) -> bytes | None:
    """The object of a document."""
    return run(stage.world.objects.read(f"{stage.world.tenant.slug}/.edda/{document_id}", 10**8))


# Direct upload -----------------------------------------------------------------------------------------------------


def test_an_upload_is_accepted_and_becomes_ready(stage: Stage) -> None:
    answer = stage.client.upload(
        b"One line.\nAnother.\n", "report.txt", title="Report", tags="a, b,a", metadata='{"y": 1}'
    )
    assert answer.status == 202
    accepted = answer.json
    assert answer.headers["location"] == f"/v1/documents/{accepted['document_id']}"
    assert accepted["status"] == "waiting"
    assert accepted["chunks"] == {"planned": None, "embedded": 0, "failed": 0}
    assert accepted["stages"] == {"uploaded_at": None, "chunked_at": None, "finished_at": None}
    stage.digest()
    ready = document(stage, accepted["document_id"])
    assert (ready["name"], ready["title"], ready["tags"], ready["metadata"]) == (
        "report.txt",
        "Report",
        ["a", "b"],
        {"y": 1},
    )
    assert (ready["status"], ready["searchable"], ready["error"], ready["warnings"]) == ("ready", True, None, [])
    assert ready["chunks"] == {"planned": 2, "embedded": 2, "failed": 0}
    assert all(ready["stages"].values())
    assert (ready["size_bytes"], ready["media_type"], ready["language"], ready["characters"]) == (
        19,
        "text/plain",
        "en",
        19,
    )


def test_a_file_that_cannot_be_read_says_why(stage: Stage) -> None:
    ready = document(stage, stage.ready(b"  \n"))
    assert (ready["status"], ready["error"]["code"], ready["searchable"]) == ("failed", "no_text", False)
    assert ready["error"]["message"]


def test_a_bare_file_needs_only_a_name(stage: Stage) -> None:
    query = {"name": "b.txt", "title": "B", "tags": "x,y", "metadata": '{"a": [1, 2]}'}
    answer = stage.client.send(
        "POST", "/v1/documents", query=query, body=b"bare", headers={"content-type": "text/plain"}
    )
    assert answer.status == 202, answer.body
    assert (answer.json["name"], answer.json["title"], answer.json["tags"]) == ("b.txt", "B", ["x", "y"])
    assert answer.json["metadata"] == {"a": [1, 2]}
    assert stored(stage, answer.json["document_id"]) == b"bare"


def test_a_bare_file_without_a_name_is_refused(stage: Stage) -> None:
    answer = stage.client.send("POST", "/v1/documents", body=b"bare", headers={"content-type": "text/plain"})
    assert "?name=" in assert_problem(answer, 415, "unsupported_media_type")["detail"]


@pytest.mark.parametrize(
    "content",
    [
        bytes(range(256)) * 40,
        b"\r\n--boundary\r\n\r\n--\r\n",
        b"\r\n\r\n",
        b"ends with a newline\r\n",
        b"\x00",
        "ü\ud7ff\U0001f600".encode(),
    ],
)
def test_bytes_arrive_as_they_were_sent(stage: Stage, content: bytes) -> None:
    answer = stage.client.upload(content, "a.bin")
    assert stored(stage, answer.json["document_id"]) == content


def test_a_text_body_that_the_gateway_did_not_encode_arrives_too(stage: Stage) -> None:
    made = '--b\r\nContent-Disposition: form-data; name="file"; filename="ü.txt"\r\n\r\nGrüße\r\n--b--\r\n'
    headers = {"content-type": "multipart/form-data; boundary=b"}
    answer = stage.client.send("POST", "/v1/documents", body=made, headers=headers)
    assert answer.json["name"] == "ü.txt"
    assert stored(stage, answer.json["document_id"]) == "Grüße".encode()


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("../../etc/passwd", "../../etc/passwd"),
        ("a\nb\tc\x00.txt", "abc.txt"),
        ("a+b%2e%2e%20c.txt", "a+b%2e%2e%20c.txt"),
        ("\U0001f4c4 übersicht \u202e.txt", "\U0001f4c4 übersicht \u202e.txt"),
        ("'; DROP TABLE documents; --", "'; DROP TABLE documents; --"),
        ("n" * 1024, "n" * 1024),
        ("  spaces  ", "spaces"),
    ],
)
def test_a_name_is_data_and_no_part_of_the_key(stage: Stage, sent: str, kept: str) -> None:
    answer = stage.client.send("POST", "/v1/documents", query={"name": sent}, body=b"text")
    assert answer.status == 202, answer.body
    assert answer.json["name"] == kept
    assert answer.json["object_key"] == f"{stage.world.tenant.slug}/.edda/{answer.json['document_id']}"


@FUZZ
@given(name=st.text(min_size=1, max_size=40))
def test_any_name_is_taken_or_refused(stage: Stage, name: str) -> None:
    answer = stage.client.send("POST", "/v1/uploads", json={"name": name})
    if answer.status == 201:
        fields = answer.json["upload"]["fields"]
        assert fields["key"] == f"{stage.world.tenant.slug}/.edda/{answer.json['document_id']}"
    else:
        assert_problem(answer, 422, "invalid_request")


@pytest.mark.parametrize("name", ["", " ", "\x00\x07\n", "n" * 1025])
def test_a_name_that_is_none_or_too_long_is_refused(stage: Stage, name: str) -> None:
    answer = stage.client.send("POST", "/v1/uploads", json={"name": name})
    assert_problem(answer, 422, "invalid_request")
    assert answer.fields == ["name"]


def test_a_name_in_the_older_encoding_is_read(stage: Stage) -> None:
    head = 'Content-Disposition: form-data; name="file"; filename="_.pdf"; filename*=UTF-8\'\'%E2%82%AC%20rates.pdf'
    body = f"--b\r\n{head}\r\n\r\ntext\r\n--b--\r\n".encode()
    headers = {"content-type": 'multipart/form-data; boundary="b"'}
    answer = stage.client.send("POST", "/v1/documents", body=body, headers=headers)
    assert answer.json["name"] == "€ rates.pdf"


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"metadata": "{"}, "metadata"),
        ({"metadata": "[]"}, "metadata"),
        ({"metadata": '{"a": {"b": 1}}'}, "metadata"),
        ({"metadata": '{"a": [[1]]}'}, "metadata"),
        ({"metadata": '{"a": NaN}'}, "metadata"),
        ({"metadata": '{"a": 1e999}'}, "metadata"),
        ({"metadata": '{"a": 1, "a": 2}'}, "metadata"),
        ({"metadata": '{"a": "nul \\u0000"}'}, "metadata"),
        ({"metadata": '{"lone \\ud800": 1}'}, "metadata"),
        ({"metadata": json.dumps({"k" * 201: 1})}, "metadata"),
        ({"metadata": json.dumps({"k": "v" * 2049})}, "metadata"),
        ({"metadata": json.dumps({str(n): n for n in range(51)})}, "metadata"),
        ({"metadata": json.dumps({str(n): "v" * 2000 for n in range(9)})}, "metadata"),
        ({"tags": '["a", 7]'}, "tags.1"),
        ({"tags": "t" * 201}, "tags.0"),
        ({"tags": [str(n) for n in range(51)]}, "tags"),
        ({"title": "t" * 1025}, "title"),
        ({"name": "n" * 1025}, "name"),
        ({"meta": "{}"}, "meta"),
    ],
)
def test_a_form_with_a_mistake_names_the_field(stage: Stage, fields: dict[str, Any], place: str) -> None:
    answer = stage.client.upload(**fields) if "name" not in fields else stage.client.upload(name=fields["name"])
    assert_problem(answer, 422, "invalid_request")
    assert answer.fields == [place]


def test_what_metadata_may_hold(stage: Stage) -> None:
    metadata = {"s": "é", "i": 10**40, "f": -1.5, "b": True, "n": None, "l": ["a", 1, False], HOSTILE: "%s {}", "": 0}
    del metadata[""]
    answer = stage.client.upload(metadata=json.dumps(metadata))
    assert answer.json["metadata"] == metadata


def test_a_form_without_a_file_is_refused(stage: Stage) -> None:
    for answer in (
        stage.client.upload(b"", ""),
        stage.client.send("POST", "/v1/documents", query={}, body=NO_FILE, headers=FORM),
    ):
        assert_problem(answer, 422, "invalid_request")
        assert answer.fields == ["file"]


FORM = {"content-type": "multipart/form-data; boundary=b"}
NO_FILE = b'--b\r\nContent-Disposition: form-data; name="title"\r\n\r\nT\r\n--b--\r\n'
ONE_FILE = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nx\r\n'


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", NO_FILE),
        ("multipart/form-data; boundary=", NO_FILE),
        ("multipart/form-data; boundary=other", NO_FILE),
        ("multipart/form-data; boundary=b", b""),
        ("multipart/form-data; boundary=b", ONE_FILE),
        ("multipart/form-data; boundary=b", ONE_FILE + ONE_FILE + b"--b--\r\n"),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="\xff"\r\n\r\nx\r\n--b--\r\n',
        ),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="title"\r\n\r\n\xff\r\n--b--\r\n',
        ),
        ("multipart/form-data; boundary=b", b"--b\r\nno header\r\n\r\nx\r\n--b--\r\n"),
        ("multipart/form-data; boundary=b", NO_FILE.replace(b"--b--\r\n", b"") * 101 + b"--b--\r\n"),
        ("multipart/form-data; boundary=b", NO_FILE.replace(b"\r\nT\r\n", b"\r\n" + b"T" * 70_000 + b"\r\n")),
    ],
)
def test_a_form_that_cannot_be_read_is_refused(stage: Stage, content_type: str, body: bytes) -> None:
    answer = stage.client.send("POST", "/v1/documents", body=body, headers={"content-type": content_type})
    assert_problem(answer, 400, "malformed_body")


@FUZZ
@given(
    body=st.binary(max_size=200)
    | st.lists(st.sampled_from([b"--b", b"--", b"\r\n", ONE_FILE, b"x", b":"])).map(b"".join)
)
def test_no_form_breaks_anything(stage: Stage, body: bytes) -> None:
    answer = stage.client.send("POST", "/v1/documents", body=body, headers=FORM)
    assert answer.status in {202, 400, 422}


def test_what_the_gateway_cannot_take_is_sent_elsewhere(stage: Stage) -> None:
    answer = stage.client.upload(b"x" * api_app.MAX_DIRECT_BYTES)
    assert "POST /v1/uploads" in assert_problem(answer, 413, "payload_too_large")["detail"]


def test_a_file_above_the_deployments_limit_is_refused(stage: Stage) -> None:
    assert_problem(stage.client.upload(b"x" * (MAX_DOCUMENT_BYTES + 1)), 413, "document_too_large")


# Idempotency -------------------------------------------------------------------------------------------------------


def versions(stage: Stage) -> int:
    return len(stage.world.objects.events)


def test_a_repeated_upload_is_the_same_document(stage: Stage) -> None:
    first = stage.client.upload(idempotency_key="k1")
    stage.digest()
    second = stage.client.upload(idempotency_key="k1")
    assert second.json["document_id"] == first.json["document_id"]
    assert second.json["status"] == "ready"
    assert versions(stage) == 1


def test_another_tenant_may_use_the_same_idempotency_key(stage: Stage) -> None:
    mine, theirs = stage.client.upload(idempotency_key="k1"), stage.other.upload(idempotency_key="k1")
    assert mine.status == theirs.status == 202
    assert mine.json["document_id"] != theirs.json["document_id"]


def test_a_key_used_for_something_else_is_refused(stage: Stage) -> None:
    stage.client.upload(b"a", idempotency_key="k1")
    for answer in (
        stage.client.upload(b"b", idempotency_key="k1"),
        stage.client.upload(b"a", title="new", idempotency_key="k1"),
        stage.client.send("POST", "/v1/uploads", json={"name": "a.txt"}, headers={"idempotency-key": "k1"}),
    ):
        assert_problem(answer, 422, "idempotency_mismatch")
    assert versions(stage) == 1


def test_a_retry_stores_the_file_that_the_first_try_could_not(stage: Stage) -> None:
    stage.world.objects.outage = True
    failed = stage.client.upload(idempotency_key="k1")
    assert_problem(failed, 503, "storage_unavailable")
    assert int(failed.headers["retry-after"]) > 0
    stage.world.objects.outage = False
    answer = stage.client.upload(idempotency_key="k1")
    assert answer.status == 202
    assert stored(stage, answer.json["document_id"]) == b"Some text."


def test_a_retry_after_a_delete_is_a_conflict(stage: Stage) -> None:
    document_id = stage.ready(idempotency_key="k1")
    stage.client.send("DELETE", f"/v1/documents/{document_id}")
    assert_problem(stage.client.upload(idempotency_key="k1"), 409, "conflict")
    promise: dict[str, Any] = {"path": "/v1/uploads", "json": {"name": "a"}, "headers": {"idempotency-key": "k2"}}
    document_id = stage.client.send("POST", **promise).json["document_id"]
    stage.client.send("DELETE", f"/v1/documents/{document_id}")
    assert_problem(stage.client.send("POST", **promise), 409, "conflict")


@pytest.mark.parametrize("key", [" ", "k" * 256, "ü"])
def test_an_idempotency_key_is_a_short_word(stage: Stage, key: str) -> None:
    answer = stage.client.send("POST", "/v1/uploads", json={"name": "a"}, headers={"idempotency-key": key})
    assert_problem(answer, 422, "invalid_request")
    assert answer.fields == ["idempotency-key"]


def test_of_concurrent_requests_with_one_key_one_makes_the_document(stage: Stage) -> None:
    """Each in an execution environment of its own: another connection."""

    async def scenario() -> set[UUID]:
        databases = [connect(stage.world.urls.app) for _ in range(8)]
        verbs = [
            Documents(DocumentStore(database, stage.world.model.model_id), stage.world.objects, MAX_DOCUMENT_BYTES)
            for database in databases
        ]
        said = Description("a.txt", None, [], {})
        views = await asyncio.gather(
            *(one.upload(stage.world.tenant, said, b"text", "text/plain", "k1") for one in verbs)
        )
        for database in databases:
            await database.aclose()
        return {view.document_id for view in views}

    assert len(run(scenario())) == 1
    assert as_owner(
        stage.world.urls, "SELECT count(*) FROM documents WHERE tenant_id = %s", [stage.world.tenant_id]
    ) == [(1,)]


# Presigned upload --------------------------------------------------------------------------------------------------


def test_a_promise_gives_a_form_for_one_key(stage: Stage) -> None:
    request = {"name": "big.pdf", "size_bytes": 900_000, "content_type": "application/pdf", "tags": ["x"]}
    answer = stage.client.send("POST", "/v1/uploads", json=request)
    assert answer.status == 201
    promised = answer.json
    assert set(promised) == {"document_id", "upload", "expires_at", "max_bytes"}
    assert promised["max_bytes"] == MAX_DOCUMENT_BYTES
    assert promised["upload"]["fields"]["key"] == f"{stage.world.tenant.slug}/.edda/{promised['document_id']}"
    assert promised["upload"]["fields"]["Content-Type"] == "application/pdf"
    waiting = document(stage, promised["document_id"])
    assert (waiting["status"], waiting["name"], waiting["tags"]) == ("waiting", "big.pdf", ["x"])


def test_a_file_that_is_sent_with_the_form_becomes_the_document(stage: Stage) -> None:
    promised = stage.client.send("POST", "/v1/uploads", json={"name": "a.txt", "metadata": {"y": 1}}).json
    run(stage.world.objects.put(promised["upload"]["fields"]["key"], b"Text.", "text/plain"))
    stage.digest()
    ready = document(stage, promised["document_id"])
    assert (ready["status"], ready["name"], ready["metadata"]) == ("ready", "a.txt", {"y": 1})


def test_a_promise_that_is_not_kept_ends(stage: Stage) -> None:
    promised = stage.client.send("POST", "/v1/uploads", json={"name": "a.txt"}).json
    as_owner(
        stage.world.urls,
        "UPDATE documents SET upload_expires_at = now() - interval '1 second' WHERE document_id = %s",
        [promised["document_id"]],
    )
    failed = document(stage, promised["document_id"])
    assert (failed["status"], failed["error"]["code"]) == ("failed", "upload_not_received")
    listed = stage.client.send("GET", "/v1/documents", query={"status": "failed"}).json["documents"]
    assert [found["document_id"] for found in listed] == [promised["document_id"]]


def test_a_repeated_promise_gives_a_fresh_form_for_the_same_document(stage: Stage) -> None:
    first, second = (
        stage.client.send("POST", "/v1/uploads", json={"name": "a"}, headers={"Idempotency-Key": "k"}).json
        for _ in range(2)
    )
    assert first["document_id"] == second["document_id"]
    assert first["expires_at"] < second["expires_at"]


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"name": 7}, "name"),
        ({"size_bytes": 0}, "size_bytes"),
        ({"size_bytes": "9"}, "size_bytes"),
        ({"size_bytes": True}, "size_bytes"),
        ({"content_type": "pdf"}, "content_type"),
        ({"content_type": "text/plain\r\nx-evil: 1"}, "content_type"),
        ({"tags": "a"}, "tags"),
        ({"metadata": {"a": {}}}, "metadata"),
        ({"metadata": []}, "metadata"),
        ({"key": "../x"}, "key"),
    ],
)
def test_a_promise_with_a_mistake_names_the_field(stage: Stage, change: dict[str, Any], place: str) -> None:
    answer = stage.client.send("POST", "/v1/uploads", json={"name": "a"} | change)
    assert_problem(answer, 422, "invalid_request")
    assert answer.fields == [place]


def test_a_promise_of_too_large_a_file_is_refused(stage: Stage) -> None:
    answer = stage.client.send("POST", "/v1/uploads", json={"name": "a", "size_bytes": MAX_DOCUMENT_BYTES + 1})
    assert_problem(answer, 413, "document_too_large")


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


# Who is asking -----------------------------------------------------------------------------------------------------


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
    client = Client(stage.api, stage.search_function, key)
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


# What is wrong with the request, or with us ------------------------------------------------------------------------


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
    ["name", "title", "tags", "metadata", "size_bytes", "content_type", "query", "top_k", "filter"]
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

    return Client(api_app.build(provide), api_app.build(provide), "edda_key")


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


# What is documented ------------------------------------------------------------------------------------------------


def test_one_openapi_document_describes_both_functions(stage: Stage) -> None:
    answer = stage.stranger.send("GET", "/openapi.json")
    assert answer.headers["content-type"] == "application/json"
    schema = answer.json
    validate(schema)
    operations = {(method.upper(), path) for path, item in schema["paths"].items() for method in item}
    assert operations == {
        ("POST", "/v1/documents"),
        ("GET", "/v1/documents"),
        ("GET", "/v1/documents/{document_id}"),
        ("PATCH", "/v1/documents/{document_id}"),
        ("DELETE", "/v1/documents/{document_id}"),
        ("GET", "/v1/documents/{document_id}/chunks"),
        ("POST", "/v1/uploads"),
        ("POST", "/v1/search"),
        ("GET", "/v1/usage"),
        ("GET", "/v1/usage/documents"),
        ("GET", "/v1/health"),
    }
    search = {route.rule.pattern for route in stage.search_function.resolver._static_routes}
    assert search == {"^/v1/search$"}


def test_every_operation_documents_its_problems(stage: Stage) -> None:
    schema = stage.stranger.send("GET", "/openapi.json").json
    for item in schema["paths"].values():
        for operation in item.values():
            for status, response in operation["responses"].items():
                if int(status) >= 400:
                    assert list(response["content"]) == ["application/problem+json"]
                    assert response["content"]["application/problem+json"]["schema"]["$ref"].endswith("/Problem")
            assert {"500", "503"} <= set(operation["responses"])


def test_the_documentation_page_loads_nothing_from_elsewhere(stage: Stage) -> None:
    answer = stage.stranger.send("GET", "/docs")
    page = answer.body.decode()
    assert answer.headers["content-type"] == "text/html"
    assert len(page) > 1_000_000
    assert not re.search(r"<(script|link|img)[^>]*\s(src|href)=", page.split("<body>")[0])
    assert '"operationId": "upload_document"' in page


def test_the_page_is_small_on_the_way(stage: Stage) -> None:
    answer = stage.stranger.send("GET", "/docs", headers={"accept-encoding": "gzip, br"})
    assert answer.headers["content-encoding"] == "gzip"
    assert len(answer.body) < 1_000_000


# The recorded events -----------------------------------------------------------------------------------------------


def with_key(name: str, client: Client) -> dict[str, Any]:
    recorded = event(name)
    recorded["headers"]["authorization"] = f"Bearer {client.key}"
    return recorded


def test_the_recorded_upload_is_taken(stage: Stage) -> None:
    answer = call(stage.api, with_key("api-upload", stage.client))
    assert answer.status == 202, answer.body
    assert (answer.json["name"], answer.json["metadata"]) == ("handbook.md", {"year": 2026, "team": "people"})
    stage.digest()
    assert document(stage, answer.json["document_id"])["status"] == "ready"


def test_the_nasty_upload_is_data(stage: Stage) -> None:
    answer = call(stage.api, with_key("api-nasty", stage.client))
    assert answer.status == 202, answer.body
    taken = answer.json
    assert taken["name"].startswith("../../../acme/.edda/..%2e%2f\u202e")
    assert taken["object_key"] == f"{stage.world.tenant.slug}/.edda/{taken['document_id']}"
    assert taken["title"] == "A title with control characters"
    assert taken["tags"] == ["hr", "'; DROP TABLE documents; --", "\U0001f600"]
    assert taken["metadata"][HOSTILE] == '%s %(x)s {} \\ "'
    content = stored(stage, taken["document_id"])
    assert content is not None
    assert content.endswith(b"\r\n--nasty boundary\r\nand what looks like a boundary.\r\n")


def test_the_recorded_key_opens_nothing(stage: Stage) -> None:
    for name in ("api-upload", "api-nasty"):
        assert call(stage.api, event(name)).status == 401


def test_a_document_whose_deletion_is_held_says_so_and_is_found(stage: Stage) -> None:
    document_id = stage.ready()
    stage.world.rows("UPDATE documents SET hold = 'held' WHERE document_id = %s", document_id)
    shown = stage.client.send("GET", f"/v1/documents/{document_id}").json
    assert [warning["code"] for warning in shown["warnings"]] == ["deletion_held"]
    assert [hit["document_id"] for hit in stage.client.search().json["hits"]] == [document_id]
    assert stage.client.send("DELETE", f"/v1/documents/{document_id}").status == 204
    assert stage.client.send("GET", f"/v1/documents/{document_id}").status == 404
