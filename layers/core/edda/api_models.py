"""The API's requests and answers. Their limits are here, and from here they go into the OpenAPI document."""

import unicodedata
from datetime import date, datetime
from typing import Annotated, Any, Self
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
)

from edda.errors import InvalidMetadata
from edda.filters import Operator
from edda.models import DocumentStatus, JsonObject
from edda.object_metadata import MAX_ATTRIBUTES, MAX_KEY_CHARACTERS, check_metadata
from edda.store.database import Row
from edda.store.documents import DocumentView
from edda.store.usage import UsageReport

MAX_NAME_CHARACTERS = 1024
MAX_TAGS = 50
MAX_TAG_CHARACTERS = 200
MAX_PAGE = 100
DEFAULT_PAGE = 20

CONTROL_CHARACTERS = dict.fromkeys(code for code in range(0xA0) if unicodedata.category(chr(code)) == "Cc")
MEDIA_TYPE = r"^[A-Za-z0-9!#$&^_.+-]{1,100}/[A-Za-z0-9!#$&^_.+-]{1,100}(;[ -~]{0,200})?$"


def _one_line(value: Any) -> Any:
    """Names come from file systems of all kinds: control characters go, all else is data."""
    return value.translate(CONTROL_CHARACTERS).strip() if isinstance(value, str) else value


def _of_words(value: Any) -> Any:
    """Likewise, but what a line end keeps apart stays so."""
    return _one_line(" ".join(value.split())) if isinstance(value, str) else value


def _checked_metadata(metadata: JsonObject) -> JsonObject:
    try:
        return check_metadata(metadata)
    except InvalidMetadata as error:
        raise ValueError(error.message) from None


def _without_default(schema: JsonObject) -> None:
    del schema["default"]


Name = Annotated[
    str,
    BeforeValidator(_one_line),
    Field(
        min_length=1,
        max_length=MAX_NAME_CHARACTERS,
        description="The file's name; its ending helps to tell the type. Control characters are dropped.",
        examples=["handbook.pdf"],
    ),
]
Title = Annotated[
    str,
    BeforeValidator(_of_words),
    Field(max_length=MAX_NAME_CHARACTERS, description="Shown with hits; by default what the file itself says."),
]
Tag = Annotated[str, BeforeValidator(_one_line), Field(min_length=1, max_length=MAX_TAG_CHARACTERS)]
Tags = Annotated[list[Tag], Field(max_length=MAX_TAGS), AfterValidator(lambda tags: list(dict.fromkeys(tags)))]
Metadata = Annotated[
    JsonObject,
    AfterValidator(_checked_metadata),
    WithJsonSchema(
        {
            "type": "object",
            "description": "Attributes to filter by: strings, numbers, booleans, null, or lists of these. "
            "16 KiB in all, strings of up to 2,048 characters.",
            "maxProperties": MAX_ATTRIBUTES,
            "propertyNames": {"minLength": 1, "maxLength": MAX_KEY_CHARACTERS},
            "examples": [{"year": 2026, "team": "legal"}],
        }
    ),
]
MediaType = Annotated[str, Field(pattern=MEDIA_TYPE, examples=["application/pdf"])]

ABSENT: Any = None  # never seen: only what was given counts

FILTER_SCHEMA: JsonObject = {
    "anyOf": [{"type": "object"}, {"type": "null"}],
    "description": "A comparison `{field, op, value}`, or `{and: [...]}`, `{or: [...]}`, `{not: {...}}` of filters. A "
    "field is document_id, name, title, tags, media_type, language, created_at, or a metadata key (`metadata.<key>` "
    f"always is one). Operators: {', '.join(Operator)} (or =, !=, <, <=, >, >=). A field that is missing or of "
    "another type satisfies ne and not_in only; tags takes contains only. Up to 10 levels, 100 "
    "comparisons, 1,000 values in a list.",
    "examples": [
        {"and": [{"field": "year", "op": "gte", "value": 2024}, {"field": "tags", "op": "contains", "value": "hr"}]}
    ],
}


class Request(BaseModel):
    """A body. Types are taken as they are, and a misspelt field is a mistake."""

    model_config = ConfigDict(strict=True, extra="forbid")


class NewDocument(Request):
    """What a client may say of a document."""

    name: Name
    title: Title | None = None
    tags: Tags = []
    metadata: Metadata = {}


class NewUpload(NewDocument):
    """A file that will be posted straight to storage."""

    size_bytes: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="Tell it, and a file that is too large is refused here already."
    )
    content_type: MediaType | None = None


class DocumentChange(Request):
    """A merge patch: what is absent stays, `title: null` takes the title away. `tags` and `metadata` are replaced."""

    name: Name = Field(default=ABSENT, json_schema_extra=_without_default)
    title: Title | None = Field(default=ABSENT, json_schema_extra=_without_default)
    tags: Tags = Field(default=ABSENT, json_schema_extra=_without_default)
    metadata: Metadata = Field(default=ABSENT, json_schema_extra=_without_default)

    def changes(self) -> JsonObject:
        """Only what was given. An empty title is none."""
        given = self.model_dump(exclude_unset=True)
        return given | ({"title": given["title"] or None} if "title" in given else {})


class OfAttributes(BaseModel):
    """Made of an object with attributes of the same names."""

    model_config = ConfigDict(from_attributes=True)


