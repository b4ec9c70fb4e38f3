"""Connections whose every statement is a step of the simulation: psycopg's own, over sockets that are kept.

A statement is sent and its answer waited for in one go, at the virtual moment at which its task may begin it. To save
round trips, BEGIN goes with the statement after it, and the question whether a connection is alive asks nobody; both
are steps all the same.
"""

import asyncio
import select
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar, cast

from edda.settings import Settings
from edda.store.database import Database
from psycopg import AsyncConnection, AsyncCursor, pq
from psycopg._preparing import PrepareManager
from psycopg.abc import PQGen
from psycopg.errors import OperationalError, ReadOnlySqlTransaction, error_from_result
from psycopg.pq import PipelineStatus, TransactionStatus
from psycopg.pq.abc import PGconn, PGresult
from psycopg.rows import DictRow, dict_row
from psycopg.waiting import Ready, Wait

from tests.simulation.lambdas import Environment

if TYPE_CHECKING:
    from tests.simulation.database import SimulatedDatabase

T = TypeVar("T")
IDLE, INTRANS, UNKNOWN = TransactionStatus.IDLE, TransactionStatus.INTRANS, TransactionStatus.UNKNOWN

CLOSED = pq.PGconn.connect_start(b"host=/nowhere")
CLOSED.finish()


@dataclass(slots=True)
class Parked:
    """A statement that waits for a lock."""

    connection: "SimulatedConnection"
    statement: "Statement"
    done: "asyncio.Future[None]"


class Prepared(PrepareManager):
    """Statements are planned once for each of the server's processes, which takes longer than to run them."""

    prepare_threshold = 0  # at once
    prepared_max = 10_000

    def clear(self) -> bool:
        """psycopg forgets them after a rollback, since a table may be another one then. Here none ever is."""
        return False


@dataclass(slots=True)
class Backend:
    """One of the server's processes. It is kept from schedule to schedule."""

    pgconn: PGconn
    prepared: Prepared = field(default_factory=Prepared)
    poll: select.poll = field(default_factory=select.poll)

    def __post_init__(self) -> None:
        self.poll.register(self.pgconn.socket, select.POLLIN)


class Statement:
    """A psycopg generator, driven without the event loop."""

    def __init__(self, generator: "PQGen[Any]", backend: Backend) -> None:
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

    def __init__(self, backend: Backend, database: "SimulatedDatabase", environment: Environment) -> None:
        super().__init__(backend.pgconn, dict_row)
        self._autocommit = True
        self._prepared = backend.prepared
        self.backend = backend
        self._database = database
        self._environment = environment
        self.cursor_factory = _Cursor
        self.begin_is_due = b""  # ... with its time, and was not sent yet

    async def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
        """Edda asks "" before each transaction whether the connection is alive, which takes a step."""
        if query != "":
            return await super().execute(query, params, **options)
        await self._afterwards(await self._may_begin(), IDLE)
        return None

    def _exec_command(self, command: Any, result_format: Any = pq.Format.TEXT) -> "PQGen[PGresult | None]":
        """BEGIN, COMMIT and the like, which wait for nobody, in one go. BEGIN goes with the statement after it."""
        if self._pipeline:
            return (yield from super()._exec_command(command, result_format))
        self._check_connection_ok()
        if command == b"BEGIN":
            self.begin_is_due = self._tell_time() + b"; BEGIN; "
            return None
        return self._run_at_once(command)

    def set_tenant(self, query: str, values: Sequence[str]) -> "PQGen[None]":
        """The first statement of Edda's transactions, which waits for nobody either."""
        quoted = (pq.Escaping(self.pgconn).escape_literal(value.encode()).decode() for value in values)
        self._run_at_once((query % tuple(quoted)).encode())
        return
        yield

    def _start_query(self) -> "PQGen[None]":
        """Any other statement comes after BEGIN; without a transaction it has to be told the time itself."""
        if self.begin_is_due:
            self._run_at_once(b"")
        elif self.pgconn.transaction_status == IDLE:
            self._run_at_once(self._tell_time())
        yield from super()._start_query()

    def _run_at_once(self, command: bytes) -> PGresult:
        result = self.pgconn.exec_(self.begin_is_due + command)
        self.begin_is_due = b""
        if result.status not in (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK):
            raise error_from_result(result)
        return result

    def transaction_status(self) -> int:
        """As if what is due was sent."""
        return INTRANS if self.begin_is_due else self.pgconn.transaction_status

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
        ran = self._database.run(self, gen)
        if isinstance(ran, Parked):
            self._environment.note("waits for a lock")
            began_s = self._environment.now_s()
            try:
                await ran.done
                self._environment.held_up_s += self._environment.now_s() - began_s
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
        if isinstance(ran, Parked):
            self._database.abandon(ran)

    async def _may_begin(self) -> str | None:
        """The fault that is to strike when the statement was carried out."""
        fault = await self._environment.step("sql")
        if self.pgconn.status != pq.ConnStatus.OK:
            raise OperationalError("the connection is closed")
        if fault == "cut":
            raise self._lost()
        # BEGIN is never refused, and has begun to be counted when psycopg sends it.
        in_transaction = self.transaction_status() == INTRANS
        if fault == "read_only" and in_transaction and self.pgconn.pipeline_status == PipelineStatus.OFF:
            raise ReadOnlySqlTransaction("cannot execute this in a read-only transaction")
        return fault

    async def _afterwards(self, fault: str | None, before: int) -> None:
        """It was carried out; its answer is on the way."""
        committed = before == INTRANS and self.transaction_status() == IDLE
        if committed:
            fault = await self._environment.committed() or fault
        if fault == "cut_after":
            raise self._lost()

    def _lost(self) -> OperationalError:
        self._database.cut(self)
        return OperationalError("server closed the connection unexpectedly")

    def _tell_time(self) -> bytes:
        return self._database.tell_time(self._environment.now_s())

    async def close(self) -> None:
        self._database.cut(self)
        await super().close()

    def lose_socket(self) -> None:
        """The server's side goes on; this side finds itself closed."""
        self.pgconn, self.begin_is_due = CLOSED, b""


class EnvironmentDatabase(Database):
    """Edda's own, which opens simulated connections."""

    def __init__(self, database: "SimulatedDatabase", environment: Environment) -> None:
        async def conninfo() -> str:
            return ""

        has_patience = environment.function in {"chunk", "embed"}
        super().__init__(conninfo, patience_s=Settings().database_patience_s if has_patience else 0)
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
            IDLE,
            UNKNOWN,
        )

    def is_idle_in_transaction(self) -> bool:
        """... and not because it waits for a lock."""
        connection = self._connection
        return self.in_transaction() and not self._simulated.is_parked(cast(SimulatedConnection, connection))
