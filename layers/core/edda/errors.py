"""What can go wrong, as types. Every error has a stable `code`; HTTP status is decided in `http.py` alone.

EddaError
├── DocumentError            permanent: recorded on the document, never retried
│   ├── NoText  Encrypted  Corrupt  UnsupportedType  DocumentTooLarge  DecompressionLimit
│   ├── ParseTimeout  TooLargeToProcess  TooManyChunks  ObjectVanished  InvalidMetadata
│   ├── EmbeddingRejected
│   └── QuotaExceeded        until a cap counts anew or is raised; 429 over HTTP
├── RetryableError           goes back to the queue, 503 over HTTP
│   ├── DatabaseUnavailable  StorageUnavailable  QueueUnavailable
│   └── ProviderUnavailable  ── ProviderThrottled
├── ChatRejected             the chat provider refuses this one request: answered by extraction
├── ProviderMisconfigured    wrong key, model or dimensions: stops everything, an operator must act
├── WebhookFailed            a receiver's trouble: tried again until the event is given up
└── RequestError             the caller's fault, seen over HTTP only
    ├── InvalidRequest  ── InvalidFilter  MalformedBody  AnswerTooLarge
    ├── Unauthorized  NotFound  MethodNotAllowed  Conflict
    └── PayloadTooLarge  UnsupportedMediaType  IdempotencyMismatch
"""

from typing import ClassVar


class EddaError(Exception):
    """Root of the tree. `code` is stable and public; the message is for people and holds no secret."""

    code: ClassVar[str] = "internal_error"
    default_message: ClassVar[str] = "Something went wrong."

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or self.default_message)

    @property
    def message(self) -> str:
        return str(self)


class DocumentError(EddaError):
    """Permanent: the same bytes will fail the same way. Recorded on the document version."""

    code = "document_error"


class NoText(DocumentError):
    code = "no_text"
    default_message = "No text could be extracted: the file is empty, blank, or a scan without a text layer."


class Encrypted(DocumentError):
    code = "encrypted"
    default_message = "The file is encrypted and needs a password."


class Corrupt(DocumentError):
    code = "corrupt"
    default_message = "The file is damaged and could not be read."


class UnsupportedType(DocumentError):
    code = "unsupported_type"
    default_message = "This type of file is not supported."


class DocumentTooLarge(DocumentError):
    code = "document_too_large"
    default_message = "The file is larger than this deployment accepts."


class DecompressionLimit(DocumentError):
    code = "decompression_limit"
    default_message = "The file unpacks to far more than it should (a decompression bomb)."


class ParseTimeout(DocumentError):
    code = "parse_timeout"
    default_message = "Reading the file took longer than allowed."


class TooLargeToProcess(DocumentError):
    code = "too_large_to_process"
    default_message = "Reading the file needed more memory than allowed."


class TooManyChunks(DocumentError):
    code = "too_many_chunks"
    default_message = "The file makes more chunks than this deployment accepts."


class ObjectVanished(DocumentError):
    code = "object_vanished"
    default_message = "The object was gone before it could be read."


class InvalidMetadata(DocumentError):
    code = "invalid_metadata"
    default_message = "The metadata file beside the object is not valid."


class EmbeddingRejected(DocumentError):
    """The provider refuses this one text; its neighbours are fine."""

    code = "embedding_rejected"
    default_message = "The embedding provider rejected this text."


class QuotaExceeded(DocumentError):
    """No fault of the file's, but trying again by oneself would only cost more: an operator or the calendar helps."""

    code = "quota_exceeded"
    default_message = "A usage cap of this tenant is reached."

    def __init__(self, message: str | None = None, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class RetryableError(EddaError):
    """Nothing is wrong with the work: try again later."""

    code = "temporarily_unavailable"
    default_message = "A service Edda depends on is unavailable; try again."

    def __init__(self, message: str | None = None, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DatabaseUnavailable(RetryableError):
    code = "database_unavailable"
    default_message = "The database is unavailable or still waking up; try again."


class StorageUnavailable(RetryableError):
    code = "storage_unavailable"
    default_message = "Object storage is unavailable; try again."


class QueueUnavailable(RetryableError):
    code = "queue_unavailable"
    default_message = "The queue is unavailable; try again."


class ProviderUnavailable(RetryableError):
    code = "provider_unavailable"
    default_message = "The embedding provider is unavailable; try again."


class ProviderThrottled(ProviderUnavailable):
    code = "provider_throttled"
    default_message = "The embedding provider is limiting requests; try again."


class ProviderMisconfigured(EddaError):
    """Retrying cannot help and no document is at fault: key, model or dimensions are wrong."""

    code = "provider_misconfigured"
    default_message = "The embedding provider refused the configuration."


class ChatRejected(EddaError):
    """Asking again is of no use: its filter, or a request that is too long for the model."""

    code = "chat_rejected"
    default_message = "The chat provider rejected the request."


class WebhookFailed(EddaError):
    """An event did not arrive; `is_final`: it never will."""

    code = "webhook_failed"
    default_message = "The webhook could not be delivered."

    def __init__(self, message: str | None = None, *, is_final: bool = False) -> None:
        super().__init__(message)
        self.is_final = is_final


class RequestError(EddaError):
    """The caller can fix this."""

    code = "invalid_request"


class InvalidRequest(RequestError):
    code = "invalid_request"
    default_message = "The request is not valid."

    def __init__(self, message: str | None = None, *, problems: list[dict[str, str]] | None = None) -> None:
        super().__init__(message)
        self.problems = problems or []


class InvalidFilter(InvalidRequest):
    code = "invalid_filter"
    default_message = "The filter is not valid."


class AnswerTooLarge(InvalidRequest):
    code = "answer_too_large"
    default_message = "The answer is larger than the gateway takes: ask for fewer hits, or with less around them."


class MalformedBody(InvalidRequest):
    code = "malformed_body"
    default_message = "The body could not be read."


class Unauthorized(RequestError):
    code = "unauthorized"
    default_message = "A valid API key is needed: Authorization: Bearer <key>."


class NotFound(RequestError):
    code = "not_found"
    default_message = "There is nothing here."


class MethodNotAllowed(RequestError):
    code = "method_not_allowed"
    default_message = "This resource has no such method."

    def __init__(self, allowed: tuple[str, ...]) -> None:
        super().__init__()
        self.allowed = allowed


class Conflict(RequestError):
    code = "conflict"
    default_message = "The request conflicts with the present state."


class IdempotencyMismatch(RequestError):
    code = "idempotency_mismatch"
    default_message = "This idempotency key was used before with another request."


class PayloadTooLarge(RequestError):
    code = "payload_too_large"
    default_message = "The body is larger than the gateway takes; use a presigned upload."


class UnsupportedMediaType(RequestError):
    code = "unsupported_media_type"
    default_message = "This content type is not accepted here."
