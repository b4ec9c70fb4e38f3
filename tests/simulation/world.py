"""One schedule, from its first operation until nothing moves any more, and what must hold on the way and at its end."""

import asyncio
import hashlib
import os
import random
from collections import defaultdict
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from random import Random
from typing import Any

from edda import sweeping
from edda.concurrency import Deadline
from edda.leasing import LEASE_S
from edda.models import Tenant
from edda.s3_events import document_key_of
from edda.store.ingest import ordinal_ranges

from tests.simulation import invariants
from tests.simulation.aws import Bucket, EventSourceMapping, SimulatedQueue, shuffled
from tests.simulation.clock import VirtualLoop
from tests.simulation.database import EPOCH, SimulatedDatabase
from tests.simulation.lambdas import FUNCTIONS, Environment, running_in
from tests.simulation.observer import Observer
from tests.simulation.operations import Users
from tests.simulation.provider import Provider
from tests.simulation.schedules import POISON, SITES, Fault, FaultPlan, Operation, Schedule
from tests.simulation.services import EVENT_S, WALK_S, Services, SleepyDatabase, SweepLogger, handler_of
from tests.simulation.violations import Violation

# As in template.yaml.
CHUNK_TIMEOUT_S, EMBED_TIMEOUT_S, SWEEP_TIMEOUT_S = 300, 120, 55
CHUNK_VISIBILITY_S, EMBED_VISIBILITY_S = 1800, 720
EMBED_BATCH_SIZE, EMBED_WINDOW_S = 10, 1
RESERVE_S = 3.0  # edda.runtime
SWEEP_EVERY_S = 60
# To save (real) time, rounds are left out, most of them while every version is at its end.
SWEEPS_LEFT_OUT, IDLE_SWEEPS_LEFT_OUT, SLOWEST_SWEEP_S = 0.75, 0.97, 600
CHUNKS_A_BATCH = 3  # instead of 64
# How long after the last fault or operation everything has come to an end: a lost message is waited for (1,800 s, as
# is a visibility timeout), twice; then a lease (45 s), and the sweep (600 s).
LIVENESS_S = 5400.0
MOST_REDRIVES = 2


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
        self.bucket = Bucket(self, versioned=self.random.random() < 0.8)
        self.ingest_queue = SimulatedQueue(self, "ingest", CHUNK_VISIBILITY_S)
        self.embed_queue = SimulatedQueue(self, "embed", EMBED_VISIBILITY_S)
        self.provider = Provider(self)
        self.users = Users(self)
        self.observer = Observer(self)
        self.mappings = [
            EventSourceMapping(self, self.ingest_queue, "chunk", 1, CHUNK_TIMEOUT_S, 2),
            EventSourceMapping(
                self, self.embed_queue, "embed", EMBED_BATCH_SIZE, EMBED_TIMEOUT_S, 2, window_s=EMBED_WINDOW_S
            ),
        ]
        self._slow_until_s = self.random.choice((0.0, 900.0))
        # Mostly there is no cap. A line has 11 tokens or more.
        self.tokens_per_day = self.random.randrange(20, 300) if self.random.random() < 0.15 else None
        # Most files have several parts. Where parsing is slow, one invocation (300 s) has not the time for all of them.
        parts = Random(f"parts {schedule.seed}")
        self.part_lines = parts.choice((1, 2, 3, 5, 1000))
        self.parser_slowness = parts.choice((1, 1, 20))
        self._asleep: dict[Environment, tuple[str, float]] = {}  # why, and when at the earliest it wakes up
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
        """How long a step takes: mostly milliseconds, now and then seconds; in some schedules for a while often
        seconds, so that whatever may overlap does."""
        chance = self.random.random()
        return 3 * self.random.random() if chance < (0.3 if self._is_slow else 0.06) else 0.001 + 0.02 * chance

    def commit_latency_s(self) -> float:
        return self.random.choice((0.0, 3.0)) * self.random.random() if self._is_slow else 0.0

    @property
    def _is_slow(self) -> bool:
        return self.loop.time() < self._slow_until_s and not self.faults.over

    def strike(self, site: str, environment: Environment | None = None) -> Fault | None:
        """The fault that strikes at this passage of a site, if one does."""
        if site not in SITES:
            return None
        fault = self.faults.pass_by(site)
        if fault is not None:
            self.note(f"{environment.name if environment else ''} FAULT {fault}")
            self.disturbed_at_s = max(self.disturbed_at_s, self.loop.time() + fault.amount)
        return fault

    async def overtakable_step(self, environment: Environment, site: str) -> None:
        """A step at which an environment may fall asleep, until another one is likely to be at the same work."""
        kind = await environment.step(site) if environment.function in FUNCTIONS else None
        if kind is None:
            return
        soon = kind in {"overtaken_soon", "overtaken_looking"}
        longest_s = 120.0 if soon else 1800.0
        environment.zombie = environment.zombie or not soon
        environment.freeze(longest_s, clock_stops=True)
        self._asleep[environment] = kind, self.loop.time() + (0 if soon else LEASE_S)
        self.disturbed_at_s = max(self.disturbed_at_s, self.loop.time() + longest_s)
        await environment.step("woke up")
        self._asleep.pop(environment, None)

    def _wake_overtaken(self, by: Environment, *, has_ended: bool) -> None:
        """Another one begins: in its midst they go on; what was looked at is old when it has ended."""
        for environment, (kind, earliest_s) in list(self._asleep.items()):
            waits_for_end = kind == "overtaken_looking"
            if environment.function == by.function and earliest_s < self.loop.time() and waits_for_end == has_ended:
                del self._asleep[environment]
                self.loop.call_later(0 if has_ended else self.random.uniform(0, 15), environment.wake)

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
        environment.database = SleepyDatabase(self.database, environment)
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
        until = Deadline(environment.clock() + timeout_s - RESERVE_S, environment.clock)
        return await self.run_in(environment, environment.handler(records, until), timeout_s)

    def asked(self, environment: Environment, texts: Sequence[str]) -> None:
        """The provider was asked for these texts."""
        self.observer.provider_asked(environment, texts)

    # The schedule ---------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Raises Violation."""
        slugs = sorted({operation.tenant for operation in self.schedule.operations} or {"acme"})
        self.tenants = {tenant.slug: tenant for tenant in self.database.begin(self.schedule.seed, slugs)}
        if self.tokens_per_day is not None:
            self.database.control.execute(
                "INSERT INTO usage_caps (tenant_id, tokens_per_day) SELECT tenant_id, %s FROM tenants",
                [self.tokens_per_day],
            )
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
        for _ in range(20):  # a round that is slow leaves tenants to the next
            await asyncio.sleep(max(EVENT_S, WALK_S) + 1)  # so that this round walks through the whole bucket
            if not any((await self._sweep_once() or {"failed": 1}).values()):
                break
            await self._quiet()
        for tenant in self.tenants.values():
            await self.users.search(tenant)
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
        known = invariants.known_objects(self.database)
        unnoticed: list[tuple[Any, ...]] = []
        for key, history in self.bucket.history.items():
            newest, there = history[-1], known.get(key)
            name = newest.version_id if self.bucket.versioned else ""
            if key == document_key_of(key) and there != (None if newest.body is None else name):
                unnoticed.append((key, newest.version_id, there))
        return unnoticed + invariants.metadata_unread(self)

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

    async def run_in(self, environment: Environment, work: Coroutine[Any, Any, Any], timeout_s: float) -> Any:
        """Run in an environment, as Lambda would: killed when the time is up, without a signal."""
        self.observer.invocation_starts(environment)
        self._wake_overtaken(environment, has_ended=False)

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
            self.deaths += environment.zombie  # for what it was to do it makes no difference
            environment.note("is a zombie" if environment.zombie else "is dead")
            return None
        if environment.dead or task.cancelled():
            return None
        self.observer.invocation_ends(environment)
        self._wake_overtaken(environment, has_ended=True)
        if (error := task.exception()) is not None:
            environment.note(f"raised {type(error).__name__}")
            environment.error = error
            self.observer.raised(environment, error)
            return None
        environment.note(f"answered {task.result()}")
        return task.result()

    async def _operate(self, operation: Operation) -> None:
        await asyncio.sleep(operation.at_s)
        await self.users.do(operation)
        self.disturbed_at_s = max(self.disturbed_at_s, self.loop.time())
        self._operations_left -= 1

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
        until = Deadline(environment.clock() + SWEEP_TIMEOUT_S - RESERVE_S, environment.clock)

        async def sweep() -> dict[str, int]:
            return await (await environment.services.sweeping()).sweep(until)

        done = await self.run_in(environment, sweep(), SWEEP_TIMEOUT_S)
        self.give_back(environment)
        return done  # type: ignore[no-any-return]  # what `sweep` above returns, by way of a task


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


def _clock(loop: VirtualLoop) -> float:
    """The time as whoever runs now has it."""
    environment = running_in.get()
    return loop.time() if environment is None else environment.clock()


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
    clocks, after.__defaults__ = after.__defaults__, (partial(_clock, loop),)
    logger, sweeping.logger = sweeping.logger, SweepLogger()  # type: ignore[assignment]
    try:
        yield
    finally:
        sweeping.logger = logger
        after.__defaults__ = clocks
        ordinal_ranges.__defaults__ = defaults
        os.urandom = urandom
        random.setstate(state)
