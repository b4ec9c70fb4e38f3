"""Files in over HTTPS, direct and by a form, from the event to the rows and the object, on a real database."""

import asyncio
import json
from typing import Any
from uuid import UUID

import pytest
from edda.documents import Description, Documents
from edda.runtime import run
from edda.store.documents import DocumentStore
from hypothesis import given
from hypothesis import strategies as st

from functions.api import app as api_app
from tests.database.world import connect
from tests.handlers.stage import (
    FUZZ,
    HOSTILE,
    MAX_DOCUMENT_BYTES,
    Stage,
    assert_problem,
    call,
    document,
    event,
    stored,
    with_key,
)
from tests.postgres import as_owner

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


# The recorded events -----------------------------------------------------------------------------------------------


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
