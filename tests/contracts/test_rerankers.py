"""What every Reranker promises: the fake, four kinds of HTTP server, Bedrock."""

import math
from collections.abc import AsyncIterator

import pytest
from edda.adapters.bedrock_reranker import BedrockReranker
from edda.adapters.http_reranker import HttpReranker
from edda.concurrency import Deadline
from edda.errors import ProviderMisconfigured, ProviderUnavailable
from edda.reranking import rerank_all

from tests.contracts.providers import SESSION
from tests.contracts.rerankers import KEY, KINDS, RerankProvider, bedrock, http, rerank_provider
from tests.fakes.provider_server import (
    edited,
)
from tests.fakes.rerank_server import RerankServer, TeiServer

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_leaked_tasks")]

QUERY = "days of leave"
TEXTS = ["Interest rates rose.", "You get 30 days of leave.", "Some leave early. 休暇 🏖"]
WIRED = [kind for kind in KINDS if kind != "fake"]


@pytest.fixture(params=KINDS)
async def ready(request: pytest.FixtureRequest, no_leaked_tasks: None) -> AsyncIterator[RerankProvider]:
    async with rerank_provider(request.param) as one:
        yield one


@pytest.fixture(params=WIRED)
async def wired(request: pytest.FixtureRequest, no_leaked_tasks: None) -> AsyncIterator[RerankProvider]:
    async with rerank_provider(request.param) as one:
        yield one


async def rerank(ready: RerankProvider, *texts: str, seconds: float = 30) -> list[float]:
    return list(await ready.reranker.rerank(QUERY, texts or TEXTS, Deadline.after(seconds)))


async def test_scores_are_in_the_order_of_the_texts_not_of_the_answer(ready: RerankProvider) -> None:
    none, all_words, one_word = await rerank(ready)
    assert none < one_word < all_words
    assert await rerank(ready, *reversed(TEXTS)) == [one_word, all_words, none]
    maker, _, model = ready.reranker.name.partition("/")
    assert maker
    assert model


async def test_no_texts_have_no_scores(ready: RerankProvider) -> None:
    assert list(await ready.reranker.rerank(QUERY, [], Deadline.after(30))) == []


async def test_more_texts_than_a_request_takes_are_several_requests(ready: RerankProvider) -> None:
    texts = [f"text {number}" for number in range(70)]
    texts[41] = "days of leave"
    scores = await rerank_all(ready.reranker, QUERY, texts, Deadline.after(30))
    assert len(scores) == 70
    assert scores.index(max(scores)) == 41


async def test_several_requests_are_not_begun_without_time(ready: RerankProvider) -> None:
    with pytest.raises(ProviderUnavailable):
        await rerank_all(ready.reranker, QUERY, TEXTS, Deadline.after(0))


async def test_one_request_that_fails_fails_them_all(ready: RerankProvider) -> None:
    ready.break_down()
    texts = [f"text {number}" for number in range(2 * ready.reranker.limits.max_texts_per_request + 1)]
    with pytest.raises(ProviderUnavailable):
        await rerank_all(ready.reranker, QUERY, texts, Deadline.after(30))


# --- what comes back over a wire -------------------------------------------------------------------------------------

NONSENSE: dict[str, list[tuple[object, object]]] = {
    "no results": [],
    "one too few": [(0, 0.1), (1, 0.2)],
    "one too many": [(0, 0.1), (1, 0.2), (2, 0.3), (3, 0.4)],
    "an index twice": [(0, 0.1), (1, 0.2), (1, 0.3)],
    "an index outside": [(0, 0.1), (1, 0.2), (3, 0.3)],
    "a negative index": [(0, 0.1), (1, 0.2), (-1, 0.3)],
    "no number": [(0, 0.1), (1, 0.2), (2, None)],
    "NaN": [(0, 0.1), (1, 0.2), (2, math.nan)],
    "infinity": [(0, 0.1), (1, 0.2), (2, math.inf)],
}


