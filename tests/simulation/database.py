"""Real Postgres under virtual time, one statement at a time.

- Time: `now()` and its kin, and `gen_random_uuid()`, are shadowed by functions in the schema `simulated`, which stands
  before pg_catalog in the search path. They read a setting that is given to a connection before each transaction.
- Order: a statement is run to its end (a blocking wait of some 0.1 ms) when the simulator lets it begin; so statements
  follow each other in the order of virtual time. One that waits for a lock is parked, and its task goes on when
  another one's commit or rollback has let it through.
- Faults: a connection can be cut before a statement, or after it was carried out and before its answer arrived.
"""

import asyncio
import os
import select
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import psycopg
from edda.models import EmbeddingModel, Tenant
from edda.store.database import Database
from edda.store.migrations import migrate, register_model
from psycopg import AsyncConnection, pq
from psycopg.abc import PQGen
from psycopg.errors import DeadlockDetected, OperationalError, ReadOnlySqlTransaction
from psycopg.pq import PipelineStatus, TransactionStatus
from psycopg.pq.abc import PGconn
from psycopg.rows import DictRow, dict_row

from tests.postgres import Cluster
from tests.simulation.lambdas import Environment

T = TypeVar("T")

EPOCH = datetime(2040, 1, 1, tzinfo=UTC)  # far from today: real time that leaks in is seen
MODEL_NAME, MODEL_DIMENSIONS = "openai/simulated", 8

SHADOWS = """
CREATE SCHEMA simulated;
CREATE SEQUENCE simulated.ids;
CREATE FUNCTION simulated.now() RETURNS timestamptz LANGUAGE sql STABLE
    RETURN current_setting('simulated.now')::timestamptz;
CREATE FUNCTION simulated.transaction_timestamp() RETURNS timestamptz LANGUAGE sql STABLE RETURN simulated.now();
CREATE FUNCTION simulated.statement_timestamp() RETURNS timestamptz LANGUAGE sql STABLE RETURN simulated.now();
CREATE FUNCTION simulated.clock_timestamp() RETURNS timestamptz LANGUAGE sql STABLE RETURN simulated.now();
CREATE FUNCTION simulated.gen_random_uuid() RETURNS uuid LANGUAGE sql VOLATILE
    RETURN md5(nextval('simulated.ids')::text)::uuid;
GRANT USAGE ON SCHEMA simulated TO PUBLIC;
GRANT USAGE ON SEQUENCE simulated.ids TO PUBLIC;
"""
# What no transaction may do, whoever's it is: leases are exclusive, and what is done stays done.
GUARDS = """
CREATE FUNCTION simulated.guard_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.attempt > OLD.attempt AND OLD.lease_until >= simulated.now() THEN
        RAISE 'version % is claimed while it is held', NEW.version_id;
    ELSIF NEW.attempt > OLD.attempt AND NEW.lease_until IS NULL THEN
        RAISE 'version % is claimed without a lease', NEW.version_id;
    ELSIF OLD.status = 'embedding' AND NEW.chunked_at <> OLD.chunked_at THEN
        RAISE 'version % is chunked twice', NEW.version_id;
    ELSIF OLD.finished_at IS NOT NULL AND (NEW.status, NEW.finished_at) <> (OLD.status, OLD.finished_at) THEN
        RAISE 'version % was % and becomes % again', NEW.version_id, OLD.status, NEW.status;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER guard BEFORE UPDATE ON document_versions FOR EACH ROW EXECUTE FUNCTION simulated.guard_version();
CREATE FUNCTION simulated.guard_document() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.deleted_at IS NOT NULL AND NEW.deleted_at IS NULL AND NEW.idempotency_key IS NOT NULL THEN
        RAISE 'document % was deleted over HTTPS and comes back', NEW.document_id;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER guard BEFORE UPDATE ON documents FOR EACH ROW EXECUTE FUNCTION simulated.guard_document();
CREATE FUNCTION simulated.guard_batch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.attempt > OLD.attempt AND (OLD.lease_until >= simulated.now() OR OLD.done_at IS NOT NULL) THEN
        RAISE 'batch % of % is claimed while it is held or done', NEW.first_ordinal, NEW.version_id;
    ELSIF NEW.attempt > OLD.attempt AND (NEW.lease_until > simulated.now()) IS NOT TRUE THEN
        RAISE 'batch % of % is claimed without a lease', NEW.first_ordinal, NEW.version_id;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER guard BEFORE UPDATE ON embed_batches FOR EACH ROW EXECUTE FUNCTION simulated.guard_batch();
"""
CLEAN = "DELETE FROM documents; DELETE FROM embeddings; DELETE FROM tenants"  # the rest goes with its tenant
TRUNCATE = "TRUNCATE tenants, embeddings CASCADE"  # everything a tenant owns
TRUNCATE_EVERY = 100  # it takes longer than to delete few rows, but leaves no dead ones
# How far behind the virtual time a transaction's may be. Telling it takes a round trip.
CLOCK_TOLERANCE_S = 0.03


