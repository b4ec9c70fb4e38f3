"""The connection: one per execution environment, opened on first use, opened again after a freeze broke it."""

import asyncio
import logging
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import cache
from typing import Any, LiteralString
from uuid import UUID

import psycopg
from psycopg import AsyncConnection, AsyncCursor
from psycopg.adapt import Dumper
from psycopg.errors import IdleInTransactionSessionTimeout, ReadOnlySqlTransaction
from psycopg.pq import Format
from psycopg.rows import DictRow, dict_row
from psycopg.types import TypeInfo

from edda.errors import DatabaseUnavailable
from edda.vectors import to_halfvec_array_binary

logger = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 1.0
IMPATIENCE_S = 4.0  # shorter than the first delay of a message that comes back

# A worker that is frozen or killed in the middle of a transaction keeps its locks, and so all others from their work,
# until Postgres notices: without this it would wait for hours for a machine that is no more.
IDLE_S = 30
BEGIN_FOR = "SELECT set_config('app.tenant_id', %s, true), set_config('idle_in_transaction_session_timeout', %s, true)"
GONE = (psycopg.OperationalError, psycopg.InterfaceError, IdleInTransactionSessionTimeout, ReadOnlySqlTransaction)

Cursor = AsyncCursor[DictRow]
Row = dict[str, Any]


class HalfVector(bytes):
    """A vector in pgvector's binary halfvec format, bound without going through text."""


class FloatVectors(list[bytes]):
    """Vectors of one size in float32, bound as `halfvec[]`."""


class Uuids(list[bytes]):
    """Bound as `uuid[]`, without an object for each."""


class Integers(list[int]):
    """Bound as `integer[]`, many at once."""


class SparseVectors(list[bytes]):
    """Vectors in pgvector's binary format, bound as `sparsevec[]`."""


class _BinaryDumper(Dumper):
    format = Format.BINARY


class _HalfVectorDumper(_BinaryDumper):
    def dump(self, obj: HalfVector) -> bytes:
        return bytes(obj)


class _FloatVectorsDumper(_BinaryDumper):
    element_oid: int

    def dump(self, obj: FloatVectors) -> bytes:
        return to_halfvec_array_binary(obj, self.element_oid)


class _UuidsDumper(_BinaryDumper):
    oid, element_oid = 2951, 2950  # of uuid[] and uuid, in every Postgres

    def dump(self, obj: Uuids) -> bytes:
        if not obj:
            return struct.pack(">3i", 0, 0, self.element_oid)
        size = struct.pack(">i", 16)
        return struct.pack(">5i", 1, 0, self.element_oid, len(obj), 1) + size + size.join(obj)


class _IntegersDumper(_BinaryDumper):
    oid, element_oid = 1007, 23  # of integer[] and integer, in every Postgres

    def dump(self, obj: Integers) -> bytes:
        if not obj:
            return struct.pack(">3i", 0, 0, self.element_oid)
        numbers = [4] * (2 * len(obj))  # each with its size before it
        numbers[1::2] = obj
        return struct.pack(f">5i{len(numbers)}i", 1, 0, self.element_oid, len(obj), 1, *numbers)


class _SparseVectorsDumper(_BinaryDumper):
    element_oid: int

    def dump(self, obj: SparseVectors) -> bytes:
        if not obj:
            return struct.pack(">3i", 0, 0, self.element_oid)
        head = struct.pack(">5i", 1, 0, self.element_oid, len(obj), 1)
        return head + b"".join(part for vector in obj for part in (struct.pack(">i", len(vector)), vector))


