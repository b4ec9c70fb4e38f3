"""What the verbs need from the outside world. Adapters implement these; fakes pass the same contract suites."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from edda.concurrency import Deadline
from edda.errors import EmbeddingRejected
from edda.models import (
    BusEvent,
    ChatReply,
    ChatRequest,
    EmbeddingLimits,
    ObjectListing,
    ParseCursor,
    ParseOutcome,
    PresignedPost,
    RerankLimits,
    StoredObject,
)


class ObjectStore(Protocol):
    """The uploads bucket. Raises StorageUnavailable when S3 does not answer."""

    async def head(self, key: str, version_id: str = "") -> StoredObject:
        """Facts of an object, or of one version of it. Raises ObjectVanished when there is none."""

    async def download(self, key: str, version_id: str, path: Path, max_bytes: int) -> bytes:
        """Stream an object into `path`; its SHA-256 digest. Raises ObjectVanished, DocumentTooLarge."""

    async def read(self, key: str, max_bytes: int) -> bytes | None:
        """A small object's bytes, None when there is none. Raises DocumentTooLarge."""

    async def put(self, key: str, body: bytes, content_type: str) -> None:
        """Store an object."""

    async def delete(self, key: str) -> None:
        """Delete an object (a delete marker, in a versioned bucket); no error when there is none."""

    async def page(self, prefix: str, after_key: str, limit: int) -> ObjectListing:
        """The newest version of each key under `prefix` and behind `after_key`, in the order of their UTF-8 bytes:
        at most `limit` of them, deleted ones too."""

    async def deleted_since(self, key: str, version_id: str, modified_at: datetime) -> bool:
        """Was the key deleted after this version of it was put, at `modified_at`? Only markers tell: a version that was
        erased for good, by a lifecycle rule say, was not deleted by that."""

    async def presign_post(self, key: str, content_type: str | None, max_bytes: int, expires_s: int) -> PresignedPost:
        """A form for a browser or curl: one key, a size range, an expiry."""


class QueuedMessage(NamedTuple):
    """A message as it was received, and what it is removed by."""

    body: str
    receipt_handle: str


class Queue(Protocol):
    """An SQS queue: a doorbell, never the truth."""

    async def send(self, bodies: Sequence[str], group: str = "") -> list[int]:
        """Send every message. The indices of those that are not known to be sent, after retries.

        Of messages with a group (a tenant), those of quiet groups are delivered before those of a group that has many.
        """

    async def delay(self, delays_s: Mapping[str, int]) -> None:
        """Let messages being handled (by receipt handle) come again so soon, and not only when their visibility
        timeout ends. Best effort: where it fails, that timeout stands."""

    async def receive(self) -> list[QueuedMessage]:
        """Some messages, hidden from others for a while; none when the queue is empty. For dead letters: what a
        queue has for a function is Lambda's to receive. Raises QueueUnavailable."""

    async def remove(self, receipt_handles: Sequence[str]) -> None:
        """Delete received messages. Raises QueueUnavailable: they will come again."""


class Parser(Protocol):
    """Turns a file into chunks, under limits of time and memory."""

    async def parse(
        self, path: Path, name: str, content_type: str | None, cursor: ParseCursor | None = None
    ) -> ParseOutcome:
        """Parse and chunk the first part of a file, or the one at the cursor. What a part is depends on the file alone.

        Raises a DocumentError that says what is wrong with the file.
        """


class Embedder(Protocol):
    """An embedding model behind some provider."""

    @property
    def name(self) -> str:
        """provider/model, as it is registered in the database."""

    @property
    def dimensions(self) -> int:
        """Length of every vector."""

    @property
    def limits(self) -> EmbeddingLimits:
        """What one request may hold."""

    async def embed(
        self, texts: Sequence[str], *, purpose: Literal["document", "query"], deadline: Deadline
    ) -> Sequence[bytes | EmbeddingRejected]:
        """One provider request. For each text, in order, its unit-length vector as little-endian float32 bytes,
        or the EmbeddingRejected that says why this text was refused.

        Raises ProviderThrottled, ProviderUnavailable, ProviderMisconfigured, or EmbeddingRejected for all of them.
        """

    async def aclose(self) -> None:
        """Give connections back."""


class Reranker(Protocol):
    """A model that reads question and passage together."""

    @property
    def name(self) -> str:
        """provider/model."""

    @property
    def limits(self) -> RerankLimits:
        """What one request may hold."""

    async def rerank(self, query: str, texts: Sequence[str], deadline: Deadline) -> Sequence[float]:
        """One provider request. For each text, in order, how well it answers the query: finite, higher is better.

        Raises ProviderThrottled, ProviderUnavailable (also for an answer that makes no sense), ProviderMisconfigured.
        """

    async def aclose(self) -> None:
        """Give connections back."""


class ChatModel(Protocol):
    """A model that writes. What it writes is checked before anybody sees it, so it is taken whole, not as a stream."""

    @property
    def name(self) -> str:
        """provider/model."""

    async def reply(self, request: ChatRequest, deadline: Deadline) -> ChatReply:
        """One provider request.

        Raises ChatRejected, ProviderThrottled, ProviderUnavailable (also for an answer that makes no sense),
        ProviderMisconfigured.
        """

    async def aclose(self) -> None:
        """Give connections back."""


class EventBus(Protocol):
    """EventBridge, for whoever listens in the operator's account."""

    async def send(self, events: Sequence[BusEvent]) -> list[int]:
        """Send every event. The indices of those that are not known to be taken."""


class Webhooks(Protocol):
    """Tenants' own receivers of events."""

    async def post(self, url: str, headers: dict[str, str], body: bytes, deadline: Deadline) -> None:
        """One attempt. Raises WebhookFailed unless it is answered with success."""


class Secrets(Protocol):
    """Secrets Manager."""

    async def read(self, arn: str) -> Mapping[str, str]:
        """A secret's fields."""
