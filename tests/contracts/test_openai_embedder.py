"""OpenAI's protocol on a real socket: what goes out, and every way in which what comes back can be wrong."""

import asyncio
import math
import traceback
from collections.abc import AsyncIterator
from typing import Any

import pytest
from edda.adapters.http_client import HttpTimeouts
from edda.adapters.openai_embedder import OpenAIEmbedder
from edda.concurrency import Deadline, bounded
from edda.errors import EmbeddingRejected, ProviderMisconfigured, ProviderThrottled, ProviderUnavailable
from edda.models import EmbeddingLimits
from edda.vectors import InvalidVector, validate

from tests.contracts.providers import KEY, items, openai, with_first_vector
from tests.fakes.provider_server import (
    Fault,
    OpenAIServer,
    Reply,
    as_type,
    dripping,
    hang,
    status,
    throttled,
)

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_leaked_tasks")]

TEXTS = ["one", "two", "three"]


@pytest.fixture
async def server(no_leaked_tasks: None) -> AsyncIterator[OpenAIServer]:
    async with OpenAIServer() as listening:
        yield listening


@pytest.fixture
async def embedder(server: OpenAIServer) -> AsyncIterator[OpenAIEmbedder]:
    ready = openai(server)
    yield ready
    await ready.aclose()


async def embed(embedder: OpenAIEmbedder, *texts: str, seconds: float = 30) -> list[bytes | EmbeddingRejected]:
    return list(await embedder.embed(texts or TEXTS, purpose="document", deadline=Deadline.after(seconds)))


# --- what goes out ---------------------------------------------------------------------------------------------------


async def test_a_request_names_model_dimensions_and_base64_and_carries_the_key(
    server: OpenAIServer, embedder: OpenAIEmbedder
) -> None:
    await embed(embedder)
    (request,) = server.requests
    assert request.path == "/v1/embeddings"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["content-type"] == "application/json"
    assert request.body == {
        "model": "text-embedding-3-small",
        "dimensions": 8,
        "encoding_format": "base64",
        "input": TEXTS,
    }


async def test_dimensions_are_not_sent_to_servers_that_refuse_them(server: OpenAIServer) -> None:
    embedder = openai(server, send_dimensions=False)
    await embed(embedder)
    assert "dimensions" not in server.requests[0].body
    await embedder.aclose()


async def test_a_key_that_is_rotated_is_used_from_the_next_request_on(server: OpenAIServer) -> None:
    keys = ["old", "new\n"]
    embedder = openai(server, api_key=lambda: keys.pop(0))
    await embed(embedder)
    await embed(embedder)
    assert [request.headers["authorization"] for request in server.requests] == ["Bearer old", "Bearer new"]
    await embedder.aclose()


@pytest.mark.parametrize("key", ["sk-do\nnot-tell", "sk-do-nöt-tell", "sk-do\0not-tell"])
async def test_a_key_that_no_header_can_carry_is_not_repeated_in_the_error(server: OpenAIServer, key: str) -> None:
    embedder = openai(server, api_key=key)
    with pytest.raises(ProviderMisconfigured) as raised:
        await embed(embedder)
    assert "tell" not in "".join(traceback.format_exception(raised.value))
    await embedder.aclose()


async def test_connections_are_kept_between_requests(server: OpenAIServer, embedder: OpenAIEmbedder) -> None:
    for _ in range(20):
        await embed(embedder)
    assert server.connections == 1


async def test_many_requests_share_as_many_connections_as_the_limits_say() -> None:
    async with OpenAIServer(latency_s=0.01) as server:
        embedder = openai(server, limits=EmbeddingLimits(10, 1000, 1000, 5))
        outcomes = await bounded(40, [lambda: embed(embedder)] * 40, Deadline.after(30))
        assert {type(outcome) for outcome in outcomes} == {list}
        assert server.most_in_flight == server.connections == 5
        await embedder.aclose()


# --- answers that are good in another form ---------------------------------------------------------------------------


async def test_a_server_that_knows_no_base64_gives_the_same_vectors(
    server: OpenAIServer, embedder: OpenAIEmbedder
) -> None:
    in_base64 = await embed(embedder)
    server.knows_base64 = False
    assert await embed(embedder) == in_base64


async def test_vectors_in_another_order_are_put_right_by_their_index(
    server: OpenAIServer, embedder: OpenAIEmbedder
) -> None:
    in_order = await embed(embedder)
    server.script = [items(lambda data: data[::-1])]
    assert await embed(embedder) == in_order


async def test_a_content_type_with_a_charset_is_json_too(server: OpenAIServer, embedder: OpenAIEmbedder) -> None:
    server.script = [as_type("application/json; charset=utf-8"), as_type("application/vnd.api+json")]
    assert len(await embed(embedder)) == len(await embed(embedder)) == 3


async def test_vectors_of_any_length_come_back_at_unit_length(server: OpenAIServer, embedder: OpenAIEmbedder) -> None:
    server.knows_base64 = False
    server.script = [with_first_vector([3, 4, 0, 0, 0, 0, 0, 0])]
    first, *_ = await embed(embedder)
    assert isinstance(first, bytes)
    assert first == validate(first, 8)
    assert memoryview(first).cast("f").tolist() == pytest.approx([0.6, 0.8, 0, 0, 0, 0, 0, 0])


