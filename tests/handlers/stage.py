"""Both HTTP functions on a real database, called with the events that an HTTP API makes of requests.

A world (see tests/database/world.py) is a tenant with its pipeline; two of them share the database and the bucket.
"""

import base64
import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
from edda.answering import Answering
from edda.gateway import Gateway
from edda.models import EmbeddingModel
from edda.ports import ChatModel, Reranker
from edda.runtime import run
from edda.searching import Reranking, Searching
from edda.services import AnswerServices, ApiServices, SearchServices
from edda.settings import Settings
from edda.store.documents import DocumentStore
from edda.store.keys import KeyStore, create_key
from edda.store.search import SearchStore
from edda.store.usage import UsageStore
from hypothesis import HealthCheck
from hypothesis import settings as fuzzing

from functions.answer import app as answer_app
from functions.api import app as api_app
from functions.search import app as search_app
from tests.database.world import World
from tests.postgres import DatabaseUrls

EVENTS = Path(__file__).parents[2] / "events"
MAX_DOCUMENT_BYTES = 1_000_000
FUZZ = fuzzing(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
HOSTILE = "author' = 'alice' OR '1'='1' --"


@dataclass(slots=True)
class Context:
    """What is used of Lambda's context."""

    seconds: float = 29

    def get_remaining_time_in_millis(self) -> int:
        return int(self.seconds * 1000)


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def fields(self) -> list[str]:
        """The places of the mistakes that a problem names."""
        return [error["field"] for error in self.json["errors"]]


def event(name: str) -> dict[str, Any]:
    """One of the events in events/."""
    found: dict[str, Any] = json.loads((EVENTS / f"{name}.json").read_text())
    return found


def http_event(
    method: str,
    path: str,
    *,
    query: Mapping[str, Any] | None = None,
    body: bytes | str = b"",
    headers: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """What an HTTP API sends of a request: as in the recorded one, with this in its place."""
    made = copy.deepcopy(event("search-question"))
    made["rawPath"] = made["requestContext"]["http"]["path"] = path
    made["requestContext"]["http"]["method"] = method
    made["rawQueryString"] = urlencode(query or {})
    if query:
        made["queryStringParameters"] = {name: str(value) for name, value in query.items()}
    for name in ("authorization", "content-type", "content-length"):
        made["headers"].pop(name, None)
    made["headers"] |= {name.lower(): value for name, value in (headers or {}).items()}
    del made["body"]
    if isinstance(body, bytes) and body:
        made["body"] = base64.b64encode(body).decode()
        made["isBase64Encoded"] = True
    elif body:
        made["body"] = body
    return made


def call(gateway: Gateway, request: dict[str, Any], context: Context | None = None) -> Answer:
    """One invocation; the answer as the client gets it."""
    answered = gateway(request, context or Context())
    assert json.loads(json.dumps(answered)) == answered  # Lambda makes JSON of it
    body = answered.get("body") or ""
    raw = base64.b64decode(body) if answered.get("isBase64Encoded") else body.encode()
    return Answer(answered["statusCode"], {k.lower(): v for k, v in answered.get("headers", {}).items()}, raw)


@dataclass(frozen=True, slots=True)
class Client:
    """A caller with a key, or without one."""

    api: Gateway
    search_function: Gateway
    answer_function: Gateway
    key: str | None

    def send(self, method: str, path: str, **request: Any) -> Answer:
        """To the function that the routes of the template would send it to."""
        headers = dict(request.pop("headers", {}))
        if self.key is not None:
            headers.setdefault("authorization", f"Bearer {self.key}")
        if "json" in request:
            request["body"] = json.dumps(request.pop("json"))
            headers.setdefault("content-type", "application/json")
        routes = {("POST", "/v1/search"): self.search_function, ("POST", "/v1/answers"): self.answer_function}
        gateway = routes.get((method, path), self.api)
        return call(gateway, http_event(method, path, headers=headers, **request))

    def upload(
        self, content: bytes = b"Some text.", name: str = "a.txt", *, idempotency_key: str = "", **fields: Any
    ) -> Answer:
        """As a form, made by a real client."""
        made = httpx.Request("POST", "http://edda", files={"file": (name, content, "text/plain")}, data=fields)
        headers = {"content-type": made.headers["content-type"]}
        if idempotency_key:
            headers["idempotency-key"] = idempotency_key
        return self.send("POST", "/v1/documents", body=made.read(), headers=headers)

    def search(self, query: Any = "text", **rest: Any) -> Answer:
        return self.send("POST", "/v1/search", json={"query": query, **rest})

    def ask(self, question: Any, **rest: Any) -> Answer:
        return self.send("POST", "/v1/answers", json={"question": question, **rest})


@dataclass(slots=True)
class Stage:
    """Two tenants, their clients, and the functions."""

    world: World
    other_world: World
    api: Gateway
    search_function: Gateway
    answer_function: Gateway
    client: Client
    other: Client
    stranger: Client
    api_services: ApiServices
    search_services: SearchServices
    seen: int = field(default=0)

    def digest(self) -> None:
        """Let the pipeline take what was put into the bucket since."""
        records, self.seen = self.world.objects.events[self.seen :], len(self.world.objects.events)
        for world in (self.world, self.other_world):
            own = [record for record in records if record["s3"]["object"]["key"].startswith(world.tenant.slug + "/")]
            run(world.notice(*own))
            run(world.embed())

    def ready(self, content: bytes = b"Some text.", name: str = "a.txt", **fields: Any) -> str:
        """The id of a document that is ready."""
        answer = self.client.upload(content, name, **fields)
        assert answer.status == 202, answer.body
        self.digest()
        return str(answer.json["document_id"])

    def with_chat(self, chat: ChatModel, client: Client | None = None) -> Client:
        """A client, by default the first tenant's, of a deployment that has a chat model."""
        function = _answer_function(self.search_services, chat)
        return replace(client or self.client, answer_function=function)

    def with_reranker(self, reranker: Reranker, candidates: int = 50, timeout_s: float = 5) -> Client:
        """The first tenant's client of a deployment that has a reranker."""
        searching = replace(self.search_services.searching, reranking=Reranking(reranker, candidates, timeout_s))
        services = replace(self.search_services, searching=searching)

        async def provide() -> SearchServices:
            return services

        return replace(self.client, search_function=search_app.build(provide))


def _answer_function(services: SearchServices, chat: ChatModel | None) -> Gateway:
    answering = Answering(services.searching, chat)

    async def provide() -> AnswerServices:
        return AnswerServices(services.settings, answering, services.keys, services.database)

    return answer_app.build(provide)


def build_stage(urls: DatabaseUrls, model: EmbeddingModel, number: int) -> Stage:
    """Tenants of their own for one test."""
    world = run(World.build(urls, model, f"acme-{number}"))
    other_world = run(World.build(urls, model, f"globex-{number}", database=world.database, objects=world.objects))
    settings, keys = Settings(max_document_bytes=MAX_DOCUMENT_BYTES), KeyStore(world.database)
    api_services = ApiServices(
        settings=settings,
        documents=DocumentStore(world.database, model.model_id),
        keys=keys,
        usage=UsageStore(world.database),
        objects=world.objects,
        database=world.database,
    )
    search_services = SearchServices(
        settings=settings,
        searching=Searching(SearchStore(world.database, model), world.embedder),
        keys=keys,
        database=world.database,
    )

    async def provide_api() -> ApiServices:
        return api_services

    async def provide_search() -> SearchServices:
        return search_services

    api, search = api_app.build(provide_api), search_app.build(provide_search)
    answer = _answer_function(search_services, None)
    key = run(create_key(urls.owner, world.tenant, "test"))
    other_key = run(create_key(urls.owner, other_world.tenant, "test"))
    return Stage(
        world=world,
        other_world=other_world,
        api=api,
        search_function=search,
        answer_function=answer,
        client=Client(api, search, answer, key),
        other=Client(api, search, answer, other_key),
        stranger=Client(api, search, answer, None),
        api_services=api_services,
        search_services=search_services,
    )


# What tests of both functions look at ---------------------------------------------------------------------------------


def assert_problem(answer: Answer, status: int, code: str) -> dict[str, Any]:
    """Every refusal is a problem of the same shape."""
    assert answer.status == status, answer.body
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json
    assert problem["type"] == f"urn:edda:problem:{code}"
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["request_id"] == event("search-question")["requestContext"]["requestId"]
    assert problem["title"]
    assert problem["detail"]
    return problem


def document(stage: Stage, document_id: str) -> Any:
    answer = stage.client.send("GET", f"/v1/documents/{document_id}")
    assert answer.status == 200, answer.body
    return answer.json


def stored(stage: Stage, document_id: str) -> bytes | None:
    """The object of a document."""
    return run(stage.world.objects.read(f"{stage.world.tenant.slug}/.edda/{document_id}", 10**8))


def with_key(name: str, client: Client) -> dict[str, Any]:
    recorded = event(name)
    recorded["headers"]["authorization"] = f"Bearer {client.key}"
    return recorded
