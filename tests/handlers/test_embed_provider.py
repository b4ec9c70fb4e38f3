"""Everything a provider does wrong on the wire, through the real embed function: each document is ready, each chunk
has its own text's vector, and what was stored is not paid for again.
"""

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from edda.models import Tenant

from tests.aws import sqs_event
from tests.fakes.provider_server import (
    Fault,
    Reply,
    as_type,
    cut_off_after,
    dripping,
    edited,
    hang,
    html_page,
    reset,
    status,
    throttled,
    truncated_to,
    unit_vector,
)
from tests.handlers.environment import (
    ColdStart,
    ProviderThread,
    Surroundings,
    call,
    event,
    failed_messages,
)
from tests.postgres import MODEL_DIMENSIONS, as_owner

pytestmark = pytest.mark.usefixtures("owner_of_acme")

LINES = [f"line {number}" for number in range(100)]
Answer = dict[str, Any]


def change(edit: Callable[[list[Answer]], object]) -> Fault:
    """The list of vectors, changed in place."""

    def changed(answer: Answer) -> Answer:
        edit(answer["data"])
        return answer

    return edited(changed)


PASSING: dict[str, Fault] = {
    "429": throttled(),
    "429 with Retry-After": throttled(retry_after="1"),
    "500": status(500),
    "503 with Retry-After": status(503, retry_after="1"),
    "truncated JSON": truncated_to(200),
    "cut off in the middle": cut_off_after(200),
    "HTML with 200": html_page(),
    "JSON by another name": as_type("text/plain"),
    "an empty body": lambda good: Reply(b""),
    "too few": change(lambda data: data.pop()),
    "too many": change(lambda data: data.append(dict(data[0], index=len(data)))),
    "an index twice": change(lambda data: data[1].update(index=0)),
    "another order": change(lambda data: data.reverse()),
    "NaN": change(lambda data: data[7].update(embedding=[math.nan] * MODEL_DIMENSIONS)),
    "zero": change(lambda data: data[7].update(embedding=[0.0] * MODEL_DIMENSIONS)),
    "null": change(lambda data: data[7].update(embedding=None)),
    "reset after it was paid": reset,
}


@pytest.fixture
def messages(cold_start: ColdStart, surroundings: Surroundings, owner_of_acme: Tenant) -> dict[str, Any]:
    """What the chunk function says of a document of 100 chunks."""
    surroundings.put("acme/handbook/welcome aboard.md", "\n".join(LINES))
    call(cold_start("chunk"), event("s3-put.json"))
    return sqs_event(*(record["body"] for record in surroundings.taken(surroundings.embed_queue)))


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
def test_a_passing_fault_is_passed_within_the_invocation(
    cold_start: ColdStart, surroundings: Surroundings, provider: ProviderThread, messages: dict[str, Any], fault: Fault
) -> None:
    provider.server.script = [fault]
    assert call(cold_start("embed"), messages) == {"batchItemFailures": []}
    assert_ready_with_the_right_vectors(surroundings)
    assert max(Counter(provider.texts).values()) <= 2


@pytest.mark.parametrize("fault", [hang, dripping(1.0)], ids=["hang", "drip"])
def test_what_never_ends_brings_the_messages_back_in_time(
    cold_start: ColdStart, surroundings: Surroundings, provider: ProviderThread, messages: dict[str, Any], fault: Fault
) -> None:
    embed = cold_start("embed")
    provider.server.script = [fault]
    assert len(failed_messages(call(embed, messages, seconds=5))) == len(messages["Records"])
    assert surroundings.rows("SELECT count(*) FROM embed_batches WHERE lease_until IS NOT NULL") == [(0,)]
    assert call(embed, messages) == {"batchItemFailures": []}
    assert_ready_with_the_right_vectors(surroundings)


def test_another_model_behind_the_address_stops_everything_and_stores_nothing(
    cold_start: ColdStart, surroundings: Surroundings, provider: ProviderThread, messages: dict[str, Any]
) -> None:
    embed = cold_start("embed")
    provider.server.script = [change(lambda data: [item.update(embedding=[0.1] * 5) for item in data])] * 100
    assert len(failed_messages(call(embed, messages))) == len(messages["Records"])
    assert list(surroundings.statuses().values()) == ["embedding"]
    assert surroundings.rows("SELECT count(*) FROM embeddings") == [(0,)]
    provider.server.script = []
    assert call(embed, messages) == {"batchItemFailures": []}
    assert_ready_with_the_right_vectors(surroundings)


def assert_ready_with_the_right_vectors(surroundings: Surroundings) -> None:
    assert list(surroundings.statuses().values()) == ["ready"]
    query = """SELECT c.text, e.vector::text FROM chunks c
               JOIN embeddings e USING (tenant_id, content_hash) ORDER BY c.ordinal"""
    stored = as_owner(surroundings.urls, query)
    assert [text for text, _ in stored] == LINES
    for text, vector in stored:
        numbers = [float(number) for number in vector.strip("[]").split(",")]
        assert numbers == pytest.approx(unit_vector(text, MODEL_DIMENSIONS), abs=2e-3)
