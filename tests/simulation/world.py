"""One schedule, from its first operation until nothing moves any more, and what must hold on the way and at its end."""

import asyncio
import hashlib
import os
import random
import sys
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any
from uuid import UUID

from edda import sweeping
from edda.adapters.sqs import SqsQueue
from edda.batching import RetryPolicy
from edda.concurrency import Deadline
from edda.documents import Description, Documents
from edda.embedding import Embedding
from edda.errors import Corrupt
from edda.ingesting import Ingestion, Lane
from edda.models import ParseOutcome, Tenant
from edda.observing import Observing
from edda.store.bucket import BucketStore, DeleteBrake
from edda.store.conditions import compile_filter
from edda.store.database import HalfVector
from edda.store.documents import DocumentStore
from edda.store.embed import EmbedStore
from edda.store.ingest import IngestStore, ordinal_ranges
from edda.store.keys import KeyStore
from edda.store.search import SearchStore
from edda.store.sweep import Patience, SweepStore
from edda.sweeping import Sweep
from edda.vectors import from_floats, to_halfvec_binary

from tests.database.world import LineParser
from tests.simulation import invariants
from tests.simulation.aws import Bucket, EventSourceMapping, ObjectsOf, SimulatedQueue, SqsClients, shuffled
from tests.simulation.clock import VirtualLoop
from tests.simulation.connections import EnvironmentDatabase
from tests.simulation.database import EPOCH, MODEL_DIMENSIONS, SimulatedDatabase
from tests.simulation.lambdas import Environment, running_in
from tests.simulation.provider import Provider, SimulatedEmbedder, vector_of
from tests.simulation.schedules import CORRUPT, DEADLY, HTTPS, MAX_CHUNKS, POISON, Fault, FaultPlan, Operation, Schedule
from tests.simulation.violations import Violation

# The planted bugs run a changed copy of the source.
SOURCE = Path(os.environ.get("EDDA_SIMULATED_SOURCE", Path(__file__).parents[2]))

