"""Every ChatModel there is, ready to be asked, with a way to make its provider fail."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from edda.adapters.bedrock_chat import BedrockChat
from edda.adapters.openai_chat import OpenAIChat
from edda.errors import ChatRejected, ProviderMisconfigured, ProviderThrottled, ProviderUnavailable
from edda.models import ChatReply
from edda.ports import ChatModel

from tests.contracts.providers import SESSION
from tests.fakes.chat import FakeChat
from tests.fakes.chat_server import ChatServer, ConverseServer, OpenAIChatServer
from tests.fakes.provider_server import Fault, aws_error, edited, status, throttled

KEY = "sk-do-not-tell"
CLAUDE = "eu.anthropic.claude-haiku-4-5-20251001-v1:0"
SAYS = "Hello."


@dataclass(frozen=True, slots=True)
class ChatProvider:
    """A chat model that says SAYS, and what makes the next request fail."""

    chat: ChatModel
    throttle: Callable[[], None]
    break_down: Callable[[], None]
    lock_out: Callable[[], None]
    refuse: Callable[[], None]
    cut_off: Callable[[], None]
    server: Any = None


def openai(server: OpenAIChatServer, *, key: str = KEY, timeout_s: float = 5.0) -> OpenAIChat:
    return OpenAIChat(server.base_url, "gpt-5-mini", key, timeout_s=timeout_s)


def bedrock(server: ConverseServer, *, read_timeout_s: float = 5.0) -> BedrockChat:
    return BedrockChat(SESSION, CLAUDE, endpoint_url=server.url, read_timeout_s=read_timeout_s)


def choice(**change: Any) -> Fault:
    """Another first choice in an answer of OpenAI's."""
    return edited(lambda answer: {**answer, "choices": [{**answer["choices"][0], **change}]})


@asynccontextmanager
async def chat_provider(kind: str) -> AsyncIterator[ChatProvider]:
    """One of `KINDS`, closed at the end."""
    async with KINDS[kind]() as ready:
        try:
            yield ready
        finally:
            await ready.chat.aclose()


@asynccontextmanager
async def _fake() -> AsyncIterator[ChatProvider]:
    chat = FakeChat([ChatReply(SAYS, is_whole=True, input_tokens=11, output_tokens=3)])

    def next_is(one: Exception | ChatReply) -> Callable[[], None]:
        return lambda: chat.script.insert(0, one)

    yield ChatProvider(
        chat,
        throttle=next_is(ProviderThrottled(retry_after_s=7)),
        break_down=next_is(ProviderUnavailable()),
        lock_out=next_is(ProviderMisconfigured()),
        refuse=next_is(ChatRejected()),
        cut_off=next_is(ChatReply("Hel", is_whole=False, input_tokens=11, output_tokens=1)),
    )


@asynccontextmanager
async def _openai() -> AsyncIterator[ChatProvider]:
    async with OpenAIChatServer(SAYS) as server:
        refused = choice(finish_reason="content_filter", message={"role": "assistant", "content": None})
        yield _on(
            server,
            openai(server),
            throttled(retry_after="7"),
            status(503),
            status(401),
            refused,
            choice(finish_reason="length"),
        )


@asynccontextmanager
async def _bedrock() -> AsyncIterator[ChatProvider]:
    async with ConverseServer(SAYS) as server:
        yield _on(
            server,
            bedrock(server),
            aws_error(429, "ThrottlingException", "Too many requests", retry_after="7"),
            aws_error(503, "ServiceUnavailableException"),
            aws_error(403, "AccessDeniedException"),
            edited(lambda answer: {**answer, "stopReason": "guardrail_intervened"}),
            edited(lambda answer: {**answer, "stopReason": "max_tokens"}),
        )


def _on(server: ChatServer, chat: ChatModel, *faults: Fault) -> ChatProvider:
    def next_is(fault: Fault) -> Callable[[], None]:
        return lambda: server.script.append(fault)

    throttle, break_down, lock_out, refuse, cut_off = (next_is(fault) for fault in faults)
    return ChatProvider(chat, throttle, break_down, lock_out, refuse, cut_off, server)


KINDS = {"fake": _fake, "openai": _openai, "bedrock": _bedrock}
