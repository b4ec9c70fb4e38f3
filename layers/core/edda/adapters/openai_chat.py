"""Chat completions over HTTP, from OpenAI and everything that speaks like it (vLLM, Ollama, LiteLLM, Mistral, ...)."""

from collections.abc import Mapping
from typing import Any

import orjson

from edda.adapters.http_client import TIMEOUTS, HttpClient
from edda.adapters.http_provider import HttpProvider
from edda.concurrency import Deadline
from edda.errors import ChatRejected, ProviderMisconfigured, ProviderUnavailable
from edda.models import ChatReply, ChatRequest

TIMEOUT_S = 25.0  # of one request: an HTTP API gives 30 to the whole answer
MAX_ANSWER_BYTES = 4 * 1024 * 1024
SETTINGS = frozenset({"model", "max_tokens", "max_completion_tokens", "temperature", "messages[0].role"})
PROVIDER = HttpProvider("The chat provider", ChatRejected, SETTINGS)


class OpenAIChat:
    """POST {base_url}/chat/completions. `api_key` may be empty: then none is sent."""

    def __init__(
        self,
        base_url: str,
        model: str,
        api_key: str,
        *,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        if not model:
            raise ProviderMisconfigured("The chat provider needs a model.")
        self.name = f"openai/{model}"
        self._url = f"{base_url.rstrip('/')}/chat/completions"
        self._model = model
        # OpenAI's newer models refuse the old name; other servers may not know the new one.
        self._tokens_field = "max_completion_tokens" if "//api.openai.com" in base_url else "max_tokens"
        self._headers = PROVIDER.headers(api_key)
        self._timeout_s = timeout_s
        self._client = HttpClient(1, TIMEOUTS)  # an environment answers one question at a time

    async def reply(self, request: ChatRequest, deadline: Deadline) -> ChatReply:
        content = self._content(request)
        async with PROVIDER.asked(deadline.sooner(self._timeout_s)):
            answer = await self._client.post(self._url, self._headers, content, MAX_ANSWER_BYTES)
            return _reply(PROVIDER.accepted(answer))

    async def aclose(self) -> None:
        await self._client.aclose()

    def _content(self, request: ChatRequest) -> bytes:
        messages = [{"role": "system", "content": request.system}]
        messages += [{"role": turn.role, "content": turn.content} for turn in request.turns]
        body: dict[str, Any] = {
            "model": self._model,
            "messages": messages,
            self._tokens_field: request.max_output_tokens,
            "stream": False,
        }
        if request.temperature is not None:
            body["temperature"] = request.temperature
        return orjson.dumps(body)


def _reply(body: bytes) -> ChatReply:
    """Raises ValueError, LookupError, TypeError or AttributeError for what is no completion."""
    answer = orjson.loads(body)
    choice = answer["choices"][0]
    message, ended = choice["message"], choice.get("finish_reason")
    if ended == "content_filter" or message.get("refusal"):
        raise ChatRejected("The chat provider would not answer this.")
    text = message["content"]
    usage = answer.get("usage") or {}
    if ended == "length" and not text:  # it thought; asking again would end alike
        raise ChatRejected("The chat model was cut off before it wrote anything: raise max_output_tokens.")
    if not isinstance(text, str) or not text.strip():
        raise ProviderUnavailable("The chat provider returned no text.")
    return ChatReply(text, ended != "length", _count(usage, "prompt_tokens"), _count(usage, "completion_tokens"))


def _count(usage: Mapping[str, Any], name: str) -> int | None:
    count = usage.get(name)
    return count if isinstance(count, int) and count >= 0 else None
