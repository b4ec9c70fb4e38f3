"""Bedrock's Rerank API (bedrock-agent-runtime): Amazon Rerank and Cohere Rerank, spoken to alike."""

from collections.abc import Sequence
from typing import Any

import aioboto3

from edda.adapters.bedrock_client import BedrockClient
from edda.concurrency import Deadline
from edda.errors import ProviderMisconfigured
from edda.models import RerankLimits
from edda.reranking import checked

MAX_TEXTS = 1000  # the API's limit, for sources and results
MAX_CHARACTERS = 32_000  # of a text; what is longer is judged by its beginning
MAX_PAGES = 10  # of one answer; they are bounded by size, and 1,000 results are 40 KB


class BedrockReranker:
    """One request is one call, and as many more as its results have pages. `model` is the id of a foundation model of
    the region."""

    limits = RerankLimits(MAX_TEXTS, 1)

    def __init__(
        self,
        session: aioboto3.Session,
        model: str,
        *,
        endpoint_url: str | None = None,
        connect_timeout_s: float = 3.0,
        read_timeout_s: float = 20.0,
    ) -> None:
        if not model:
            raise ProviderMisconfigured("The reranker needs a model: amazon.rerank-v1:0, cohere.rerank-v3-5:0.")
        self.name = f"bedrock/{model}"
        self._model = model
        self._total_timeout_s = connect_timeout_s + read_timeout_s
        self._bedrock = BedrockClient(
            session,
            "bedrock-agent-runtime",
            ProviderMisconfigured,  # every text is cut to what is allowed
            endpoint_url=endpoint_url,
            connect_timeout_s=connect_timeout_s,
            read_timeout_s=read_timeout_s,
        )

    async def rerank(self, query: str, texts: Sequence[str], deadline: Deadline) -> Sequence[float]:
        if not texts:
            return []
        results: list[tuple[Any, Any]] = []
        async with self._bedrock.asked(deadline.sooner(self._total_timeout_s)) as client:
            request = self._request(client.meta, query, texts)
            for _ in range(MAX_PAGES):
                page = await client.rerank(**request)
                results += [(one["index"], one["relevanceScore"]) for one in page["results"]]
                if not (token := page.get("nextToken")):
                    break
                request["nextToken"] = token
        return checked(results, len(texts))

    async def aclose(self) -> None:
        await self._bedrock.aclose()

    def _request(self, meta: Any, query: str, texts: Sequence[str]) -> dict[str, Any]:
        arn = f"arn:{meta.partition}:bedrock:{meta.region_name}::foundation-model/{self._model}"
        model = {"modelConfiguration": {"modelArn": arn}, "numberOfResults": len(texts)}
        return {
            "queries": [{"type": "TEXT", "textQuery": {"text": query}}],
            "sources": [
                {
                    "type": "INLINE",
                    "inlineDocumentSource": {"type": "TEXT", "textDocument": {"text": text[:MAX_CHARACTERS]}},
                }
                for text in texts
            ],
            "rerankingConfiguration": {
                "type": "BEDROCK_RERANKING_MODEL",
                "bedrockRerankingConfiguration": model,
            },
        }