@dataclass(slots=True)
class _Parked:
    """A statement that waits for a lock."""

    connection: "SimulatedConnection"
    statement: "_Statement"
    done: "asyncio.Future[None]"


class _Statement:
    """A psycopg generator, driven without the event loop."""

    def __init__(self, generator: "PQGen[Any]", fileno: int) -> None:
        self._generator = generator
        self._poll = select.poll()
        self._fileno = fileno
        self._wanted: Any = None
        self.result: Any = None
        self.error: Exception | None = None
        self.ended = False

    def go_on(self, timeout_ms: float) -> bool:
        """Has it ended? False when the server said nothing for so long."""
        try:
            if self._wanted is None:
                self._wanted = next(self._generator)
            while True:
                self._poll.register(self._fileno, (1 if self._wanted & 1 else 0) | (4 if self._wanted & 2 else 0))
                ready = 0
                for _, event in self._poll.poll(timeout_ms):
                    ready |= (2 if event & select.POLLOUT else 0) | (1 if event & ~select.POLLOUT else 0)
                if not ready:
                    return False
                self._wanted = self._generator.send(ready)
        except StopIteration as end:
            self.result = end.value
        except Exception as error:
            self.error = error
        self.ended = True
        return True


class SimulatedDatabase:
    """The connections to one real database, and its virtual clock."""

    def __init__(self, cluster: Cluster, name: str, core: int | None = None) -> None:
        """With a `core`, this process and the server's processes behind its connections share one: they never work at
        the same time, and waking each other up across cores takes as long as a statement."""
        self._core = core
        cluster.administer(f"CREATE DATABASE {name}")
        for setting in (
            "search_path = public, simulated, pg_catalog",
            f"simulated.now = '{EPOCH.isoformat()}'",
            "deadlock_timeout = '1h'",  # deadlocks are found here, and are a violation
        ):
            cluster.administer(f"ALTER DATABASE {name} SET {setting}")
        self._urls = cluster.urls(name)
        self.control = psycopg.connect(self._urls.owner, autocommit=True)
        self._share_core(0)
        self._share_core(self.control.info.backend_pid)
        self.control.execute(SHADOWS)
        self.model = asyncio.run(_migrated(self._urls.owner))
        # Searches are exact below 20,000 chunks, so this index would only be kept up for nothing.
        self.control.execute(f"DROP INDEX embeddings_hnsw_{self.model.model_id}")
        self.control.execute(GUARDS)
        self._schedules = 0
        self._idle: list[PGconn] = []
        self._opened: list[SimulatedConnection] = []
        self._parked: list[_Parked] = []
        self.deadlocks = self.tenants_left = 0

    def begin(self, seed: int, slugs: list[str]) -> list[Tenant]:
        """Empty tables, and these tenants."""
        self._schedules += 1
        self.control.execute(CLEAN if self._schedules % TRUNCATE_EVERY else TRUNCATE)
        self.control.execute("SELECT setval('simulated.ids', %s)", [seed % 10**9 * 1000 + 1])
        self.deadlocks = self.tenants_left = 0
        return [
            Tenant(*self.control.execute("INSERT INTO tenants (slug) VALUES (%s) RETURNING tenant_id, slug", [slug])
                   .fetchone() or ())
            for slug in slugs
        ]  # fmt: skip

    def end(self) -> None:
        """Every connection goes back."""
        for connection in list(self._opened):
            self.cut(connection)

    def close(self) -> None:
        self.end()
        for pgconn in self._idle:
            pgconn.finish()
        self.control.close()

    def rows(self, query: str, values: Any = None) -> list[tuple[Any, ...]]:
        """As the owner, who sees everything."""
        return self.control.execute(query.encode(), values).fetchall()

    def open(self, environment: Environment) -> "SimulatedConnection":
        """A connection for an environment; the server's processes behind them are kept from schedule to schedule."""
        if self._idle:
            pgconn = self._idle.pop()
        else:
            pgconn = pq.PGconn.connect(self._urls.app.encode())
            self._share_core(pgconn.backend_pid)
        connection = SimulatedConnection(pgconn, self, environment)
        self._opened.append(connection)
        return connection

    def cut(self, connection: "SimulatedConnection") -> None:
        """The connection is gone, and what was not committed with it."""
        if connection not in self._opened:
            return
        self._opened.remove(connection)
        pgconn = connection.replace_socket()
        for parked in [parked for parked in self._parked if parked.connection is connection]:
            self._parked.remove(parked)
            self._cancel(pgconn, parked.statement)
            parked.done.cancel()
        if pgconn.pipeline_status != PipelineStatus.OFF:
            self._hang_up(pgconn)
        else:
            if pgconn.transaction_status != TransactionStatus.IDLE:
                pgconn.exec_(b"ROLLBACK")
            # Behind a pooler a tenant that is left on a connection would be the next one's as well.
            self.tenants_left += bool(pgconn.exec_(b"SELECT current_setting('app.tenant_id', true)").get_value(0, 0))
            pgconn.exec_(b"RESET ALL")
            self._idle.append(pgconn)
        self._let_through()

    def run(self, connection: "SimulatedConnection", generator: "PQGen[T]") -> "_Statement | _Parked":
        """Run a statement to its end, or until it waits for somebody's lock."""
        statement = _Statement(generator, connection.pgconn.socket)
        while not statement.go_on(2):
            if self._blockers([connection]):
                parked = _Parked(connection, statement, asyncio.get_running_loop().create_future())
                self._parked.append(parked)
                self._break_deadlock(parked)
                return parked
        if self._parked and connection.pgconn.transaction_status != TransactionStatus.INTRANS:
            self._let_through()
        return statement

    def abandon(self, parked: "_Parked") -> None:
        """Its task was cancelled while it waited."""
        if parked in self._parked:
            self._parked.remove(parked)
            self._cancel(parked.connection.pgconn, parked.statement)
            self._let_through()

    def _let_through(self) -> None:
        """Locks may have been released: statements that got theirs are run to their end."""
        progress = True
        while progress:
            progress = False
            for parked in list(self._parked):
                while not (ended := parked.statement.go_on(0)) and not self._blockers([parked.connection]):
                    if ended := parked.statement.go_on(1):
                        break
                if ended:
                    self._parked.remove(parked)
                    if not parked.done.done():  # its task may have been cancelled, and not know it yet
                        parked.done.set_result(None)
                    progress = True

    def _blockers(self, connections: list["SimulatedConnection"]) -> dict[int, list[int]]:
        """Who waits for whom, by process id."""
        pids = [connection.pgconn.backend_pid for connection in connections]
        found = self.rows("SELECT pid, pg_blocking_pids(pid) FROM unnest(%s::integer[]) AS pid", [pids])
        return {pid: blockers for pid, blockers in found if blockers}

    def _break_deadlock(self, newest: "_Parked") -> None:
        waits = self._blockers([parked.connection for parked in self._parked])
        seen: set[int] = set()
        todo = list(waits.get(newest.connection.pgconn.backend_pid, ()))
        while todo:
            pid = todo.pop()
            if pid == newest.connection.pgconn.backend_pid:
                self.deadlocks += 1
                self._parked.remove(newest)
                self._cancel(newest.connection.pgconn, newest.statement)
                newest.statement.error = DeadlockDetected("deadlock detected")
                newest.done.set_result(None)
                self._let_through()
                return
            if pid not in seen:
                seen.add(pid)
                todo += waits.get(pid, ())

    def _share_core(self, pid: int) -> None:
        if self._core is not None and hasattr(os, "sched_setaffinity"):
            with suppress(PermissionError):  # the server may run as another user
                os.sched_setaffinity(pid, {self._core})

    @staticmethod
    def _cancel(pgconn: PGconn, statement: "_Statement") -> None:
        if not statement.ended:
            pgconn.get_cancel().cancel()
            while not statement.go_on(1000):
                pass

    def _hang_up(self, pgconn: PGconn) -> None:
        """In the middle of a pipeline there is no way back to a clean connection; wait until the server has noticed."""
        pid = pgconn.backend_pid
        pgconn.finish()
        while self.rows("SELECT FROM pg_stat_activity WHERE pid = %s", [pid]):
            pass


