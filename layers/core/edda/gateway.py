"""What both HTTP functions share: Powertools' resolver, made to know the caller first and to answer in problems only.

A request is admitted (key, size, encoding) before anything in it is looked at; then Powertools routes and validates.
"""

import asyncio
import base64
import json
import logging
import math
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol, TypeVar

from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response
from aws_lambda_powertools.event_handler.api_gateway import ResponseBuilder
from aws_lambda_powertools.event_handler.exceptions import NotFoundError
from aws_lambda_powertools.event_handler.openapi.exceptions import (
    RequestUnsupportedContentType,
    RequestValidationError,
)
from aws_lambda_powertools.utilities.data_classes import APIGatewayProxyEventV2
from pydantic import BaseModel

from edda.concurrency import Deadline
from edda.errors import (
    AnswerTooLarge,
    EddaError,
    InvalidRequest,
    MalformedBody,
    MethodNotAllowed,
    NotFound,
    PayloadTooLarge,
    RetryableError,
    Unauthorized,
    UnsupportedMediaType,
)
from edda.field_problems import field_problems
from edda.http import PROBLEM_JSON, Problem, headers_of, problem_of
from edda.models import Tenant
from edda.runtime import LambdaContext, deadline, run
from edda.store.keys import KeyStore

logger = logging.getLogger(__name__)
T = TypeVar("T")
Event = dict[str, Any]

MAX_JSON_BYTES = 1024 * 1024
MAX_ANSWER_BYTES = 5 * 1024 * 1024  # Lambda gives 6 MB to an answer, in which each quotation mark is two characters
PROBLEM: Any = {"content": {PROBLEM_JSON: {"model": Problem}}}
PROBLEMS: dict[int, Any] = {
    400: {"description": "The body cannot be read", **PROBLEM},
    401: {"description": "No valid key", **PROBLEM},
    413: {"description": "Too large", **PROBLEM},
    422: {"description": "The request is not valid; `errors` says where", **PROBLEM},
    500: {"description": "Our fault; quote the request id", **PROBLEM},
    503: {"description": "Something Edda needs is asleep or busy; `Retry-After` says when to try again", **PROBLEM},
}
NOT_FOUND: dict[int, Any] = {404: {"description": "No such document of yours", **PROBLEM}}


class HasKeys(Protocol):
    """What admitting a request needs of a function's services."""

    @property
    def keys(self) -> KeyStore: ...


class Gateway:
    """One function's HTTP side: call it with an event. Routes are added to `resolver`.

    `public` names paths that need no key, `takes_files` paths whose POST body is not JSON.
    """

    def __init__(
        self,
        services: Callable[[], Awaitable[HasKeys]],
        *,
        public: frozenset[str] = frozenset(),
        takes_files: frozenset[str] = frozenset(),
    ) -> None:
        self._services = services
        self._public = public
        self._takes_files = takes_files
        self._until = Deadline.after(0)
        self.resolver = APIGatewayHttpResolver(enable_validation=True, json_body_deserializer=parse_json)
        self.resolver.exception_handler(Exception)(self._refuse)

    def __call__(self, event: Event, context: LambdaContext) -> Event:
        """Answer one request."""
        self._until = deadline(context)
        try:
            tenant, admitted = self._admit(event)
        except Exception as error:
            request = APIGatewayProxyEventV2(event)
            problem = _problem_response(error, request.request_context.request_id)
            refusal: Event = ResponseBuilder(problem).build(request)  # type: ignore[arg-type]  # generic in vain
            return refusal
        self.resolver.append_context(tenant=tenant)  # type: ignore[no-untyped-call]  # Powertools left it untyped
        answer: Event = self.resolver.resolve(admitted, context)  # type: ignore[arg-type]  # it uses as little of it
        return answer

    @property
    def tenant(self) -> Tenant:
        """Whose request it is, by its key."""
        tenant: Tenant = self.resolver.context["tenant"]
        return tenant

    @property
    def until(self) -> Deadline:
        """When the answer must be there."""
        return self._until

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a verb on the environment's loop. Raises RetryableError when the time is up."""
        found: list[T] = []

        async def keep() -> None:
            found.append(await _before(self._until, work))

        # As the task's own result it would be formatted, for a message of signal.signal's that nobody sees: a
        # millisecond for a page of hits.
        run(keep())
        return found[0]

    def _admit(self, event: Event) -> tuple[Tenant | None, Event]:
        request = APIGatewayProxyEventV2(event)
        tenant = None
        if request.path not in self._public:
            key = _key(request)
            tenant = self.run(self._authenticate(key))
        if request.http_method == "POST" and request.path in self._takes_files:
            return tenant, event
        return tenant, _with_json_body(event, request)

    async def _authenticate(self, key: str) -> Tenant:
        services = await self._services()
        return await services.keys.authenticate(key)

    def _refuse(self, error: Exception) -> Response[Any]:
        request = self.resolver.current_event
        if isinstance(error, NotFoundError):
            error = self._not_routed(request.http_method, request.path)
        return _problem_response(_ours(error), request.request_context.request_id)

    def _not_routed(self, method: str, path: str) -> EddaError:
        """404, or 405 where other methods would do."""
        routes = [*self.resolver._static_routes, *self.resolver._dynamic_routes]
        allowed = sorted({str(route.method) for route in routes if route.rule.match(path)} - {method})
        return MethodNotAllowed(tuple(allowed)) if allowed else NotFound()


