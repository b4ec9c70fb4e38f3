"""Chat completions over HTTP, from OpenAI and everything that speaks like it (vLLM, Ollama, LiteLLM, Mistral, ...)."""

import asyncio
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import aiohttp
import orjson

from edda.adapters.http_client import TIMEOUTS, Answer, AnswerTooLarge, HttpClient
from edda.batching import retry_after_s
from edda.concurrency import Deadline
from edda.errors import ChatRejected, EddaError, ProviderMisconfigured, ProviderThrottled, ProviderUnavailable
from edda.models import ChatReply, ChatRequest

TIMEOUT_S = 25.0  # of one request: an HTTP API gives 30 to the whole answer
MAX_ANSWER_BYTES = 4 * 1024 * 1024
REFUSED = {HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNPROCESSABLE_ENTITY}
PASSING = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.FAILED_DEPENDENCY, HTTPStatus.TOO_EARLY}
# What is wrong with a request that no question can be blamed for.
SETTINGS = {"model", "max_tokens", "max_completion_tokens", "temperature", "messages[0].role"}
OPERATOR_MUST_ACT = {"insufficient_quota", "billing_not_active", "model_not_found", "invalid_api_key"}


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
        api_key = api_key.strip()
        if not (api_key.isascii() and (not api_key or api_key.isprintable())):
            raise ProviderMisconfigured("The chat provider's API key has characters that no header can carry.")
        self.name = f"openai/{model}"
        self._url = f"{base_url.rstrip('/')}/chat/completions"
        self._model = model
        # OpenAI's newer models refuse the old name; other servers may not know the new one.
        self._tokens_field = "max_completion_tokens" if "//api.openai.com" in base_url else "max_tokens"
        self._headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._timeout_s = timeout_s
        self._client = HttpClient(1, TIMEOUTS)  # an environment answers one question at a time

    async def reply(self, request: ChatRequest, deadline: Deadline) -> ChatReply:
        deadline = deadline.sooner(self._timeout_s)
        if deadline.expired:
            raise ProviderUnavailable("No time was left to ask the chat provider.")
        try:
            async with asyncio.timeout(deadline.remaining_s()):
                answer = await self._client.post(self._url, self._headers, self._content(request), MAX_ANSWER_BYTES)
        except AnswerTooLarge as error:
            raise ProviderUnavailable("The chat provider's answer has no end.") from error
        except (aiohttp.ClientError, ConnectionError) as error:
            raise ProviderUnavailable(f"The chat provider was cut off ({type(error).__name__}).") from error
        except TimeoutError as error:
            raise ProviderUnavailable("The chat provider did not answer in time.") from error
        if answer.status != HTTPStatus.OK:
            raise _error(answer)
        return _reply(answer.body)

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
    try:
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
    except (orjson.JSONDecodeError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise ProviderUnavailable("The chat provider returned something that is no completion.") from error


def _count(usage: Mapping[str, Any], name: str) -> int | None:
    count = usage.get(name)
    return count if isinstance(count, int) and count >= 0 else None


def _error(answer: Answer) -> EddaError:
    """Which error a status is. Nothing of the body is repeated but its code: bodies quote keys and texts."""
    code, parameter = _code_and_parameter(answer.body)
    said = f"HTTP {answer.status}, {code}" if code else f"HTTP {answer.status}"
    wait_s = retry_after_s(answer.headers, datetime.now(UTC))
    if code in OPERATOR_MUST_ACT:
        return ProviderMisconfigured(f"The chat provider refused the configuration ({said}).")
    if answer.status == HTTPStatus.TOO_MANY_REQUESTS:
        return ProviderThrottled("The chat provider is limiting requests.", retry_after_s=wait_s)
    if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR or answer.status in PASSING:
        return ProviderUnavailable(f"The chat provider is unavailable ({said}).", retry_after_s=wait_s)
    if answer.status in REFUSED and parameter not in SETTINGS:
        return ChatRejected(f"The chat provider rejected the request ({said}).")
    return ProviderMisconfigured(f"The chat provider refused the configuration ({said}).")


def _code_and_parameter(body: bytes) -> tuple[str | None, str | None]:
    try:
        error = orjson.loads(body)["error"]
        code, parameter = error.get("code") or error.get("type"), error.get("param")
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return None, None
    plain = isinstance(code, str) and re.fullmatch(r"[a-z_]{1,40}", code)  # no key looks like this
    return (code if plain else None), (parameter if isinstance(parameter, str) else None)
