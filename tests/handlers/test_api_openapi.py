"""What is documented: one OpenAPI document of both functions, and its page."""

import re
from urllib.parse import urljoin

from openapi_spec_validator import validate

from tests.handlers.stage import (
    Stage,
)


def test_one_openapi_document_describes_both_functions(stage: Stage) -> None:
    answer = stage.stranger.send("GET", "/openapi.json")
    assert answer.headers["content-type"] == "application/json"
    schema = answer.json
    validate(schema)
    operations = {(method.upper(), path) for path, item in schema["paths"].items() for method in item}
    assert operations == {
        ("POST", "/v1/documents"),
        ("GET", "/v1/documents"),
        ("GET", "/v1/documents/{document_id}"),
        ("PATCH", "/v1/documents/{document_id}"),
        ("DELETE", "/v1/documents/{document_id}"),
        ("GET", "/v1/documents/{document_id}/chunks"),
        ("POST", "/v1/uploads"),
        ("POST", "/v1/search"),
        ("POST", "/v1/answers"),
        ("GET", "/v1/usage"),
        ("GET", "/v1/usage/documents"),
        ("GET", "/v1/health"),
    }
    search = {route.rule.pattern for route in stage.search_function.resolver._static_routes}
    assert search == {"^/v1/search$"}
    assert {route.rule.pattern for route in stage.answer_function.resolver._static_routes} == {"^/v1/answers$"}


def test_every_operation_documents_its_problems(stage: Stage) -> None:
    schema = stage.stranger.send("GET", "/openapi.json").json
    for item in schema["paths"].values():
        for operation in item.values():
            for status, response in operation["responses"].items():
                if int(status) >= 400:
                    assert list(response["content"]) == ["application/problem+json"]
                    assert response["content"]["application/problem+json"]["schema"]["$ref"].endswith("/Problem")
            assert {"500", "503"} <= set(operation["responses"])


def test_the_documentation_page_loads_nothing_from_elsewhere(stage: Stage) -> None:
    answer = stage.stranger.send("GET", "/docs")
    page = answer.body.decode()
    assert answer.headers["content-type"] == "text/html"
    assert len(page) > 1_000_000
    assert not re.search(r"<(script|link|img)[^>]*\s(src|href)=", page.split("<body>")[0])
    assert '"operationId": "upload_document"' in page


def test_what_is_tried_out_goes_to_where_the_document_is(stage: Stage) -> None:
    """Behind a stage, or on the local stack, the API does not begin at the root of its host."""
    (server,) = stage.stranger.send("GET", "/openapi.json").json["servers"]
    for base in ("https://x.example/", "http://127.0.0.1:4566/_aws/execute-api/a1b2/", "https://x.example/prod/"):
        assert urljoin(base + "docs", server["url"]) == urljoin(base + "openapi.json", server["url"]) == base


def test_the_page_is_small_on_the_way(stage: Stage) -> None:
    answer = stage.stranger.send("GET", "/docs", headers={"accept-encoding": "gzip, br"})
    assert answer.headers["content-encoding"] == "gzip"
    assert len(answer.body) < 1_000_000