def attributes(of: object, model: type[BaseModel]) -> dict[str, Any]:
    """Those that the model has fields for."""
    return {name: getattr(of, name) for name in model.model_fields if hasattr(of, name)}


class Reason(BaseModel):
    """Why something failed, or is not quite right. `code` is stable."""

    code: str
    message: str


class ChunkProgress(BaseModel):
    """`planned` is null until the file has been read."""

    planned: int | None
    embedded: int
    failed: int


class Stages(BaseModel):
    """When the newest version of the file came to each stage."""

    uploaded_at: datetime | None
    chunked_at: datetime | None
    finished_at: datetime | None


DELETION_HELD = "deletion_held"


class DocumentBody(BaseModel):
    """A document. What is said of the file is said of its newest version."""

    document_id: UUID
    name: str
    title: str | None
    tags: list[str]
    metadata: JsonObject
    object_key: str
    status: DocumentStatus
    error: Reason | None
    warnings: list[Reason]
    searchable: bool = Field(description="A version of it, perhaps an older one, is found by search.")
    chunks: ChunkProgress
    stages: Stages
    size_bytes: int | None
    media_type: str | None
    language: str | None
    characters: int | None
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, view: DocumentView) -> Self:
        """As the store has it."""
        error = None
        if view.error_code is not None:
            error = Reason(code=view.error_code, message=view.error_message or "")
        warnings = []
        if view.metadata_problem is not None:
            warnings.append(Reason(code=InvalidMetadata.code, message=view.metadata_problem))
        if view.deletion_held:
            warnings.append(Reason(code=DELETION_HELD, message="The file is gone; its deletion waits for an operator."))
        return cls(
            document_id=view.document_id,
            name=view.name,
            title=view.title,
            tags=list(view.tags),
            metadata=view.metadata,
            object_key=view.object_key,
            status=view.status,
            error=error,
            warnings=warnings,
            searchable=view.searchable,
            chunks=ChunkProgress(planned=view.chunks.planned, embedded=view.chunks.embedded, failed=view.chunks.failed),
            stages=Stages(uploaded_at=view.uploaded_at, chunked_at=view.chunked_at, finished_at=view.finished_at),
            size_bytes=view.size_bytes,
            media_type=view.media_type,
            language=view.language,
            characters=view.characters,
            created_at=view.created_at,
            updated_at=view.updated_at,
        )


class DocumentPage(BaseModel):
    """Newest first."""

    documents: list[DocumentBody]
    next_cursor: str | None = Field(description="Ask for the next page with it; null at the end.")


class ChunkBody(BaseModel):
    """A passage: characters `char_start` to `char_end` of the text that was read from the file."""

    chunk_id: UUID
    ordinal: int
    text: str
    tokens: int
    char_start: int
    char_end: int
    page: int | None
    heading_path: list[str]
    language: str | None
    error: Reason | None = Field(description="Why the embedding provider refused it.")

    @classmethod
    def of(cls, row: Row) -> Self:
        """As the store has it."""
        values = {name: value for name, value in row.items() if name in cls.model_fields}
        error = None
        if row["error_code"] is not None:
            error = Reason(code=row["error_code"], message=row["error_message"] or "")
        return cls(**values, error=error)


class ChunkPage(BaseModel):
    """In the order of the text."""

    chunks: list[ChunkBody]
    next_cursor: str | None


class UploadForm(BaseModel):
    """Post a multipart form to `url`: these fields first, then the file as the field `file`."""

    url: str
    fields: dict[str, str]


class UploadBody(BaseModel):
    """Where to send the file, until when, and how large it may be."""

    document_id: UUID
    upload: UploadForm
    expires_at: datetime
    max_bytes: int


class UsageNumbers(BaseModel):
    """What was used. Without faults `tokens` equals `tokens_planned`, and nothing stays unsettled."""

    bytes: int = Field(description="Of files that were read and cut into chunks.")
    chunks: int
    tokens_planned: int = Field(description="Of texts that had no vector yet when their file was read.")
    tokens: int = Field(description="Of texts that the provider embedded, by our own estimate of tokens.")
    tokens_unsettled: int = Field(
        description="Being embedded now; or lost with a worker or an answer, so that the provider alone knows whether "
        "they were paid for."
    )
    provider_calls: int = Field(description="A request that several documents share counts with the first of them.")
    provider_calls_lost: int = Field(description="Of these, requests without an answer that could be used.")
    cost: float = Field(description="Of `tokens`, in dollars, at the price that this deployment was told.")


class UsageDay(UsageNumbers):
    """Work counts on the day (UTC) that it was begun."""

    day: date


class CapBody(BaseModel):
    """A limit that an operator has set. What was planned counts, or what was paid if that is more."""

    name: str = Field(examples=["tokens_per_month"])
    allowed: float
    used: float
    resets_on: date


class UsageBody(BaseModel):
    """What embedding documents took. Searches are not counted."""

    days: list[UsageDay]
    caps: list[CapBody]

    @classmethod
    def of(cls, report: UsageReport) -> Self:
        """As the store has it."""
        return cls(days=[UsageDay(**row) for row in report.days], caps=[CapBody(**row) for row in report.caps])


class DocumentUsage(UsageNumbers):
    """What one document took."""

    document_id: UUID
    name: str | None
    deleted: bool


class DocumentUsagePage(BaseModel):
    """In the order of the documents' ids, deleted ones too."""

    documents: list[DocumentUsage]
    next_cursor: str | None


class HealthBody(BaseModel):
    status: str = "ok"
