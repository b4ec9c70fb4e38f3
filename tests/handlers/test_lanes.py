"""The chunk function, when a tenant has its share of the workers: the file goes back to the queue, with its tenant."""

import pytest
from edda.models import Tenant

from tests.aws import client, sqs_event
from tests.handlers.environment import ColdStart, Surroundings, call, event

pytestmark = pytest.mark.usefixtures("owner_of_acme")


def test_a_file_of_a_busy_tenant_goes_to_the_lane_and_is_parsed_from_there(
    cold_start: ColdStart, surroundings: Surroundings, monkeypatch: pytest.MonkeyPatch, owner_of_acme: Tenant
) -> None:
    monkeypatch.setenv("EDDA_CHUNK_CONCURRENCY", "3")  # a half of it, rounded down, is one
    chunk = cold_start("chunk")
    surroundings.put("acme/handbook/welcome aboard.md", "one")
    surroundings.put("acme/other.md", "two")
    other = event("s3-put.json", {"handbook/welcome+aboard.md": "other.md"})
    call(chunk, other)
    surroundings.rows("UPDATE document_versions SET status = 'parsing', lease_until = now() + interval '1 hour'")
    assert call(chunk, sqs_event(event("s3-put.json"))) == {"batchItemFailures": []}
    assert surroundings.statuses()["handbook/welcome aboard.md"] == "queued"
    (message,) = client("sqs").receive_message(
        QueueUrl=surroundings.ingest_queue, AttributeNames=["MessageGroupId"], VisibilityTimeout=0
    )["Messages"]
    assert message["Attributes"]["MessageGroupId"] == str(owner_of_acme.tenant_id)
    assert call(chunk, sqs_event(message["Body"])) == {"batchItemFailures": []}
    assert surroundings.statuses()["handbook/welcome aboard.md"] == "embedding"
    surroundings.rows("UPDATE document_versions SET status = 'embedding', lease_until = NULL")
