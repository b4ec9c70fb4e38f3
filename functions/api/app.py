"""The documents API: upload, status, list, change, delete."""

import re
from collections.abc import Awaitable, Callable, Sequence
from datetime import date
from typing import Annotated, Any
from uuid import UUID

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Body, Header, Path, Query
from edda import openapi, preloading, services
from edda.answer_models import AnswerRequest
from edda.api_models import (
    DEFAULT_PAGE,
    MAX_PAGE,
    MEDIA_TYPE,
    ChunkBody,
    ChunkPage,
    DocumentBody,
    DocumentChange,
    DocumentPage,
    DocumentUsage,
    DocumentUsagePage,
    HealthBody,
    NewDocument,
    NewUpload,
    UploadBody,
    UploadForm,
    UsageBody,
)
from edda.documents import Description, Documents
from edda.errors import InvalidFilter, InvalidRequest, MalformedBody, NotFound, UnsupportedMediaType
from edda.field_problems import field_problems
from edda.filters import Filter, parse_filter
from edda.forms import Form, FormFile, parse_form
from edda.gateway import NOT_FOUND, PROBLEM, Event, Gateway, answer, file_body, parse_json, responses
from edda.models import DocumentStatus
from edda.observability import function_logger
from edda.reporting import Reporting
from edda.runtime import LambdaContext
from edda.search_models import SearchRequest
from edda.services import ApiServices
from pydantic import ValidationError

# Lambda takes 6 MB of event, in which base64 makes 4 bytes of 3; the rest is for headers and the form's own lines.
MAX_DIRECT_BYTES = 4_500_000
UNKNOWN_TYPE = "application/octet-stream"
BARE_FORM_TYPE = "application/x-www-form-urlencoded"  # what `curl --data-binary` says when it is told nothing
PUBLIC = frozenset({"/v1/health", "/openapi.json", "/docs"})

DocumentId = Annotated[str, Path(description="As the upload gave it.", json_schema_extra={"format": "uuid"})]
Cursor = Annotated[str | None, Query(description="next_cursor of the page before.", max_length=500)]
FirstDay = Annotated[date | None, Query(description="UTC; the first of the month by default.")]
LastDay = Annotated[date | None, Query(description="UTC; today by default.")]
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE)]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern="^[!-~]+$",
        description="Send the same key when you repeat a request, and it happens once.",
    ),
]
CONFLICT: dict[int, Any] = {409: {"description": "The document of this idempotency key was deleted", **PROBLEM}}
OVER_QUOTA: dict[int, Any] = {
    429: {"description": "`quota_exceeded`: a usage cap is reached; `Retry-After` says when it counts anew", **PROBLEM}
}
UNSUPPORTED: dict[int, Any] = {415: {"description": "Neither a form nor a file with a name", **PROBLEM}}


