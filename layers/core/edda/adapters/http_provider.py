"""What the adapters of providers over HTTP share: a key in a header, the end of waiting, and what a refusal means."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus

import aiohttp
import orjson

from edda.adapters.http_client import Answer, AnswerTooLarge
from edda.batching import retry_after_s
from edda.concurrency import Deadline
from edda.errors import EddaError, ProviderMisconfigured, ProviderThrottled, ProviderUnavailable

REFUSED = {HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNPROCESSABLE_ENTITY}
PASSING = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.FAILED_DEPENDENCY, HTTPStatus.TOO_EARLY}
OPERATOR_MUST_ACT = {"insufficient_quota", "billing_not_active", "model_not_found", "invalid_api_key"}


@dataclass(frozen=True, slots=True)
class HttpProvider:
    """`who` begins what errors say. A request that is refused is `rejected`, unless it is for one of `settings`, the
    parameters that no text can be blamed for."""

    who: str
    rejected: type[EddaError]
    settings: frozenset[str] = frozenset()

    def headers(self, key: str) -> dict[str, str]:
        """Of a request; without a key none is sent. Raises ProviderMisconfigured for one that no header can carry."""
        key = key.strip()
        if not (key.isascii() and (not key or key.isprintable())):
            raise ProviderMisconfigured(f"{self.who}'s API key has characters that no header can carry.")
        # Inflating base64 costs more than the network saves.
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        return {**headers, "Authorization": f"Bearer {key}"} if key else headers

    @asynccontextmanager
    async def asked(self, deadline: Deadline) -> AsyncIterator[None]:
        """For a request and the reading of its answer: what goes wrong in it, or is late, is ProviderUnavailable."""
        if deadline.expired:
            raise ProviderUnavailable(f"{self.who} was not asked: no time was left.")
        try:
            async with asyncio.timeout(deadline.remaining_s()):
                yield
        except AnswerTooLarge as error:
            raise ProviderUnavailable(f"{self.who}'s answer has no end.") from error
        except (aiohttp.ClientError, ConnectionError) as error:
            raise ProviderUnavailable(f"{self.who} was cut off ({type(error).__name__}).") from error
        except TimeoutError as error:
            raise ProviderUnavailable(f"{self.who} did not answer in time.") from error
        except (AttributeError, LookupError, TypeError, ValueError, RecursionError) as error:
            raise ProviderUnavailable(f"{self.who} returned something that is no answer.") from error

    def accepted(self, answer: Answer) -> bytes:
        """Its body. Raises what its status means, and tells of the body its code only: bodies quote keys and texts."""
        if answer.status == HTTPStatus.OK:
            return answer.body
        raise self._meaning(answer)

    def _meaning(self, answer: Answer) -> EddaError:
        status, (code, parameter) = answer.status, _code_and_parameter(answer.body)
        said = f"HTTP {status}, {code}" if code else f"HTTP {status}"
        wait_s = retry_after_s(answer.headers, datetime.now(UTC))
        if code in OPERATOR_MUST_ACT:
            return ProviderMisconfigured(f"{self.who} refused the configuration ({said}).")
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            return ProviderThrottled(f"{self.who} is limiting requests.", retry_after_s=wait_s)
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in PASSING:
            return ProviderUnavailable(f"{self.who} is unavailable ({said}).", retry_after_s=wait_s)
        if status in REFUSED and parameter not in self.settings:
            return self.rejected(f"{self.who} rejected the request ({said}).")
        return ProviderMisconfigured(f"{self.who} refused the configuration ({said}).")


def _code_and_parameter(body: bytes) -> tuple[str | None, str | None]:
    try:
        error = orjson.loads(body)["error"]
        code, parameter = error.get("code") or error.get("type"), error.get("param")
    except (orjson.JSONDecodeError, LookupError, TypeError, AttributeError):
        return None, None
    plain = isinstance(code, str) and re.fullmatch(r"[a-z_]{1,40}", code)  # no key looks like this
    return (code if plain else None), (parameter if isinstance(parameter, str) else None)
