"""Questions over HTTP to a real function, about one document that the pipeline has brought in, and how a provider fails
them. The fixture is in conftest.py."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from edda.models import Tenant
from edda.store.keys import create_key

from tests.aws import sqs_event
from tests.fakes.provider_server import Fault, cut_off_after, html_page, status, throttled, truncated_to
from tests.handlers.environment import ColdStart, Surroundings, call, event
from tests.handlers.stage import http_event

Answer = dict[str, Any]
Ask = Callable[..., Answer]

# What lasts, though it is asked a second time, and its code.
LASTING: dict[str, tuple[Fault, str]] = {
    "down": (status(503), "provider_unavailable"),
    "an HTML page": (html_page(), "provider_unavailable"),
    "broken JSON": (truncated_to(20), "provider_unavailable"),
    "cut off": (cut_off_after(20), "provider_unavailable"),
    "throttled": (throttled(retry_after="9"), "provider_throttled"),
    "wrong key": (status(401), "provider_misconfigured"),
}


@pytest.fixture
def ask_about(owner_of_acme: Tenant, surroundings: Surroundings, cold_start: ColdStart) -> Callable[..., Ask]:
    """`ask_about(text, "search", "/v1/search")` brings a document in, and is what asks this function about it."""

    def about(text: str, function: str, path: str, **usual: Any) -> Ask:
        surroundings.put("acme/handbook/welcome aboard.md", text)
        call(cold_start("chunk"), event("s3-put.json"))
        messages = [record["body"] for record in surroundings.taken(surroundings.embed_queue)]
        assert call(cold_start("embed"), sqs_event(*messages)) == {"batchItemFailures": []}
        key = asyncio.run(create_key(surroundings.urls.owner, owner_of_acme, "test"))
        started: list[Any] = []

        def ask(seconds: float = 29, **body: Any) -> Answer:
            if not started:
                started.append(cold_start(function))
            request = http_event("POST", path, body=json.dumps(usual | body), headers={"x-api-key": key})
            answer = call(started[0], request, seconds)
            headers = {name.lower(): value for name, value in answer["headers"].items()}
            return {"status_code": answer["statusCode"], "headers": headers, **json.loads(answer["body"])}

        return ask

    return about


def codes(answer: Answer) -> list[tuple[str, str]]:
    """What was left out of it, and why."""
    assert answer["status_code"] == 200, answer
    return [(one["part"], one["code"]) for one in answer["degraded"]]
