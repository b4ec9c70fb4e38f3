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
import sys
from collections.abc import Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar, cast

import psycopg
from edda.models import EmbeddingModel, Tenant
from edda.store.database import Database
from edda.store.migrations import migrate, register_model
from psycopg import AsyncConnection, AsyncCursor, pq
from psycopg._preparing import PrepareManager
from psycopg.abc import PQGen
from psycopg.errors import DeadlockDetected, OperationalError, ReadOnlySqlTransaction, error_from_result
from psycopg.pq import PipelineStatus, TransactionStatus
from psycopg.pq.abc import PGconn, PGresult
from psycopg.rows import DictRow, dict_row
from psycopg.waiting import Ready, Wait

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
CREATE FUNCTION simulated.begin(seed bigint, slugs text[]) RETURNS TABLE (tenant_id uuid, slug text)
    LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM public.documents;
    DELETE FROM public.embeddings;
    DELETE FROM public.tenants;  -- the rest goes with its tenant
    PERFORM setval('simulated.ids', seed);
    FOREACH slug IN ARRAY slugs LOOP
        INSERT INTO public.tenants AS t (slug) VALUES (begin.slug) RETURNING t.tenant_id INTO tenant_id;
        RETURN NEXT;
    END LOOP;
END $$;
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
    ELSIF OLD.finished_at IS NOT NULL AND NEW.status <> OLD.status THEN
        RAISE 'version % was % and becomes %', NEW.version_id, OLD.status, NEW.status;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER guard BEFORE UPDATE ON document_versions FOR EACH ROW EXECUTE FUNCTION simulated.guard_version();
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
BEGIN = "SELECT tenant_id, slug FROM simulated.begin(%s, %s)"
TRUNCATE = "TRUNCATE tenants, embeddings CASCADE"  # everything a tenant owns
TRUNCATE_EVERY = 100  # it takes longer than to delete few rows, but leaves no dead ones
# How far behind the virtual time a transaction's may be. Telling it takes a round trip.
CLOCK_TOLERANCE_S = 0.03


CLOSED = pq.PGconn.connect_start(b"host=/nowhere")
CLOSED.finish()


@dataclass(slots=True)
class _Parked:
    """A statement that waits for a lock."""

    connection: "SimulatedConnection"
    statement: "_Statement"
    done: "asyncio.Future[None]"


class _Prepared(PrepareManager):
    """Statements are planned once for each of the server's processes, which takes longer than to run them."""

    prepare_threshold = 0  # at once
    prepared_max = 10_000

    def clear(self) -> bool:
        """psycopg forgets them after a rollback, since a table may be another one then. Here none ever is."""
        return False


@dataclass(slots=True)
class _Backend:
    """One of the server's processes. It is kept from schedule to schedule."""

    pgconn: PGconn
    prepared: _Prepared = field(default_factory=_Prepared)
    poll: select.poll = field(default_factory=select.poll)

    def __post_init__(self) -> None:
        self.poll.register(self.pgconn.socket, select.POLLIN)


