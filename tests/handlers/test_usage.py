"""The usage API: what a tenant's own documents took, and what a cap answers."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from edda.runtime import run
from edda.store.usage import Caps, set_caps

from tests.handlers.stage import Client, Stage, assert_problem

NOTHING = {
    "bytes": 0,
    "chunks": 0,
    "tokens_planned": 0,
    "tokens": 0,
    "tokens_unsettled": 0,
    "provider_calls": 0,
    "provider_calls_lost": 0,
    "cost": 0.0,
}


def today() -> str:
    return datetime.now(UTC).date().isoformat()


def usage(client: Client, path: str = "/v1/usage", **query: Any) -> Any:
    answer = client.send("GET", path, query=query)
    assert answer.status == 200, answer.body
    return answer.json


def cap(stage: Stage, tokens: int | None) -> None:
    run(set_caps(stage.world.urls.owner, stage.world.tenant, Caps(tokens_per_day=tokens)))


def test_usage_is_told_by_day_and_by_document(stage: Stage) -> None:
    first, second = stage.ready(b"one\ntwo", "a.txt"), stage.ready(b"two\nthree", "b.txt")
    spent = {"bytes": 16, "chunks": 4, "tokens_planned": 11, "tokens": 11, "provider_calls": 2}
    assert usage(stage.client) == {"days": [NOTHING | spent | {"day": today()}], "caps": []}
    page = usage(stage.client, "/v1/usage/documents")
    assert page["next_cursor"] is None
    assert {row["document_id"]: (row["name"], row["tokens"]) for row in page["documents"]} == {
        first: ("a.txt", 6),
        second: ("b.txt", 5),
    }
    (day,) = usage(stage.client, document_id=second)["days"]
    assert (day["tokens"], day["bytes"], day["provider_calls"]) == (5, 9, 1)


def test_another_tenants_usage_is_not_there(stage: Stage) -> None:
    document_id = stage.ready()
    assert usage(stage.other) == {"days": [], "caps": []}
    assert usage(stage.other, document_id=document_id) == {"days": [], "caps": []}
    assert usage(stage.other, "/v1/usage/documents") == {"documents": [], "next_cursor": None}


def test_usage_by_document_is_walked_without_a_gap(stage: Stage) -> None:
    made = {stage.ready(f"text {number}".encode(), f"{number}.txt") for number in range(5)}
    seen, cursor = [], None
    while True:
        page = usage(stage.client, "/v1/usage/documents", limit=2, **({"cursor": cursor} if cursor else {}))
        seen += [row["document_id"] for row in page["documents"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert len(seen) == len(made)
    assert set(seen) == made


def test_a_deleted_documents_usage_is_still_told(stage: Stage) -> None:
    document_id = stage.ready()
    stage.client.send("DELETE", f"/v1/documents/{document_id}")
    (row,) = usage(stage.client, "/v1/usage/documents")["documents"]
    assert (row["document_id"], row["deleted"], row["chunks"]) == (document_id, True, 1)


def test_other_days_are_other_days(stage: Stage) -> None:
    stage.ready()
    yesterday = (datetime.now(UTC).date() - timedelta(days=1)).isoformat()
    assert usage(stage.client, first_day=yesterday, last_day=yesterday)["days"] == []
    assert len(usage(stage.client, first_day=yesterday)["days"]) == 1


@pytest.mark.parametrize(
    ("query", "place"),
    [
        ({"first_day": "2026-02-02", "last_day": "2026-02-01"}, "first_day"),
        ({"first_day": "2020-01-01", "last_day": "2026-02-01"}, "first_day"),
        ({"first_day": "yesterday"}, "first_day"),
        ({"document_id": "x"}, "document_id"),
        ({"document_id": "{"}, "document_id"),
    ],
)
def test_what_is_no_range_is_refused(stage: Stage, query: dict[str, str], place: str) -> None:
    answer = stage.client.send("GET", "/v1/usage", query=query)
    assert_problem(answer, 422, "invalid_request")
    assert answer.fields == [place]


def test_a_cursor_that_no_page_gave_is_refused(stage: Stage) -> None:
    answer = stage.client.send("GET", "/v1/usage/documents", query={"cursor": "x"})
    assert_problem(answer, 422, "invalid_request")
    assert answer.fields == ["cursor"]


def test_without_a_key_no_usage_is_told(stage: Stage) -> None:
    for path in ("/v1/usage", "/v1/usage/documents"):
        assert_problem(stage.stranger.send("GET", path), 401, "unauthorized")


def test_when_a_cap_is_used_up_uploads_are_refused_until_it_counts_anew(stage: Stage) -> None:
    cap(stage, 3)
    stage.ready(b"one", "a.txt")
    told = usage(stage.client)["caps"]
    assert told == [{"name": "tokens_per_day", "allowed": 3, "used": 3, "resets_on": told[0]["resets_on"]}]
    answers = [
        stage.client.upload(b"two"),
        stage.client.send("POST", "/v1/uploads", json={"name": "b.txt"}),
    ]
    for answer in answers:
        problem = assert_problem(answer, 429, "quota_exceeded")
        assert "tokens_per_day of 3" in problem["detail"]
        assert 1 <= int(answer.headers["retry-after"]) <= 86_400
    assert len(stage.client.send("GET", "/v1/documents").json["documents"]) == 1
    cap(stage, 10)
    assert stage.client.upload(b"two").status == 202


def test_a_repeated_upload_is_answered_though_the_cap_is_used_up_meanwhile(stage: Stage) -> None:
    cap(stage, 3)
    first = stage.client.upload(b"one", idempotency_key="k")
    stage.digest()
    again = stage.client.upload(b"one", idempotency_key="k")
    assert (again.status, again.json["document_id"]) == (202, first.json["document_id"])


def test_a_document_that_a_cap_keeps_out_says_so(stage: Stage) -> None:
    cap(stage, 3)
    document_id = stage.ready(b"too much")
    document = stage.client.send("GET", f"/v1/documents/{document_id}").json
    assert (document["status"], document["error"]["code"]) == ("failed", "quota_exceeded")
    assert stage.other.upload(b"one").status == 202
