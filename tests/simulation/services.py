"""Edda in an execution environment of the simulation: the real verbs and adapters, what they reach is simulated."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import UUID

from edda.adapters.sqs import SqsQueue
from edda.batching import RetryPolicy
from edda.budgets import provider_key
from edda.documents import Documents
from edda.embedding import Embedding
from edda.errors import Corrupt
from edda.governing import Governor
from edda.ingesting import Ingestion, Lane
from edda.models import ParseCursor, ParseOutcome, StoredObject
from edda.observing import Observing
from edda.s3_events import document_key_of
from edda.store.bucket import BucketStore, DeleteBrake
from edda.store.budgets import BudgetStore
from edda.store.database import Cursor
from edda.store.documents import DocumentStore
from edda.store.embed import EmbedStore
from edda.store.ingest import IngestStore
from edda.store.keys import KeyStore
from edda.store.sweep import Patience, SweepStore
from edda.sweeping import Sweep

from tests.database.world import LineParser
from tests.simulation.aws import ObjectsOf, SimulatedQueue, SqsClients
from tests.simulation.connections import EnvironmentDatabase
from tests.simulation.lambdas import Environment, running_in
from tests.simulation.provider import SimulatedEmbedder
from tests.simulation.schedules import CORRUPT, DEADLY, MAX_CHUNKS

# The planted bugs run a changed copy of the source.
SOURCE = Path(os.environ.get("EDDA_SIMULATED_SOURCE", Path(__file__).parents[2]))

MAX_DOCUMENT_BYTES = 10_000
# How long the sweep waits for an event, and between two walks through the bucket: less than in truth (300 and 900 s),
# so that it often comes before a late event.
EVENT_S, WALK_S = 30, 60
LANE_SHARE = 1  # of two workers
BATCH_CHUNKS = 4  # documents have up to ten


class WatchedObjects(ObjectsOf):
    """It is known which file an environment reads; and between a look and what comes of it, it may fall asleep."""

    async def head(self, key: str, version_id: str = "") -> StoredObject:
        try:
            return await super().head(key, version_id)
        finally:
            if key == document_key_of(key):
                await self._environment.world.overtakable_step(self._environment, "look")

    async def download(self, key: str, version_id: str, path: Path, max_bytes: int) -> bytes:
        self._environment.world.observer.reads(self._environment, key, version_id)
        return await super().download(key, version_id, path, max_bytes)


class SleepyDatabase(EnvironmentDatabase):
    """Its environment may fall asleep before a transaction begins (while it holds a lock, nobody could overtake it),
    and a commit may have to wait for the disk: what others do meanwhile, they do without knowing of it."""

    @asynccontextmanager
    async def transaction(self, tenant_id: UUID | None) -> AsyncIterator[Cursor]:
        await self._environment.world.overtakable_step(self._environment, "begin")
        async with super().transaction(tenant_id) as cursor:
            yield cursor
            await asyncio.sleep(self._environment.world.commit_latency_s())


@dataclass(slots=True)
class SlowParser:
    """One chunk a line, so many lines a part; takes its time, as a real one."""

    environment: Environment

    async def parse(
        self, path: Path, name: str, content_type: str | None, cursor: ParseCursor | None = None
    ) -> ParseOutcome:
        world = self.environment.world
        with world.observer.parsing(self.environment):
            await world.overtakable_step(self.environment, "parse")
            await asyncio.sleep(world.random.uniform(0.2, 5) * world.parser_slowness)
        part = await LineParser(part_lines=world.part_lines).parse(path, name, content_type, cursor)
        text = "\n".join(chunk.text for chunk in part.chunks)
        if CORRUPT in text:
            raise Corrupt
        if DEADLY in text:
            await self.environment.kill_from_within()
        return part


@dataclass(slots=True)
class Services:
    """The composition root of one environment: edda.services, with the simulation's adapters."""

    environment: Environment
    embedder: SimulatedEmbedder | None = None
    governor: Governor | None = None

    async def ingestion(self) -> Ingestion:
        database, world = self.environment.database, self.environment.world
        return Ingestion(
            store=IngestStore(database, world.model_id, batch_chunks=BATCH_CHUNKS),
            keys=KeyStore(database),
            observing=self._observing(),
            objects=WatchedObjects(self.environment),
            parser=SlowParser(self.environment),
            ingest_queue=await self.ingest_queue(),
            embed_queue=await self.embed_queue(),
            max_document_bytes=MAX_DOCUMENT_BYTES,
            max_chunks=MAX_CHUNKS,
            lane=Lane(await self.ingest_queue(), LANE_SHARE),
        )

    async def embedding(self) -> Embedding:
        world = self.environment.world
        self.embedder = self.embedder or SimulatedEmbedder(self.environment)
        self.governor = self.governor or Governor(
            BudgetStore(self.environment.database, provider_key("simulated", "", "")),
            self.embedder.limits.max_concurrent_requests,
            clock=asyncio.get_running_loop().time,
            chance=world.random.random,
        )
        return Embedding(
            store=EmbedStore(self.environment.database, world.model_id),
            embedder=self.embedder,
            retry=RetryPolicy(chance=world.random.random),
            governor=self.governor,
        )

    async def sweeping(self) -> Sweep:
        database, world = self.environment.database, self.environment.world
        return Sweep(
            store=SweepStore(database, world.model_id),
            ingest_store=IngestStore(database, world.model_id),
            bucket=BucketStore(database, DeleteBrake()),
            keys=KeyStore(database),
            observing=self._observing(),
            objects=ObjectsOf(self.environment),
            ingest_queue=await self.ingest_queue(),
            embed_queue=await self.embed_queue(),
            patience=Patience(event_s=EVENT_S, walk_s=WALK_S),
            now=world.now,
            shuffle=world.random.shuffle,
        )

    async def ingest_queue(self) -> SqsQueue:
        return self._queue(self.environment.world.ingest_queue)

    async def embed_queue(self) -> SqsQueue:
        return self._queue(self.environment.world.embed_queue)

    def documents(self) -> Documents:
        store = DocumentStore(self.environment.database, self.environment.world.model_id)
        return Documents(store, ObjectsOf(self.environment), MAX_DOCUMENT_BYTES)

    def _observing(self) -> Observing:
        return Observing(BucketStore(self.environment.database, DeleteBrake()), WatchedObjects(self.environment))

    def _queue(self, queue: SimulatedQueue) -> SqsQueue:
        return SqsQueue(SqsClients(self.environment, queue), queue.name)  # type: ignore[arg-type]  # as much of the clients as it uses


