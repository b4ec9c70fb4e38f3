"""The composition root: the one place where real things are built, one builder a function.

Built on the first invocation and kept while the execution environment lives. Imports are made here, where they are
needed, so that a function loads only what it uses.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from edda.adapters.aws import AwsClients
from edda.conninfo import app_conninfo
from edda.errors import InvalidRequest
from edda.models import EmbeddingLimits, EmbeddingModel
from edda.ports import ObjectStore, Queue
from edda.providers import build_chat, build_embedder, build_reranker, model_name
from edda.settings import Settings
from edda.store.database import Database
from edda.store.keys import KeyStore
from edda.store.models import find_model

if TYPE_CHECKING:
    from edda.answering import Answering
    from edda.delivering import Delivery
    from edda.embedding import Embedding
    from edda.governing import Governor
    from edda.ingesting import Ingestion
    from edda.operating import Operating
    from edda.searching import Searching
    from edda.store.bucket import DeleteBrake
    from edda.store.documents import DocumentStore
    from edda.store.usage import UsageStore
    from edda.sweeping import Sweep

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ApiServices:
    """What the api function uses."""

    settings: Settings
    documents: "DocumentStore"
    keys: KeyStore
    usage: "UsageStore"
    objects: ObjectStore
    database: Database


@dataclass(frozen=True, slots=True)
class SearchServices:
    """What the search function uses."""

    settings: Settings
    searching: "Searching"
    keys: KeyStore
    database: Database


@dataclass(frozen=True, slots=True)
class AnswerServices:
    """What the answer function uses."""

    settings: Settings
    answering: "Answering"
    keys: KeyStore
    database: Database


class Closable(Protocol):
    """Holds connections."""

    async def aclose(self) -> None: ...


_opened: list[Closable] = []
C = TypeVar("C", bound=Closable)


def _opens(thing: C) -> C:
    _opened.append(thing)
    return thing


async def aclose(*, keep: int = 0) -> None:
    """Close every connection that was opened here, but the first so many. Lambda never asks; tests do, and whoever
    else ends in good order."""
    while len(_opened) > keep:
        await _opened.pop().aclose()


def once(build: Callable[[], Awaitable[T]]) -> Callable[[], Awaitable[T]]:
    """Build at the first call and hand out the same ever after.

    A build that failed is tried again by the next invocation, so it may leave no connection open.
    """
    built: list[T] = []

    async def get() -> T:
        if not built:
            opened_before = len(_opened)
            try:
                built.append(await build())
            except BaseException:
                await aclose(keep=opened_before)
                raise
        return built[0]

    return get


async def _connected(*, patient: bool = False) -> tuple[Settings, AwsClients, Database, EmbeddingModel]:
    """What every function that works on rows begins with; one that works from a queue is patient with Postgres."""
    settings, clients = Settings.from_environment(), _opens(AwsClients())
    database = _database(settings, clients, patience_s=settings.database_patience_s if patient else 0)
    return settings, clients, database, await find_model(database, model_name(settings), settings.embedding_dimensions)


@once
async def api_services() -> ApiServices:
    """For functions/api."""
    from edda.adapters.s3 import S3ObjectStore
    from edda.store.documents import DocumentStore
    from edda.store.usage import UsageStore

    settings, clients, database, model = await _connected()
    return ApiServices(
        settings=settings,
        documents=DocumentStore(database, model.model_id),
        keys=KeyStore(database),
        usage=UsageStore(database),
        objects=S3ObjectStore(clients, settings.uploads_bucket),
        database=database,
    )


@once
async def search_services() -> SearchServices:
    """For functions/search."""
    settings, clients, database, model = await _connected()
    return SearchServices(
        settings=settings,
        searching=await build_searching(settings, clients, database, model),
        keys=KeyStore(database),
        database=database,
    )


@once
async def answer_services() -> AnswerServices:
    """For functions/answer."""
    from edda.answering import Answering

    settings, clients, database, model = await _connected()
    searching = await build_searching(settings, clients, database, model)
    chat = build_chat(settings, clients)
    return AnswerServices(
        settings=settings,
        answering=Answering(searching, None if chat is None else _opens(chat), settings.answer_threshold),
        keys=KeyStore(database),
        database=database,
    )


async def build_searching(
    settings: Settings, clients: AwsClients, database: Database, model: EmbeddingModel
) -> "Searching":
    """The search verb, with its models."""
    from edda.searching import Reranking, Searching
    from edda.store.search import SearchStore

    embedder = _opens(await build_embedder(settings, clients))
    reranking = None
    if (reranker := await build_reranker(settings, clients)) is not None:
        reranking = Reranking(_opens(reranker), settings.rerank_candidates, settings.rerank_timeout_s)
    return Searching(SearchStore(database, model), embedder, reranking, settings.embedding_languages)


@once
async def ingestion() -> "Ingestion":
    """For functions/chunk."""
    from edda.adapters.parser_process import ParserProcess
    from edda.adapters.s3 import S3ObjectStore
    from edda.ingesting import Ingestion, Lane
    from edda.observing import Observing
    from edda.scratch import remove_leftovers
    from edda.store.bucket import BucketStore
    from edda.store.ingest import BATCH_CHUNKS, IngestStore

    remove_leftovers()
    settings, clients, database, model = await _connected(patient=True)
    objects = S3ObjectStore(clients, settings.uploads_bucket)
    # A model on this processor is slow: its work is spread over more environments.
    batch_chunks = 64 if settings.embedding_provider == "in-process" else BATCH_CHUNKS
    return Ingestion(
        store=IngestStore(database, model.model_id, batch_chunks=batch_chunks),
        keys=KeyStore(database),
        observing=Observing(BucketStore(database, _brake(settings)), objects),
        objects=objects,
        parser=ParserProcess(settings),
        ingest_queue=_queue(clients, settings.ingest_queue_url),
        embed_queue=_queue(clients, settings.embed_queue_url),
        max_document_bytes=settings.max_document_bytes,
        max_chunks=settings.max_chunks,
        delivery=_delivery(settings, clients, database),
        # From the bucket's own events, half of the workers: the others pass on what waits behind them.
        lane=Lane(_queue(clients, settings.ingest_queue_url), max(1, settings.chunk_concurrency // 2)),
    )


@once
async def embedding() -> "Embedding":
    """For functions/embed."""
    import gc

    import numpy  # noqa: F401 - vectors.py will need it: it is loaded before the first answer is there

    from edda.embedding import Embedding
    from edda.store.embed import EmbedStore

    settings, clients, database, model = await _connected(patient=True)
    embedder = _opens(await build_embedder(settings, clients))
    # An event makes tens of thousands of objects, none of them in a cycle: looking for cycles among them, and among all
    # that was imported, took a quarter of the function's CPU.
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
    return Embedding(
        store=EmbedStore(database, model.model_id),
        embedder=embedder,
        delivery=_delivery(settings, clients, database),
        governor=_governor(settings, database, embedder.limits),
    )


def _governor(settings: Settings, database: Database, limits: EmbeddingLimits) -> "Governor | None":
    """Who asks the same model at the same address shares its limits; a model in this process has none."""
    from edda.budgets import provider_key
    from edda.governing import Governor
    from edda.store.budgets import BudgetStore

    if settings.embedding_provider == "in-process":
        return None
    address = settings.provider_base_url if settings.embedding_provider == "openai" else ""
    key = provider_key(settings.embedding_provider, address, settings.embedding_model)
    return Governor(BudgetStore(database, key), limits.max_concurrent_requests)


@once
async def ingest_queue() -> Queue:
    """Where the chunk function's messages come from."""
    return _queue(_opens(AwsClients()), Settings.from_environment().ingest_queue_url)


