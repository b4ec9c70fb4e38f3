"""The chunk function on the events of events/, cold and warm."""

import json
import os
from pathlib import Path
from typing import Any

import psycopg
import pytest
from edda.models import Tenant

from tests.aws import client, sqs_event
from tests.database.world import LineParser
from tests.handlers.environment import (
    ColdStart,
    Surroundings,
    call,
    event,
    failed_messages,
    version_ids,
)

pytestmark = pytest.mark.usefixtures("owner_of_acme")

WELCOME = "handbook/welcome aboard.md"
EVENT_VERSION = "3sL4kqtJlcpXroDTDmJ.rmSpXd3dIbrH"  # the object version that events/ingest-s3-put.json names
REFUSED = [
    "contract-of-the-future",
    "empty",
    "message-of-another-queue",
    "not-an-object",
    "not-json",
    "record-without-object",
]


def embed_messages(surroundings: Surroundings) -> list[Any]:
    return [json.loads(record["body"]) for record in surroundings.taken(surroundings.embed_queue)]


def test_a_bare_s3_event_is_chunked_and_its_second_delivery_warm_changes_nothing(
    cold_start: ColdStart, surroundings: Surroundings
) -> None:
    surroundings.put(f"acme/{WELCOME}", "one\ntwo")
    chunk = cold_start("chunk")
    assert call(chunk, event("s3-put.json")) is None
    assert surroundings.statuses() == {WELCOME: "embedding"}
    (message,) = embed_messages(surroundings)
    assert (message["v"], message["type"], message["first_ordinal"], message["last_ordinal"]) == (
        1,
        "embed_batch",
        0,
        1,
    )
    assert call(chunk, event("s3-put.json")) is None
    assert surroundings.rows("SELECT count(*) FROM chunks") == [(2,)]
    assert embed_messages(surroundings) == []


def test_an_s3_event_from_the_queue_is_chunked_and_nothing_is_to_be_delivered_again(
    cold_start: ColdStart, surroundings: Surroundings
) -> None:
    version = surroundings.put(f"acme/{WELCOME}", "one\ntwo")
    chunk = cold_start("chunk")
    put = event("ingest-s3-put.json", {EVENT_VERSION: version})
    assert call(chunk, put) == {"batchItemFailures": []}
    assert call(chunk, put) == {"batchItemFailures": []}
    assert surroundings.statuses() == {WELCOME: "embedding"}
    assert surroundings.rows("SELECT s3_version_id FROM document_versions") == [(version,)]