def build(provide: Callable[[], Awaitable[ApiServices]]) -> Gateway:
    """The function, on these services."""
    gateway = Gateway(provide, public=PUBLIC, takes_files=frozenset({"/v1/documents"}))
    app = gateway.resolver

    async def verbs() -> Documents:
        built = await provide()
        return Documents(built.documents, built.objects, built.settings.max_document_bytes)

    @app.post(
        "/v1/documents",
        summary="Upload a file of up to 4.5 MB",
        description="As a form, or bare with its name in the query. It is read and embedded after the answer: "
        "ask for the document until its status is ready, partial or failed.",
        operation_id="upload_document",
        tags=["documents"],
        responses=responses(
            202, "Accepted; where it stands is at Location", DocumentBody, CONFLICT, UNSUPPORTED, OVER_QUOTA
        ),
    )
    def upload_document(
        idempotency_key: IdempotencyKey = None,
        name: Annotated[str | None, Query(description="For a bare file: its name.")] = None,
        title: Annotated[str | None, Query(description="For a bare file.")] = None,
        tags: Annotated[str | None, Query(description="For a bare file: separated by commas.")] = None,
        metadata: Annotated[str | None, Query(description="For a bare file: a JSON object.")] = None,
    ) -> Response[Any]:
        content_type = app.current_event.headers.get("content-type", "")
        body = file_body(app.current_event, MAX_DIRECT_BYTES)
        if content_type.lower().startswith("multipart/form-data"):
            form = parse_form(body, content_type)
        else:
            said = {"name": name, "title": title, "tags": tags, "metadata": metadata}
            form = bare_file(body, content_type, {field: [text] for field, text in said.items() if text is not None})
        description, file = read_form(form)

        async def work() -> DocumentBody:
            documents = await verbs()
            view = await documents.upload(
                gateway.tenant, description, file.body, media_type(file.content_type), idempotency_key
            )
            return DocumentBody.of(view)

        document = gateway.run(work())
        return answer(document, 202, {"Location": f"/v1/documents/{document.document_id}"})

    @app.post(
        "/v1/uploads",
        summary="Get a form for a file of any size",
        description="Post the file straight to storage with it. The document exists from now on, and waits.",
        operation_id="promise_upload",
        tags=["documents"],
        responses=responses(201, "A form for one file", UploadBody, CONFLICT, OVER_QUOTA),
    )
    def promise_upload(upload: Annotated[NewUpload, Body()], idempotency_key: IdempotencyKey = None) -> Response[Any]:
        async def work() -> UploadBody:
            promise = await (await verbs()).promise(
                gateway.tenant, described(upload), upload.size_bytes, upload.content_type, idempotency_key
            )
            return UploadBody(
                document_id=promise.document_id,
                upload=UploadForm(url=promise.form.url, fields=promise.form.fields),
                expires_at=promise.form.expires_at,
                max_bytes=promise.max_bytes,
            )

        promised = gateway.run(work())
        return answer(promised, 201, {"Location": f"/v1/documents/{promised.document_id}"})

    @app.get(
        "/v1/documents",
        summary="List documents, newest first",
        operation_id="list_documents",
        tags=["documents"],
        responses=responses(200, "A page", DocumentPage),
    )
    def list_documents(
        cursor: Cursor = None,
        limit: Limit = DEFAULT_PAGE,
        status: DocumentStatus | None = None,
        filter: Annotated[str | None, Query(description="A filter as for search, as JSON.")] = None,
    ) -> Response[Any]:
        wanted = read_filter(filter)

        async def work() -> DocumentPage:
            page = await (await verbs()).page(gateway.tenant, wanted, status, cursor, limit)
            return DocumentPage(documents=[DocumentBody.of(view) for view in page.items], next_cursor=page.next_cursor)

        return answer(gateway.run(work()))

    @app.get(
        "/v1/documents/<document_id>",
        summary="Where a document stands",
        operation_id="get_document",
        tags=["documents"],
        responses=responses(200, "The document", DocumentBody, NOT_FOUND),
    )
    def get_document(document_id: DocumentId) -> Response[Any]:
        async def work() -> DocumentBody:
            return DocumentBody.of(await (await verbs()).get(gateway.tenant, an_id(document_id)))

        return answer(gateway.run(work()))

    @app.get(
        "/v1/documents/<document_id>/chunks",
        summary="The passages of a document",
        description="Of the version that search sees, or else of the newest.",
        operation_id="list_chunks",
        tags=["documents"],
        responses=responses(200, "A page", ChunkPage, NOT_FOUND),
    )
    def list_chunks(document_id: DocumentId, cursor: Cursor = None, limit: Limit = DEFAULT_PAGE) -> Response[Any]:
        async def work() -> ChunkPage:
            page = await (await verbs()).chunks(gateway.tenant, an_id(document_id), cursor, limit)
            return ChunkPage(chunks=[ChunkBody.of(row) for row in page.items], next_cursor=page.next_cursor)

        return answer(gateway.run(work()))

    @app.patch(
        "/v1/documents/<document_id>",
        summary="Change name, title, tags or metadata",
        description="What is absent stays as it is; tags and metadata are replaced as a whole. Nothing is embedded "
        "again, and the next search sees it (words of a title in the first 256 passages; in others within minutes).",
        operation_id="update_document",
        tags=["documents"],
        responses=responses(200, "The document", DocumentBody, NOT_FOUND),
    )
    def update_document(document_id: DocumentId, change: Annotated[DocumentChange, Body()]) -> Response[Any]:
        async def work() -> DocumentBody:
            documents = await verbs()
            return DocumentBody.of(await documents.update(gateway.tenant, an_id(document_id), change.changes()))

        return answer(gateway.run(work()))

    @app.delete(
        "/v1/documents/<document_id>",
        summary="Delete a document and its file",
        description="It is gone from search at once. May be repeated.",
        operation_id="delete_document",
        tags=["documents"],
        responses=responses(204, "Gone", None, NOT_FOUND),
    )
    def delete_document(document_id: DocumentId) -> Response[Any]:
        async def work() -> None:
            await (await verbs()).delete(gateway.tenant, an_id(document_id))

        gateway.run(work())
        return Response(status_code=204, body="")

    @app.get(
        "/v1/usage",
        summary="What embedding took, by day",
        description="Of all your documents or of one, and how much of your caps is used.",
        operation_id="usage",
        tags=["usage"],
        responses=responses(200, "Days on which something was done", UsageBody),
    )
    def usage(
        first_day: FirstDay = None,
        last_day: LastDay = None,
        document_id: Annotated[UUID | None, Query(description="Only this document's.")] = None,
    ) -> Response[Any]:
        async def work() -> UsageBody:
            reporting = Reporting((await provide()).usage)
            return UsageBody.of(await reporting.by_day(gateway.tenant, first_day, last_day, document_id))

        return answer(gateway.run(work()))

    @app.get(
        "/v1/usage/documents",
        summary="What embedding took, by document",
        operation_id="usage_by_document",
        tags=["usage"],
        responses=responses(200, "A page", DocumentUsagePage),
    )
    def usage_by_document(
        first_day: FirstDay = None, last_day: LastDay = None, cursor: Cursor = None, limit: Limit = DEFAULT_PAGE
    ) -> Response[Any]:
        async def work() -> DocumentUsagePage:
            reporting = Reporting((await provide()).usage)
            page = await reporting.by_document(gateway.tenant, first_day, last_day, cursor, limit)
            return DocumentUsagePage(
                documents=[DocumentUsage(**row) for row in page.items], next_cursor=page.next_cursor
            )

        return answer(gateway.run(work()))

    @app.post(**openapi.ANSWER_OPERATION)
    def answers(question: Annotated[AnswerRequest, Body()]) -> Response[Any]:
        raise NotFound  # as below

    @app.post(**openapi.SEARCH_OPERATION)
    def search(question: Annotated[SearchRequest, Body()]) -> Response[Any]:
        raise NotFound  # the gateway sends it to the search function; here it is for the OpenAPI document

    @app.get(
        "/v1/health",
        summary="Is the database there?",
        operation_id="health",
        tags=["service"],
        responses=responses(200, "It is", HealthBody),
    )
    def health() -> Response[Any]:
        async def work() -> None:
            async with (await provide()).database.transaction(None) as cursor:
                await cursor.execute("SELECT 1")

        gateway.run(work())
        return answer(HealthBody())

    @app.get("/openapi.json", include_in_schema=False, compress=True)
    def openapi_document() -> Response[Any]:
        return Response(status_code=200, content_type="application/json", body=openapi.document(app))

    @app.get("/docs", include_in_schema=False, compress=True)
    def documentation() -> Response[Any]:
        return Response(status_code=200, content_type="text/html", body=openapi.page(openapi.document(app)))

    return gateway


