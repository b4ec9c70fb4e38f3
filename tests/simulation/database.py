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
import signal
import sys
from collections.abc import Hashable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import psycopg
from edda.models import EmbeddingModel, Tenant
from edda.store.migrations import migrate, register_model
from psycopg import pq
from psycopg.abc import PQGen
from psycopg.adapt import Transformer
from psycopg.errors import DeadlockDetected, error_from_result
from psycopg.pq import ExecStatus, PipelineStatus
from psycopg.pq.abc import PGconn, PGresult

from tests.postgres import Cluster
from tests.simulation.connections import IDLE, INTRANS, Backend, Parked, SimulatedConnection, Statement
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
    DELETE FROM public.provider_budgets;
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
BEGIN = "SELECT tenant_id, slug FROM simulated.begin(%s, %s)"
TRUNCATE = "TRUNCATE tenants, embeddings, provider_budgets CASCADE"  # everything but the models
TRUNCATE_EVERY = 100  # it takes longer than to delete few rows, but leaves no dead ones


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
        self._names: dict[str, bytes] = {}  # of prepared queries
        self._share_core(0)
        self._share_core(self.control.info.backend_pid)
        self.control.execute(SHADOWS)
        self.model = asyncio.run(_migrated(self._urls.owner))
        self.control.execute(GUARDS)
        self._schedules = 0
        self._idle: list[Backend] = []
        self._seen: dict[Hashable, list[tuple[Any, ...]]] = {}  # what `rows` gave since the last commit
        self._opened: list[SimulatedConnection] = []
        self._parked: list[Parked] = []
        self._held: set[int] = set()  # processes of parked statements that stand still
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

    @staticmethod
    def tell_time(now_s: float) -> bytes:
        """What tells the virtual time to a connection."""
        return f"SET simulated.now = '{EPOCH + timedelta(seconds=now_s)}'".encode()

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
            if values is None:
                self._seen[asked] = self._rows_at_once(query)
            else:
                self._seen[asked] = self._cursor.execute(query.encode(), values, prepare=True).fetchall()
        return self._seen[asked]

    def _rows_at_once(self, query: str) -> list[tuple[Any, ...]]:
        """Without a cursor, which takes longer than the query. There are a hundred a schedule."""
        name = self._names.get(query)
        if name is None:
            name = self._names[query] = f"rows_{len(self._names)}".encode()
            _checked(self.control.pgconn.prepare(name, query.encode()))
        result = _checked(self.control.pgconn.exec_prepared(name, None))
        transformer = Transformer(self.control)
        transformer.set_pgresult(result)
        return transformer.load_rows(0, result.ntuples, tuple)

    def open(self, environment: Environment) -> "SimulatedConnection":
        """A connection for an environment; the server's processes behind them are kept from schedule to schedule."""
        if self._idle:
            backend = self._idle.pop()
        else:
            backend = Backend(pq.PGconn.connect(self._urls.app.encode()))
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
        waiting = [parked for parked in self._parked if parked.connection is connection]
        for parked in waiting:
            self._parked.remove(parked)
        self._hold_parked()
        for parked in waiting:
            self._cancel(backend.pgconn, parked.statement)
            parked.done.cancel()
        if backend.pgconn.pipeline_status != PipelineStatus.OFF:
            self._hang_up(backend.pgconn)
        else:
            # Behind a pooler a tenant that is left on a connection would be the next one's as well.
            in_transaction = backend.pgconn.transaction_status != IDLE
            rollback = b"ROLLBACK; " if in_transaction else b""
            left = backend.pgconn.exec_(rollback + b"SELECT current_setting('app.tenant_id', true)").get_value(0, 0)
            self.tenants_left += bool(left)
            if left:
                backend.pgconn.exec_(b"RESET ALL")
            self._idle.append(backend)
        self._let_through()

    def run(self, connection: "SimulatedConnection", generator: "PQGen[T]") -> "Statement | Parked":
        """Run a statement to its end, or until it waits for somebody's lock."""
        self._hold_parked()
        statement = Statement(generator, connection.backend)
        while not statement.go_on(2):
            if self._blockers([connection]):
                parked = Parked(connection, statement, asyncio.get_running_loop().create_future())
                self._parked.append(parked)
                self._break_deadlock(parked)
                self._release_held()
                return parked
        if connection.transaction_status() != INTRANS:
            self._seen.clear()
            self._let_through()
        self._release_held()
        return statement

    def abandon(self, parked: "Parked") -> None:
        """Its task was cancelled while it waited."""
        if parked in self._parked:
            self._parked.remove(parked)
            self._hold_parked()
            self._cancel(parked.connection.pgconn, parked.statement)
            self._let_through()

    def is_parked(self, connection: "SimulatedConnection") -> bool:
        """Does it wait for a lock?"""
        return any(parked.connection is connection for parked in self._parked)

    def _hold_parked(self) -> None:
        """Several that wait for one commit would all go on when it comes, and race for the next lock: the server's
        processes stand still, and are let through one by one."""
        if len(self._parked) > 1:
            for parked in self._parked:
                self._signal(parked, signal.SIGSTOP)

    def _release_held(self) -> None:
        for pid in self._held:
            os.kill(pid, signal.SIGCONT)
        self._held.clear()

    def _signal(self, parked: "Parked", number: signal.Signals) -> None:
        pid = parked.connection.backend.pgconn.backend_pid
        with suppress(PermissionError):  # the server may run as another user; then there may be a race
            os.kill(pid, number)
            (self._held.add if number == signal.SIGSTOP else self._held.discard)(pid)

    def _let_through(self) -> None:
        """Locks may have been released: statements that got theirs are run to their end."""
        progress = bool(self._parked)
        while progress:
            progress = False
            for parked in list(self._parked):
                held = parked.connection.backend.pgconn.backend_pid in self._held
                if held:
                    self._signal(parked, signal.SIGCONT)
                while not (ended := parked.statement.go_on(0)) and not self._blockers([parked.connection]):
                    if ended := parked.statement.go_on(1):
                        break
                if ended:
                    self._seen.clear()
                    self._parked.remove(parked)
                    if not parked.done.done():  # its task may have been cancelled, and not know it yet
                        parked.done.set_result(None)
                    progress = True
                elif held:
                    self._signal(parked, signal.SIGSTOP)
        self._release_held()

    def _blockers(self, connections: list["SimulatedConnection"]) -> dict[int, list[int]]:
        """Who waits for whom, by process id."""
        pids = [connection.pgconn.backend_pid for connection in connections]
        found = self.control.execute("SELECT pid, pg_blocking_pids(pid) FROM unnest(%s::integer[]) AS pid", [pids])
        return {pid: blockers for pid, blockers in found if blockers}

    def _break_deadlock(self, newest: "Parked") -> None:
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
    def _cancel(pgconn: PGconn, statement: "Statement") -> None:
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


def _checked(result: PGresult) -> PGresult:
    if result.status not in (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK):
        raise error_from_result(result)
    return result


def _cpu_s(pid: int) -> float:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0.0
    user, system = text.rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


async def _migrated(owner: str) -> EmbeddingModel:
    await migrate(owner)
    return await register_model(owner, MODEL_NAME, MODEL_DIMENSIONS)
