"""An execution environment: one function, imported afresh, with the real composition root and real things around it.

Postgres is real, S3 and SQS are the emulator, the provider is an HTTP server; only the parser is a stand-in, for a
process of its own is what it is there. Fixtures: conftest.py imports them.
"""

import asyncio
import importlib
import importlib.util
import json
import logging
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import UUID

import edda
import edda.gateway
import edda.observability
import edda.runtime
import edda.services
import pytest
from edda.models import EmbeddingModel, Tenant
from edda.store.keys import create_tenant
from edda.store.migrations import register_model

from tests.aws import client, make_queue, take
from tests.conftest import TEMPLATE
from tests.database.world import LineParser, check
from tests.fakes.provider_server import OpenAIServer, ProviderServer
from tests.postgres import MODEL_DIMENSIONS, Cluster, DatabaseUrls, as_owner

ROOT = Path(__file__).parents[2]
MODEL = "fake-embedding"
AFRESH = ("services", "runtime", "observability", "gateway")


@dataclass(frozen=True, slots=True)
class FakeContext:
    """Lambda's context, with so many seconds left."""

    seconds: float = 60

    def get_remaining_time_in_millis(self) -> int:
        return int(self.seconds * 1000)


def event(name: str, replacements: dict[str, str] | None = None) -> dict[str, Any]:
    """A file of events/, with some of its text replaced."""
    text = (ROOT / "events" / name).read_text(encoding="utf-8")
    for old, new in (replacements or {}).items():
        assert old in text, f"{name} does not hold {old}"
        text = text.replace(old, new)
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def failed_messages(answer: Any) -> list[str]:
    return sorted(failure["itemIdentifier"] for failure in answer["batchItemFailures"])


def call(lambda_handler: Any, invocation: dict[str, Any], seconds: float = 60) -> Any:
    """One invocation. What Lambda does with the answer: it must be JSON."""
    answer = lambda_handler(invocation, FakeContext(seconds))
    json.dumps(answer)
    return answer


@contextmanager
def silent_server() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@dataclass
class ServerThread:
    """A provider's server on a loop of its own, for handlers that block theirs."""

    server: ProviderServer
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)

    def start(self) -> None:
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self.server.__aenter__(), self._loop).result(10)

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self.server.__aexit__(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


@dataclass
class ProviderThread(ServerThread):
    """An embedding provider."""

    server: OpenAIServer = field(default_factory=lambda: OpenAIServer(MODEL_DIMENSIONS))

    @property
    def texts(self) -> list[str]:
        return [text for request in self.server.requests for text in request.body["input"]]


@pytest.fixture(scope="session")
def lambda_database(cluster: Cluster, template: EmbeddingModel) -> Iterator[DatabaseUrls]:
    """One database for the tests of the functions, with the model that their environment names."""
    cluster.administer(f"CREATE DATABASE edda_lambda TEMPLATE {TEMPLATE}")
    urls = cluster.urls("edda_lambda")
    asyncio.run(register_model(urls.owner, f"openai/{MODEL}", MODEL_DIMENSIONS))
    yield urls
    cluster.administer("DROP DATABASE edda_lambda WITH (FORCE)")


@pytest.fixture
def owner_of_acme(lambda_database: DatabaseUrls) -> Iterator[Tenant]:
    """The owner of the folder that the events name. Everything of the test's is gone when it ends."""
    yield asyncio.run(create_tenant(lambda_database.owner, "acme"))
    check(lambda_database)
    for table in ("documents", "embeddings", "api_keys", "tenants"):
        as_owner(lambda_database, f"DELETE FROM {table}")


@pytest.fixture
def provider() -> Iterator[ProviderThread]:
    thread = ProviderThread()
    thread.start()
    yield thread
    thread.stop()


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the functions' environment names."""

    urls: DatabaseUrls
    bucket: str
    ingest_queue: str
    embed_queue: str

    def put(self, key: str, body: str) -> str:
        """Store an object: its version."""
        answer = client("s3").put_object(Bucket=self.bucket, Key=key, Body=body.encode(), ContentType="text/plain")
        return str(answer["VersionId"])

    def taken(self, queue: str) -> list[dict[str, Any]]:
        return take(queue)

    def rows(self, query: str, values: Any = None) -> list[tuple[Any, ...]]:
        return as_owner(self.urls, query, values)

    def statuses(self) -> dict[str, str]:
        """The newest version's, by key below the tenant's folder."""
        query = (
            "SELECT object_key, v.status FROM documents d JOIN document_versions v USING (document_id) "
            "ORDER BY v.sequencer"
        )
        return {key.partition("/")[2]: status for key, status in self.rows(query)}


@pytest.fixture
def surroundings(
    lambda_database: DatabaseUrls, bucket: str, provider: ProviderThread, monkeypatch: pytest.MonkeyPatch
) -> Surroundings:
    built = Surroundings(lambda_database, bucket, make_queue(), make_queue())
    environment = {
        "EDDA_DATABASE_URL": lambda_database.app,
        "EDDA_DATABASE_PATIENCE_S": "0.5",
        "EDDA_UPLOADS_BUCKET": bucket,
        "EDDA_INGEST_QUEUE_URL": built.ingest_queue,
        "EDDA_EMBED_QUEUE_URL": built.embed_queue,
        "EDDA_EMBEDDING_PROVIDER": "openai",
        "EDDA_EMBEDDING_MODEL": MODEL,
        "EDDA_EMBEDDING_DIMENSIONS": str(MODEL_DIMENSIONS),
        "EDDA_PROVIDER_BASE_URL": provider.server.base_url,
        "EDDA_PROVIDER_API_KEY": "secret",
        "EDDA_MAX_DOCUMENT_BYTES": "10000",
        "LAMBDA_TASK_ROOT": "/var/task",
        "POWERTOOLS_SERVICE_NAME": "test",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return built


@pytest.fixture
def parser() -> LineParser:
    return LineParser()


ColdStart = Callable[[str], Any]


@pytest.fixture
def cold_start(monkeypatch: pytest.MonkeyPatch, parser: LineParser) -> Iterator[ColdStart]:
    """`cold_start("chunk")`: the handler of a function whose modules nobody has used before."""
    parser_process = ModuleType("edda.adapters.parser_process")
    parser_process.ParserProcess = lambda settings: parser  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "edda.adapters.parser_process", parser_process)
    package_log = logging.getLogger("edda")
    handlers, level, propagate = package_log.handlers, package_log.level, package_log.propagate
    started: list[tuple[Any, Any]] = []

    def start(verb: str) -> Any:
        for name in AFRESH:
            monkeypatch.delitem(sys.modules, f"edda.{name}")
            monkeypatch.delattr(edda, name)
        fresh = {name: importlib.import_module(f"edda.{name}") for name in AFRESH}
        started.append((fresh["services"], fresh["runtime"]))
        spec = importlib.util.spec_from_file_location(f"{verb}_app", ROOT / "functions" / verb / "app.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.lambda_handler

    yield start
    for services, runtime in started:
        runtime.run(services.aclose())
        runtime._runner.close()
    package_log.handlers, package_log.level, package_log.propagate = handlers, level, propagate


def version_ids(surroundings: Surroundings) -> list[UUID]:
    return [row[0] for row in surroundings.rows("SELECT version_id FROM document_versions ORDER BY created_at")]