@once
async def embed_queue() -> Queue:
    """Where the embed function's messages come from."""
    return _queue(_opens(AwsClients()), Settings.from_environment().embed_queue_url)


@once
async def sweeping() -> "Sweep":
    """For functions/sweep."""
    from edda.adapters.s3 import S3ObjectStore
    from edda.observing import Observing
    from edda.store.bucket import BucketStore
    from edda.store.ingest import IngestStore
    from edda.store.sweep import Patience, SweepStore
    from edda.sweeping import Sweep

    settings, clients, database, model = await _connected()
    bucket, objects = BucketStore(database, _brake(settings)), S3ObjectStore(clients, settings.uploads_bucket)
    return Sweep(
        store=SweepStore(database, model.model_id),
        ingest_store=IngestStore(database, model.model_id),
        bucket=bucket,
        keys=KeyStore(database),
        observing=Observing(bucket, objects),
        objects=objects,
        patience=Patience(walk_s=settings.walk_interval_s, history_days=settings.history_days),
        ingest_queue=_queue(clients, settings.ingest_queue_url),
        embed_queue=_queue(clients, settings.embed_queue_url),
        delivery=_delivery(settings, clients, database),
    )


@once
async def operating() -> "Operating":
    """For an operator, under the application's role, which sees one tenant at a time."""
    from edda.operating import Operating
    from edda.store.bucket import BucketStore
    from edda.store.redrive import RedriveStore

    settings = Settings.from_environment()
    database = _database(settings, _opens(AwsClients()))
    store = RedriveStore(database)
    if not await store.sees_one_tenant_only():
        raise InvalidRequest("The database role sees the rows of all tenants; use the application's, edda_app.")
    return Operating(store, BucketStore(database, _brake(settings)), KeyStore(database))


