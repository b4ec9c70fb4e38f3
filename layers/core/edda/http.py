"""Errors as HTTP answers: RFC 9457 problem details, with the one table of statuses."""

import math
from http import HTTPStatus

from pydantic import BaseModel, Field

from edda.errors import (
    Conflict,
    DocumentError,
    DocumentTooLarge,
    EddaError,
    IdempotencyMismatch,
    InvalidRequest,
    MalformedBody,
    MethodNotAllowed,
    NotFound,
    PayloadTooLarge,
    ProviderMisconfigured,
    QuotaExceeded,
    RequestError,
    RetryableError,
    Unauthorized,
    UnsupportedMediaType,
)

PROBLEM_JSON = "application/problem+json"
RETRY_AFTER_S = 5  # a database that wakes up needs 15 to 30 s: some tries, and not all at once

# The nearest class in an error's ancestry counts.
STATUSES: dict[type[EddaError], HTTPStatus] = {
    MalformedBody: HTTPStatus.BAD_REQUEST,
    Unauthorized: HTTPStatus.UNAUTHORIZED,
    NotFound: HTTPStatus.NOT_FOUND,
    MethodNotAllowed: HTTPStatus.METHOD_NOT_ALLOWED,
    Conflict: HTTPStatus.CONFLICT,
    PayloadTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    DocumentTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    UnsupportedMediaType: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    IdempotencyMismatch: HTTPStatus.UNPROCESSABLE_ENTITY,
    InvalidRequest: HTTPStatus.UNPROCESSABLE_ENTITY,
    RequestError: HTTPStatus.BAD_REQUEST,
    # Not 402, which RFC 9110 only reserves: 429 with Retry-After says what helps, and `code` which limit it is.
    QuotaExceeded: HTTPStatus.TOO_MANY_REQUESTS,
    DocumentError: HTTPStatus.UNPROCESSABLE_ENTITY,
    RetryableError: HTTPStatus.SERVICE_UNAVAILABLE,
    ProviderMisconfigured: HTTPStatus.INTERNAL_SERVER_ERROR,
    EddaError: HTTPStatus.INTERNAL_SERVER_ERROR,
}


class FieldProblem(BaseModel):
    """One mistake in a request, and where it is."""

    field: str
    message: str


class Problem(BaseModel):
    """What went wrong (RFC 9457). `code` is stable: program against it; `detail` is for people."""

    type: str = Field(description="urn:edda:problem:<code>", examples=["urn:edda:problem:not_found"])
    title: str
    status: int
    detail: str
    code: str = Field(examples=["not_found"])
    request_id: str = Field(description="Quote it when you ask for help.")
    errors: list[FieldProblem] | None = Field(default=None, description="Each mistake in the request and its place.")


def problem_of(error: Exception, request_id: str) -> Problem:
    """The problem to answer with. Of an error that is not ours nothing is told: it may hold secrets."""
    known = error if isinstance(error, EddaError) else EddaError()
    status = status_of(known)
    return Problem(
        type=f"urn:edda:problem:{known.code}",
        title=known.default_message,
        status=status,
        detail=known.message,
        code=known.code,
        request_id=request_id,
        errors=[FieldProblem.model_validate(problem) for problem in getattr(known, "problems", [])] or None,
    )


def status_of(error: EddaError) -> HTTPStatus:
    """The error's status in the table."""
    return next(STATUSES[class_] for class_ in type(error).__mro__ if class_ in STATUSES)


def headers_of(error: Exception) -> dict[str, str]:
    """What a problem's headers tell: how to authenticate, when to try again, which methods there are."""
    if isinstance(error, Unauthorized):
        return {"WWW-Authenticate": 'Bearer realm="edda"'}
    if isinstance(error, MethodNotAllowed):
        return {"Allow": ", ".join(error.allowed)}
    if isinstance(error, RetryableError | QuotaExceeded):
        return {"Retry-After": str(max(1, math.ceil(error.retry_after_s or RETRY_AFTER_S)))}
    return {}
