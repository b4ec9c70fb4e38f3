"""The OpenAPI document: one for the whole API, though several functions answer it."""

import json
from importlib.resources import files
from typing import Any

from aws_lambda_powertools.event_handler import APIGatewayHttpResolver

from edda.answer_models import AnswerBody
from edda.gateway import responses
from edda.search_models import SearchBody

API_VERSION = "1"

POWERTOOLS_ERRORS = ("HTTPValidationError", "ValidationError", "ResponseValidationError")  # here they are problems

# The search and answer functions declare their operations by these; so does the api function, for the document alone.
SEARCH_OPERATION: dict[str, Any] = {
    "rule": "/v1/search",
    "summary": "Find passages by meaning and by words",
    "description": "Always as many hits as were asked for, if that many passages match (in mode text: have a word of "
    "the query). What only makes hits better may be missing, and `degraded` says so: hybrid goes by words alone when "
    "the embedding provider fails, and without the reranker when that fails; mode vector then answers 503.",
    "operation_id": "search",
    "tags": ["search"],
    "responses": responses(200, "Hits, best first", SearchBody),
}

ANSWER_OPERATION: dict[str, Any] = {
    "rule": "/v1/answers",
    "summary": "Answer a question from the documents, with citations",
    "description": "Every citation is checked against the stored text. Without a chat model, or when it fails or "
    "writes what the documents do not say, the answer is made of their best sentences: see `kind` and `degraded`. When "
    "nothing that was found answers the question, `status` is not_found. The answer comes whole: it is checked first.",
    "operation_id": "answer",
    "tags": ["search"],
    "responses": responses(200, "An answer, or that there is none", AnswerBody),
}

FILE_FORM: dict[str, Any] = {
    "type": "object",
    "required": ["file"],
    "properties": {
        "file": {"type": "string", "format": "binary", "description": "Up to 4.5 MB. Its name names the document."},
        "name": {"type": "string", "description": "Another name for it."},
        "title": {"type": "string"},
        "tags": {"type": "string", "description": "Separated by commas, or a JSON list, or the field several times."},
        "metadata": {"type": "string", "description": "A JSON object.", "examples": ['{"year": 2026}']},
    },
}
FILE_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "multipart/form-data": {"schema": FILE_FORM},
        "*/*": {"schema": {"type": "string", "format": "binary", "description": "The bare file; then give `name`."}},
    },
}


def document(resolver: APIGatewayHttpResolver) -> str:
    """The document as JSON."""
    # Half a second of models, for a page that is rarely read.
    from aws_lambda_powertools.event_handler.openapi.models import HTTPBearer

    resolver.configure_openapi(
        title="Edda",
        version=API_VERSION,
        description="Documents in, searchable knowledge out. Errors are RFC 9457 problem details with a stable code.",
        security_schemes={"key": HTTPBearer(description="Authorization: Bearer <key>. x-api-key works as well.")},
        security=[{"key": []}],
    )
    schema = json.loads(resolver.get_openapi_json_schema())
    schema["servers"] = [{"url": "."}]  # beside this document: behind a stage, or a path of the local stack
    for definition in POWERTOOLS_ERRORS:
        schema["components"]["schemas"].pop(definition, None)
    for operations in schema["paths"].values():
        for operation in operations.values():
            _correct(operation)
    return json.dumps(schema, ensure_ascii=False)


def page(schema: str) -> str:
    """The document to read and to try, in one HTML page that loads nothing from elsewhere."""
    from aws_lambda_powertools.event_handler.openapi.swagger_ui import generate_swagger_html

    assets = files("aws_lambda_powertools.event_handler.openapi.swagger_ui")
    return generate_swagger_html(
        spec=schema.replace("</", "<\\/"),  # or a description could end the script
        swagger_js=assets.joinpath("swagger-ui-bundle.min.js").read_text(encoding="utf-8"),
        swagger_css=assets.joinpath("swagger-ui.min.css").read_text(encoding="utf-8"),
        swagger_base_url="",
        oauth2_config=None,
        persist_authorization=True,
    )


def _correct(operation: dict[str, Any]) -> None:
    """What cannot be said in the declaration of a route."""
    operation["responses"].get("204", {}).pop("content", None)
    if operation["operationId"] == "upload_document":
        operation["requestBody"] = FILE_BODY
    if operation["operationId"] == "health":
        operation["security"] = []
        for status in ("400", "401", "413", "422"):
            del operation["responses"][status]