# --- answers that are bad for now ------------------------------------------------------------------------------------


async def test_retry_after_is_passed_on_from_throttling_and_from_breakdowns(
    server: OpenAIServer, embedder: OpenAIEmbedder
) -> None:
    server.script = [throttled(retry_after_ms="1500"), throttled(), status(503, retry_after="9")]
    waits = []
    for _ in range(3):
        with pytest.raises(ProviderUnavailable) as raised:
            await embed(embedder)
        waits.append((type(raised.value), raised.value.retry_after_s))
    assert waits == [(ProviderThrottled, 1.5), (ProviderThrottled, None), (ProviderUnavailable, 9.0)]


async def test_a_server_that_is_not_there_can_be_tried_again() -> None:
    async with OpenAIServer() as server:
        embedder = openai(server)
    with pytest.raises(ProviderUnavailable):
        await embed(embedder)
    await embedder.aclose()


async def test_an_answer_without_end_is_cut_off(server: OpenAIServer, embedder: OpenAIEmbedder) -> None:
    server.script = [lambda good: Reply(b" " * 1_000_000 + good.body)]
    with pytest.raises(ProviderUnavailable, match="no end"):
        await embed(embedder)
    assert len(await embed(embedder)) == 3


# --- time ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [hang, dripping(0.01)], ids=["hangs", "drips"])
async def test_one_call_has_a_limit_of_its_own_when_the_deadline_is_far(server: OpenAIServer, fault: Fault) -> None:
    server.script = [fault]
    embedder = openai(server, timeouts=HttpTimeouts(silence_s=0.2))
    with pytest.raises(ProviderUnavailable, match="in time"):
        await embed(embedder)
    await embedder.aclose()


async def test_cancelling_half_of_the_calls_loses_no_connection() -> None:
    async with OpenAIServer(latency_s=0.002) as server:
        embedder = openai(server, limits=EmbeddingLimits(10, 1000, 1000, 5))
        for round_ in range(10):
            calls = [asyncio.create_task(embed(embedder)) for _ in range(20)]
            for _ in range(round_ * 3):
                await asyncio.sleep(0)
            for call in calls[::2]:
                call.cancel()
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            assert all(isinstance(outcome, list) for outcome in outcomes[1::2])
        server.most_in_flight = 0
        await asyncio.gather(*(embed(embedder) for _ in range(20)))
        assert server.most_in_flight == 5
        await embedder.aclose()


# --- answers that are about the configuration ------------------------------------------------------------------------

MISCONFIGURED: dict[str, Fault] = {
    "401": status(401),
    "403": status(403),
    "404": status(404),
    "405": status(405),
    "a redirect": status(308, location="http://127.0.0.1:1/"),
    "400 about the model": status(400, {"error": {"param": "model", "code": "invalid_model"}}),
    "400 about the dimensions": status(400, {"error": {"param": "dimensions"}}),
    "404 in a 400": status(400, {"error": {"code": "model_not_found"}}),
    "429 because nobody has paid": status(429, {"error": {"code": "insufficient_quota"}}),
    "too few dimensions": with_first_vector([0.5, 0.5, 0.5, 0.5]),
    "too many dimensions": with_first_vector([0.5] * 9),
}


@pytest.mark.parametrize("fault", MISCONFIGURED.values(), ids=MISCONFIGURED)
async def test_a_wrong_configuration_is_the_operators_business(
    server: OpenAIServer, embedder: OpenAIEmbedder, fault: Fault
) -> None:
    server.script = [fault]
    with pytest.raises(ProviderMisconfigured):
        await embed(embedder)


# --- answers that are about a text -----------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [400, 413, 422])
@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "too long", "type": "invalid_request_error", "param": "input", "code": None}},
        {"error": "Input validation error", "error_type": "Validation"},
        {"object": "error", "message": "too long", "code": 400},
        {},
    ],
    ids=["OpenAI", "TEI", "vLLM", "nothing"],
)
async def test_a_refusal_is_a_rejection_in_everyones_words(
    server: OpenAIServer, embedder: OpenAIEmbedder, code: int, body: dict[str, Any]
) -> None:
    server.script = [status(code, body)]
    with pytest.raises(EmbeddingRejected, match=f"HTTP {code}"):
        await embed(embedder)


UNUSABLE: dict[str, Any] = {
    "null": None,
    "empty": [],
    "empty base64": "",
    "zeros": [0.0] * 8,
    "NaN": [math.nan] + [0.1] * 7,
    "infinite": [0.1] * 7 + [-math.inf],
    "NaN in base64": "AADAfwAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    "zeros in base64": "A" * 43 + "=",
    "a hole": [0.1, None, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1],
    "texts": ["0.1"] * 8,
    "beyond float32": [1e300] * 8,
}


@pytest.mark.parametrize("vector", UNUSABLE.values(), ids=UNUSABLE)
async def test_a_vector_that_is_none_spoils_its_own_text_only(
    server: OpenAIServer, embedder: OpenAIEmbedder, vector: Any
) -> None:
    good = await embed(embedder)
    server.script = [with_first_vector(vector)]
    first, *others = await embed(embedder)
    assert isinstance(first, InvalidVector)
    assert others == good[1:]
