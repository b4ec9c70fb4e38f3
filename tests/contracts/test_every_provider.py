"""What embedders, rerankers and chat models promise alike: what errors mean, how long they take, what is not told."""

import asyncio
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from edda.concurrency import Deadline
from edda.errors import EddaError, ProviderMisconfigured, ProviderThrottled, ProviderUnavailable
from edda.models import ChatRequest, ChatTurn

from tests.contracts import chats, providers, rerankers
from tests.contracts.chats import choice
from tests.contracts.providers import items, with_first_vector
from tests.fakes.provider_server import (
    Fault,
    Reply,
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

TEXTS = ["one", "two", "three"]
SECRETS = {providers.KEY, chats.KEY, rerankers.KEY}
ALL = [
    *(f"embedder: {kind}" for kind in providers.KINDS),
    *(f"reranker: {kind}" for kind in rerankers.KINDS),
    *(f"chat: {kind}" for kind in chats.KINDS),
]
WIRED = [name for name in ALL if not name.endswith((": fake", "minilm"))]
BEDROCK = [name for name in WIRED if "bedrock" in name]


@dataclass(frozen=True, slots=True)
class Asked:
    """A provider, one good request to it with so many seconds, and its adapter."""

    provider: Any
    ask: Callable[[float], Awaitable[Any]]
    adapter: Any

    async def __call__(self, seconds: float = 30) -> None:
        assert await self.ask(seconds)

    def fails(self, name: str) -> None:
        """`throttle`, `break_down`, `lock_out`: the next request."""
        if (fault := getattr(self.provider, name)) is None:
            pytest.skip("there is no provider that could do this")
        fault()


@asynccontextmanager
async def opened(name: str, model_folder: Path) -> AsyncIterator[Asked]:
    port, _, kind = name.partition(": ")
    if port == "embedder":
        async with providers.provider(kind, model_folder) as one:
            texts = TEXTS[: one.embedder.limits.max_texts_per_request]
            yield Asked(
                one,
                lambda seconds: one.embedder.embed(texts, purpose="document", deadline=Deadline.after(seconds)),
                one.embedder,
            )
    elif port == "reranker":
        async with rerankers.rerank_provider(kind) as other:
            yield Asked(
                other, lambda seconds: other.reranker.rerank("two", TEXTS, Deadline.after(seconds)), other.reranker
            )
    else:
        request = ChatRequest("Be kind.", (ChatTurn("user", "Hi."),), 99)
        async with chats.chat_provider(kind) as third:
            yield Asked(third, lambda seconds: third.chat.reply(request, Deadline.after(seconds)), third.chat)


@pytest.fixture(params=ALL)
async def ready(request: pytest.FixtureRequest, no_leaked_tasks: None, model_folder: Path) -> AsyncIterator[Asked]:
    async with opened(request.param, model_folder) as one:
        yield one


@pytest.fixture(params=WIRED)
async def wired(request: pytest.FixtureRequest, no_leaked_tasks: None, model_folder: Path) -> AsyncIterator[Asked]:
    async with opened(request.param, model_folder) as one:
        yield one


async def test_nothing_is_begun_when_no_time_is_left(ready: Asked) -> None:
    with pytest.raises(ProviderUnavailable):
        await ready(seconds=0)


async def test_throttling_says_how_long_to_wait(ready: Asked) -> None:
    ready.fails("throttle")
    with pytest.raises(ProviderThrottled) as raised:
        await ready()
    assert raised.value.retry_after_s == 7


async def test_a_breakdown_passes(ready: Asked) -> None:
    ready.fails("break_down")
    with pytest.raises(ProviderUnavailable):
        await ready()
    await ready()


async def test_being_locked_out_is_the_operators_business(ready: Asked) -> None:
    ready.fails("lock_out")
    with pytest.raises(ProviderMisconfigured):
        await ready()


async def test_a_cancelled_request_leaves_it_in_order(ready: Asked) -> None:
    request = asyncio.create_task(ready())
    await asyncio.sleep(0)
    request.cancel()
    await asyncio.gather(request, return_exceptions=True)
    await ready()


async def test_closing_twice_is_closing_once(ready: Asked) -> None:
    await ready()
    await ready.adapter.aclose()
    await ready.adapter.aclose()


# --- on the wire -----------------------------------------------------------------------------------------------------

FAULTS: dict[str, Fault] = {
    "an HTML page with 200": html_page(),
    "an HTML page with 502": html_page(502),
    "cut off in the body": cut_off_after(20),
    "broken JSON": truncated_to(20),
    "reset": reset,
    "another document": edited(lambda _: {"unexpected": 1}),
    "a list": edited(lambda _: [1, 2, 3]),
    "500": status(500),
}
OVER_HTTP: dict[str, Fault] = {
    "no JSON at all": truncated_to(0),
    "JSON nested without end": lambda good: Reply(b"[" * 60_000),
    "408": status(408),
    "529": status(529),
}
OF_BEDROCK: dict[str, Fault] = {
    "500": aws_error(500, "InternalServerException"),
    "503": aws_error(503, "ServiceUnavailableException"),
    "model timeout": aws_error(408, "ModelTimeoutException"),
    "model error": aws_error(424, "ModelErrorException"),
    "model not ready": aws_error(429, "ModelNotReadyException"),
    "expired credentials": aws_error(403, "ExpiredTokenException"),
}
OF_ONE: dict[str, dict[str, Fault]] = {
    "embedder: openai": {
        "another content type": as_type("text/plain"),
        "no content type": as_type(""),
        "cut off in the head": lambda good: Reply(b"", headers={"Content-Length": "nonsense"}),
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
    },
    "embedder: bedrock titan": {
        "no vector": edited(lambda _: {"embeddings": {}}),
        "a vector that is a number": edited(lambda _: {"embedding": 7}),
    },
    "chat: openai": {
        "no choice": edited(lambda answer: {**answer, "choices": []}),
        "no text": choice(message={"role": "assistant", "content": None}),
        "blank text": choice(message={"role": "assistant", "content": " \n"}),
        "parts": choice(message={"role": "assistant", "content": [{"type": "text", "text": "Hello."}]}),
    },
    "chat: bedrock": {
        "no text": edited(lambda answer: {**answer, "output": {"message": {"role": "assistant", "content": []}}}),
    },
}
PASSING = [
    pytest.param(name, fault, id=f"{name}: {what}")
    for name in WIRED
    for what, fault in (FAULTS | (OF_BEDROCK if name in BEDROCK else OVER_HTTP) | OF_ONE.get(name, {})).items()
]


@pytest.mark.parametrize(("wired", "fault"), PASSING, indirect=["wired"])
async def test_a_passing_fault_can_be_tried_again_and_then_works(wired: Asked, fault: Fault) -> None:
    wired.provider.server.script = [fault]
    with pytest.raises(ProviderUnavailable):
        await wired()
    await wired()


@pytest.mark.parametrize("fault", [hang, dripping(0.01)], ids=["hangs", "drips"])
async def test_the_deadline_holds_for_the_whole_call(wired: Asked, fault: Fault) -> None:
    await wired()  # opening a client takes its time, and is not what this is about
    wired.provider.server.script = [fault]
    began = time.monotonic()
    with pytest.raises(ProviderUnavailable, match="in time"):
        await wired(seconds=0.2)
    assert time.monotonic() - began < 2
    await wired()


@pytest.mark.parametrize("code", [200, 302, 400, 401, 403, 404, 413, 422, 429, 500])
async def test_neither_an_error_nor_its_causes_tell_what_a_provider_said(wired: Asked, code: int) -> None:
    for secret in SECRETS:
        error = {"message": f"Wrong: {secret}", "code": secret, "type": secret, "param": secret}
        wired.provider.server.script = [status(code, {"error": error, "message": f"Wrong: {secret}"})]
        with pytest.raises(EddaError) as raised:
            await wired()
        assert secret not in "".join(traceback.format_exception(raised.value)) + str(raised.value.__dict__)


@pytest.mark.parametrize("wired", BEDROCK, indirect=True)
async def test_bedrocks_words_about_a_text_are_not_in_the_log_but_those_about_access_are(wired: Asked) -> None:
    told = []
    for code, kind in ((400, "ValidationException"), (403, "AccessDeniedException")):
        wired.provider.server.script = [aws_error(code, kind, "a private text")]
        with pytest.raises(EddaError) as raised:
            await wired()
        assert "private" not in raised.value.message
        told.append("private" in "".join(traceback.format_exception(raised.value)))
    assert told == [False, True]
