"""From upload to hit in containers, by the API of `sam local start-api`."""

import json
from collections.abc import Iterator
from uuid import uuid4

import httpx
import pytest

from local import deploy
from local.client import EddaClient
from local.containers import EVENTS_KEY
from local.demo import DOCUMENTS
from local.processes import wait_until
from local.settings import TENANT
from tests.containers.conftest import Running

pytestmark = [pytest.mark.containers, pytest.mark.timeout(600)]

QUESTIONS = {  # of three formats
    "handbook.md": "How many days of holiday do I get?",
    "first-week.docx": "What happens in my first week?",
    "lorry-inspection.pdf": "What is looked at when a lorry is inspected?",
}


@pytest.fixture(scope="module")
def api(running: Running) -> Iterator[EddaClient]:
    with EddaClient(running.api, EVENTS_KEY) as client:
        yield client


def test_documents_of_three_formats_come_from_upload_to_hit(api: EddaClient, running: Running) -> None:
    s3 = deploy.client(running.stack.settings, "s3")
    names = iter(QUESTIONS)
    direct, presigned, dropped = next(names), next(names), next(names)
    api.upload(DOCUMENTS / direct, direct)
    api.upload_presigned(DOCUMENTS / presigned, presigned)
    s3.upload_file(str(DOCUMENTS / dropped), running.stack.deployment.uploads_bucket, f"{TENANT}/{dropped}")

    def ready() -> bool:
        found = {document["name"]: document["status"] for document in api.documents()}
        return all(found.get(name) == "ready" for name in QUESTIONS)

    assert wait_until(ready, within_s=240, every_s=1)
    for name, question in QUESTIONS.items():
        assert api.search(question, top_k=3)[0]["name"] == name


def test_the_whole_api_is_served(running: Running) -> None:
    headers = {"Authorization": f"Bearer {EVENTS_KEY}"}
    with httpx.Client(base_url=running.api, headers=headers, timeout=120) as client:
        file = {"file": ("note.txt", b"The lighthouse keeper feeds the gulls at noon.")}
        created = client.post("/v1/documents", files=file, data={"metadata": json.dumps({"year": 2026})})
        document = f"/v1/documents/{created.json()['document_id']}"

        assert created.status_code == 202
        assert wait_until(lambda: client.get(document).json()["status"] == "ready", within_s=120, every_s=1)
        assert client.get(f"{document}/chunks").json()["chunks"][0]["text"].startswith("The lighthouse")
        assert client.patch(document, json={"title": "Gulls"}).json()["title"] == "Gulls"
        found = client.get("/v1/documents", params={"filter": json.dumps({"field": "year", "op": "eq", "value": 2026})})
        assert "Gulls" in [entry["title"] for entry in found.json()["documents"]]
        assert client.get("/v1/health").status_code == 200
        assert "openapi" in client.get("/openapi.json").json()
        assert "text/html" in client.get("/docs").headers["content-type"]
        assert client.delete(document).status_code in {200, 202, 204}
        assert client.get(document).status_code == 404
        problem = client.post("/v1/search", json={"query": ""})
        assert (problem.status_code, problem.headers["content-type"]) == (422, "application/problem+json")
    assert httpx.get(f"{running.api}/v1/documents", timeout=120).status_code == 401


def test_one_bad_message_is_delivered_again_alone_and_put_aside_at_last(running: Running) -> None:
    """Batches, partial responses and redrive are the queue's own, as the template sets them."""
    sqs = deploy.client(running.stack.settings, "sqs")
    queue = running.stack.deployment.embed_queue_url
    aside = next(url for url in sqs.list_queues()["QueueUrls"] if "EmbedDeadLetter" in url)
    policy = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["RedrivePolicy"])["Attributes"]["RedrivePolicy"]
    assert json.loads(policy)["maxReceiveCount"] == 5
    good = {"v": 1, "type": "embed_batch", "tenant_id": str(uuid4()), "version_id": str(uuid4())}
    sooner = json.dumps({**json.loads(policy), "maxReceiveCount": 2})  # five deliveries take minutes

    def waiting(url: str) -> int:
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        counts = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
        return sum(int(counts[name]) for name in names)

    sqs.set_queue_attributes(QueueUrl=queue, Attributes={"RedrivePolicy": sooner})
    try:
        sqs.send_message_batch(
            QueueUrl=queue,
            Entries=[
                {"Id": "good", "MessageBody": json.dumps({**good, "first_ordinal": 0, "last_ordinal": 1})},
                {"Id": "bad", "MessageBody": "{not json"},
            ],
        )
        assert wait_until(lambda: waiting(queue) == 0 and waiting(aside) == 1, within_s=120, every_s=1)
    finally:
        sqs.set_queue_attributes(QueueUrl=queue, Attributes={"RedrivePolicy": policy})
    assert sqs.receive_message(QueueUrl=aside)["Messages"][0]["Body"] == "{not json"