@pytest.mark.parametrize("pairs", NONSENSE.values(), ids=NONSENSE)
async def test_nonsense_is_a_failure_and_no_order(wired: RerankProvider, pairs: list[tuple[object, object]]) -> None:
    assert wired.answer is not None
    wired.answer(pairs)
    with pytest.raises(ProviderUnavailable):
        await rerank(wired)
    assert len(await rerank(wired)) == len(TEXTS)


# --- what goes out ---------------------------------------------------------------------------------------------------

BODIES = {
    "cohere": {"model": "a-model", "query": QUERY, "documents": TEXTS},
    "jina": {"model": "a-model", "query": QUERY, "documents": TEXTS, "return_documents": False},
    "voyage": {"model": "a-model", "query": QUERY, "documents": TEXTS},
    "tei": {"query": QUERY, "texts": TEXTS, "truncate": True},
}


@pytest.mark.parametrize("kind", BODIES)
async def test_each_server_is_spoken_to_in_its_own_words(kind: str) -> None:
    async with rerank_provider(kind) as ready:
        await rerank(ready)
        assert ready.server is not None
        (request,) = ready.server.requests
        assert request.path == "/rerank"
        assert request.headers["authorization"] == f"Bearer {KEY}"
        assert request.body == BODIES[kind]


async def test_without_a_key_none_is_sent() -> None:
    async with TeiServer() as server:
        reranker = HttpReranker("tei", "", "", base_url=server.url + "/")
        await reranker.rerank(QUERY, TEXTS, Deadline.after(30))
        assert "authorization" not in server.requests[0].headers
        assert server.requests[0].path == "/rerank"
        await reranker.aclose()


async def test_requests_of_one_search_run_together_but_not_too_many() -> None:
    async with TeiServer() as server:
        server.latency_s = 0.02
        reranker = http(server)
        await rerank_all(reranker, QUERY, [f"text {n}" for n in range(200)], Deadline.after(30))
        assert len(server.requests) == 7
        assert 1 < server.most_in_flight <= reranker.limits.max_concurrent_requests
        await reranker.aclose()


async def test_bedrock_is_given_the_models_arn_and_asked_for_every_result() -> None:
    async with RerankServer("bedrock") as server:
        reranker = bedrock(server)
        await reranker.rerank(QUERY, ["one", "x" * 40_000], Deadline.after(30))
        (request,) = server.requests
        assert request.path == "/rerank"
        assert request.body["rerankingConfiguration"] == {
            "type": "BEDROCK_RERANKING_MODEL",
            "bedrockRerankingConfiguration": {
                "numberOfResults": 2,
                "modelConfiguration": {
                    "modelArn": "arn:aws:bedrock:eu-central-1::foundation-model/cohere.rerank-v3-5:0"
                },
            },
        }
        assert [len(text) for text in server.texts(request.body)] == [3, 32_000]
        await reranker.aclose()


async def test_bedrocks_results_are_read_to_their_last_page() -> None:
    async with RerankServer("bedrock") as server:
        server.script = [
            edited(lambda good: {"results": good["results"][:2], "nextToken": "more"}),
            edited(lambda good: {"results": good["results"][2:]}),
        ]
        reranker = bedrock(server)
        assert len(await reranker.rerank(QUERY, TEXTS, Deadline.after(30))) == 3
        assert [request.body.get("nextToken") for request in server.requests] == [None, "more"]
        server.script = [edited(lambda good: {**good, "nextToken": "more"})] * 20
        with pytest.raises(ProviderUnavailable):
            await reranker.rerank(QUERY, TEXTS, Deadline.after(30))
        assert len(server.requests) <= 12
        await reranker.aclose()


async def test_a_reranker_of_bedrocks_needs_a_model() -> None:
    with pytest.raises(ProviderMisconfigured):
        BedrockReranker(SESSION, "")


@pytest.mark.parametrize(("kind", "key"), [("tei", ""), ("cohere", "a\nb"), ("cohere", "ключ")])
async def test_what_cannot_work_is_said_at_once(kind: str, key: str) -> None:
    with pytest.raises(ProviderMisconfigured):
        HttpReranker(kind, "m", key)
