"""Events, from functions as they are built in Lambda: to the bus at once, and by the sweep."""

import pytest

from tests.aws import sqs_event
from tests.handlers.environment import ColdStart, Surroundings, call, event

pytestmark = pytest.mark.usefixtures("owner_of_acme")

DELIVERED = (
    "SELECT e.type, d.channel, d.delivered_at IS NOT NULL "
    "FROM document_events e JOIN event_deliveries d USING (event_id)"
)


def test_the_function_that_finishes_a_document_tells_the_bus(
    cold_start: ColdStart, surroundings: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDDA_EVENT_BUS_NAME", "default")
    surroundings.put("acme/handbook/welcome aboard.md", "one")
    call(cold_start("chunk"), event("s3-put.json"))
    assert surroundings.rows(DELIVERED) == []
    messages = [record["body"] for record in surroundings.taken(surroundings.embed_queue)]
    assert call(cold_start("embed"), sqs_event(*messages)) == {"batchItemFailures": []}
    assert surroundings.rows(DELIVERED) == [("document.ready", "event_bus", True)]


def test_a_bus_that_is_not_there_costs_the_work_nothing_and_the_sweep_tells_it_later(
    cold_start: ColdStart, surroundings: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDDA_EVENT_BUS_NAME", "no-such-bus")
    surroundings.put("acme/handbook/welcome aboard.md", "")
    assert call(cold_start("chunk"), sqs_event(event("s3-put.json"))) == {"batchItemFailures": []}
    assert surroundings.rows(DELIVERED) == [("document.failed", "event_bus", False)]
    surroundings.rows("UPDATE event_deliveries SET next_attempt_at = now()")
    monkeypatch.setenv("EDDA_EVENT_BUS_NAME", "default")
    assert call(cold_start("sweep"), event("sweep.json"))["events_delivered"] == 1
    assert surroundings.rows(DELIVERED) == [("document.failed", "event_bus", True)]