@dataclass(frozen=True, slots=True)
class LoggedErrors:
    """A function's logger: what it catches, and only logs, is seen here."""

    environment: Environment

    def exception(self, *_: Any, message_id: str | None = None, **__: Any) -> None:
        self.environment.world.observer.raised(self.environment, sys.exception())
        self.error(message_id=message_id)

    def error(self, *_: Any, message_id: str | None = None, **__: Any) -> None:
        if message_id is not None:
            self.environment.world.observer.failed(self.environment, message_id)


class SweepLogger:
    """The same for the verb of the sweep, which goes on with the next tenant."""

    def exception(self, *_: Any, **__: Any) -> None:
        environment = running_in.get()
        assert environment is not None
        environment.world.observer.raised(environment, sys.exception())

    def warning(self, *_: Any, **__: Any) -> None:
        pass


@cache
def _code(function: str) -> Any:
    path = SOURCE / "functions" / function / "app.py"
    return compile(path.read_text(), str(path), "exec")


def handler_of(function: str, services: Services) -> Callable[..., Coroutine[Any, Any, Any]]:
    """`handle_messages` of the real function, in a module of its own for this environment."""
    module = ModuleType(f"{function}_app")
    exec(_code(function), module.__dict__)
    module.__dict__.update({"services": services, "logger": LoggedErrors(services.environment)})
    handler: Callable[..., Coroutine[Any, Any, Any]] = module.__dict__["handle_messages"]
    return handler
