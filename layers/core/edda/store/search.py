"""Nearest passages, always min(k, matching) of them.

Where few chunks match, all are compared. Where many do, a tenant's vectors are divided by segments: those that an HNSW
index covers are searched by it, the others exactly, in one statement. The division is made of the statement's own
conditions, so each vector is in one part, whatever is built or dropped meanwhile: an index only decides how fast a
part is searched. Of each part the nearest 20,000 are looked at until k match; if all parts together have fewer, every
matching chunk is compared after all.

Statistics of a table that grows know nothing of its newest rows, so no plan may depend on them: tables are joined in
the order that is written here, each row by a look at a key. LATERAL with OFFSET 0 leaves the planner no other way.
"""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from psycopg import sql

from edda.index_ranges import IndexRange, cover, gaps
from edda.models import EmbeddingModel, Hit
from edda.store.conditions import Condition
from edda.store.database import Cursor, Database, HalfVector, Row, fetch_all
from edda.store.queries import queries

SQL = queries("indexing")

# Up to here every matching chunk is compared: no recall is lost, and it takes about a fifth of a second.
EXACT_UP_TO = 20_000
# A tenant with a smaller part of an index's rows has them compared one by one: HNSW would meet too many of others'.
SMALL_SHARE = 64
FEW = 3_000  # more are not, for comparing or even counting them would cost more than HNSW,
YIELD = 4  # if so many times k of them are to be expected among the 20,000 rows that HNSW looks at
# Of a part so many, the nearest, are followed to chunks that match, until there are k. As pgvector's own limit is.
MOST_FOLLOWED = 20_000

# HNSW: candidates kept while searching each index; recall@10 by it is in benchmarks/README.md.
EF_SEARCH = 200

HIT_COLUMNS = sql.SQL(
    "d.document_id, c.chunk_id, c.version_id, c.ordinal, d.name, COALESCE(d.title, v.title) AS title, c.text, "
    "c.char_start, c.char_end, c.page, c.heading_path, c.language, d.metadata, d.tags"
)
# Only what is visible: a version becomes so in one update, so no search mixes two.
VISIBLE = sql.SQL(
    "documents d CROSS JOIN LATERAL "
    "(SELECT * FROM document_versions v WHERE v.version_id = d.current_version_id OFFSET 0) v CROSS JOIN LATERAL "
    "(SELECT * FROM chunks c WHERE c.version_id = v.version_id OFFSET 0) c"
)
MATCHING = sql.SQL(
    "SELECT count(*) AS n FROM (SELECT FROM {visible} WHERE d.tenant_id = %(tenant_id)s AND ({condition}) "
    "LIMIT %(exact_up_to)s + 1) AS matching"
)
# The distance is a sum, so that no approximate index can be chosen for its order.
EXACT = sql.SQL(
    "SELECT {columns}, e.distance FROM {visible} CROSS JOIN LATERAL ("
    "SELECT (e.vector <=> %(vector)b) + 0 AS distance FROM embeddings e "
    "WHERE e.tenant_id = d.tenant_id AND e.model_id = {model_id} AND e.content_hash = c.content_hash OFFSET 0) e "
    "WHERE d.tenant_id = %(tenant_id)s AND ({condition}) "
    "ORDER BY distance, document_id, ordinal LIMIT %(limit)s"
)
# From the nearest on, a part's vectors are followed to the visible chunks that have them.
FOLLOWED = sql.SQL(
    "CROSS JOIN LATERAL (SELECT * FROM chunks c "
    "WHERE c.tenant_id = e.tenant_id AND c.content_hash = e.content_hash OFFSET 0) c "
    "CROSS JOIN LATERAL (SELECT * FROM documents d WHERE d.current_version_id = c.version_id OFFSET 0) d "
    "CROSS JOIN LATERAL (SELECT * FROM document_versions v WHERE v.version_id = c.version_id OFFSET 0) v "
)
# Model and dimensions are literals: an index is a partial one, over an expression.
BY_INDEX = sql.SQL(
    "(SELECT {columns}, e.vector::halfvec({dimensions}) <=> %(vector)b AS distance FROM embeddings e "
    "{followed} WHERE e.model_id = {model_id} AND {segments} AND e.tenant_id = %(tenant_id)s AND ({condition}) "
    "ORDER BY e.vector::halfvec({dimensions}) <=> %(vector)b LIMIT %(limit)s)"
)
ONE_BY_ONE = sql.SQL(
    "(SELECT {columns}, e.distance FROM ("
    "SELECT e.tenant_id, e.content_hash, (e.vector <=> %(vector)b) + 0 AS distance FROM embeddings e "
    "WHERE e.tenant_id = %(tenant_id)s AND e.model_id + 0 = {model_id} AND {segments} "
    "ORDER BY distance LIMIT %(most_followed)s) AS e {followed} WHERE ({condition}) "
    "ORDER BY e.distance LIMIT %(limit)s)"
)
# What is left to choose is the access to each table. A bitmap of a tenant's every row might be made for each key.
SETTINGS = {
    "enable_sort": "off",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "jit": "off",
    "hnsw.iterative_scan": "strict_order",
    "hnsw.max_scan_tuples": str(MOST_FOLLOWED),
}


