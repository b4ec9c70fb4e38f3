"""What the verbs may expect of an event bus: the fake and EventBridge alike."""

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web
from edda.adapters.aws import AwsClients
from edda.adapters.event_bus import EventBridge
from edda.models import BusEvent
from edda.ports import EventBus

from tests.aws import client, make_queue, take
from tests.contracts.test_object_store import QUICK
from tests.fakes.events import FakeEventBus

Received = Callable[[], list[tuple[str, Any]]]
NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


def event(number: int) -> BusEvent:
    return BusEvent("document.ready", NOW, json.dumps({"n": number, "name": "ü\U0001f600"}))


@pytest.fixture(params=["fake", "eventbridge"])
async def bus(request: pytest.FixtureRequest) -> AsyncIterator[tuple[EventBus, Received]]:
    """A bus, and what a rule for Edda's events has caught."""
    if request.param == "fake":
        fake = FakeEventBus()
        yield fake, lambda: [(each.type, json.loads(each.detail)) for each in fake.events]
        return
    request.getfixturevalue("aws")
    url, events = make_queue(), client("events")
    arn = client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    events.put_rule(Name="edda", EventPattern=json.dumps({"source": ["edda"]}))
    events.put_targets(Rule="edda", Targets=[{"Id": "queue", "Arn": arn}])

    def received() -> list[tuple[str, Any]]:
        bodies = [json.loads(record["body"]) for record in take(url)]
        return [(body["detail-type"], body["detail"]) for body in bodies]

    async with AwsClients() as clients:
        yield EventBridge(clients, "default"), received
    events.remove_targets(Rule="edda", Ids=["queue"])
    events.delete_rule(Name="edda")


@pytest.mark.parametrize("n", [0, 1, 10, 11, 25])
async def test_every_event_arrives_once(bus: tuple[EventBus, Received], n: int) -> None:
    sender, received = bus
    assert await sender.send([event(number) for number in range(n)]) == []
    caught = received()
    assert sorted(detail["n"] for _, detail in caught) == list(range(n))
    assert {(kind, detail["name"]) for kind, detail in caught} <= {("document.ready", "ü\U0001f600")}


# EventBridge alone ------------------------------------------------------------------------------------------------


@dataclass
class ScriptedBus:
    """Refuses the events whose numbers are in `refuses`, by name."""

    refuses: set[int]
    forgets: int = 0
    requests: list[list[int]] = field(default_factory=list)

    async def serve(self, request: web.Request) -> web.Response:
        numbers = [json.loads(entry["Detail"])["n"] for entry in (await request.json())["Entries"]]
        self.requests.append(numbers)
        answers = [
            {"ErrorCode": "InternalFailure", "ErrorMessage": "x"}
            if number in self.refuses
            else {"EventId": str(number)}
            for number in numbers
        ]
        answer = {"Entries": answers[: len(answers) - self.forgets], "FailedEntryCount": 0}
        return web.json_response(answer, content_type="application/x-amz-json-1.1")


@pytest.mark.parametrize(
    ("scripted", "unsent"),
    [(ScriptedBus({1, 12}), [1, 12]), (ScriptedBus(set(), forgets=1), [9, 14])],
)
async def test_events_that_were_refused_or_not_mentioned_are_named(
    aws: str, monkeypatch: pytest.MonkeyPatch, scripted: ScriptedBus, unsent: list[int]
) -> None:
    app = web.Application()
    app.router.add_post("/{path:.*}", scripted.serve)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    try:
        async with AwsClients(QUICK) as clients:
            assert await EventBridge(clients, "default").send([event(number) for number in range(15)]) == unsent
    finally:
        await runner.cleanup()


async def test_a_bus_that_is_not_there_has_taken_nothing(aws: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with AwsClients(QUICK) as clients:
        assert await EventBridge(clients, "no-such-bus").send([event(0), event(1)]) == [0, 1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    async with AwsClients(QUICK) as clients:
        assert await EventBridge(clients, "default").send([event(0)]) == [0]