def _time(seconds: float) -> str:
    return (EPOCH + timedelta(seconds=seconds)).isoformat()


async def _migrated(owner: str) -> EmbeddingModel:
    await migrate(owner)
    return await register_model(owner, MODEL_NAME, MODEL_DIMENSIONS)


class SimulatedConnection(AsyncConnection[DictRow]):
    """psycopg's own connection, whose every wait for the server is a step of the simulation."""

    def __init__(self, pgconn: PGconn, database: SimulatedDatabase, environment: Environment) -> None:
        super().__init__(pgconn, dict_row)
        self._autocommit = True
        self.prepare_threshold = None
        self._database = database
        self._environment = environment
        self._told_time_s = -1.0

    async def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
        """Edda asks "" before each transaction whether the connection is alive: a good moment to tell the time."""
        if query == "":
            self._told_time_s = self._environment.now_s()
            query = f"SET simulated.now = '{_time(self._told_time_s)}'"
        return await super().execute(query, params, **options)

    async def wait(self, gen: "PQGen[T]", *_: Any, **__: Any) -> T:
        # To enter pipeline mode is a matter of this side alone: nothing is sent, so nothing can go wrong.
        enters_pipeline = getattr(gen, "__qualname__", "") == "BasePipeline._enter_gen"
        try:
            fault = None if enters_pipeline else await self._may_begin()
        except asyncio.CancelledError:
            self._send_all_the_same(gen)
            raise
        except BaseException:
            gen.close()
            raise
        before = self.pgconn.transaction_status
        if before == TransactionStatus.IDLE:
            self._tell_time()
        ran = self._database.run(self, gen)
        if isinstance(ran, _Parked):
            self._environment.note("waits for a lock")
            try:
                await ran.done
            except asyncio.CancelledError:
                self._database.abandon(ran)
                raise
            ran = ran.statement
        await self._afterwards(fault, before)
        if ran.error is not None:
            raise ran.error
        return ran.result  # type: ignore[no-any-return]  # Any: what the real call gave

    def _send_all_the_same(self, gen: "PQGen[Any]") -> None:
        """psycopg sends before it waits, and when it is cancelled waits on for the end: a rollback is not left out."""
        if self._environment.dead or self.pgconn.status != pq.ConnStatus.OK:
            gen.close()
            return
        ran = self._database.run(self, gen)
        if isinstance(ran, _Parked):
            self._database.abandon(ran)

    async def _may_begin(self) -> str | None:
        """The fault that is to strike when the statement was carried out."""
        fault = await self._environment.step("sql")
        if self.pgconn.status != pq.ConnStatus.OK:
            raise OperationalError("the connection is closed")
        if fault == "cut":
            raise self._lost()
        # BEGIN is never refused, and has begun to be counted when psycopg sends it.
        in_transaction = self.pgconn.transaction_status == TransactionStatus.INTRANS
        if fault == "read_only" and in_transaction and self.pgconn.pipeline_status == PipelineStatus.OFF:
            raise ReadOnlySqlTransaction("cannot execute this in a read-only transaction")
        return fault

    async def _afterwards(self, fault: str | None, before: int) -> None:
        """It was carried out; its answer is on the way."""
        committed = before == TransactionStatus.INTRANS and self.pgconn.transaction_status == TransactionStatus.IDLE
        if committed:
            fault = await self._environment.committed() or fault
        if fault == "cut_after":
            raise self._lost()

    def _lost(self) -> OperationalError:
        self._database.cut(self)
        return OperationalError("server closed the connection unexpectedly")

    def _tell_time(self) -> None:
        now_s = self._environment.now_s()
        if now_s - self._told_time_s > CLOCK_TOLERANCE_S:
            self.pgconn.exec_(f"SET simulated.now = '{_time(now_s)}'".encode())
            self._told_time_s = now_s

    async def close(self) -> None:
        self._database.cut(self)
        await super().close()

    def replace_socket(self) -> PGconn:
        """The server's side, which goes on; this side finds itself closed."""
        pgconn, self.pgconn = self.pgconn, pq.PGconn.connect_start(b"host=/nowhere")
        self.pgconn.finish()
        return pgconn


class EnvironmentDatabase(Database):
    """Edda's own, which opens simulated connections."""

    def __init__(self, database: SimulatedDatabase, environment: Environment) -> None:
        async def conninfo() -> str:
            return ""

        super().__init__(conninfo)
        self._simulated = database
        self._environment = environment

    async def _open(self) -> AsyncConnection[DictRow]:
        if await self._environment.step("connect") == "refused":
            raise OperationalError("connection refused")
        return self._simulated.open(self._environment)

    def drop(self) -> None:
        """The environment died: the server hears no more of it."""
        if isinstance(self._connection, SimulatedConnection):
            self._simulated.cut(self._connection)

    def in_transaction(self) -> bool:
        connection = self._connection
        return connection is not None and connection.pgconn.transaction_status not in (
            TransactionStatus.IDLE,
            TransactionStatus.UNKNOWN,
        )
