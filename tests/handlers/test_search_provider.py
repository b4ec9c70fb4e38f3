"""The real search function as an execution environment has it, its providers on the wire."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from edda.models import Tenant
from edda.store.keys import create_key
from edda.store.migrations import register_model

from tests.aws import client, sqs_event
from tests.fakes.provider_server import (
    Fault,
    cut_off_after,
    edited,
    hang,
    html_page,
    reset,
    status,
    throttled,
    truncated_to,
)
from tests.fakes.rerank_server import RerankServer
from tests.handlers.environment import MODEL, ColdStart, ProviderThread, ServerThread, Surroundings, call, event
from tests.handlers.stage import http_event

Answer = dict[str, Any]
Search = Callable[..., Answer]
LINES = "First of all.\nDays of leave.\nThe days are long."


@pytest.fixture
def reranker(monkeypatch: pytest.MonkeyPatch) -> Iterator[ServerThread]:
    """One that the function's environment names, with a key in Secrets Manager."""
    thread = ServerThread(RerankServer("cohere"))
    thread.start()
    monkeypatch.setenv("EDDA_RERANK_PROVIDER", "cohere")
    monkeypatch.setenv("EDDA_RERANK_MODEL", "rerank-v3.5")
    monkeypatch.setenv("EDDA_RERANK_BASE_URL", thread.server.url)
    monkeypatch.setenv("EDDA_RERANK_TIMEOUT_S", "2")
    yield thread
    thread.stop()


@pytest.fixture
def search(owner_of_acme: Tenant, surroundings: Surroundings, cold_start: ColdStart) -> Search:
    """Ask the function, cold at first; a document is ready."""
    surroundings.put("acme/handbook/welcome aboard.md", LINES)
    call(cold_start("chunk"), event("s3-put.json"))
    messages = [record["body"] for record in surroundings.taken(surroundings.embed_queue)]
    assert call(cold_start("embed"), sqs_event(*messages)) == {"batchItemFailures": []}
    key = asyncio.run(create_key(surroundings.urls.owner, owner_of_acme, "test"))
    started: list[Any] = []

    def ask(seconds: float = 29, **body: Any) -> Answer:
        if not started:
            started.append(cold_start("search"))
        request = http_event("POST", "/v1/search", body=json.dumps(body), headers={"x-api-key": key})
        answer = call(started[0], request, seconds)
        headers = {name.lower(): value for name, value in answer["headers"].items()}
        return {"status_code": answer["statusCode"], "headers": headers, **json.loads(answer["body"])}

    return ask


def texts(answer: Answer) -> list[str]:
    assert answer["status_code"] == 200, answer
    return [hit["text"] for hit in answer["hits"]]


def codes(answer: Answer) -> list[tuple[str, str]]:
    return [(one["part"], one["code"]) for one in answer["degraded"]]


LASTING: dict[str, tuple[Fault, str]] = {
    "down": (status(503), "provider_unavailable"),
    "an HTML page": (html_page(), "provider_unavailable"),
    "broken JSON": (truncated_to(20), "provider_unavailable"),
    "cut off": (cut_off_after(20), "provider_unavailable"),
    "throttled": (throttled(retry_after="9"), "provider_throttled"),
    "wrong key": (status(401), "provider_misconfigured"),
}


@pytest.mark.parametrize(("fault", "code"), LASTING.values(), ids=LASTING)
def test_hybrid_goes_by_words_when_the_embedding_provider_fails(
    search: Search, provider: ProviderThread, fault: Fault, code: str
) -> None:
    assert codes(search(query="leave")) == []
    provider.server.script = [fault, fault]
    answer = search(query="leave")
    assert texts(answer) == ["Days of leave."]
    assert codes(answer) == [("vector", code)]
    provider.server.script = [fault, fault]
    refused = search(query="leave", mode="vector")
    assert (refused["status_code"], refused["code"]) == (500 if code.endswith("misconfigured") else 503, code)
    assert refused["headers"].get("retry-after") == {"provider_throttled": "9", "provider_unavailable": "5"}.get(code)


def test_a_connection_that_died_in_a_freeze_is_not_noticed(search: Search, provider: ProviderThread) -> None:
    search(query="leave")
    provider.server.script = [reset]
    assert codes(search(query="leave")) == []


def test_a_provider_that_hangs_costs_half_of_the_time(search: Search, provider: ProviderThread) -> None:
    search(query="leave")
    provider.server.script = [hang]
    began = time.monotonic()
    assert codes(search(query="leave", seconds=5)) == [("vector", "provider_unavailable")]
    assert time.monotonic() - began < 2
    provider.server.script = [hang]
    refused = search(query="leave", mode="vector", seconds=4)
    assert refused["status_code"] == 503
    assert int(refused["headers"]["retry-after"]) > 0


def test_vectors_of_other_dimensions_than_the_index_are_the_operators_business(
    search: Search, provider: ProviderThread
) -> None:
    longer = edited(lambda good: {**good, "data": [{"index": 0, "embedding": [0.1] * 9}]})
    provider.server.script = [longer]
    assert codes(search(query="leave")) == [("vector", "provider_misconfigured")]
    provider.server.script = [longer]
    assert (refused := search(query="leave", mode="vector"))["status_code"] == 500
    assert refused["code"] == "provider_misconfigured"


def test_a_model_that_is_not_registered_with_its_dimensions_is_said(
    search: Search, surroundings: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.run(register_model(surroundings.urls.owner, "openai/another", 16))
    monkeypatch.setenv("EDDA_EMBEDDING_MODEL", MODEL)
    monkeypatch.setenv("EDDA_EMBEDDING_DIMENSIONS", "16")
    assert (refused := search(query="leave"))["status_code"] == 500
    assert refused["code"] == "provider_misconfigured"
    assert "16 dimensions" in refused["detail"]


def test_the_reranker_that_the_environment_names_orders_the_hits(
    search: Search, reranker: ServerThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = client("secretsmanager").create_secret(Name=f"rerank-{time.time_ns()}", SecretString="co-secret")
    monkeypatch.setenv("EDDA_RERANK_API_KEY_SECRET_ARN", secret["ARN"])
    answer = search(query="The days are")
    assert texts(answer)[0] == "The days are long."
    assert (answer["scored_by"], answer["reranker"]) == ("rerank", "cohere/rerank-v3.5")
    (request,) = reranker.server.requests
    assert request.headers["authorization"] == "Bearer co-secret"
    assert sorted(request.body["documents"]) == sorted(LINES.splitlines())


RERANK_FAULTS: dict[str, tuple[Fault, str]] = LASTING | {
    "one score too few": (edited(lambda good: {"results": good["results"][:-1]}), "provider_unavailable"),
    "an index outside": (
        edited(lambda good: {"results": [{**good["results"][0], "index": 9}, *good["results"][1:]]}),
        "provider_unavailable",
    ),
    "NaN": (
        edited(lambda good: {"results": [{"index": n, "relevance_score": float("nan")} for n in range(3)]}),
        "provider_unavailable",
    ),
    "it hangs": (hang, "provider_unavailable"),
}


@pytest.mark.parametrize(("fault", "code"), RERANK_FAULTS.values(), ids=RERANK_FAULTS)
def test_a_reranker_that_fails_leaves_the_order_before_it(
    search: Search, reranker: ServerThread, fault: Fault, code: str
) -> None:
    plain = search(query="The days are", rerank=False)
    reranker.server.script = [fault, fault]
    answer = search(query="The days are", seconds=8)
    assert answer["hits"] == plain["hits"]
    assert codes(answer) == [("rerank", code)]
    assert (answer["scored_by"], answer["reranker"]) == ("fused", None)
