"""Edda's functions in this process, on a real Postgres: as far as there are no AWS services, it is what runs in Lambda.

The same: the api and search functions behind their HTTP gateway (keys, validation, JSON both ways), the verbs of the
chunk and embed functions as `edda.services` builds them, the parser's child process, the in-process model, every
statement in Postgres under row-level security. Not the same: the bucket is a dictionary, the queues are lists, whose
messages come once and in order, and nothing is a Lambda. Vectors of texts that this model embedded in an earlier run
come from a file. So many documents are ready in a fraction of the time.
"""

import base64
import contextlib
import os
import socket
import sys
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import httpx
from edda import owner, services
from edda.concurrency import Deadline, bounded
from edda.embedding import Embedding
from edda.errors import DocumentTooLarge, ObjectVanished
from edda.forms import parse_form
from edda.ingesting import Ingestion
from edda.messages import EmbedBatch, IngestVersion
from edda.models import ListedObject, ObjectListing, PresignedPost, StoredObject
from edda.observing import Observing
from edda.ports import QueuedMessage
from edda.runtime import run
from edda.s3_events import object_changes
from edda.services import ApiServices
from edda.settings import Settings
from edda.store.migrations import MigrationError

from evaluation.vectors import RememberingEmbedder, model_file
from functions.answer import app as answer_app
from functions.api import app as api_app
from functions.search import app as search_app
from local import postgres
from local.errors import StepFailed
from local.model import minilm_folder
from local.settings import LocalSettings
from local.stack import alone

WORK_S = 600.0  # for one round of work
REQUEST_S = 120.0
AT_ONCE = 4
ORIGIN = "http://edda.in-process"
VECTORS = "vectors.sqlite"
BUCKET = "http://bucket.in-process/"


@dataclass(slots=True)
class Bucket:
    """Objects in memory; what became of an object is with `changes` until it is taken."""

    changes: list[dict[str, Any]] = field(default_factory=list)
    _objects: dict[str, tuple[StoredObject, bytes]] = field(default_factory=dict)
    _numbers: "count[int]" = field(default_factory=lambda: count(1))

    async def head(self, key: str, version_id: str = "") -> StoredObject:
        return self._find(key, version_id)[0]

    async def download(self, key: str, version_id: str, path: Path, max_bytes: int) -> bytes:
        body = self._find(key, version_id)[1]
        if len(body) > max_bytes:
            raise DocumentTooLarge
        path.write_bytes(body)  # noqa: ASYNC240 - nobody waits for this process but itself
        return sha256(body).digest()

    async def read(self, key: str, max_bytes: int) -> bytes | None:
        if key not in self._objects:
            return None
        body = self._objects[key][1]
        if len(body) > max_bytes:
            raise DocumentTooLarge
        return body

    async def put(self, key: str, body: bytes, content_type: str) -> None:
        stored = StoredObject(key, uuid.uuid4().hex, len(body), content_type, datetime.now(UTC))
        self._objects[key] = stored, body
        self._note("ObjectCreated:Put", key)

    async def delete(self, key: str) -> None:
        if self._objects.pop(key, None):
            self._note("ObjectRemoved:DeleteMarkerCreated", key)

    async def page(self, prefix: str, after_key: str, limit: int) -> ObjectListing:
        keys = sorted((key for key in self._objects if key.startswith(prefix) and key > after_key), key=str.encode)
        newest = [self._objects[key][0] for key in keys[:limit]]
        listed = [ListedObject(one.key, one.version_id, False, one.last_modified) for one in newest]
        return ObjectListing(listed, keys[limit - 1] if len(keys) > limit else None)

    async def deleted_since(self, key: str, version_id: str, modified_at: datetime) -> bool:
        return False

    async def presign_post(self, key: str, content_type: str | None, max_bytes: int, expires_s: int) -> PresignedPost:
        return PresignedPost(BUCKET, {"key": key}, datetime.now(UTC))

    def _find(self, key: str, version_id: str) -> tuple[StoredObject, bytes]:
        stored = self._objects.get(key)
        if stored is None or version_id not in ("", stored[0].version_id):
            raise ObjectVanished
        return stored

    def _note(self, name: str, key: str) -> None:
        place = {"key": quote_plus(key), "sequencer": f"{next(self._numbers):016X}"}
        if key in self._objects:
            place["versionId"] = self._objects[key][0].version_id
        self.changes.append({"eventName": name, "s3": {"object": place}})


@dataclass(slots=True)
class Messages:
    """A queue: what was sent, until it is taken."""

    bodies: list[str] = field(default_factory=list)

    async def send(self, bodies: Sequence[str], group: str = "") -> list[int]:
        self.bodies += bodies
        return []

    async def delay(self, delays_s: Mapping[str, int]) -> None:
        """Nothing is delivered twice here."""

    async def receive(self) -> list[QueuedMessage]:
        return []

    async def remove(self, receipt_handles: Sequence[str]) -> None:
        """There are no dead letters here."""

    def take(self) -> list[str]:
        """All there are."""
        taken, self.bodies = self.bodies, []
        return taken


