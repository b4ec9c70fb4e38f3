"""How long embedders wait on a real socket, and which connections they give up."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass

import pytest
from edda.adapters.http_client import HttpTimeouts
from edda.concurrency import Deadline
from edda.errors import ProviderUnavailable
from edda.ports import Embedder

from tests.contracts.providers import TITAN, bedrock, openai
from tests.fakes.provider_server import (
    OpenAIServer,
    ProviderServer,
    TitanServer,
    hang,
)

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_leaked_tasks")]


@dataclass(frozen=True, slots=True)
class Protocol:
    """A provider's server, and an embedder that speaks to it, given how long it may be silent."""

    server: ProviderServer
    embedder: Callable[[float], Embedder]
    texts: tuple[str, ...]


def protocol(name: str) -> Protocol:
    if name == "openai":
        server = OpenAIServer()
        texts = ("one", "two", "three")
        return Protocol(server, lambda silence_s: openai(server, timeouts=HttpTimeouts(5, silence_s)), texts)
    titan = TitanServer(256)
    return Protocol(titan, lambda silence_s: bedrock(titan, TITAN, 256, silence_s=silence_s), ("one",))


@pytest.fixture(params=["openai", "bedrock"])
async def spoken(request: pytest.FixtureRequest, no_leaked_tasks: None) -> AsyncIterator[Protocol]:
    ready = protocol(request.param)
    async with ready.server:
        yield ready


@pytest.fixture
async def embedder(spoken: Protocol) -> AsyncIterator[Embedder]:
    ready = spoken.embedder(5)
    yield ready
    await ready.aclose()


async def embed(embedder: Embedder, spoken: Protocol, seconds: float = 30) -> int:
    """How many vectors came."""
    return len(await embedder.embed(spoken.texts, purpose="document", deadline=Deadline.after(seconds)))


async def test_silence_ends_a_call_before_its_deadline(spoken: Protocol) -> None:
    spoken.server.script = [hang]
    embedder = spoken.embedder(0.1)
    with pytest.raises(ProviderUnavailable, match="in time"):
        await embed(embedder, spoken, seconds=1000)
    await embedder.aclose()


async def test_connections_that_died_in_a_freeze_are_replaced_without_the_caller_knowing(
    spoken: Protocol, embedder: Embedder
) -> None:
    await embed(embedder, spoken)
    await spoken.server.__aexit__()
    await spoken.server.__aenter__()  # on the same port
    with suppress(ProviderUnavailable):  # of the first, the connection may be dead: searching asks twice
        await embed(embedder, spoken)
    assert await embed(embedder, spoken) == len(spoken.texts)


async def test_what_takes_many_times_the_usual_is_given_up_long_before_the_limit(spoken: Protocol) -> None:
    """The limit for one call, 30 s here, is for providers that are slow."""
    embedder = spoken.embedder(30)
    for _ in range(4):
        await embed(embedder, spoken)
    spoken.server.script = [hang]
    async with asyncio.timeout(10):
        with pytest.raises(ProviderUnavailable, match="in time"):
            await embed(embedder, spoken)
    assert await embed(embedder, spoken) == len(spoken.texts)
    await embedder.aclose()
