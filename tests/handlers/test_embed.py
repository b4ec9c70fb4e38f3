"""The embed function on the events of events/, cold and warm."""

from typing import Any

import pytest
from edda.models import Tenant

from tests.aws import sqs_event
from tests.fakes.provider_server import reset
from tests.handlers.environment import (
    ColdStart,
    ProviderThread,
    Surroundings,
    call,
    event,
    failed_messages,
    version_ids,
)

pytestmark = pytest.mark.usefixtures("owner_of_acme")

KEY = "acme/handbook/welcome aboard.md"
EVENT_TENANT = "0193c7f0-0000-7000-8000-00000000000a"
EVENT_VERSION = "0193c7f0-0000-7000-8000-00000000000b"
REFUSED = [
    "contract-of-the-future",
    "empty",
    "message-of-another-queue",
    "no-ordinals",
    "not-an-object",
    "not-json",
    "ordinals-from-nowhere",
    "tenant-that-is-no-id",
]


@pytest.fixture
def ids(
    cold_start: ColdStart, surroundings: Surroundings, owner_of_acme: Tenant, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    """A document of 100 chunks that waits for its vectors, 64 a message; what to replace in an event to name it."""
    monkeypatch.setattr("edda.store.ingest.BATCH_CHUNKS", 64)
    surroundings.put(KEY, "\n".join(f"line {number}" for number in range(100)))
    call(cold_start("chunk"), event("s3-put.json"))
    (version_id,) = version_ids(surroundings)
    return {EVENT_TENANT: str(owner_of_acme.tenant_id), EVENT_VERSION: str(version_id)}


def test_messages_become_vectors_and_their_second_delivery_warm_costs_nothing(
    cold_start: ColdStart, surroundings: Surroundings, provider: ProviderThread, ids: dict[str, str]
) -> None:
    embed = cold_start("embed")
    for _ in range(2):
        assert call(embed, event("embed.json", ids)) == {"batchItemFailures": []}
    assert list(surroundings.statuses().values()) == ["ready"]
    assert sorted(provider.texts) == sorted(f"line {number}" for number in range(100))
    assert surroundings.rows("SELECT count(*) FROM embeddings") == [(100,)]


def test_messages_about_what_is_long_gone_are_done(
    cold_start: ColdStart, surroundings: Surroundings, provider: ProviderThread
) -> None:
    embed = cold_start("embed")
    for _ in range(2):
        assert call(embed, event("embed.json")) == {"batchItemFailures": []}
    assert provider.texts == []


def test_of_a_nasty_batch_only_what_cannot_be_understood_comes_back(
    cold_start: ColdStart, surroundings: Surroundings, provider: ProviderThread, ids: dict[str, str]
) -> None:
    embed = cold_start("embed")
    for _ in range(2):
        assert failed_messages(call(embed, event("embed-nasty.json", ids))) == REFUSED
    assert list(surroundings.statuses().values()) == ["ready"]
    assert len(provider.texts) == 100


def test_a_provider_that_hangs_up_brings_messages_back_before_time_is_up(
    cold_start: ColdStart, surroundings: Surroundings, provider: ProviderThread, ids: dict[str, str]
) -> None:
    embed = cold_start("embed")
    provider.server.script = [reset] * 1000
    batch = event("embed.json", ids)
    assert len(failed_messages(call(embed, batch, seconds=3.5))) == 2
    assert surroundings.rows("SELECT count(*) FROM embed_batches WHERE lease_until IS NOT NULL") == [(0,)]
    provider.server.script = []
    assert call(embed, batch) == {"batchItemFailures": []}
    assert list(surroundings.statuses().values()) == ["ready"]


def test_without_a_database_every_message_comes_back_and_afterwards_none(
    cold_start: ColdStart, surroundings: Surroundings, ids: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDDA_DATABASE_URL", "postgresql://edda_app@127.0.0.1:9/edda")
    embed = cold_start("embed")
    batch = event("embed.json", ids)
    assert failed_messages(call(embed, batch)) == sorted(record["messageId"] for record in batch["Records"])
    monkeypatch.setenv("EDDA_DATABASE_URL", surroundings.urls.app)
    assert call(embed, batch) == {"batchItemFailures": []}


def test_a_model_nobody_registered_brings_every_message_back(
    cold_start: ColdStart, surroundings: Surroundings, ids: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operator must act: nothing is lost meanwhile, and nothing fails for good."""
    monkeypatch.setenv("EDDA_EMBEDDING_MODEL", "another")
    batch = event("embed.json", ids)
    embed = cold_start("embed")
    for _ in range(3):
        assert len(failed_messages(call(embed, batch))) == 2
    assert list(surroundings.statuses().values()) == ["embedding"]
    # What could not be built is built again each time: it must not leave a connection behind each time.
    connections = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'edda' AND datname = 'edda_lambda'"
    assert surroundings.rows(connections) == [(1,)]  # the chunk function's


def test_a_batch_of_garbage_alone_opens_nothing(
    cold_start: ColdStart, surroundings: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDDA_DATABASE_URL", "postgresql://edda_app@127.0.0.1:9/edda")
    batch: dict[str, Any] = sqs_event("garbage", "{}")
    assert len(failed_messages(call(cold_start("embed"), batch))) == 2
