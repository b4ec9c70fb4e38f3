"""Bedrock's Rerank API (bedrock-agent-runtime): Amazon Rerank and Cohere Rerank, spoken to alike."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any

import aioboto3
import aiohttp
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    NoRegionError,
    ParamValidationError,
    PartialCredentialsError,
)

from edda.adapters.bedrock_embedder import MISCONFIGURED, THROTTLED
from edda.batching import retry_after_s
from edda.concurrency import Deadline
from edda.errors import EddaError, ProviderMisconfigured, ProviderThrottled, ProviderUnavailable
from edda.models import RerankLimits
from edda.reranking import checked

MAX_TEXTS = 1000  # the API's limit, for sources and results
MAX_CHARACTERS = 32_000  # of a text; what is longer is judged by its beginning
MAX_PAGES = 10  # of one answer; they are bounded by size, and 1,000 results are 40 KB


class BedrockReranker:
    """One request is one call, and as many more as its results have pages. Botocore's own retries are off.

    `model` is the id of a foundation model of the region.
    """

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
        self._session = session
        self._endpoint_url = endpoint_url
        self._total_timeout_s = connect_timeout_s + read_timeout_s
        self._config = Config(
            connect_timeout=connect_timeout_s, read_timeout=read_timeout_s, retries={"total_max_attempts": 1}
        )
        self._open = AsyncExitStack()
        self._opening = asyncio.Lock()
        self._client: Any = None

    async def rerank(self, query: str, texts: Sequence[str], deadline: Deadline) -> Sequence[float]:
        if not texts:
            return []
        deadline = deadline.sooner(self._total_timeout_s)
        if deadline.expired:
            raise ProviderUnavailable("No time was left to ask Bedrock to rerank.")
        try:
            async with asyncio.timeout(deadline.remaining_s()):
                results = await self._results(query, texts)
        except TimeoutError as error:
            raise ProviderUnavailable("Bedrock did not rerank in time.") from error
        except ClientError as error:
            raise _error(error) from None  # its message quotes texts, and causes are logged
        except (NoCredentialsError, PartialCredentialsError, NoRegionError, ParamValidationError) as error:
            raise ProviderMisconfigured(f"Bedrock cannot be called ({type(error).__name__}).") from error
        except (BotoCoreError, aiohttp.ClientError, ConnectionError) as error:
            raise ProviderUnavailable(f"Bedrock was cut off ({type(error).__name__}).") from error
        return checked(results, len(texts))

    async def aclose(self) -> None:
        self._client = None
        await self._open.aclose()

    async def _results(self, query: str, texts: Sequence[str]) -> list[tuple[Any, Any]]:
        client = await self._connected()
        request = self._request(client.meta, query, texts)
        results: list[tuple[Any, Any]] = []
        for _ in range(MAX_PAGES):
            try:
                page = await client.rerank(**request)
                results += [(one["index"], one["relevanceScore"]) for one in page["results"]]
            except (AttributeError, KeyError, TypeError, ValueError) as error:  # botocore's parser trusts what it reads
                raise ProviderUnavailable("Bedrock returned no list of results.") from error
            if not (token := page.get("nextToken")):
                break
            request["nextToken"] = token
        return results

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

    async def _connected(self) -> Any:
        async with self._opening:
            if self._client is None:
                client = self._session.client(
                    "bedrock-agent-runtime", config=self._config, endpoint_url=self._endpoint_url
                )
                self._client = await self._open.enter_async_context(client)
            return self._client


def _error(error: ClientError) -> EddaError:
    """Which error an answer of Bedrock's is. Its message is not repeated: it quotes texts."""
    code = str(error.response.get("Error", {}).get("Code", ""))
    metadata = error.response.get("ResponseMetadata", {})
    wait_s = retry_after_s(metadata.get("HTTPHeaders", {}), datetime.now(UTC))
    if code in THROTTLED or metadata.get("HTTPStatusCode") == 429:
        return ProviderThrottled("Bedrock is limiting requests to rerank.", retry_after_s=wait_s)
    if code in MISCONFIGURED or code == "ValidationException":
        return ProviderMisconfigured(f"Bedrock refused to rerank ({code}).")
    return ProviderUnavailable(f"Bedrock is unavailable ({code}).", retry_after_s=wait_s)