def answer(body: BaseModel, status: int = 200, headers: dict[str, str] | None = None) -> Response[Any]:
    """A model as JSON. Raises AnswerTooLarge."""
    text = body.model_dump_json()
    if len(text) > MAX_ANSWER_BYTES or len(text.encode()) > MAX_ANSWER_BYTES:
        raise AnswerTooLarge
    return Response(status_code=status, content_type="application/json", body=text, headers=dict(headers or {}))


def responses(status: int, description: str, model: type[BaseModel] | None, *others: dict[int, Any]) -> dict[int, Any]:
    """What an operation may answer, for the OpenAPI document."""
    success: dict[str, Any] = {"description": description}
    if model is not None:
        success["content"] = {"application/json": {"model": model}}
    documented = {status: success, **PROBLEMS}
    for other in others:
        documented |= other
    return dict(sorted(documented.items()))


def file_body(request: APIGatewayProxyEventV2, max_bytes: int) -> bytes:
    """The body as it was sent. Raises PayloadTooLarge, which names the way for larger ones."""
    text = request.body or ""
    # Base64 makes four characters of three bytes.
    too_large = len(text) * 3 // 4 > max_bytes + 3 if request.is_base64_encoded else len(text) > max_bytes
    body = b"" if too_large else _decoded(text, bool(request.is_base64_encoded))
    if too_large or len(body) > max_bytes:
        raise PayloadTooLarge(
            f"A direct upload takes {max_bytes} bytes at most. POST /v1/uploads gives a form for larger files."
        )
    return body


def parse_json(text: str) -> Any:
    """JSON without what is none, though Python takes it: NaN, infinities, a key twice, half of a surrogate pair.

    Raises MalformedBody, also for nesting that is too deep to read.
    """
    try:
        found = json.loads(
            text, parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_without_duplicates
        )
        if "\\u" in text:
            json.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise MalformedBody("The JSON has a lone surrogate, which is no character.") from None
    except RecursionError:
        raise MalformedBody("The JSON is nested too deeply.") from None
    except ValueError as error:
        raise MalformedBody(f"This is not JSON: {error}.") from None
    return found


def _key(request: APIGatewayProxyEventV2) -> str:
    """The API key, from either header. Raises Unauthorized."""
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    key = credentials.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key", "")
    if not key:
        raise Unauthorized
    return key


def _with_json_body(event: Event, request: APIGatewayProxyEventV2) -> Event:
    """The event with its body as text that is read as JSON whatever it is called: `curl -d` calls it a form."""
    text = request.body or ""
    if len(text) > MAX_JSON_BYTES * (4 / 3 if request.is_base64_encoded else 1):
        raise PayloadTooLarge(f"A JSON body takes {MAX_JSON_BYTES} bytes at most.")
    if request.is_base64_encoded:
        try:
            text = _decoded(text, is_base64=True).decode()
        except UnicodeDecodeError:
            raise MalformedBody("The body is not UTF-8.") from None
    headers = {name: value for name, value in request.headers.items() if name.lower() != "content-type"}
    headers["content-type"] = "application/json"
    return event | {"body": text, "isBase64Encoded": False, "headers": headers}


def _decoded(text: str, is_base64: bool) -> bytes:
    try:
        return base64.b64decode(text, validate=True) if is_base64 else text.encode()
    except ValueError:
        raise MalformedBody from None


def _ours(error: Exception) -> Exception:
    """What Powertools found wrong, as one of our errors."""
    if isinstance(error, RequestUnsupportedContentType):
        return UnsupportedMediaType()
    if isinstance(error, RequestValidationError):
        return InvalidRequest(problems=field_problems(error.errors(), skip=1))
    return error


def _problem_response(error: Exception, request_id: str) -> Response[Any]:
    problem = problem_of(error, request_id)
    facts = {"api_request_id": request_id, "code": problem.code, "status": problem.status}
    if isinstance(error, EddaError) and problem.status != 500:
        logger.info("request refused", extra=facts)
    else:
        logger.error("request failed", extra=facts, exc_info=error)
    return Response(
        status_code=problem.status,
        content_type=PROBLEM_JSON,
        body=problem.model_dump_json(exclude_none=True),
        headers=dict(headers_of(error)),
    )


async def _before(until: Deadline, work: Coroutine[Any, Any, T]) -> T:
    try:
        async with asyncio.timeout(until.remaining_s()):
            return await work
    except TimeoutError:
        raise RetryableError("There was not enough time to answer.") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is too large a number")
    return number


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object has the same key twice")
    return found
