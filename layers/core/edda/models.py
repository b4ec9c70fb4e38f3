"""The data, without behaviour that needs the outside world.

Character offsets are Python string offsets (code points) into the parsed text: `text[start:end]`.
"""

from dataclasses import dataclass, fields
from datetime import date, datetime
from enum import StrEnum
from typing import Any, Literal, NamedTuple
from uuid import UUID


class BlockKind(StrEnum):
    HEADING = "heading"
    PARAGRAPH = "paragraph"
    LIST = "list"
    TABLE = "table"
    CODE = "code"


@dataclass(frozen=True, slots=True)
class Block:
    """One structural piece of a parsed document: `text[start:end]`. Blocks are in order and do not overlap.

    `level` is 1-6 for headings and 0 otherwise; `page` counts from 1 and is None where the format has no pages.
    """

    kind: BlockKind
    start: int
    end: int
    level: int = 0
    page: int | None = None


@dataclass(frozen=True, slots=True)
class ParsedDocument:
    """What a parser makes of a file. `text` is clean: no NUL, no lone surrogate, newlines are `\\n`."""

    text: str
    blocks: tuple[Block, ...]
    media_type: str
    title: str | None = None
    language: str | None = None  # ISO 639-1, where it is known


@dataclass(frozen=True, slots=True)
class Chunk:
    """A passage: `text == parsed.text[char_start:char_end]`."""

    ordinal: int
    text: str
    char_start: int
    char_end: int
    tokens: int
    page: int | None
    heading_path: tuple[str, ...]
    language: str | None
    content_hash: UUID  # first 128 bits of SHA-256 over the text that is embedded


class DocumentStatus(StrEnum):
    """Where a version stands. The last three are final."""

    WAITING = "waiting"  # an upload was promised, no object has been seen yet
    QUEUED = "queued"
    PARSING = "parsing"
    EMBEDDING = "embedding"
    READY = "ready"
    PARTIAL = "partial"  # searchable, but some chunks were rejected by the embedding provider
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One version of one object in the bucket, as HeadObject tells of it (`version_id` "": unversioned bucket)."""

    key: str
    version_id: str
    size_bytes: int
    content_type: str | None
    last_modified: datetime


@dataclass(frozen=True, slots=True)
class ListedObject:
    """The newest version of one key, as a listing tells of it; `removed`: it is a delete marker."""

    key: str
    version_id: str
    removed: bool
    last_modified: datetime


@dataclass(frozen=True, slots=True)
class ObjectListing:
    """Objects in key order. `until` is the key up to which this is all there is; None: there are no more."""

    objects: list[ListedObject]
    until: str | None


@dataclass(frozen=True, slots=True)
class ParseCursor:
    """How far a file has been parsed: `chunks` are there. `state` is the parser's own, and plain JSON."""

    chunks: int
    state: "JsonObject"


@dataclass(frozen=True, slots=True)
class ParseOutcome:
    """What the parser process makes of one file, or of a part of it: everything the pipeline stores about it.

    `next` is where the next part begins, None after the last. `characters` and the ordinals count from the file's
    beginning; `first_ordinal` is the first of this part.
    """

    chunks: list[Chunk]
    media_type: str
    characters: int
    title: str | None = None
    language: str | None = None
    first_ordinal: int = 0
    next: ParseCursor | None = None


@dataclass(frozen=True, slots=True)
class EmbeddingLimits:
    """What one provider takes, and how many requests it may have in flight."""

    max_texts_per_request: int
    max_tokens_per_request: int
    max_tokens_per_text: int
    max_concurrent_requests: int


@dataclass(frozen=True, slots=True)
class RerankLimits:
    """What one reranker takes, and how many requests it may have in flight for one search."""

    max_texts_per_request: int
    max_concurrent_requests: int


@dataclass(frozen=True, slots=True)
class PresignedPost:
    """A form that uploads one object straight to the bucket until `expires_at`."""

    url: str
    fields: dict[str, str]
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage found. `score` is what it was ranked by; higher is better."""

    document_id: UUID
    chunk_id: UUID
    version_id: UUID
    ordinal: int
    name: str
    title: str | None
    text: str
    char_start: int
    char_end: int
    page: int | None
    heading_path: tuple[str, ...]
    language: str | None
    metadata: dict[str, Any]
    tags: tuple[str, ...]
    score: float


@dataclass(frozen=True, slots=True)
class Candidate:
    """A chunk that a leg of search found: cosine similarity, and BM25's score (None or 0: no term of the query's).

    None as well where that leg was not asked.
    """

    version_id: UUID
    ordinal: int
    document_id: UUID
    language: str | None
    similarity: float | None
    text_score: float | None


@dataclass(frozen=True, slots=True)
class Passage:
    """A chunk beside one that was found."""

    chunk_id: UUID
    ordinal: int
    text: str
    char_start: int
    char_end: int
    page: int | None


class Tenant(NamedTuple):
    """Whose data it is. `slug` is the first folder of every object key of this tenant."""

    tenant_id: UUID
    slug: str


@dataclass(frozen=True, slots=True)
class EmbeddingModel:
    """A registered model: `model_id` is the database's number for it."""

    model_id: int
    name: str
    dimensions: int


@dataclass(slots=True)
class Usage:
    """What is added to one row of the ledger. What each number counts stands in migration 0002."""

    bytes: int = 0
    chunks: int = 0
    tokens_planned: int = 0
    tokens: int = 0
    tokens_unsettled: int = 0
    provider_calls: int = 0
    provider_calls_lost: int = 0

    def add(self, other: "Usage") -> None:
        for one in fields(self):
            setattr(self, one.name, getattr(self, one.name) + getattr(other, one.name))


@dataclass(frozen=True, slots=True)
class BusEvent:
    """An event as a bus takes it; `detail` is JSON."""

    type: str
    time: datetime
    detail: str


@dataclass(frozen=True, slots=True)
class ChatTurn:
    """What one side said. Turns alternate; the user's is the first and the last."""

    role: Literal["user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What a chat model is asked: `system` is what it is told to do, the last turn what it shall answer now."""

    system: str
    turns: tuple[ChatTurn, ...]
    max_output_tokens: int
    temperature: float | None = None  # None: the model's own; some refuse the parameter


@dataclass(frozen=True, slots=True)
class ChatReply:
    """`is_whole`: the model ended of its own accord. Tokens are the provider's count, None where it does not tell."""

    text: str
    is_whole: bool
    input_tokens: int | None
    output_tokens: int | None


class Account(NamedTuple):
    """A row of the ledger: a document, on the day (UTC) that its work was begun."""

    document_id: UUID
    day: date


JsonObject = dict[str, Any]
