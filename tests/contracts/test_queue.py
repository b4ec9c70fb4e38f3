"""What the verbs may expect of a queue: the fake and SQS alike."""

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import pytest
from aiohttp import web
from edda.adapters.aws import AwsClients
from edda.adapters.sqs import ATTEMPTS, SqsQueue
from edda.ports import Queue

from tests.aws import client, make_queue, take
from tests.contracts.test_object_store import QUICK
from tests.fakes.queue import FakeQueue

Received = Callable[[], list[str]]


@pytest.fixture(params=["fake", "sqs"])
async def queue(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Queue, Received]]:
    """A queue, and what has arrived in it."""
    if request.param == "fake":
        fake = FakeQueue()
        yield fake, fake.take
        return
    request.getfixturevalue("aws")
    url = make_queue()
    async with AwsClients() as clients:
        yield SqsQueue(clients, url), lambda: [record["body"] for record in take(url)]


@pytest.mark.parametrize("n", [0, 1, 10, 11, 95])
async def test_every_message_arrives_once(queue: tuple[Queue, Received], n: int) -> None:
    sender, received = queue
    bodies = [json.dumps({"n": number, "text": "ü\U0001f600"}) for number in range(n)]
    assert await sender.send(bodies) == []
    assert sorted(received()) == sorted(bodies)


async def test_equal_messages_all_arrive(queue: tuple[Queue, Received]) -> None:
    sender, received = queue
    assert await sender.send(["same"] * 12) == []
    assert received() == ["same"] * 12


async def test_messages_of_a_group_arrive_like_others(queue: tuple[Queue, Received]) -> None:
    sender, received = queue
    assert await sender.send([str(number) for number in range(12)], group="acme") == []
    assert len(received()) == 12


async def test_a_delay_that_cannot_be_set_is_no_error(queue: tuple[Queue, Received]) -> None:
    sender, _ = queue
    await sender.delay({"no-such-receipt-handle": 5})


@pytest.mark.parametrize("n", [0, 1, 10, 25])
async def test_what_is_received_is_hidden_and_what_is_removed_is_gone(queue: tuple[Queue, Received], n: int) -> None:
    one, received = queue
    bodies = [f"message {number}" for number in range(n)]
    await one.send(bodies)
    seen = []
    while messages := await one.receive():
        assert len(messages) <= 10
        seen += messages
        await one.remove([message.receipt_handle for message in messages if message.body != "message 3"])
    assert sorted(message.body for message in seen) == sorted(bodies)
    assert received() == []


# SQS alone --------------------------------------------------------------------------------------------------------


@dataclass
class ScriptedSqs:
    """Takes what `takes` says, of every request: a set of the ids to take, and of those to refuse by name."""

    takes: Callable[[int, list[str]], tuple[list[str], list[str]] | int]
    requests: list[list[str]] = field(default_factory=list)
    taken: list[str] = field(default_factory=list)

    async def serve(self, request: web.Request) -> web.Response:
        entries = {entry["Id"]: entry["MessageBody"] for entry in (await request.json())["Entries"]}
        self.requests.append(list(entries.values()))
        outcome = self.takes(len(self.requests), list(entries.values()))
        if isinstance(outcome, int):
            return web.Response(status=outcome)
        taken, failed = outcome
        self.taken += taken
        answer: dict[str, Any] = {
            "Successful": [
                {"Id": name, "MessageId": str(uuid4()), "MD5OfMessageBody": "0"}
                for name, body in entries.items()
                if body in taken
            ],
            "Failed": [
                {"Id": name, "Code": "InternalError", "SenderFault": False}
                for name, body in entries.items()
                if body in failed
            ],
        }
        return web.json_response(answer, content_type="application/x-amz-json-1.0")


async def send(scripted: ScriptedSqs, bodies: list[str], monkeypatch: pytest.MonkeyPatch) -> list[int]:
    app = web.Application()
    app.router.add_post("/{path:.*}", scripted.serve)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    try:
        async with AwsClients(QUICK) as clients:
            return await SqsQueue(clients, f"http://{host}:{port}/123456789012/queue").send(bodies)
    finally:
        await runner.cleanup()


async def test_messages_sqs_refuses_the_first_time_are_sent_again_and_no_others(
    aws: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted = ScriptedSqs(lambda n, bodies: (bodies[1:], bodies[:1]) if n == 1 else (bodies, []))
    assert await send(scripted, ["a", "b", "c"], monkeypatch) == []
    assert scripted.requests == [["a", "b", "c"], ["a"]]


async def test_messages_sqs_forgets_to_mention_count_as_not_sent(aws: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted = ScriptedSqs(lambda n, bodies: (bodies[:2], []))
    assert await send(scripted, ["a", "b", "c", "d", "e"], monkeypatch) == []
    assert scripted.taken == ["a", "b", "c", "d", "e"]


async def test_messages_sqs_never_takes_are_named(aws: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted = ScriptedSqs(lambda n, bodies: ([body for body in bodies if body != "bad"], ["bad"]))
    assert await send(scripted, ["a", "bad", "c", *"defghijklm", "bad"], monkeypatch) == [1, 13]
    assert scripted.taken == ["a", "c", *"defghijklm"]
    assert len(scripted.requests) == 2 + ATTEMPTS - 1


async def test_one_request_that_fails_does_nothing_to_the_others(aws: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bodies = [str(number) for number in range(30)]
    scripted = ScriptedSqs(lambda n, bodies: 400 if "15" in bodies else (bodies, []))
    unsent = await send(scripted, bodies, monkeypatch)
    assert 15 in unsent
    assert sorted(scripted.taken, key=int) == [body for body in bodies if int(body) not in unsent]
    assert len(unsent) == 10


async def test_a_queue_that_cannot_be_reached_has_taken_nothing(aws: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    async with AwsClients(QUICK) as clients:
        assert await SqsQueue(clients, "http://127.0.0.1:9/queue").send(["a", "b"]) == [0, 1]


async def test_a_queue_that_does_not_exist_has_taken_nothing(aws: str) -> None:
    url = make_queue()
    client("sqs").delete_queue(QueueUrl=url)
    async with AwsClients(QUICK) as clients:
        assert await SqsQueue(clients, url).send(["a"]) == [0]


async def test_a_group_travels_with_its_messages_and_those_without_have_none(aws: str) -> None:
    url = make_queue()
    async with AwsClients() as clients:
        await SqsQueue(clients, url).send(["a", "b"], group="acme")
        await SqsQueue(clients, url).send(["c"])
    answer = client("sqs").receive_message(QueueUrl=url, MaxNumberOfMessages=10, AttributeNames=["MessageGroupId"])
    groups = {message["Body"]: message.get("Attributes", {}).get("MessageGroupId") for message in answer["Messages"]}
    assert groups == {"a": "acme", "b": "acme", "c": None}


async def test_a_delayed_message_comes_again_when_the_delay_is_over_and_not_when_its_visibility_timeout_is(
    aws: str,
) -> None:
    url = make_queue()
    sqs = client("sqs")
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"VisibilityTimeout": "3600"})
    async with AwsClients() as clients:
        sender = SqsQueue(clients, url)
        assert await sender.send([str(number) for number in range(12)]) == []
        handles = [m["ReceiptHandle"] for _ in range(2)
                   for m in sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", [])]  # fmt: skip
        assert take(url) == []
        await sender.delay(dict.fromkeys(handles, 0))
    assert len(take(url)) == len(handles) == 12