# As in template.yaml.
CHUNK_TIMEOUT_S, EMBED_TIMEOUT_S, SWEEP_TIMEOUT_S, API_TIMEOUT_S = 300, 120, 55, 29
CHUNK_VISIBILITY_S, EMBED_VISIBILITY_S = 1800, 720
EMBED_BATCH_SIZE, EMBED_WINDOW_S = 10, 1
RESERVE_S = 3.0  # edda.runtime
SWEEP_EVERY_S = 60
# How long the sweep waits for an event, and between two walks through the bucket: less than in truth (300 and 900 s),
# so that it often comes before a late event.
EVENT_S, WALK_S = 30, 60
LANE_SHARE = 1  # of two workers
# To save (real) time, rounds are left out, most of them while every version is at its end.
SWEEPS_LEFT_OUT, IDLE_SWEEPS_LEFT_OUT, SLOWEST_SWEEP_S = 0.75, 0.97, 600
MAX_DOCUMENT_BYTES = 10_000
CHUNKS_A_BATCH = 3  # instead of 64
# How long after the last fault or operation everything has come to an end: a lost message is waited for (1,800 s, as
# is a visibility timeout), twice; then a lease (300 s), and the sweep (600 s).
LIVENESS_S = 5400.0
MOST_REDRIVES = 2
MOST_TRIES = 60  # of a client: a zombie may hold a lock for 15 minutes


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a schedule."""

    schedule: Schedule
    violation: Violation | None
    fired: tuple[Fault, ...]
    trace: tuple[str, ...]
    simulated_s: float

    @property
    def digest(self) -> str:
        return hashlib.sha256("\n".join(self.trace).encode()).hexdigest()


@dataclass(slots=True)
class SlowParser:
    """One chunk a line; takes its time, as a real one."""

    environment: Environment

    async def parse(self, path: Path, name: str, content_type: str | None) -> ParseOutcome:
        await self.environment.step("parse")
        await asyncio.sleep(self.environment.world.random.uniform(0.2, 5))
        text = path.read_text()  # noqa: ASYNC240 - a few bytes
        if CORRUPT in text:
            raise Corrupt
        if DEADLY in text:
            await self.environment.kill_from_within()
        return await LineParser().parse(path, name, content_type)


@dataclass(slots=True)
class Services:
    """The composition root of one environment: edda.services, with the simulation's adapters."""

    environment: Environment
    embedder: SimulatedEmbedder | None = None

    async def ingestion(self) -> Ingestion:
        database, world = self.environment.database, self.environment.world
        return Ingestion(
            store=IngestStore(database, world.model_id),
            keys=KeyStore(database),
            observing=self._observing(),
            objects=ObjectsOf(self.environment),
            parser=SlowParser(self.environment),
            embed_queue=await self.embed_queue(),
            max_document_bytes=MAX_DOCUMENT_BYTES,
            max_chunks=MAX_CHUNKS,
            lane=Lane(await self.ingest_queue(), LANE_SHARE),
        )

    async def embedding(self) -> Embedding:
        world = self.environment.world
        self.embedder = self.embedder or SimulatedEmbedder(self.environment)
        return Embedding(
            store=EmbedStore(self.environment.database, world.model_id),
            embedder=self.embedder,
            retry=RetryPolicy(chance=world.random.random),
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
        return Observing(BucketStore(self.environment.database, DeleteBrake()), ObjectsOf(self.environment))

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


class World:
    """Everything that one schedule is made of."""

    def __init__(self, schedule: Schedule, database: SimulatedDatabase, loop: VirtualLoop) -> None:
        self.schedule = schedule
        self.database = database
        self.loop = loop
        self.random = Random(f"world {schedule.seed}")
        self.faults = FaultPlan(schedule.faults)
        self.trace: list[str] = []
        self.deaths = 0
        self.database_back_at_s = 0.0
        self.disturbed_at_s = 0.0
        self.model_id = database.model.model_id
        self.tenants: dict[str, Tenant] = {}
        self.bucket = Bucket(self)
        self.ingest_queue = SimulatedQueue(self, "ingest", CHUNK_VISIBILITY_S)
        self.embed_queue = SimulatedQueue(self, "embed", EMBED_VISIBILITY_S)
        self.provider = Provider(self)
        self.api_documents: dict[tuple[str, str], UUID] = {}  # by tenant and name, once the API has said so
        self.api_deleted: set[str] = set()  # their object keys
        self.observer = invariants.Observer(self)
        self.mappings = [
            EventSourceMapping(self, self.ingest_queue, "chunk", 1, CHUNK_TIMEOUT_S, 2),
            EventSourceMapping(
                self, self.embed_queue, "embed", EMBED_BATCH_SIZE, EMBED_TIMEOUT_S, 2, window_s=EMBED_WINDOW_S
            ),
        ]
        self._environments = 0
        self._warm: defaultdict[str, list[Environment]] = defaultdict(list)
        self._failure: asyncio.Future[None] = loop.create_future()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._operations_left = 0
        self._redrives = 0

    # What the models ask of the world -------------------------------------------------------------------------------

    def note(self, text: str) -> None:
        """A line of the trace."""
        self.trace.append(f"{self.loop.now_s:10.3f} {text}")

    def now(self) -> datetime:
        """The virtual time as the database has it."""
        return EPOCH + timedelta(seconds=self.loop.time())

    def latency_s(self) -> float:
        """How long a step takes: mostly milliseconds, now and then seconds."""
        chance = self.random.random()
        return 0.001 + 0.02 * chance if chance < 0.94 else 3 * self.random.random()

    def strike(self, site: str, environment: Environment | None = None) -> Fault | None:
        """The fault that strikes at this passage of a site, if one does."""
        if site not in SITES_STRUCK:
            return None
        fault = self.faults.pass_by(site)
        if fault is not None:
            self.note(f"{environment.name if environment else ''} FAULT {fault}")
            self.disturbed_at_s = max(self.disturbed_at_s, self.loop.time() + fault.amount)
        return fault

    def environment(self, function: str) -> Environment:
        """A warm environment, or a cold start."""
        warm = self._warm[function]
        return warm.pop() if warm else self._cold_start(function)

    def give_back(self, environment: Environment) -> None:
        """It did its work, and stays warm if it lives."""
        if not environment.dead and not environment.zombie:
            self._warm[environment.function].append(environment)

    def _cold_start(self, function: str) -> Environment:
        self._environments += 1
        environment = Environment(self, function, self._environments)
        environment.database = EnvironmentDatabase(self.database, environment)
        environment.services = Services(environment)
        return environment

    def start(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """A task of the world; if it breaks, the simulator is wrong."""
        task = self.loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def violate(self, invariant: str, detail: str) -> None:
        """The schedule is over."""
        self.note(f"VIOLATION {invariant}: {detail}")
        if not self._failure.done():
            self._failure.set_exception(Violation(invariant, detail))

    async def invoke(self, environment: Environment, records: list[dict[str, Any]], timeout_s: float) -> Any:
        """One invocation of a function by its queue: its answer, None if it had none."""
        if not hasattr(environment, "handler"):
            environment.handler = handler_of(environment.function, environment.services)
        until = Deadline(self.loop.time() + timeout_s - RESERVE_S, self.loop.time)
        return await self._run(environment, environment.handler(records, until), timeout_s)

    def asked(self, environment: Environment, texts: Sequence[str]) -> None:
        """The provider was asked for these texts."""
        self.observer.provider_asked(environment, texts)

    # The schedule ---------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Raises Violation."""
        slugs = sorted({operation.tenant for operation in self.schedule.operations} or {"acme"})
        self.tenants = {tenant.slug: tenant for tenant in self.database.begin(self.schedule.seed, slugs)}
        for mapping in self.mappings:
            self.start(mapping.run())
        self.start(self._sweep_for_ever())
        self._operations_left = len(self.schedule.operations)
        for operation in self.schedule.operations:
            self.start(self._operate(operation))
        body = self.start(self._until_the_end())
        try:
            await asyncio.wait({body, self._failure}, return_when=asyncio.FIRST_COMPLETED)
            if self._failure.done():
                self._failure.result()
            body.result()
        finally:
            await self._shut_down()

    async def _until_the_end(self) -> None:
        await self._quiet()
        self.faults.over = True
        for _ in range(5):
            await asyncio.sleep(max(EVENT_S, WALK_S) + 1)  # so that this round walks through the whole bucket
            if not any((await self._sweep_once() or {"failed": 1}).values()):
                break
            await self._quiet()
        await self._search_all()
        invariants.check(self)
        if self.schedule.seed % 4 == 0:
            await self._replay()

    async def _replay(self) -> None:
        """N13: every event and every message once more, in another order, changes nothing."""
        before = invariants.state(self.database)
        for queue in (self.ingest_queue, self.embed_queue):
            for body in shuffled([body for body in queue.bodies if body != POISON], self.random):
                queue.add(body, self.random.uniform(0, 30))
        self.disturbed_at_s = self.loop.time() + 30
        await self._quiet()
        await self._sweep_once()
        after = invariants.state(self.database)
        if before != after:
            changed = sorted(set(before) ^ set(after))
            raise Violation("N13 replay", f"a replay of every message changed {changed[:4]}")
        invariants.check(self)

    async def _quiet(self) -> None:
        """Until nothing moves and nothing is left to do. Raises Violation when that takes too long."""
        while True:
            await asyncio.sleep(30)
            late = self.loop.time() - self.disturbed_at_s > LIVENESS_S
            if self._moves():
                if late:
                    raise Violation("N3 liveness", f"still moving: {self._moves()}")
            elif letters := [letter for letter in self.ingest_queue.dead_letters if letter.body != POISON]:
                # What an operator does: the alarm on a dead-letter queue tells them. But not for ever.
                self._redrives += 1
                if self._redrives > MOST_REDRIVES:
                    raise Violation("N1 no loss", f"dead letters again after each redrive: {letters[0].body}")
                self.disturbed_at_s = self.loop.time()
                self.note("operator redrives")
                self.ingest_queue.redrive()
                self.embed_queue.redrive()
            elif not (unfinished := self._unfinished() or self._unnoticed()):
                return
            elif late:
                raise Violation("N3 liveness", f"not at an end after {LIVENESS_S:.0f} s: {unfinished}")

    def _unfinished(self) -> list[tuple[Any, ...]]:
        return self.database.rows(
            "SELECT object_key, status FROM document_versions JOIN documents USING (document_id) "
            "WHERE finished_at IS NULL"
        )

    def _unnoticed(self) -> list[tuple[Any, ...]]:
        """Where the database does not know what the bucket shows."""
        known = {
            key: (deleted, s3_version_id)
            for key, deleted, s3_version_id in self.database.rows(
                "SELECT object_key, deleted_at IS NOT NULL, (SELECT s3_version_id FROM document_versions v "
                "WHERE v.document_id = d.document_id ORDER BY sequencer DESC LIMIT 1) FROM documents d"
            )
        }
        unnoticed = []
        for key, history in self.bucket.history.items():
            newest = history[-1]
            deleted, s3_version_id = known.get(key, (True, None))
            there = None if deleted else s3_version_id
            if there != (None if newest.body is None else newest.version_id):
                unnoticed.append((key, newest.version_id, there))
        return unnoticed

    def _moves(self) -> str:
        waiting = {
            "operations": self._operations_left,
            "events": self.bucket.events_on_the_way,
            "ingest messages": len(self.ingest_queue.messages),
            "embed messages": len(self.embed_queue.messages),
            "invocations": sum(mapping.running for mapping in self.mappings),
            "environments": sum(1 for task in self._tasks if task.get_name() == "environment"),
        }
        return ", ".join(f"{count} {what}" for what, count in waiting.items() if count)

    async def _shut_down(self) -> None:
        """Whatever still runs ends here, without a trace: the schedule is over."""
        self.faults.over = True
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        self.database.end()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not self._failure.done():
            self._failure.set_exception(error)

    # Invocations ----------------------------------------------------------------------------------------------------

    async def _run(self, environment: Environment, work: Coroutine[Any, Any, Any], timeout_s: float) -> Any:
        """Run in an environment, as Lambda would: killed when the time is up, without a signal."""
        self.observer.invocation_starts(environment)

        async def body() -> Any:
            running_in.set(environment)
            environment.tasks.add(asyncio.current_task())  # type: ignore[arg-type]  # a coroutine always has one
            return await work

        task = self.loop.create_task(body(), name="environment")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        done, _ = await asyncio.wait({task}, timeout=timeout_s)
        if not done:
            if not environment.zombie:
                environment.kill("timed out")
                await asyncio.wait({task})
            environment.note("is a zombie" if environment.zombie else "is dead")
            return None
        if environment.dead or task.cancelled():
            return None
        self.observer.invocation_ends(environment)
        if (error := task.exception()) is not None:
            environment.note(f"raised {type(error).__name__}")
            environment.error = error
            self.observer.raised(environment, error)
            return None
        environment.note(f"answered {task.result()}")
        return task.result()

    async def _sweep_for_ever(self) -> None:
        """Every minute, but for the rounds that are left out to save (real) time."""
        last_s = 0.0
        while True:
            await asyncio.sleep(SWEEP_EVERY_S)
            due = self.loop.time() - last_s >= SLOWEST_SWEEP_S
            chance = self.random.random()
            if chance < SWEEPS_LEFT_OUT and not due:
                continue
            if chance < IDLE_SWEEPS_LEFT_OUT and not self._unfinished() and not self._unnoticed():
                continue
            last_s = self.loop.time()
            fault = self.strike("sweep")
            if fault is None or fault.kind == "sweep_twice":
                await asyncio.gather(*(self._sweep_once() for _ in range(2 if fault else 1)))

    async def _sweep_once(self) -> dict[str, int] | None:
        environment = self.environment("sweep")
        until = Deadline(self.loop.time() + SWEEP_TIMEOUT_S - RESERVE_S, self.loop.time)

        async def sweep() -> dict[str, int]:
            return await (await environment.services.sweeping()).sweep(until)

        done = await self._run(environment, sweep(), SWEEP_TIMEOUT_S)
        self.give_back(environment)
        return done  # type: ignore[no-any-return]  # what `sweep` above returns, by way of a task

    # Operations -----------------------------------------------------------------------------------------------------

    async def _operate(self, operation: Operation) -> None:
        await asyncio.sleep(operation.at_s)
        if operation.kind == "search":
            await self._search(self.tenants[operation.tenant])
        elif operation.kind == "poison":
            (self.ingest_queue if operation.name == "ingest" else self.embed_queue).add(POISON)
        elif operation.name.startswith(HTTPS):
            await self._over_https(operation)
        elif operation.kind == "erase":
            self.bucket.erase_old_versions(f"{operation.tenant}/{operation.name}")
        else:
            body = "\n".join(operation.lines).encode() if operation.kind == "put" else None
            self.bucket.add(f"{operation.tenant}/{operation.name}", body)
        self.disturbed_at_s = max(self.disturbed_at_s, self.loop.time())
        self._operations_left -= 1

    async def _over_https(self, operation: Operation) -> None:
        """A client that does not give up: the same request until it is answered."""
        tenant = self.tenants[operation.tenant]
        idempotency_key = f"{operation.at_s}"
        name = f"{operation.name}{operation.at_s:.3f}"
        if operation.kind == "delete":
            mine = [known for known in self.api_documents if known[0] == operation.tenant]
            for document_id in [self.api_documents.pop(known) for known in mine]:
                await self._try(lambda api: api.delete(tenant, document_id))  # noqa: B023 - awaited at once
                self.api_deleted.add(str(document_id))
            return
        description = Description(name, None, (), {})
        body = "\n".join(operation.lines).encode()
        view = await self._try(lambda api: api.upload(tenant, description, body, "text/plain", idempotency_key))
        self.api_documents[operation.tenant, name] = view.document_id

    async def _try(self, call: Callable[[Documents], Coroutine[Any, Any, Any]]) -> Any:
        for _ in range(MOST_TRIES):
            environment = self.environment("api")
            environment.error = None
            answer = await self._run(environment, call(environment.services.documents()), API_TIMEOUT_S)
            self.give_back(environment)
            if environment.error is None and not environment.dead:
                return answer
            await asyncio.sleep(self.random.uniform(1, 20))
        raise Violation("N3 liveness", f"the API did not answer {MOST_TRIES} times")

    async def _search_all(self) -> None:
        for tenant in self.tenants.values():
            await self._search(tenant)

    async def _search(self, tenant: Tenant) -> None:
        environment = self.environment("search")
        store = SearchStore(environment.database, self.database.model)
        vector = HalfVector(to_halfvec_binary(from_floats(vector_of("a question"), MODEL_DIMENSIONS)))
        deleted = set(self.api_deleted)
        hits = await self._run(
            environment, store.nearest(tenant.tenant_id, vector, compile_filter(None), 1000), API_TIMEOUT_S
        )
        self.give_back(environment)
        if hits is not None:
            self.observer.searched(tenant, hits, deleted)


SITES_STRUCK = {"event", "send", "receive", "acknowledge", "step", "commit", "sql", "storage", "request", "sweep"}


def simulate(schedule: Schedule, database: SimulatedDatabase) -> Outcome:
    """Run one schedule to its end."""
    loop = VirtualLoop()
    loop.set_task_factory(_task_of_its_environment)  # type: ignore[arg-type]  # the stubs want more keywords
    with determinism(schedule.seed, loop):
        world = World(schedule, database, loop)
        violation = None
        try:
            loop.run_until_complete(world.run())
        except Violation as found:
            violation = found
        except Exception as error:  # a bug of the simulator, or one of Edda's that the simulator did not foresee
            violation = Violation(f"unforeseen {type(error).__name__}", str(error))
            violation.__cause__ = error
        finally:
            database.end()
            loop.close()
    return Outcome(schedule, violation, tuple(world.faults.fired), tuple(world.trace), loop.time())


def _task_of_its_environment(
    loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], context: Any = None
) -> "asyncio.Task[Any]":
    """So that it is known whose tasks they are."""
    task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, context=context)
    environment = running_in.get()
    if environment is not None:
        environment.tasks.add(task)
        task.add_done_callback(environment.tasks.discard)
    return task


@contextmanager
def determinism(seed: int, loop: VirtualLoop) -> Iterator[None]:
    """Chance from the seed, wherever it is asked for: random.random, uuid4; deadlines by the loop's time. And embed
    batches of a few chunks only, so that small documents have several (no test could wait for documents of hundreds of
    chunks)."""
    state, urandom = random.getstate(), os.urandom
    random.seed(f"everything else {seed}")
    os.urandom = random.randbytes
    defaults, ordinal_ranges.__defaults__ = ordinal_ranges.__defaults__, (CHUNKS_A_BATCH,)
    after = Deadline.after.__func__  # type: ignore[attr-defined]
    clocks, after.__defaults__ = after.__defaults__, (loop.time,)
    logger, sweeping.logger = sweeping.logger, SweepLogger()  # type: ignore[assignment]
    try:
        yield
    finally:
        sweeping.logger = logger
        after.__defaults__ = clocks
        ordinal_ranges.__defaults__ = defaults
        os.urandom = urandom
        random.setstate(state)
