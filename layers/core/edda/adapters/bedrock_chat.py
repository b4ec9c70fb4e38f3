"""Bedrock's Converse API: every maker's chat models, spoken to alike."""

import asyncio
import re
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
from edda.errors import ChatRejected, EddaError, ProviderMisconfigured, ProviderThrottled, ProviderUnavailable
from edda.models import ChatReply, ChatRequest

REFUSED = {"guardrail_intervened", "content_filtered"}
# A ValidationException is about the request, unless it says one of these.
ABOUT_THE_MODEL = re.compile(
    r"model identifier|model id|on-demand throughput|inference profile|not allowed|end of its life|temperature", re.I
)


class BedrockChat:
    """Converse on bedrock-runtime. Botocore's own retries are off: `Answering` knows the deadline.

    `model` is a model id, an inference profile or an ARN.
    """

    def __init__(
        self,
        session: aioboto3.Session,
        model: str,
        *,
        endpoint_url: str | None = None,
        connect_timeout_s: float = 3.0,
        read_timeout_s: float = 25.0,
    ) -> None:
        if not model:
            raise ProviderMisconfigured("The chat provider needs a model.")
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

    async def reply(self, request: ChatRequest, deadline: Deadline) -> ChatReply:
        deadline = deadline.sooner(self._total_timeout_s)
        if deadline.expired:
            raise ProviderUnavailable("No time was left to ask Bedrock.")
        try:
            async with asyncio.timeout(deadline.remaining_s()):
                client = await self._connected()
                answer = await client.converse(**self._arguments(request))
        except TimeoutError as error:
            raise ProviderUnavailable("Bedrock did not answer in time.") from error
        except ClientError as error:
            raise _error(error) from error
        except (NoCredentialsError, PartialCredentialsError, NoRegionError, ParamValidationError) as error:
            raise ProviderMisconfigured(f"Bedrock cannot be called ({type(error).__name__}).") from error
        except (BotoCoreError, aiohttp.ClientError, ConnectionError) as error:
            raise ProviderUnavailable(f"Bedrock was cut off ({type(error).__name__}).") from error
        except (AttributeError, KeyError, TypeError, ValueError) as error:  # botocore's parser trusts what it reads
            raise ProviderUnavailable("Bedrock returned something that is no reply.") from error
        return _reply(answer)

    async def aclose(self) -> None:
        self._client = None
        await self._open.aclose()

    def _arguments(self, request: ChatRequest) -> dict[str, Any]:
        inference: dict[str, Any] = {"maxTokens": request.max_output_tokens}
        if request.temperature is not None:
            inference["temperature"] = request.temperature
        return {
            "modelId": self._model,
            "system": [{"text": request.system}],
            "messages": [{"role": turn.role, "content": [{"text": turn.content}]} for turn in request.turns],
            "inferenceConfig": inference,
        }

    async def _connected(self) -> Any:
        async with self._opening:
            if self._client is None:
                client = self._session.client("bedrock-runtime", config=self._config, endpoint_url=self._endpoint_url)
                self._client = await self._open.enter_async_context(client)
            return self._client


def _reply(answer: Any) -> ChatReply:
    try:
        ended = answer["stopReason"]
        if ended in REFUSED:
            raise ChatRejected("Bedrock would not answer this.")
        # Models that think aloud put other blocks beside the text.
        text = "".join(block.get("text", "") for block in answer["output"]["message"]["content"])
        usage = answer.get("usage") or {}
        if ended == "max_tokens" and not text.strip():  # it thought; asking again would end alike
            raise ChatRejected("The chat model was cut off before it wrote anything: raise max_output_tokens.")
        if not text.strip():
            raise ProviderUnavailable("Bedrock returned no text.")
        return ChatReply(text, ended != "max_tokens", usage.get("inputTokens"), usage.get("outputTokens"))
    except (KeyError, TypeError, AttributeError) as error:
        raise ProviderUnavailable("Bedrock returned something that is no reply.") from error


def _error(error: ClientError) -> EddaError:
    """Which error an answer of Bedrock's is. Its message is read but not repeated: it quotes texts."""
    code = str(error.response.get("Error", {}).get("Code", ""))
    metadata = error.response.get("ResponseMetadata", {})
    status = int(metadata.get("HTTPStatusCode", 0))
    wait_s = retry_after_s(metadata.get("HTTPHeaders", {}), datetime.now(UTC))
    if code in THROTTLED or status == 429:
        return ProviderThrottled("Bedrock is limiting requests.", retry_after_s=wait_s)
    if code in MISCONFIGURED or (code == "ValidationException" and ABOUT_THE_MODEL.search(str(error))):
        return ProviderMisconfigured(f"Bedrock refused the configuration ({code}).")
    if code == "ValidationException" or status == 413:
        return ChatRejected(f"Bedrock rejected the request ({code}).")
    return ProviderUnavailable(f"Bedrock is unavailable ({code}).", retry_after_s=wait_s)