def test_a_cold_start_removes_the_file_of_a_process_that_was_killed(
    cold_start: ColdStart, surroundings: Surroundings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    left = tmp_path / f"edda-document-{os.getpid()}-abc" / "document"
    left.parent.mkdir()
    left.write_text("long")
    surroundings.put(f"acme/{WELCOME}", "one\ntwo")
    call(cold_start("chunk"), event("s3-put.json"))
    assert surroundings.statuses() == {WELCOME: "embedding"}
    assert list(tmp_path.iterdir()) == []


def test_an_event_of_an_object_that_is_gone_is_done(cold_start: ColdStart, surroundings: Surroundings) -> None:
    chunk = cold_start("chunk")
    for name in ("s3-put.json", "ingest-s3-put.json"):
        assert call(chunk, event(name)) in (None, {"batchItemFailures": []})
    assert surroundings.statuses() == {}


def test_of_a_nasty_batch_only_what_cannot_be_understood_comes_back(
    cold_start: ColdStart, surroundings: Surroundings
) -> None:
    for key in ("a+b 100%.txt", "\U0001f600 ü.txt", "../../etc/passwd", "x" * 1000, "twice.txt", "no-sequencer.txt"):
        surroundings.put(f"acme/{key}", f"text of {key}")
    surroundings.put("stranger/report.pdf", "not yours")
    surroundings.put("acme/gone.txt", "gone")
    client("s3").delete_object(Bucket=surroundings.bucket, Key="acme/gone.txt")
    surroundings.put("acme/twice.txt.metadata.json", json.dumps({"metadataAttributes": {"year": 2024}}))
    chunk = cold_start("chunk")
    for _ in range(2):
        assert failed_messages(call(chunk, event("ingest-nasty.json"))) == REFUSED
        assert surroundings.statuses() == {
            "a+b 100%.txt": "embedding",
            "\U0001f600 ü.txt": "embedding",
            "../../etc/passwd": "embedding",
            "x" * 1000: "embedding",
            "twice.txt": "embedding",
            "no-sequencer.txt": "embedding",
        }
    assert surroundings.rows("SELECT count(*) FROM document_versions") == [(6,)]
    assert surroundings.rows("SELECT metadata FROM documents WHERE name = 'twice.txt'") == [({"year": 2024},)]
    deleted = surroundings.rows("SELECT name FROM documents WHERE deleted_at IS NOT NULL")
    assert deleted == [("gone.txt",)]


def test_a_file_above_the_limit_fails_with_its_reason(cold_start: ColdStart, surroundings: Surroundings) -> None:
    surroundings.put(f"acme/{WELCOME}", "x" * 10_001)
    call(cold_start("chunk"), event("s3-put.json"))
    assert surroundings.rows("SELECT status, error_code FROM document_versions") == [("failed", "document_too_large")]


def test_a_message_of_the_sweep_is_parsed(
    cold_start: ColdStart, surroundings: Surroundings, parser: LineParser, owner_of_acme: Tenant
) -> None:
    surroundings.put(f"acme/{WELCOME}", "one")
    chunk = cold_start("chunk")
    parser.hangs = True
    with pytest.raises(Exception, match="time was up"):
        call(chunk, event("s3-put.json"), seconds=3.3)
    parser.hangs = False
    (version_id,) = version_ids(surroundings)
    message = {
        "v": 1,
        "type": "ingest_version",
        "tenant_id": str(owner_of_acme.tenant_id),
        "version_id": str(version_id),
    }
    assert call(chunk, sqs_event(message)) == {"batchItemFailures": []}
    assert surroundings.statuses() == {WELCOME: "embedding"}


def test_a_message_whose_time_is_up_comes_back_and_its_lease_is_free(
    cold_start: ColdStart, surroundings: Surroundings, parser: LineParser
) -> None:
    version = surroundings.put(f"acme/{WELCOME}", "one")
    put = event("ingest-s3-put.json", {EVENT_VERSION: version})
    chunk = cold_start("chunk")
    parser.hangs = True
    assert failed_messages(call(chunk, put, seconds=3.3)) == [put["Records"][0]["messageId"]]
    assert surroundings.rows("SELECT lease_until FROM document_versions") == [(None,)]
    parser.hangs = False
    assert call(chunk, put) == {"batchItemFailures": []}


def test_one_message_that_fails_does_nothing_to_the_others(cold_start: ColdStart, surroundings: Surroundings) -> None:
    surroundings.put(f"acme/{WELCOME}", "one")
    batch = sqs_event("garbage", event("s3-put.json"), {"type": "unheard of"})
    answer = call(cold_start("chunk"), batch)
    assert failed_messages(answer) == sorted([batch["Records"][0]["messageId"], batch["Records"][2]["messageId"]])
    assert surroundings.statuses() == {WELCOME: "embedding"}


def test_a_queue_that_cannot_be_reached_brings_the_message_back_and_the_next_delivery_sends(
    cold_start: ColdStart, surroundings: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    surroundings.put(f"acme/{WELCOME}", "one")
    put = sqs_event(event("s3-put.json"))
    monkeypatch.setenv("EDDA_EMBED_QUEUE_URL", surroundings.embed_queue + "-missing")
    assert failed_messages(call(cold_start("chunk"), put)) == [put["Records"][0]["messageId"]]
    monkeypatch.setenv("EDDA_EMBED_QUEUE_URL", surroundings.embed_queue)
    assert call(cold_start("chunk"), put) == {"batchItemFailures": []}
    assert len(embed_messages(surroundings)) == 1


def test_without_a_database_every_message_comes_back_and_afterwards_none(
    cold_start: ColdStart, surroundings: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the first invocation on: the environment recovers without being replaced."""
    surroundings.put(f"acme/{WELCOME}", "one")
    put = sqs_event(event("s3-put.json"))
    monkeypatch.setenv("EDDA_DATABASE_URL", "postgresql://edda_app@127.0.0.1:9/edda")
    chunk = cold_start("chunk")
    assert failed_messages(call(chunk, put)) == [put["Records"][0]["messageId"]]
    monkeypatch.setenv("EDDA_DATABASE_URL", surroundings.urls.app)
    assert call(chunk, put) == {"batchItemFailures": []}


def test_a_connection_killed_between_two_invocations_is_not_noticed(
    cold_start: ColdStart, surroundings: Surroundings
) -> None:
    surroundings.put(f"acme/{WELCOME}", "one")
    chunk = cold_start("chunk")
    put = sqs_event(event("s3-put.json"))
    assert call(chunk, put) == {"batchItemFailures": []}
    with psycopg.connect(surroundings.urls.owner, autocommit=True) as owner:
        owner.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    assert call(chunk, put) == {"batchItemFailures": []}


def test_fifty_invocations_of_one_environment_use_one_connection(
    cold_start: ColdStart, surroundings: Surroundings
) -> None:
    surroundings.put(f"acme/{WELCOME}", "one")
    chunk = cold_start("chunk")
    for _ in range(50):
        assert call(chunk, sqs_event(event("s3-put.json"))) == {"batchItemFailures": []}
    connections = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'edda' AND datname = 'edda_lambda'"
    assert surroundings.rows(connections) == [(1,)]


@pytest.mark.parametrize("body", [{}, {"Records": None}, {"Records": ["text"]}, {"hello": "world"}])
def test_an_invocation_by_hand_that_makes_no_sense_fails_loudly(
    cold_start: ColdStart, surroundings: Surroundings, body: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match="S3"):
        call(cold_start("chunk"), body)