def bare_file(body: bytes, content_type: str, fields: dict[str, list[str]]) -> Form:
    """A file that is the whole body. Raises UnsupportedMediaType when nothing says what it is called."""
    if not fields.get("name"):
        raise UnsupportedMediaType(
            "Send the file as the field `file` of multipart/form-data, or bare with ?name=<its name>."
        )
    return Form(FormFile("", None if content_type == BARE_FORM_TYPE else content_type, body), fields)


def read_form(form: Form) -> tuple[Description, FormFile]:
    """What a form says. Raises InvalidRequest."""
    if form.file is None:
        raise InvalidRequest(problems=[{"field": "file", "message": "is missing"}])
    unknown = sorted(set(form.fields) - set(NewDocument.model_fields))
    if unknown:
        raise InvalidRequest(problems=[{"field": name, "message": "is not a field of this form"} for name in unknown])
    last = {name: texts[-1] for name, texts in form.fields.items()}
    said = {
        "name": last.get("name") or form.file.name,
        "title": last.get("title"),
        "tags": read_tags(form.fields.get("tags", ())),
        "metadata": read_json("metadata", last["metadata"]) if last.get("metadata") else {},
    }
    try:
        return described(NewDocument.model_validate(said)), form.file
    except ValidationError as error:
        raise InvalidRequest(problems=field_problems(error.errors())) from None


def read_tags(texts: Sequence[str]) -> list[Any]:
    """Of one field or several: a JSON list, or separated by commas."""
    tags: list[Any] = []
    for text in texts:
        listed = read_json("tags", text) if text.lstrip().startswith("[") else text.split(",")
        tags += [tag for tag in listed if not isinstance(tag, str) or tag.strip()]
    return tags


def read_json(field: str, text: str) -> Any:
    """JSON in a field of a form. Raises InvalidRequest."""
    try:
        return parse_json(text)
    except MalformedBody as error:
        raise InvalidRequest(problems=[{"field": field, "message": error.message}]) from None


def read_filter(text: str | None) -> Filter | None:
    """A filter in the query. Raises InvalidFilter."""
    try:
        return None if text is None else parse_filter(parse_json(text))
    except MalformedBody as error:
        raise InvalidFilter(problems=[{"field": "filter", "message": error.message}]) from None


def media_type(said: str | None) -> str:
    """What the client says, if it is a media type: it goes into a header of the object."""
    return said if said is not None and re.fullmatch(MEDIA_TYPE, said) else UNKNOWN_TYPE


def described(document: NewDocument) -> Description:
    return Description(document.name, document.title, document.tags, document.metadata)


def an_id(text: str) -> UUID:
    """Raises NotFound: what is no id is no document's."""
    try:
        document_id = UUID(text)
    except ValueError:
        raise NotFound from None
    if str(document_id) != text.lower():
        raise NotFound
    return document_id


gateway = build(services.api_services)
preloading.preload(preloading.API)


def lambda_handler(event: Event, context: LambdaContext) -> Event:
    """One request of the HTTP API, payload version 2.0."""
    function_logger()
    return gateway(event, context)
