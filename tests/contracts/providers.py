"""Every Embedder there is, ready to be asked, with a way to make its provider fail."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aioboto3
from edda.adapters.bedrock_embedder import BedrockEmbedder
from edda.adapters.http_client import HttpTimeouts
from edda.adapters.minilm_embedder import MiniLMEmbedder
from edda.adapters.openai_embedder import OpenAIEmbedder
from edda.errors import ProviderMisconfigured, ProviderThrottled, ProviderUnavailable
from edda.ports import Embedder

from tests.fakes.embedder import FakeEmbedder
from tests.fakes.provider_server import (
    BedrockServer,
    CohereServer,
    Fault,
    OpenAIServer,
    ProviderServer,
    TitanServer,
    aws_error,
    edited,
    status,
    throttled,
)

TITAN = "amazon.titan-embed-text-v2:0"
COHERE_3 = "cohere.embed-multilingual-v3"
COHERE_4 = "eu.cohere.embed-v4:0"  # through an inference profile
KEY = "sk-do-not-tell"
SESSION = aioboto3.Session(aws_access_key_id="a", aws_secret_access_key="b", region_name="eu-central-1")


@dataclass(frozen=True, slots=True)
class Provider:
    """An embedder, and what makes the next request fail or one text unacceptable. `None`: it cannot fail that way."""

    embedder: Embedder
    throttle: Callable[[], None] | None = None
    break_down: Callable[[], None] | None = None
    lock_out: Callable[[], None] | None = None
    refuse: Callable[[str], None] | None = None
    server: ProviderServer | None = None


def openai(server: OpenAIServer, **options: object) -> OpenAIEmbedder:
    settings = {"api_key": KEY, "timeouts": HttpTimeouts(connect_s=5, silence_s=5), **options}
    return OpenAIEmbedder(server.base_url, "text-embedding-3-small", server.dimensions, **settings)  # type: ignore[arg-type]


def bedrock(server: BedrockServer, model_id: str, dimensions: int, silence_s: float = 5.0) -> BedrockEmbedder:
    return BedrockEmbedder(SESSION, model_id, dimensions, endpoint_url=server.url, silence_s=silence_s)


def items(edit: Callable[[list[dict[str, Any]]], Any]) -> Fault:
    """Change the list of vectors in an answer of OpenAI's."""

    def change(answer: dict[str, Any]) -> dict[str, Any]:
        return {**answer, "data": edit(answer["data"])}

    return edited(change)


def with_first_vector(vector: Any) -> Fault:
    return items(lambda data: [{**data[0], "embedding": vector}, *data[1:]])


@asynccontextmanager
async def provider(kind: str, model_folder: Path) -> AsyncIterator[Provider]:
    """One of `KINDS`, closed at the end."""
    async with KINDS[kind](model_folder) as ready:
        try:
            yield ready
        finally:
            await ready.embedder.aclose()


@asynccontextmanager
async def _fake(_: Path) -> AsyncIterator[Provider]:
    embedder = FakeEmbedder()
    yield Provider(
        embedder,
        throttle=lambda: embedder.script.append(ProviderThrottled(retry_after_s=7)),
        break_down=lambda: embedder.script.append(ProviderUnavailable()),
        lock_out=lambda: embedder.script.append(ProviderMisconfigured()),
        refuse=embedder.refuses.add,
    )


@asynccontextmanager
async def _openai(_: Path) -> AsyncIterator[Provider]:
    async with OpenAIServer() as server:
        yield _on(server, openai(server), throttled(retry_after="7"), status(503), status(401))


@asynccontextmanager
async def _openai_without_base64(_: Path) -> AsyncIterator[Provider]:
    async with OpenAIServer(knows_base64=False) as server:
        yield _on(server, openai(server), throttled(retry_after="7"), status(503), status(401))


@asynccontextmanager
async def _titan(_: Path) -> AsyncIterator[Provider]:
    async with TitanServer(256) as server:
        yield _on(server, bedrock(server, TITAN, 256), *BEDROCK_FAULTS)


@asynccontextmanager
async def _cohere_3(_: Path) -> AsyncIterator[Provider]:
    async with CohereServer(1024) as server:
        yield _on(server, bedrock(server, COHERE_3, 1024), *BEDROCK_FAULTS)


@asynccontextmanager
async def _cohere_4(_: Path) -> AsyncIterator[Provider]:
    async with CohereServer(256) as server:
        yield _on(server, bedrock(server, COHERE_4, 256), *BEDROCK_FAULTS)


@asynccontextmanager
async def _minilm(model_folder: Path) -> AsyncIterator[Provider]:
    yield Provider(MiniLMEmbedder(model_folder))


BEDROCK_FAULTS = (
    aws_error(429, "ThrottlingException", "Too many requests", retry_after="7"),
    aws_error(503, "ServiceUnavailableException"),
    aws_error(403, "AccessDeniedException"),
)


def _on(server: ProviderServer, embedder: Embedder, throttle: Fault, break_down: Fault, lock_out: Fault) -> Provider:
    def next_is(fault: Fault) -> Callable[[], None]:
        return lambda: server.script.append(fault)

    return Provider(
        embedder,
        throttle=next_is(throttle),
        break_down=next_is(break_down),
        lock_out=next_is(lock_out),
        refuse=server.refuses.add,
        server=server,
    )


KINDS = {
    "fake": _fake,
    "openai": _openai,
    "openai without base64": _openai_without_base64,
    "bedrock titan": _titan,
    "bedrock cohere 3": _cohere_3,
    "bedrock cohere 4": _cohere_4,
    "in-process minilm": _minilm,
}
