"""Bedrock's InvokeModel as botocore really sends it, to a server on loopback: bodies, answers, errors."""

import asyncio
import math
from collections.abc import AsyncIterator
from typing import Any

import pytest
from edda.adapters.bedrock_embedder import BedrockEmbedder
from edda.concurrency import Deadline
from edda.errors import EddaError, EmbeddingRejected, ProviderMisconfigured, ProviderThrottled, ProviderUnavailable
from edda.vectors import InvalidVector

from tests.contracts.providers import COHERE_3, COHERE_4, SESSION, TITAN, bedrock
from tests.fakes.provider_server import (
    CohereServer,
    Fault,
    TitanServer,
    aws_error,
    edited,
)

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_leaked_tasks")]


@pytest.fixture
async def titan(no_leaked_tasks: None) -> AsyncIterator[TitanServer]:
    async with TitanServer(256) as listening:
        yield listening


@pytest.fixture
async def embedder(titan: TitanServer) -> AsyncIterator[BedrockEmbedder]:
    ready = bedrock(titan, TITAN, 256)
    yield ready
    await ready.aclose()


async def embed(embedder: BedrockEmbedder, *texts: str, seconds: float = 30) -> list[bytes | EmbeddingRejected]:
    return list(await embedder.embed(texts or ["one"], purpose="document", deadline=Deadline.after(seconds)))


# --- what goes out ---------------------------------------------------------------------------------------------------


async def test_titan_is_asked_for_one_text_with_dimensions_and_unit_length(
    titan: TitanServer, embedder: BedrockEmbedder
) -> None:
    await embed(embedder, "Grüße")
    (request,) = titan.requests
    assert request.path == "/model/amazon.titan-embed-text-v2%3A0/invoke"
    assert request.body == {"inputText": "Grüße", "dimensions": 256, "normalize": True}
    assert embedder.limits.max_texts_per_request == 1


@pytest.mark.parametrize(("purpose", "input_type"), [("document", "search_document"), ("query", "search_query")])
async def test_cohere_is_told_what_the_texts_are_for(purpose: Any, input_type: str) -> None:
    async with CohereServer(1024) as server:
        embedder = bedrock(server, COHERE_3, 1024)
        await embedder.embed(["one", "two"], purpose=purpose, deadline=Deadline.after(30))
        (request,) = server.requests
        assert request.body == {
            "texts": ["one", "two"],
            "input_type": input_type,
            "embedding_types": ["float"],
            "truncate": "NONE",
        }
        await embedder.aclose()


async def test_cohere_4_is_told_the_dimensions_through_an_inference_profile() -> None:
    async with CohereServer(512) as server:
        embedder = bedrock(server, COHERE_4, 512)
        await embed(embedder, "one", "two")
        (request,) = server.requests
        assert request.path == "/model/eu.cohere.embed-v4%3A0/invoke"
        assert request.body["output_dimension"] == 512
        await embedder.aclose()


async def test_one_request_is_one_request_even_when_it_fails(titan: TitanServer, embedder: BedrockEmbedder) -> None:
    titan.script = [aws_error(500, "InternalServerException")] * 5
    with pytest.raises(ProviderUnavailable):
        await embed(embedder)
    assert len(titan.requests) == 1


async def test_requests_share_their_connections(titan: TitanServer, embedder: BedrockEmbedder) -> None:
    for _ in range(10):
        await embed(embedder)
    assert titan.connections == 1
    await asyncio.gather(*(embed(embedder) for _ in range(100)))
    assert titan.connections <= embedder.limits.max_concurrent_requests


# --- what comes back -------------------------------------------------------------------------------------------------


async def test_coheres_older_answer_is_understood_too() -> None:
    async with CohereServer(1024) as server:
        embedder = bedrock(server, COHERE_3, 1024)
        by_type = await embed(embedder, "one", "two")
        server.script = [edited(lambda answer: {"embeddings": answer["embeddings"]["float"]})]
        assert await embed(embedder, "one", "two") == by_type
        await embedder.aclose()


@pytest.mark.parametrize("vector", [None, [], [0.0] * 1024, [math.nan] * 1024, [None] * 1024])
async def test_a_vector_that_is_none_spoils_its_own_text_only(vector: Any) -> None:
    async with CohereServer(1024) as server:
        embedder = bedrock(server, COHERE_3, 1024)
        _, good = await embed(embedder, "one", "two")
        server.script = [edited(lambda answer: {"embeddings": [vector, answer["embeddings"]["float"][1]]})]
        bad, other = await embed(embedder, "one", "two")
        assert isinstance(bad, InvalidVector)
        assert other == good
        await embedder.aclose()


async def test_other_dimensions_are_the_operators_business(titan: TitanServer, embedder: BedrockEmbedder) -> None:
    titan.script = [edited(lambda answer: {"embedding": [*answer["embedding"], 0.1]})]
    with pytest.raises(ProviderMisconfigured, match="257 dimensions, not 256"):
        await embed(embedder)


ERRORS: dict[str, tuple[Fault, type[EddaError]]] = {
    "throttled": (aws_error(429, "ThrottlingException"), ProviderThrottled),
    "quota": (aws_error(400, "ServiceQuotaExceededException"), ProviderThrottled),
    "no access": (aws_error(403, "AccessDeniedException"), ProviderMisconfigured),
    "wrong key": (aws_error(403, "UnrecognizedClientException"), ProviderMisconfigured),
    "wrong signature": (aws_error(403, "InvalidSignatureException"), ProviderMisconfigured),
    "no model": (aws_error(404, "ResourceNotFoundException"), ProviderMisconfigured),
    "no such model": (
        aws_error(400, "ValidationException", "The provided model identifier is invalid."),
        ProviderMisconfigured,
    ),
    "no such model here": (
        aws_error(400, "ValidationException", "Invocation of model ID x with on-demand throughput isn't supported."),
        ProviderMisconfigured,
    ),
    "no such dimensions": (
        aws_error(400, "ValidationException", "Malformed input request: #/dimensions: 300 is not a valid enum value"),
        ProviderMisconfigured,
    ),
    "too many tokens": (
        aws_error(400, "ValidationException", "400 Bad Request: Too many input tokens. Max input tokens: 8192"),
        EmbeddingRejected,
    ),
    "too many characters": (
        aws_error(400, "ValidationException", "Malformed input request: #/texts/0: expected maxLength: 2048"),
        EmbeddingRejected,
    ),
    "too large": (aws_error(413, "RequestEntityTooLargeException"), EmbeddingRejected),
}


@pytest.mark.parametrize(("fault", "error"), ERRORS.values(), ids=ERRORS)
async def test_every_error_has_its_meaning(
    titan: TitanServer, embedder: BedrockEmbedder, fault: Fault, error: type[EddaError]
) -> None:
    titan.script = [fault]
    with pytest.raises(EddaError) as raised:
        await embed(embedder)
    assert type(raised.value) is error


@pytest.mark.parametrize(
    ("model_id", "dimensions"), [(TITAN, 300), (COHERE_3, 512), (COHERE_4, 384), ("amazon.titan-embed-image-v1", 1024)]
)
async def test_a_model_or_size_that_is_not_offered_is_said_at_once(model_id: str, dimensions: int) -> None:
    with pytest.raises(ProviderMisconfigured):
        BedrockEmbedder(SESSION, model_id, dimensions)
