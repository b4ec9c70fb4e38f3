"""Embeddings over HTTP from OpenAI and everything that speaks like it (vLLM, TEI, Ollama, LiteLLM, ...)."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Literal

import aiohttp
import orjson
import pybase64

from edda.adapters.http_client import TIMEOUTS, Answer, AnswerTooLarge, HttpClient, HttpTimeouts
from edda.adapters.usual_time import UsualTime
from edda.batching import retry_after_s
from edda.concurrency import Deadline
from edda.errors import (
    EddaError,
    EmbeddingRejected,
    ProviderMisconfigured,
    ProviderThrottled,
    ProviderUnavailable,
)
from edda.governing import heard
from edda.models import EmbeddingLimits
from edda.vectors import InvalidVector, pack, validate_all

# OpenAI takes 2,048 texts and 300,000 tokens a request, and 8,192 tokens a text. Tokens are estimates here, hence the
# margins; 128 texts keep an answer near 1 MB, so that the first rows are written while the rest is still on its way. An
# event of ten full messages is 40 requests; who allows fewer is asked less by the governor.
OPENAI_LIMITS = EmbeddingLimits(
    max_texts_per_request=128,
    max_tokens_per_request=250_000,
    max_tokens_per_text=8_000,
    max_concurrent_requests=48,
)

REFUSED = {HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNPROCESSABLE_ENTITY}
PASSING = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.FAILED_DEPENDENCY, HTTPStatus.TOO_EARLY}
SETTINGS = {"model", "dimensions", "encoding_format", "user"}  # parameters that no text can be blamed for
OPERATOR_MUST_ACT = {"insufficient_quota", "billing_not_active", "model_not_found", "invalid_api_key"}
BYTES_PER_JSON_FLOAT = 40  # generous: 25 digits, a comma and indentation


class OpenAIEmbedder:
    """POST {base_url}/embeddings, vectors asked for in base64 and taken in either form.

    `api_key` is the key or a function that returns it, called for every request so that a rotated key is picked up.
    `send_dimensions` is for models of one size whose servers refuse the parameter. `purpose` makes no difference here.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        dimensions: int,
        api_key: str | Callable[[], str],
        *,
        provider: str = "openai",
        limits: EmbeddingLimits = OPENAI_LIMITS,
        timeouts: HttpTimeouts = TIMEOUTS,
        send_dimensions: bool = True,
    ) -> None:
        self.name = f"{provider}/{model}"
        self.dimensions = dimensions
        self.limits = limits
        self._url = f"{base_url.rstrip('/')}/embeddings"
        self._api_key = api_key
        self._usual_time = UsualTime(timeouts.silence_s)
        self._settings: dict[str, Any] = {"model": model, "encoding_format": "base64"}
        if send_dimensions:
            self._settings["dimensions"] = dimensions
        self._client = HttpClient(limits.max_concurrent_requests, timeouts)

    async def embed(
        self, texts: Sequence[str], *, purpose: Literal["document", "query"], deadline: Deadline
    ) -> Sequence[bytes | EmbeddingRejected]:
        if not texts:
            return []
        if deadline.expired:
            raise ProviderUnavailable("No time was left to ask the embedding provider.")
        size = sum(map(len, texts))
        try:
            async with self._usual_time.patience(size, deadline) as wait:
                answer = await self._post(texts)
        except AnswerTooLarge as error:
            raise ProviderUnavailable("The embedding provider's answer has no end.") from error
        except (aiohttp.ClientError, ConnectionError) as error:
            raise ProviderUnavailable(f"The embedding provider was cut off ({type(error).__name__}).") from error
        except TimeoutError as error:
            if not deadline.expired:
                self._usual_time.given_up()
            raise ProviderUnavailable("The embedding provider did not answer in time.") from error
        heard(answer.headers)
        if answer.status != HTTPStatus.OK:
            raise _error(answer)
        self._usual_time.answered(wait)
        return self._vectors(_json(answer), len(texts))

    async def aclose(self) -> None:
        await self._client.aclose()

    async def _post(self, texts: Sequence[str]) -> Answer:
        headers = {
            "Authorization": f"Bearer {self._key()}",
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",  # inflating base64 costs more than the network saves
        }
        try:
            content = orjson.dumps({**self._settings, "input": texts})
        except TypeError as error:  # a surrogate: what comes from files and over the API has none
            raise EmbeddingRejected("The text is not Unicode.") from error
        most_bytes = len(texts) * self.dimensions * BYTES_PER_JSON_FLOAT + 65_536
        return await self._client.post(self._url, headers, content, most_bytes)

    def _key(self) -> str:
        key = (self._api_key if isinstance(self._api_key, str) else self._api_key()).strip()
        if not (key.isascii() and key.isprintable()):
            raise ProviderMisconfigured("The embedding provider's API key has characters that no header can carry.")
        return key

    def _vectors(self, answer: Any, count: int) -> list[bytes | EmbeddingRejected]:
        """One vector a text, put in order by `index`."""
        try:
            by_index = {item["index"]: item["embedding"] for item in answer["data"]}
            if len(answer["data"]) != count or by_index.keys() != set(range(count)):
                raise ProviderUnavailable("The embedding provider returned other vectors than were asked for.")
        except (KeyError, TypeError) as error:
            raise ProviderUnavailable("The embedding provider returned no list of vectors.") from error
        return validate_all([self._decoded(by_index[index]) for index in range(count)], self.dimensions)

    def _decoded(self, embedding: Any) -> bytes:
        """Empty for what is no vector."""
        try:
            if isinstance(embedding, str):
                return pybase64.b64decode(embedding, validate=True)
            if isinstance(embedding, list):
                return pack(embedding)
        except InvalidVector:
            return b""
        except ValueError as error:  # base64's too
            raise ProviderUnavailable("The embedding provider returned a vector that cannot be decoded.") from error
        if embedding is None:
            return b""
        raise ProviderUnavailable("The embedding provider returned something that is no vector.")


