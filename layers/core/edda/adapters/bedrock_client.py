"""A client of Bedrock's for one model, and what its failures mean: what Edda's three APIs of Bedrock share."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
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

from edda.batching import retry_after_s
from edda.concurrency import Deadline
from edda.errors import EddaError, ProviderMisconfigured, ProviderThrottled, ProviderUnavailable

MISCONFIGURED = {
    "AccessDeniedException",
    "IncompleteSignature",
    "InvalidSignatureException",
    "MissingAuthenticationToken",
    "ResourceNotFoundException",
    "UnrecognizedClientException",
}
THROTTLED = {"ThrottlingException", "TooManyRequestsException", "ServiceQuotaExceededException"}
# A ValidationException is about the texts, unless it says one of these.
ABOUT_THE_MODEL = r"model identifier|model id|on-demand throughput|inference profile|not allowed|end of its life"


class BedrockClient:
    """Opened by its first call. Botocore's own retries are off: who asks knows the deadline.

    `session` carries region and credentials; `endpoint_url` replaces the region's endpoint. `rejected` is what a
    ValidationException is, unless it is about the model or names `setting`.
    """

    def __init__(
        self,
        session: aioboto3.Session,
        service: str,
        rejected: type[EddaError],
        *,
        setting: str = "",
        endpoint_url: str | None,
        connect_timeout_s: float,
        read_timeout_s: float,
        max_connections: int = 10,
    ) -> None:
        self._session = session
        self._service = service
        self._rejected = rejected
        self._settings = re.compile(f"{ABOUT_THE_MODEL}|{setting}" if setting else ABOUT_THE_MODEL, re.I)
        self._endpoint_url = endpoint_url
        self._config = Config(
            connect_timeout=connect_timeout_s,
            read_timeout=read_timeout_s,
            max_pool_connections=max_connections,
            retries={"total_max_attempts": 1},
        )
        self._open = AsyncExitStack()
        self._opening = asyncio.Lock()
        self._client: Any = None

    @asynccontextmanager
    async def asked(self, deadline: Deadline) -> AsyncIterator[Any]:
        """botocore's client, to be asked until the deadline.

        What goes wrong meanwhile is ProviderThrottled, ProviderUnavailable, ProviderMisconfigured or `rejected`.
        """
        if deadline.expired:
            raise ProviderUnavailable("No time was left to ask Bedrock.")
        try:
            async with asyncio.timeout(deadline.remaining_s()):
                yield await self._connected()
        except TimeoutError as error:
            raise ProviderUnavailable("Bedrock did not answer in time.") from error
        except ClientError as error:
            # Causes are logged. What Bedrock says of a request quotes its texts; of a lock-out, what is missing.
            raise self._meaning(error) from (error if _code(error) in MISCONFIGURED else None)
        except (NoCredentialsError, PartialCredentialsError, NoRegionError, ParamValidationError) as error:
            raise ProviderMisconfigured(f"Bedrock cannot be called ({type(error).__name__}).") from error
        except (BotoCoreError, aiohttp.ClientError, ConnectionError) as error:
            raise ProviderUnavailable(f"Bedrock was cut off ({type(error).__name__}).") from error
        except (AttributeError, KeyError, TypeError, ValueError) as error:  # botocore's parser trusts what it reads
            raise ProviderUnavailable("Bedrock returned something that is no answer.") from error

    async def aclose(self) -> None:
        self._client = None
        await self._open.aclose()

    async def _connected(self) -> Any:
        async with self._opening:
            if self._client is None:
                client = self._session.client(self._service, config=self._config, endpoint_url=self._endpoint_url)
                self._client = await self._open.enter_async_context(client)
            return self._client

    def _meaning(self, error: ClientError) -> EddaError:
        code, metadata = _code(error), error.response.get("ResponseMetadata", {})
        status = int(metadata.get("HTTPStatusCode", 0))
        wait_s = retry_after_s(metadata.get("HTTPHeaders", {}), datetime.now(UTC))
        if code in THROTTLED or status == 429:
            return ProviderThrottled("Bedrock is limiting requests.", retry_after_s=wait_s)
        if code in MISCONFIGURED:
            return ProviderMisconfigured(f"Bedrock refused the configuration ({code}).")
        if code == "ValidationException" and (setting := self._settings.search(str(error))):
            return ProviderMisconfigured(f"Bedrock refused the configuration ({code}: {setting[0]}).")
        if code == "ValidationException" or status == 413:
            return self._rejected(f"Bedrock rejected the request ({code}).")
        return ProviderUnavailable(f"Bedrock is unavailable ({code}).", retry_after_s=wait_s)


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))
