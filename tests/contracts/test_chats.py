"""What every ChatModel promises: the fake, OpenAI's protocol, Bedrock's Converse."""

import traceback
from collections.abc import AsyncIterator

import pytest
from edda.adapters.bedrock_chat import BedrockChat
from edda.adapters.openai_chat import OpenAIChat
from edda.concurrency import Deadline
from edda.errors import ChatRejected, ProviderMisconfigured
from edda.models import ChatReply, ChatRequest, ChatTurn

from tests.contracts.chats import CLAUDE, KEY, KINDS, SAYS, ChatProvider, bedrock, chat_provider, choice, openai
from tests.contracts.providers import SESSION
from tests.fakes.chat_server import ConverseServer, OpenAIChatServer
from tests.fakes.provider_server import (
    Fault,
    aws_error,
    edited,
    status,
)

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_leaked_tasks")]

TURNS = (ChatTurn("user", "Hi. 你好 🏞"), ChatTurn("assistant", "Yes?"), ChatTurn("user", "Say hello."))
WIRED = [kind for kind in KINDS if kind != "fake"]


@pytest.fixture(params=KINDS)
async def ready(request: pytest.FixtureRequest, no_leaked_tasks: None) -> AsyncIterator[ChatProvider]:
    async with chat_provider(request.param) as one:
        yield one


@pytest.fixture(params=WIRED)
async def wired(request: pytest.FixtureRequest, no_leaked_tasks: None) -> AsyncIterator[ChatProvider]:
    async with chat_provider(request.param) as one:
        yield one


async def ask(ready: ChatProvider, *, temperature: float | None = None, seconds: float = 30) -> ChatReply:
    return await ready.chat.reply(ChatRequest("Be kind.", TURNS, 99, temperature), Deadline.after(seconds))


async def test_a_reply_has_its_text_and_what_it_took(ready: ChatProvider) -> None:
    assert await ask(ready) == ChatReply(SAYS, is_whole=True, input_tokens=11, output_tokens=3)
    maker, _, model = ready.chat.name.partition("/")
    assert maker
    assert model


async def test_a_reply_that_is_cut_off_says_so(ready: ChatProvider) -> None:
    ready.cut_off()
    assert not (await ask(ready)).is_whole


async def test_what_it_will_not_answer_is_a_rejection(ready: ChatProvider) -> None:
    ready.refuse()
    with pytest.raises(ChatRejected):
        await ask(ready)


# --- on the wire -----------------------------------------------------------------------------------------------------


async def test_what_openai_is_sent(no_leaked_tasks: None) -> None:
    async with OpenAIChatServer() as server:
        chat = openai(server)
        await chat.reply(ChatRequest("Be kind.", TURNS, 99, 0.5), Deadline.after(30))
        await chat.aclose()
    (request,) = server.requests
    assert request.path == "/v1/chat/completions"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.body == {
        "model": "gpt-5-mini",
        "messages": [
            {"role": "system", "content": "Be kind."},
            *({"role": turn.role, "content": turn.content} for turn in TURNS),
        ],
        "max_tokens": 99,
        "stream": False,
        "temperature": 0.5,
    }


async def test_what_bedrock_is_sent(no_leaked_tasks: None) -> None:
    async with ConverseServer() as server:
        chat = bedrock(server)
        await chat.reply(ChatRequest("Be kind.", TURNS, 99, 0.5), Deadline.after(30))
        await chat.aclose()
    (request,) = server.requests
    assert request.path == f"/model/{CLAUDE.replace(':', '%3A')}/converse"
    assert request.body == {
        "system": [{"text": "Be kind."}],
        "messages": [{"role": turn.role, "content": [{"text": turn.content}]} for turn in TURNS],
        "inferenceConfig": {"maxTokens": 99, "temperature": 0.5},
    }


async def test_a_temperature_that_nobody_chose_is_not_sent(wired: ChatProvider) -> None:
    await ask(wired)
    (request,) = wired.server.requests
    assert "temperature" not in str(request.body)


async def test_a_server_without_keys_is_sent_none(no_leaked_tasks: None) -> None:
    async with OpenAIChatServer() as server:
        chat = openai(server, key="")
        await chat.reply(ChatRequest("Be kind.", TURNS, 99), Deadline.after(30))
        await chat.aclose()
    assert "authorization" not in server.requests[0].headers


@pytest.mark.parametrize("key", ["sk-do\nnot-tell", "sk-do-nöt-tell"])
async def test_a_key_that_no_header_can_carry_is_not_repeated_in_the_error(key: str) -> None:
    with pytest.raises(ProviderMisconfigured) as raised:
        OpenAIChat("http://127.0.0.1:9", "m", key)
    assert "tell" not in "".join(traceback.format_exception(raised.value))


async def test_a_model_must_be_named() -> None:
    with pytest.raises(ProviderMisconfigured):
        OpenAIChat("http://127.0.0.1:9", "", KEY)
    with pytest.raises(ProviderMisconfigured):
        BedrockChat(SESSION, "")


@pytest.mark.parametrize(
    ("wired", "fault", "error"),
    [
        ("openai", status(400, {"error": {"code": "context_length_exceeded", "param": "messages"}}), ChatRejected),
        ("openai", status(413), ChatRejected),
        (
            "openai",
            status(400, {"error": {"code": "unsupported_value", "param": "temperature"}}),
            ProviderMisconfigured,
        ),
        ("openai", status(404, {"error": {"code": "model_not_found"}}), ProviderMisconfigured),
        ("openai", status(429, {"error": {"code": "insufficient_quota"}}), ProviderMisconfigured),
        ("openai", choice(message={"role": "assistant", "content": "x", "refusal": "I cannot."}), ChatRejected),
        ("bedrock", aws_error(400, "ValidationException", "Input is too long for requested model."), ChatRejected),
        (
            "bedrock",
            aws_error(400, "ValidationException", "Invocation with on-demand throughput isn't supported."),
            ProviderMisconfigured,
        ),
        ("bedrock", aws_error(404, "ResourceNotFoundException"), ProviderMisconfigured),
        ("openai", choice(message={"role": "assistant", "content": None}, finish_reason="length"), ChatRejected),
        (
            "bedrock",
            edited(lambda answer: {**answer, "stopReason": "max_tokens", "output": {"message": {"content": []}}}),
            ChatRejected,
        ),
    ],
    indirect=["wired"],
)
async def test_whose_fault_a_refusal_is(wired: ChatProvider, fault: Fault, error: type[Exception]) -> None:
    wired.server.script = [fault]
    with pytest.raises(error):
        await ask(wired)
