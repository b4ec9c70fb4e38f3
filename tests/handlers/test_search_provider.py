"""The real search function as an execution environment has it, its providers on the wire."""

import asyncio
import time
from collections.abc import Callable, Iterator

import pytest
from edda.store.migrations import register_model

from tests.aws import client
from tests.fakes.provider_server import (
    Fault,
    edited,
    hang,
    reset,
)
from tests.fakes.rerank_server import RerankServer
from tests.handlers.asking import LASTING, Answer, Ask, codes
from tests.handlers.environment import MODEL, ProviderThread, ServerThread, Surroundings

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
def search(ask_about: Callable[..., Ask]) -> Ask:
    return ask_about(LINES, "search", "/v1/search")


def texts(answer: Answer) -> list[str]:
    assert answer["status_code"] == 200, answer
    return [hit["text"] for hit in answer["hits"]]


@pytest.mark.parametrize(("fault", "code"), LASTING.values(), ids=LASTING)
def test_hybrid_goes_by_words_when_the_embedding_provider_fails(
    search: Ask, provider: ProviderThread, fault: Fault, code: str
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


def test_a_connection_that_died_in_a_freeze_is_not_noticed(search: Ask, provider: ProviderThread) -> None:
    search(query="leave")
    provider.server.script = [reset]
    assert codes(search(query="leave")) == []


def test_a_provider_that_hangs_costs_half_of_the_time(search: Ask, provider: ProviderThread) -> None:
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
    search: Ask, provider: ProviderThread
) -> None:
    longer = edited(lambda good: {**good, "data": [{"index": 0, "embedding": [0.1] * 9}]})
    provider.server.script = [longer]
    assert codes(search(query="leave")) == [("vector", "provider_misconfigured")]
    provider.server.script = [longer]
    assert (refused := search(query="leave", mode="vector"))["status_code"] == 500
    assert refused["code"] == "provider_misconfigured"


def test_a_model_that_is_not_registered_with_its_dimensions_is_said(
    search: Ask, surroundings: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.run(register_model(surroundings.urls.owner, "openai/another", 16))
    monkeypatch.setenv("EDDA_EMBEDDING_MODEL", MODEL)
    monkeypatch.setenv("EDDA_EMBEDDING_DIMENSIONS", "16")
    assert (refused := search(query="leave"))["status_code"] == 500
    assert refused["code"] == "provider_misconfigured"
    assert "16 dimensions" in refused["detail"]


def test_the_reranker_that_the_environment_names_orders_the_hits(
    search: Ask, reranker: ServerThread, monkeypatch: pytest.MonkeyPatch
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
    search: Ask, reranker: ServerThread, fault: Fault, code: str
) -> None:
    plain = search(query="The days are", rerank=False)
    reranker.server.script = [fault, fault]
    answer = search(query="The days are", seconds=8)
    assert answer["hits"] == plain["hits"]
    assert codes(answer) == [("rerank", code)]
    assert (answer["scored_by"], answer["reranker"]) == ("fused", None)
