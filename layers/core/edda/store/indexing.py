"""Builds and drops HNSW indexes, as the schema's owner. Every statement here may run for minutes, and none is in a
transaction: CREATE INDEX CONCURRENTLY lets writers go on."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from psycopg import AsyncConnection, sql
from psycopg.rows import DictRow, dict_row

from edda.index_ranges import SEGMENT_ROWS, Build, IndexRange, Policy, cover, graph_bytes, next_build
from edda.models import EmbeddingModel
from edda.store.queries import queries

SQL = queries("indexing")
Connection = AsyncConnection[DictRow]

# Model and dimensions are literals, for the index is a partial one over an expression. What is false for new rows comes
# first: each of them is compared with every index.
CREATE = sql.SQL(
    "CREATE INDEX CONCURRENTLY {name} ON embeddings USING hnsw ((vector::halfvec({dimensions})) halfvec_cosine_ops) "
    "WITH (m = {m}, ef_construction = {ef_construction}) "
    "WHERE segment < {until} AND segment >= {first} AND model_id = {model_id}"
)
DROP = sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {name}")
CONNECT_TIMEOUT_S = 10
# A client that is no more keeps the lock, and so all others from indexing, until Postgres notices.
IDLE_S = 60  # longer than any Policy.watch_s
SET = "SELECT set_config(%s, %s, false)"


@dataclass(frozen=True, slots=True)
class Due:
    """An index of a model's that is to be built."""

    model: EmbeddingModel
    build: Build


class IndexStore:
    """The indexes of every model that is in use."""

    def __init__(self, conninfo: Callable[[], Awaitable[str]]) -> None:
        self._conninfo = conninfo

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[Connection | None]:
        """A connection of the owner's that no other indexer has; None while one has.

        A build whose caller is gone goes on in the server, whose session keeps the lock until it ends.
        """
        async with await AsyncConnection.connect(
            await self._conninfo(),
            autocommit=True,
            row_factory=dict_row,
            application_name="edda indexing",
            connect_timeout=CONNECT_TIMEOUT_S,
        ) as connection:
            cursor = await connection.execute(SQL["lock_indexing"])
            row = await cursor.fetchone()
            if row is None or not row["locked"]:
                yield None
                return
            await connection.execute(SET, ["statement_timeout", "0"])
            await connection.execute(SET, ["idle_session_timeout", f"{IDLE_S}s"])
            try:
                yield connection
            finally:
                if not connection.closed:
                    await connection.execute(SQL["unlock_indexing"])

    async def drop_leftovers(self, connection: Connection) -> int:
        """Drop what a build that failed left behind, and what a larger index has made superfluous. How many."""
        dropped = 0
        for model in await _models(connection):
            rows = await _ranges(connection, model)
            needed = {(one.first, one.until) for one in cover([_range(row) for row in rows if row["valid"]])}
            for row in rows:
                if not row["valid"] or (row["first"], row["until"]) not in needed:
                    await connection.execute(DROP.format(name=sql.Identifier(row["name"])))
                    dropped += 1
        return dropped

    async def numbers(self, connection: Connection) -> int:
        """How many vectors have been numbered."""
        cursor = await connection.execute(SQL["numbers"])
        row = await cursor.fetchone()
        assert row is not None  # noqa: S101 - a sequence has one row
        return int(row["numbers"])

    async def due(self, connection: Connection, policy: Policy) -> Due | None:
        """The most wanted index, if any."""
        end = await self.numbers(connection) // SEGMENT_ROWS
        merge = None
        for model in await _models(connection):
            ranges = [_range(row) for row in await _ranges(connection, model) if row["valid"]]
            build = next_build(ranges, end, model.dimensions, policy)
            if build is not None and not build.is_merge:
                return Due(model, build)
            if build is not None:
                merge = merge or Due(model, build)
        return merge

    async def create(self, connection: Connection, due: Due, policy: Policy) -> None:
        """Build it. What it makes superfluous is still there."""
        model, build = due.model, due.build
        kilobytes = min(policy.memory_bytes, build.rows * graph_bytes(model.dimensions)) // 1024 + 16 * 1024
        await connection.execute(SET, ["maintenance_work_mem", f"{kilobytes}kB"])
        await connection.execute(SET, ["max_parallel_maintenance_workers", str(policy.workers)])
        await connection.execute(
            CREATE.format(
                name=sql.Identifier(f"embeddings_hnsw_{model.model_id}_{build.first}_{build.until}"),
                dimensions=sql.Literal(model.dimensions),
                model_id=sql.Literal(model.model_id),
                first=sql.Literal(build.first),
                until=sql.Literal(build.until),
                m=sql.Literal(build.graph.m),
                ef_construction=sql.Literal(build.graph.ef_construction),
            )
        )


async def _models(connection: Connection) -> list[EmbeddingModel]:
    cursor = await connection.execute(SQL["models_to_index"])
    return [EmbeddingModel(row["model_id"], row["name"], row["dimensions"]) for row in await cursor.fetchall()]


async def _ranges(connection: Connection, model: EmbeddingModel) -> list[DictRow]:
    cursor = await connection.execute(SQL["index_ranges"], {"model_id": model.model_id})
    return await cursor.fetchall()


def _range(row: DictRow) -> IndexRange:
    return IndexRange(row["first"], row["until"], row["rows"])