class _Statement:
    """A psycopg generator, driven without the event loop."""

    def __init__(self, generator: "PQGen[Any]", backend: _Backend) -> None:
        self._generator = generator
        self._backend = backend
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
                if self._wanted == Wait.R:
                    if not self._backend.poll.poll(timeout_ms):
                        return False
                    self._wanted = self._generator.send(Ready.R)
                elif ready := self._may_write(timeout_ms):
                    self._wanted = self._generator.send(ready)
                else:
                    return False
        except StopIteration as end:
            self.result = end.value
        except Exception as error:
            self.error = error
        self.ended = True
        return True

    def _may_write(self, timeout_ms: float) -> Ready | None:
        """More is to be sent than the socket takes at once."""
        poll = select.poll()
        poll.register(self._backend.pgconn.socket, select.POLLOUT | (select.POLLIN if self._wanted & Wait.R else 0))
        events = [event for _, event in poll.poll(timeout_ms)]
        if not events:
            return None
        readable, writable = events[0] & ~select.POLLOUT, events[0] & select.POLLOUT
        return Ready.RW if readable and writable else Ready.R if readable else Ready.W


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
            "plan_cache_mode = force_generic_plan",
            "jit = off",
        ):
            cluster.administer(f"ALTER DATABASE {name} SET {setting}")
        self._urls = cluster.urls(name)
        self.control = psycopg.connect(self._urls.owner, autocommit=True)
        self.control.prepare_threshold = sys.maxsize  # only what is asked again and again, by `rows`
        self._cursor = self.control.cursor()
        self._share_core(0)
        self._share_core(self.control.info.backend_pid)
        self.control.execute(SHADOWS)
        self.model = asyncio.run(_migrated(self._urls.owner))
        # Searches are exact below 20,000 chunks, so this index would only be kept up for nothing.
        self.control.execute(f"DROP INDEX embeddings_hnsw_{self.model.model_id}")
        self.control.execute(GUARDS)
        self._schedules = 0
        self._idle: list[_Backend] = []
        self._seen: dict[Hashable, list[tuple[Any, ...]]] = {}  # what `rows` gave since the last commit
        self._opened: list[SimulatedConnection] = []
        self._parked: list[_Parked] = []
        self.deadlocks = self.tenants_left = 0
        self._cpu_s_of_gone = 0.0

    def begin(self, seed: int, slugs: list[str]) -> list[Tenant]:
        """Empty tables, and these tenants."""
        self._schedules += 1
        if self._schedules % TRUNCATE_EVERY == 0:
            self.control.execute(TRUNCATE)
        self.deadlocks = self.tenants_left = 0
        begun = self._cursor.execute(BEGIN, (seed % 10**9 * 1000 + 1, slugs), prepare=True)
        self._seen.clear()
        return [Tenant(*row) for row in begun]

    def end(self) -> None:
        """Every connection goes back."""
        for connection in list(self._opened):
            self.cut(connection)

    def close(self) -> None:
        self.end()
        for backend in self._idle:
            backend.pgconn.finish()
        self.control.close()

    def cpu_s(self) -> float:
        """What the server's processes behind the connections have used so far; 0 where that cannot be known."""
        return self._cpu_s_of_gone + sum(
            _cpu_s(pgconn.backend_pid)
            for pgconn in (
                self.control.pgconn,
                *(backend.pgconn for backend in self._idle),
                *(connection.backend.pgconn for connection in self._opened),
            )
        )

    def rows(self, query: str, values: Any = None) -> list[tuple[Any, ...]]:
        """As the owner, who sees everything that was committed. Not asked again before the next commit."""
        asked = query, repr(values)
        if asked not in self._seen:
            self._seen[asked] = self._cursor.execute(query.encode(), values, prepare=True).fetchall()
        return self._seen[asked]

    def open(self, environment: Environment) -> "SimulatedConnection":
        """A connection for an environment; the server's processes behind them are kept from schedule to schedule."""
        if self._idle:
            backend = self._idle.pop()
        else:
            backend = _Backend(pq.PGconn.connect(self._urls.app.encode()))
            self._share_core(backend.pgconn.backend_pid)
        connection = SimulatedConnection(backend, self, environment)
        self._opened.append(connection)
        return connection

    def cut(self, connection: "SimulatedConnection") -> None:
        """The connection is gone, and what was not committed with it."""
        if connection not in self._opened:
            return
        self._opened.remove(connection)
        connection.lose_socket()
        backend = connection.backend
        for parked in [parked for parked in self._parked if parked.connection is connection]:
            self._parked.remove(parked)
            self._cancel(backend.pgconn, parked.statement)
            parked.done.cancel()
        if backend.pgconn.pipeline_status != PipelineStatus.OFF:
            self._hang_up(backend.pgconn)
        else:
            # Behind a pooler a tenant that is left on a connection would be the next one's as well.
            in_transaction = backend.pgconn.transaction_status != TransactionStatus.IDLE
            rollback = b"ROLLBACK; " if in_transaction else b""
            left = backend.pgconn.exec_(rollback + b"SELECT current_setting('app.tenant_id', true)").get_value(0, 0)
            self.tenants_left += bool(left)
            if left:
                backend.pgconn.exec_(b"RESET ALL")
            self._idle.append(backend)
        self._let_through()

    def run(self, connection: "SimulatedConnection", generator: "PQGen[T]") -> "_Statement | _Parked":
        """Run a statement to its end, or until it waits for somebody's lock."""
        statement = _Statement(generator, connection.backend)
        while not statement.go_on(2):
            if self._blockers([connection]):
                parked = _Parked(connection, statement, asyncio.get_running_loop().create_future())
                self._parked.append(parked)
                self._break_deadlock(parked)
                return parked
        if connection.transaction_status() != TransactionStatus.INTRANS:
            self._seen.clear()
            if self._parked:
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
                    self._seen.clear()
                    self._parked.remove(parked)
                    if not parked.done.done():  # its task may have been cancelled, and not know it yet
                        parked.done.set_result(None)
                    progress = True

    def _blockers(self, connections: list["SimulatedConnection"]) -> dict[int, list[int]]:
        """Who waits for whom, by process id."""
        pids = [connection.pgconn.backend_pid for connection in connections]
        found = self.control.execute("SELECT pid, pg_blocking_pids(pid) FROM unnest(%s::integer[]) AS pid", [pids])
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
        self._cpu_s_of_gone += _cpu_s(pid)
        pgconn.finish()
        while self.control.execute("SELECT FROM pg_stat_activity WHERE pid = %s", [pid]).rowcount:
            pass