def _json(answer: Answer) -> Any:
    if not re.match(r"application/([\w.-]+\+)?json\b", answer.headers.get("content-type", "")):
        raise ProviderUnavailable("The embedding provider returned something other than JSON.")
    try:
        return orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        return _loose_json(answer.body)


def _loose_json(body: bytes) -> Any:
    """Also with NaN and Infinity, which servers in Python write."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ProviderUnavailable("The embedding provider returned broken JSON.") from error


def _error(answer: Answer) -> EddaError:
    """Which error a status is. Nothing of the body is repeated but its code: bodies quote keys and texts."""
    status = answer.status
    code, parameter = _code_and_parameter(answer.body)
    said = f"HTTP {status}, {code}" if code else f"HTTP {status}"
    wait_s = retry_after_s(answer.headers, datetime.now(UTC))
    if code in OPERATOR_MUST_ACT:
        return ProviderMisconfigured(f"The embedding provider refused the configuration ({said}).")
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return ProviderThrottled(retry_after_s=wait_s)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in PASSING:
        return ProviderUnavailable(f"The embedding provider is unavailable ({said}).", retry_after_s=wait_s)
    if status in REFUSED and parameter not in SETTINGS:
        return EmbeddingRejected(f"The embedding provider rejected this text ({said}).")
    return ProviderMisconfigured(f"The embedding provider refused the configuration ({said}).")


def _code_and_parameter(body: bytes) -> tuple[str | None, str | None]:
    try:
        error = json.loads(body)["error"]
    except (ValueError, RecursionError, KeyError, TypeError):
        return None, None
    if not isinstance(error, Mapping):
        return None, None
    code, parameter = error.get("code") or error.get("type"), error.get("param")
    plain = isinstance(code, str) and re.fullmatch(r"[a-z_]{1,40}", code)  # no key looks like this
    return (code if plain else None), (parameter if isinstance(parameter, str) else None)
