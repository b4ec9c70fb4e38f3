"""Messages that failed come again in seconds, later each time, and those of a worker that died in a minute: none waits
until its queue's visibility timeout ends."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from edda.leasing import LEASE_S, RENEWAL_S
from edda.sqs_events import FIRST_DELAY_S

from tests.aws import sqs_event
from tests.handlers.environment import ColdStart, Surroundings, call, failed_messages

pytestmark = pytest.mark.usefixtures("owner_of_acme")

NOBODY = "0193c7f0-0000-7000-8000-00000000000a"
KINDS: dict[str, dict[str, Any]] = {
    "chunk": {"type": "ingest_version"},
    "embed": {"type": "embed_batch", "first_ordinal": 0, "last_ordinal": 1},
}


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, surroundings: Surroundings) -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """What SQS is asked for: nothing else is within reach, the database neither."""
    requests: list[tuple[str, dict[str, Any]]] = []

    class Sqs(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            requests.append((self.headers["x-amz-target"], body))
            answer = json.dumps({"Successful": [{"Id": one["Id"]} for one in body["Entries"]], "Failed": []}).encode()
            self.send_response(200)
            self.send_header("content-type", "application/x-amz-json-1.0")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            """Not to standard error."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Sqs) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("EDDA_DATABASE_URL", "postgresql://edda_app@127.0.0.1:9/edda")
        yield requests
        server.shutdown()


@pytest.mark.parametrize("function", KINDS)
def test_a_message_that_failed_is_asked_to_come_again_soon_and_later_each_time(
    cold_start: ColdStart, surroundings: Surroundings, told: list[tuple[str, dict[str, Any]]], function: str
) -> None:
    message = {"v": 1, "tenant_id": NOBODY, "version_id": NOBODY, **KINDS[function]}
    batch = sqs_event(message, message)
    for record, received in zip(batch["Records"], (1, 3), strict=True):
        record["receiptHandle"] = f"received {received}"
        record["attributes"] = {"ApproximateReceiveCount": str(received)}
    assert len(failed_messages(call(cold_start(function), batch))) == 2
    (_, in_hand), (target, request) = told
    assert {one["VisibilityTimeout"] for one in in_hand["Entries"]} == {int(LEASE_S + RENEWAL_S)}
    queue = {"chunk": surroundings.ingest_queue, "embed": surroundings.embed_queue}[function]
    assert (target, request["QueueUrl"]) == ("AmazonSQS.ChangeMessageVisibilityBatch", queue)
    waits = {one["ReceiptHandle"]: one["VisibilityTimeout"] for one in request["Entries"]}
    assert FIRST_DELAY_S <= waits["received 1"] <= 2 * FIRST_DELAY_S
    assert 4 * FIRST_DELAY_S <= waits["received 3"] <= 8 * FIRST_DELAY_S