def _cpu_s(pid: int) -> float:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0.0
    user, system = text.rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _time(seconds: float) -> str:
    return (EPOCH + timedelta(seconds=seconds)).isoformat()


async def _migrated(owner: str) -> EmbeddingModel:
    await migrate(owner)
    return await register_model(owner, MODEL_NAME, MODEL_DIMENSIONS)


class _Cursor(AsyncCursor[DictRow]):
    """psycopg's own, which sends the beginning of a transaction in one go: BEGIN, the time and the tenant."""

    async def execute(self, query: Any, params: Any = None, **options: Any) -> "_Cursor":
        connection = cast(SimulatedConnection, self.connection)
        if connection.begin_is_due and isinstance(query, str) and query.startswith("SELECT set_config("):
            await connection.wait(connection.set_tenant(query, params))
            return self
        return await super().execute(query, params, **options)


class SimulatedConnection(AsyncConnection[DictRow]):
    """psycopg's own connection, whose every wait for the server is a step of the simulation."""

    def __init__(self, backend: _Backend, database: SimulatedDatabase, environment: Environment) -> None:
        super().__init__(backend.pgconn, dict_row)
        self._autocommit = True
        self._prepared = backend.prepared
        self.backend = backend
        self._database = database
        self._environment = environment
        self.cursor_factory = _Cursor
        self.begin_is_due = b""  # ... with its time, and was not sent yet
        self._told_time_s = -1.0
        self._time_s = 0.0

    async def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
        """Edda asks "" before each transaction whether the connection is alive, which takes a step."""
        if query != "":
            return await super().execute(query, params, **options)
        self._told_time_s = now_s = self._environment.now_s()
        fault = await self._may_begin()
        self._tell_time()
        self._time_s = now_s
        await self._afterwards(fault, TransactionStatus.IDLE)
        return None

    def _exec_command(self, command: Any, result_format: Any = pq.Format.TEXT) -> "PQGen[PGresult | None]":
        """BEGIN, COMMIT and the like, which wait for nobody, in one go. BEGIN goes with the statement after it."""
        if self._pipeline:
            return (yield from super()._exec_command(command, result_format))
        self._check_connection_ok()
        if command == b"BEGIN":
            self.begin_is_due = f"SET simulated.now = '{_time(self._time_s)}'; BEGIN; ".encode()
            return None
        return self._run_at_once(command)

    def set_tenant(self, query: str, values: Sequence[str]) -> "PQGen[None]":
        """The first statement of Edda's transactions, which waits for nobody either."""
        quoted = (pq.Escaping(self.pgconn).escape_literal(value.encode()).decode() for value in values)
        self._run_at_once((query % tuple(quoted)).encode())
        return
        yield

    def _start_query(self) -> "PQGen[None]":
        """Any other statement comes after BEGIN."""
        if self.begin_is_due:
            self._run_at_once(b"")
        yield from super()._start_query()

    def _run_at_once(self, command: bytes) -> PGresult:
        result = self.pgconn.exec_(self.begin_is_due + command)
        self.begin_is_due = b""
        if result.status not in (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK):
            raise error_from_result(result)
        return result

    def transaction_status(self) -> int:
        """As if what is due was sent."""
        return TransactionStatus.INTRANS if self.begin_is_due else self.pgconn.transaction_status

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
        before = self.transaction_status()
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
        if fault == "read_only" and self.pgconn.pipeline_status == PipelineStatus.OFF:
            raise ReadOnlySqlTransaction("cannot execute this in a read-only transaction")
        return fault

    async def _afterwards(self, fault: str | None, before: int) -> None:
        """It was carried out; its answer is on the way."""
        committed = before == TransactionStatus.INTRANS and self.transaction_status() == TransactionStatus.IDLE
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
            self._told_time_s = self._time_s = now_s

    async def close(self) -> None:
        self._database.cut(self)
        await super().close()

    def lose_socket(self) -> None:
        """The server's side goes on; this side finds itself closed."""
        self.pgconn, self.begin_is_due = CLOSED, b""


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
        return isinstance(connection, SimulatedConnection) and connection.transaction_status() not in (
            TransactionStatus.IDLE,
            TransactionStatus.UNKNOWN,
        )