class Database:
    """Hands out transactions of one tenant. Statements of concurrent tasks take turns on the one connection.

    `conninfo` is asked for at every (re)connect, so that a rotated password is picked up. `patience_s`: how long a
    transaction waits for a Postgres that restarts, fails over, wakes up or has no connection to spare.
    """

    def __init__(
        self,
        conninfo: Callable[[], Awaitable[str]],
        *,
        connect_timeout_s: int = 10,
        probe_timeout_s: float = 3,
        patience_s: float = 0,
    ) -> None:
        self._conninfo = conninfo
        self._patience_s = patience_s
        self._impatient_until = 0.0
        self._connect_timeout_s = connect_timeout_s
        self._probe_timeout_s = probe_timeout_s
        self._connection: AsyncConnection[DictRow] | None = None
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def transaction(self, tenant_id: UUID | None) -> AsyncIterator[Cursor]:
        """A transaction that sees the rows of one tenant, or of none.

        Raises DatabaseUnavailable when Postgres cannot be reached or goes away: run the whole transaction again.
        """
        async with self._turn:
            try:
                connection = await self._connected()
                async with connection.transaction(), connection.cursor() as cursor:
                    tenant = "" if tenant_id is None else str(tenant_id)
                    await cursor.execute(BEGIN_FOR, [tenant, f"{IDLE_S}s"])
                    yield cursor
            except GONE as error:
                # After a failover the old writer answers, but only reads: the new one has to be looked for.
                await self._forget_broken_connection(even_if_open=isinstance(error, ReadOnlySqlTransaction))
                # The driver's text names hosts and users: it goes to the log, not to the caller.
                logger.warning("database unavailable", extra={"error": type(error).__name__, "detail": str(error)})
                raise DatabaseUnavailable from error

    async def _connected(self) -> AsyncConnection[DictRow]:
        connection = self._connection
        if connection is not None and not connection.closed and await self._answers(connection):
            return connection
        await self._forget_broken_connection(even_if_open=True)
        connection = await self._open_patiently()
        try:
            await register_vectors(connection)
        except BaseException:  # also cancelled: one that is kept without it could store no vector
            await connection.close()
            raise
        self._connection = connection
        return connection

    async def _open_patiently(self) -> AsyncConnection[DictRow]:
        """Try until it works or patience ends. Whoever comes just after that was in vain has one try only."""
        clock = asyncio.get_running_loop().time
        until = clock() if clock() < self._impatient_until else clock() + self._patience_s
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                return await self._open()
            except psycopg.OperationalError:
                if clock() + pause_s > until:
                    self._impatient_until = clock() + IMPATIENCE_S
                    raise
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _open(self) -> AsyncConnection[DictRow]:
        """A new connection. The simulator puts its own kind here."""
        return await AsyncConnection.connect(
            await self._conninfo(),
            row_factory=dict_row,
            autocommit=True,
            connect_timeout=self._connect_timeout_s,
            prepare_threshold=None,  # safe behind RDS Proxy and PgBouncer
            application_name="edda",
        )

    async def _answers(self, connection: AsyncConnection[DictRow]) -> bool:
        """A frozen environment wakes up with a dead socket: find out before the work, not in the middle of it.

        Some dead sockets never say so. The inner limit stops the question; psycopg then asks the server to cancel it,
        which may be as dead, and the outer limit stops that.
        """
        limit = self._probe_timeout_s
        try:
            async with asyncio.timeout(limit + 0.5), asyncio.timeout(limit):
                await connection.execute("")
        except (psycopg.Error, TimeoutError):
            return False
        return True

    async def _forget_broken_connection(self, *, even_if_open: bool = False) -> None:
        if self._connection is not None and (even_if_open or self._connection.broken):
            await self._connection.close()
            self._connection = None

    async def aclose(self) -> None:
        """Close the connection."""
        await self._forget_broken_connection(even_if_open=True)


async def register_vectors(connection: AsyncConnection[Any]) -> None:
    """Let vectors be bound. Before the first migration there is no such type yet."""
    connection.adapters.register_dumper(Uuids, _UuidsDumper)
    connection.adapters.register_dumper(Integers, _IntegersDumper)
    halfvec = await TypeInfo.fetch(connection, "halfvec")
    if halfvec is None:
        return
    halfvec.register(connection)
    connection.adapters.register_dumper(HalfVector, _half_vector_dumper(halfvec.oid))
    connection.adapters.register_dumper(FloatVectors, _float_vectors_dumper(halfvec.array_oid, halfvec.oid))
    sparsevec = await TypeInfo.fetch(connection, "sparsevec")
    assert sparsevec is not None  # noqa: S101 - of the same extension
    connection.adapters.register_dumper(SparseVectors, _sparse_vectors_dumper(sparsevec.array_oid, sparsevec.oid))


# The number of a type is the database's own.
@cache
def _half_vector_dumper(oid: int) -> type[Dumper]:
    return type("HalfVectorDumper", (_HalfVectorDumper,), {"oid": oid})


@cache
def _float_vectors_dumper(oid: int, element_oid: int) -> type[Dumper]:
    return type("FloatVectorsDumper", (_FloatVectorsDumper,), {"oid": oid, "element_oid": element_oid})


@cache
def _sparse_vectors_dumper(oid: int, element_oid: int) -> type[Dumper]:
    return type("SparseVectorsDumper", (_SparseVectorsDumper,), {"oid": oid, "element_oid": element_oid})


async def fetch_one(cursor: Cursor, query: LiteralString, values: Mapping[str, Any]) -> Row | None:
    """The first row, or None."""
    await cursor.execute(query, values)
    return await cursor.fetchone()


async def fetch_all(cursor: Cursor, query: LiteralString, values: Mapping[str, Any]) -> list[Row]:
    """Every row."""
    await cursor.execute(query, values)
    return await cursor.fetchall()


async def execute_as_owner(conninfo: str, tenant_id: UUID, query: LiteralString, values: Mapping[str, Any]) -> None:
    """One statement about a tenant as the schema's owner, who is under row-level security too."""
    async with await AsyncConnection.connect(conninfo) as connection:
        await connection.execute("SELECT set_config('app.tenant_id', %s, true)", [str(tenant_id)])
        await connection.execute(query, values)
