"""Reranking over HTTP, POST {base_url}/rerank: Cohere and all that speak like it (vLLM, LiteLLM, Infinity, ...), Jina,
Voyage, and Hugging Face's Text Embeddings Inference. They differ in names only."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from edda.adapters.http_client import TIMEOUTS, HttpClient, HttpTimeouts
from edda.adapters.http_provider import HttpProvider
from edda.concurrency import Deadline
from edda.errors import ProviderMisconfigured
from edda.models import RerankLimits
from edda.reranking import checked

PROVIDER = HttpProvider("The reranker", rejected=ProviderMisconfigured)


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one kind of server is asked, and where in its answer the results are."""

    base_url: str  # of the provider itself; empty: there is none
    body: Callable[[str, str, Sequence[str]], dict[str, Any]]  # of model, query, texts
    results: str  # the field with their list; empty: the answer is the list
    score: str
    limits: RerankLimits


def _documents(model: str, query: str, texts: Sequence[str]) -> dict[str, Any]:
    """All texts come back unless the caller limits them (`top_n`, Voyage's `top_k`)."""
    return {"model": model, "query": query, "documents": texts}


def _jina(model: str, query: str, texts: Sequence[str]) -> dict[str, Any]:
    return {**_documents(model, query, texts), "return_documents": False}


def _tei(_: str, query: str, texts: Sequence[str]) -> dict[str, Any]:
    """It serves one model, and refuses what is too long unless it may cut."""
    return {"query": query, "texts": texts, "truncate": True}


HOSTED = RerankLimits(max_texts_per_request=1000, max_concurrent_requests=1)
DIALECTS = {
    "cohere": Dialect("https://api.cohere.com/v2", _documents, "results", "relevance_score", HOSTED),
    "jina": Dialect("https://api.jina.ai/v1", _jina, "results", "relevance_score", HOSTED),
    "voyage": Dialect("https://api.voyageai.com/v1", _documents, "data", "relevance_score", HOSTED),
    # Its --max-client-batch-size is 32 unless it is started with another one.
    "tei": Dialect("", _tei, "", "score", RerankLimits(max_texts_per_request=32, max_concurrent_requests=4)),
}


class HttpReranker:
    """One of `DIALECTS`. `api_key` may be empty: then no key is sent.

    Raises ProviderMisconfigured when there is no address.
    """

    def __init__(
        self, dialect: str, model: str, api_key: str, *, base_url: str = "", timeouts: HttpTimeouts = TIMEOUTS
    ) -> None:
        self._dialect = DIALECTS[dialect]
        base_url = base_url or self._dialect.base_url
        if not base_url:
            raise ProviderMisconfigured(f"A reranker of the kind {dialect} needs an address.")
        self.name = f"{dialect}/{model}" if model else dialect
        self.limits = self._dialect.limits
        self._model = model
        self._url = f"{base_url.rstrip('/')}/rerank"
        self._headers = PROVIDER.headers(api_key)
        self._client = HttpClient(self.limits.max_concurrent_requests, timeouts)

    async def rerank(self, query: str, texts: Sequence[str], deadline: Deadline) -> Sequence[float]:
        if not texts:
            return []
        content = orjson.dumps(self._dialect.body(self._model, query, texts))
        most_bytes = 65_536 + 4 * len(content)  # some send the texts back
        async with PROVIDER.asked(deadline):
            answer = await self._client.post(self._url, self._headers, content, most_bytes)
            return self._scores(PROVIDER.accepted(answer), len(texts))

    async def aclose(self) -> None:
        await self._client.aclose()

    def _scores(self, body: bytes, count: int) -> list[float]:
        answer = orjson.loads(body)
        results = answer[self._dialect.results] if self._dialect.results else answer
        return checked(((one["index"], one[self._dialect.score]) for one in results), count)