async def redrive_queue(name: str) -> dict[str, int]:
    """Move the dead letters of the ingest or the embed queue back to it. Raises InvalidRequest for another name."""
    settings = Settings.from_environment()
    urls = {
        "ingest": (settings.ingest_dead_letter_queue_url, settings.ingest_queue_url),
        "embed": (settings.embed_dead_letter_queue_url, settings.embed_queue_url),
    }
    if name not in urls:
        raise InvalidRequest("The queue is ingest or embed.")
    dead_letters, queue = urls[name]
    if not dead_letters or not queue:
        wanted = f"EDDA_{name.upper()}_DEAD_LETTER_QUEUE_URL and EDDA_{name.upper()}_QUEUE_URL"
        raise InvalidRequest(f"Set {wanted} to the queues' URLs.")
    async with AwsClients() as clients:
        return await (await operating()).redrive_queue(_queue(clients, dead_letters), _queue(clients, queue))


def _database(settings: Settings, clients: AwsClients, *, patience_s: float = 0) -> Database:
    from edda.adapters.secrets import SecretsManager

    async def conninfo() -> str:
        return await app_conninfo(settings, SecretsManager(clients))

    return _opens(Database(conninfo, patience_s=patience_s))


def _brake(settings: Settings) -> "DeleteBrake":
    from edda.store.bucket import DeleteBrake

    return DeleteBrake(settings.delete_brake_percent, settings.delete_brake_minimum)


def _queue(clients: AwsClients, url: str) -> Queue:
    from edda.adapters.sqs import SqsQueue

    return SqsQueue(clients, url)


def _delivery(settings: Settings, clients: AwsClients, database: Database) -> "Delivery":
    from edda.adapters.event_bus import EventBridge
    from edda.adapters.webhooks import HttpWebhooks
    from edda.delivering import Delivery
    from edda.store.events import EventStore

    return Delivery(
        store=EventStore(database),
        keys=KeyStore(database),
        webhooks=_opens(HttpWebhooks(allow_private=settings.webhook_allow_private)),
        bus=EventBridge(clients, settings.event_bus_name) if settings.event_bus_name else None,
    )
