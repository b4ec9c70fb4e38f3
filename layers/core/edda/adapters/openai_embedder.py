"""Embeddings over HTTP from OpenAI and everything that speaks like it (vLLM, TEI, Ollama, LiteLLM, ...)."""

import json
import re
from collections.abc import Callable, Sequence
from typing import Any, Literal

import orjson
import pybase64

from edda.adapters.http_client import TIMEOUTS, Answer, HttpClient, HttpTimeouts
from edda.adapters.http_provider import HttpProvider
from edda.adapters.usual_time import UsualTime
from edda.concurrency import Deadline
from edda.errors import EmbeddingRejected, ProviderUnavailable
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

SETTINGS = frozenset({"model", "dimensions", "encoding_format", "user"})
PROVIDER = HttpProvider("The embedding provider", EmbeddingRejected, SETTINGS)
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
        async with PROVIDER.asked(deadline):
            async with self._usual_time.patience(sum(map(len, texts)), deadline) as wait:
                answer = await self._post(texts)
            heard(answer.headers)
            PROVIDER.accepted(answer)
            self._usual_time.answered(wait)
            return self._vectors(_json(answer), len(texts))

    async def aclose(self) -> None:
        await self._client.aclose()

    async def _post(self, texts: Sequence[str]) -> Answer:
        headers = PROVIDER.headers(self._api_key if isinstance(self._api_key, str) else self._api_key())
        try:
            content = orjson.dumps({**self._settings, "input": texts})
        except TypeError as error:  # a surrogate: what comes from files and over the API has none
            raise EmbeddingRejected("The text is not Unicode.") from error
        most_bytes = len(texts) * self.dimensions * BYTES_PER_JSON_FLOAT + 65_536
        return await self._client.post(self._url, headers, content, most_bytes)

    def _vectors(self, answer: Any, count: int) -> list[bytes | EmbeddingRejected]:
        """One vector a text, put in order by `index`."""
        by_index = {item["index"]: item["embedding"] for item in answer["data"]}
        if len(answer["data"]) != count or by_index.keys() != set(range(count)):
            raise ProviderUnavailable("The embedding provider returned other vectors than were asked for.")
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
        if embedding is None:
            return b""
        raise ProviderUnavailable("The embedding provider returned something that is no vector.")


def _json(answer: Answer) -> Any:
    if not re.match(r"application/([\w.-]+\+)?json\b", answer.headers.get("content-type", "")):
        raise ProviderUnavailable("The embedding provider returned something other than JSON.")
    try:
        return orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        return json.loads(answer.body)  # with NaN and Infinity, which servers in Python write