@dataclass(frozen=True, slots=True)
class Part:
    """Some segments, and how they are searched."""

    first: int
    until: int
    by_index: bool

    @property
    def segments(self) -> sql.Composed:
        return sql.SQL("(e.segment >= {} AND e.segment < {})").format(sql.Literal(self.first), sql.Literal(self.until))


class SearchStore:
    """Vector search over the visible chunks of one tenant."""

    def __init__(self, database: Database, model: EmbeddingModel, *, exact_up_to: int = EXACT_UP_TO) -> None:
        self._database = database
        self._model = model
        self._exact_up_to = exact_up_to

    async def nearest(self, tenant_id: UUID, vector: HalfVector, condition: Condition, top_k: int) -> list[Hit]:
        """The `top_k` passages nearest to `vector` among those that satisfy `condition`, best first."""
        values = {
            **condition.values,
            "tenant_id": tenant_id,
            "vector": vector,
            "limit": top_k,
            "most_followed": MOST_FOLLOWED,
            "exact_up_to": self._exact_up_to,
        }
        ef_search = min(1000, max(EF_SEARCH, 2 * top_k))
        async with self._database.transaction(tenant_id) as cursor:
            await _configure(cursor, SETTINGS | {"hnsw.ef_search": str(ef_search)})
            counted = await self._fetch(cursor, MATCHING, condition, values)
            rows: list[Row] = []
            if counted[0]["n"] > self._exact_up_to:
                rows = await self._in_parts(cursor, condition, values)
            if len(rows) < top_k:
                rows = await self._fetch(cursor, EXACT, condition, values)
        return [_hit(row) for row in rows]

    async def _in_parts(self, cursor: Cursor, condition: Condition, values: dict[str, Any]) -> list[Row]:
        parts = await self._parts(cursor, values)
        await cursor.execute(self._joined(parts, condition), values)
        rows = await cursor.fetchall()
        rows.sort(key=lambda row: (row["distance"], row["document_id"], row["ordinal"]))
        return rows[: values["limit"]]

    async def _parts(self, cursor: Cursor, values: dict[str, Any]) -> list[Part]:
        """Every segment is in one of them."""
        found = await fetch_all(cursor, SQL["index_ranges"], {"model_id": self._model.model_id})
        ranges = cover([IndexRange(row["first"], row["until"], row["rows"]) for row in found if row["valid"]])
        few = [_few(one.rows, values["limit"]) for one in ranges]
        values = {
            "tenant_id": values["tenant_id"],
            "model_id": self._model.model_id,
            "first": [one.first for one in ranges],
            "until": [one.until for one in ranges],
            "most": few,
        }
        counted = await fetch_all(cursor, SQL["rows_of_tenant"], values)
        return [
            *(
                Part(one.first, one.until, by_index=row["rows"] > most)
                for one, row, most in zip(ranges, counted, few, strict=True)
            ),
            *(Part(first, until, by_index=False) for first, until in gaps(ranges)),
        ]

    def _joined(self, parts: list[Part], condition: Condition) -> sql.Composed:
        """All parts in one statement, and so as of one moment."""
        return sql.SQL(" UNION ALL ").join(
            self._composed(
                BY_INDEX if one.by_index else ONE_BY_ONE, condition, segments=one.segments, followed=FOLLOWED
            )
            for one in parts
        )

    async def _fetch(self, cursor: Cursor, query: sql.SQL, condition: Condition, values: dict[str, Any]) -> list[Row]:
        await cursor.execute(self._composed(query, condition), values)
        return await cursor.fetchall()

    def _composed(self, query: sql.SQL, condition: Condition, **more: sql.Composable) -> sql.Composed:
        return query.format(
            columns=HIT_COLUMNS,
            visible=VISIBLE,
            condition=condition.clause,
            model_id=sql.Literal(self._model.model_id),
            dimensions=sql.Literal(self._model.dimensions),
            **more,
        )


def _few(rows: int, top_k: int) -> int:
    """Up to how many of a tenant's are compared one by one, of an index of so many rows."""
    return 10 * top_k + min(rows // SMALL_SHARE, max(FEW, rows * YIELD * top_k // MOST_FOLLOWED))


async def _configure(cursor: Cursor, settings: dict[str, str]) -> None:
    """For the rest of this transaction."""
    query = "SELECT set_config(name, value, true) FROM unnest(%s::text[], %s::text[]) AS s (name, value)"
    await cursor.execute(query, [list(settings), list(settings.values())])


def _hit(row: Row) -> Hit:
    return Hit(
        document_id=row["document_id"],
        chunk_id=row["chunk_id"],
        version_id=row["version_id"],
        ordinal=row["ordinal"],
        name=row["name"],
        title=row["title"],
        text=row["text"],
        char_start=row["char_start"],
        char_end=row["char_end"],
        page=row["page"],
        heading_path=tuple(row["heading_path"]),
        language=row["language"],
        metadata=row["metadata"],
        tags=tuple(row["tags"]),
        score=1.0 - row["distance"],
    )
