"""What both protocols promise on a real socket when a provider answers badly, late or never."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import pytest
from edda.adapters.http_client import HttpTimeouts
from edda.batching import RetryPolicy, embed_query
from edda.concurrency import Deadline
from edda.errors import ProviderUnavailable
from edda.ports import Embedder

from tests.contracts.providers import TITAN, bedrock, items, openai, with_first_vector
from tests.fakes.provider_server import (
    Fault,
    OpenAIServer,
    ProviderServer,
    Reply,
    TitanServer,
    as_type,
    aws_error,
    cut_off_after,
    dripping,
    edited,
    hang,
    html_page,
    reset,
    status,
    truncated_to,
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


BOTH: dict[str, Fault] = {
    "an HTML page with 200": html_page(),
    "an HTML page with 502": html_page(502),
    "cut off in the body": cut_off_after(50),
    "broken JSON": truncated_to(50),
    "reset": reset,
    "500": status(500),
    "another document": edited(lambda _: [1, 2, 3]),
}
OPENAI: dict[str, Fault] = {
    "another content type": as_type("text/plain"),
    "no content type": as_type(""),
    "cut off in the head": lambda good: Reply(b"", headers={"Content-Length": "nonsense"}),
    "no JSON at all": truncated_to(0),
    "JSON nested without end": lambda good: Reply(b"[" * 60_000),
    "503": status(503),
    "504": status(504),
    "529": status(529),
    "408": status(408),
    "one vector too few": items(lambda data: data[:-1]),
    "one vector too many": items(lambda data: [*data, {**data[0], "index": 3}]),
    "an index twice": items(lambda data: [data[0], data[1], {**data[2], "index": 1}]),
    "an index twice, and all are there": items(lambda data: [*data, data[0]]),
    "an index outside": items(lambda data: [*data[:-1], {**data[2], "index": 3}]),
    "a negative index": items(lambda data: [*data[:-1], {**data[2], "index": -1}]),
    "an index that is a text": items(lambda data: [{**item, "index": str(item["index"])} for item in data]),
    "no index": items(lambda data: [{"embedding": item["embedding"]} for item in data]),
    "no list": items(lambda data: None),
    "a list of something else": items(lambda data: [1, 2, 3]),
    "broken base64": with_first_vector("!!!!"),
    "base64 without its end": items(lambda data: [{**data[0], "embedding": data[0]["embedding"][:-3]}, *data[1:]]),
    "base64 of half a number": with_first_vector("AAAA"),
    "a vector that is a number": with_first_vector(7),
}
BEDROCK: dict[str, Fault] = {
    "no vector": edited(lambda _: {"embeddings": {}}),
    "a vector that is a number": edited(lambda _: {"embedding": 7}),
    "500": aws_error(500, "InternalServerException"),
    "503": aws_error(503, "ServiceUnavailableException"),
    "model timeout": aws_error(408, "ModelTimeoutException"),
    "model error": aws_error(424, "ModelErrorException"),
    "model not ready": aws_error(429, "ModelNotReadyException"),
    "expired credentials": aws_error(403, "ExpiredTokenException"),
}
PASSING = [
    pytest.param(name, fault, id=f"{name}: {what}")
    for name, faults in (("openai", BOTH | OPENAI), ("bedrock", BOTH | BEDROCK))
    for what, fault in faults.items()
]


@pytest.mark.parametrize(("spoken", "fault"), PASSING, indirect=["spoken"])
async def test_a_passing_fault_can_be_tried_again_and_then_works(
    spoken: Protocol, embedder: Embedder, fault: Fault
) -> None:
    spoken.server.script = [fault]
    with pytest.raises(ProviderUnavailable):
        await embed(embedder, spoken)
    assert await embed(embedder, spoken) == len(spoken.texts)


@pytest.mark.parametrize("fault", [hang, dripping(0.01)], ids=["hangs", "drips"])
async def test_the_deadline_holds_for_the_whole_call(spoken: Protocol, embedder: Embedder, fault: Fault) -> None:
    await embed(embedder, spoken)  # opening a client takes its time, and is not what this is about
    spoken.server.script = [fault]
    started = time.monotonic()
    with pytest.raises(ProviderUnavailable, match="in time"):
        await embed(embedder, spoken, seconds=0.2)
    assert time.monotonic() - started < 2
    assert await embed(embedder, spoken) == len(spoken.texts)


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
    vector = await embed_query(embedder, "one", Deadline.after(30), RetryPolicy(first_wait_s=0))
    assert len(vector) == 4 * embedder.dimensions


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