@dataclass(frozen=True, slots=True)
class InProcess:
    """A `Route`."""

    http: httpx.Client
    ingestion: Ingestion
    embedding: Embedding
    bucket: Bucket
    ingest_messages: Messages
    embed_messages: Messages
    side_by_side: int = 1  # a function has one request at a time

    def work(self, *, last: bool) -> None:
        """Chunk what was uploaded since while what was chunked before is embedded: the model has threads of its own."""
        while self.bucket.changes or self.ingest_messages.bodies or (last and self.embed_messages.bodies):
            run(self._round())

    async def _round(self) -> None:
        changes, self.bucket.changes[:] = list(self.bucket.changes), []
        versions, bodies = self.ingest_messages.take(), self.embed_messages.take()
        until = Deadline.after(WORK_S)

        async def embed() -> None:
            batches = [EmbedBatch.model_validate_json(body) for body in bodies]
            for failure in (await self.embedding.embed_batches(batches, until)).values():
                raise failure

        async def go_on(body: str) -> None:
            await self.ingestion.ingest(IngestVersion.model_validate_json(body), until)

        async def chunk(record: dict[str, Any]) -> None:
            for change in object_changes({"Records": [record]}):
                await self.ingestion.object_changed(change, until)

        jobs: list[Callable[[], Awaitable[None]]] = [embed, *(partial(chunk, record) for record in changes)]
        jobs += [partial(go_on, body) for body in versions]
        for outcome in await bounded(AT_ONCE, jobs, until):
            if isinstance(outcome, Exception):
                raise outcome


class _Context:
    """What is used of Lambda's context."""

    def get_remaining_time_in_millis(self) -> int:
        return int(REQUEST_S * 1000)


@dataclass(slots=True)
class _Functions(httpx.BaseTransport):
    """Requests to the functions' handlers, as API Gateway's HTTP API hands them over."""

    provide_api: Any
    bucket: Bucket
    api: Any = None

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        body = request.read()
        if str(request.url).startswith(BUCKET):
            form = parse_form(body, request.headers["content-type"])
            assert form.file is not None  # noqa: S101 - httpx made the form
            run(self.bucket.put(form.fields["key"][0], form.file.body, "application/octet-stream"))
            return httpx.Response(204)
        if self.api is None:
            self.api = api_app.build(self.provide_api)
        own = {"/v1/search": search_app.gateway, "/v1/answers": answer_app.gateway}
        gateway = own.get(request.url.path, self.api)
        answer = gateway(_event(request, body), _Context())
        content = answer.get("body") or ""
        raw = base64.b64decode(content) if answer.get("isBase64Encoded") else content.encode()
        return httpx.Response(answer["statusCode"], headers=answer.get("headers"), content=raw)


def _event(request: httpx.Request, body: bytes) -> dict[str, Any]:
    """Version 2.0 of the payload."""
    path, query = request.url.path, dict(request.url.params)
    context = {
        "http": {"method": request.method, "path": path, "protocol": "HTTP/1.1", "sourceIp": "", "userAgent": ""},
        "requestId": uuid.uuid4().hex,
        "stage": "$default",
    }
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": request.url.query.decode(),
        "headers": dict(request.headers),
        **({"queryStringParameters": query} if query else {}),
        "requestContext": context,
        "body": base64.b64encode(body).decode(),
        "isBase64Encoded": True,
    }


@contextlib.contextmanager
def in_process(state: Path, tenant: str, variables: Mapping[str, str]) -> Iterator[InProcess]:
    """Postgres and the functions for as long as the block lasts; the data stays in `state`. Once in a process.

    `variables` are environment variables of Edda's functions. Raises LocalError, StepFailed.
    """
    settings = LocalSettings(state=state, port=0, database_port=_free_port(), zipped_layers=False)
    state.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        stack.enter_context(alone(settings))
        postgres.stop_leftover_server(settings)
        database = stack.enter_context(postgres.database(settings))
        sys.path.insert(0, str(minilm_folder().parent))
        os.environ |= {
            **variables,
            "EDDA_DATABASE_URL": database.application_url,
            "EDDA_DATABASE_OWNER_URL": database.owner_url,
            "EDDA_UPLOADS_BUCKET": "in-process",
        }
        try:
            run(owner.migrate())
        except MigrationError as error:
            raise StepFailed(f"the data in {state} is of another version of Edda ({error}): remove it") from None
        key = str(run(owner.create_key(tenant, "evaluation"))["key"])
        stack.callback(lambda: run(services.aclose()))
        bucket, ingest_messages, embed_messages = Bucket(), Messages(), Messages()

        async def built() -> tuple[Ingestion, Embedding]:
            return await services.ingestion(), await services.embedding()

        ingestion, embedding = run(built())
        configured = Settings.from_environment()
        made_by = model_file() if configured.embedding_provider == "in-process" else configured.provider_base_url
        embedding = replace(embedding, embedder=RememberingEmbedder(embedding.embedder, state / VECTORS, made_by))
        ingestion = replace(
            ingestion,
            objects=bucket,
            observing=Observing(ingestion.observing.store, bucket),
            ingest_queue=ingest_messages,
            embed_queue=embed_messages,
            delivery=None,
            lane=None,
        )

        async def api_services() -> ApiServices:
            return replace(await services.api_services(), objects=bucket)

        http = stack.enter_context(
            httpx.Client(
                base_url=f"{ORIGIN}/v1/",
                headers={"Authorization": f"Bearer {key}"},
                transport=_Functions(api_services, bucket),
            )
        )
        try:
            yield InProcess(http, ingestion, embedding, bucket, ingest_messages, embed_messages)
        finally:
            parser = ingestion.parser
            if hasattr(parser, "close"):
                parser.close()


def _free_port() -> int:
    """Nobody listens there now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port
