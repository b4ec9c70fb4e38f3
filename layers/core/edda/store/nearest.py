"""The vector leg where a tenant has many chunks: the nearest in parts, of which HNSW indexes cover some.

A tenant's vectors are divided by segments: those that an HNSW index covers are searched by it, the others exactly, in
one statement. The division is made of the statement's own conditions, so each vector is in one part, whatever is built
or dropped meanwhile: an index only decides how fast a part is searched. Of each part the nearest 20,000 are looked at
until enough match; all parts together may give fewer than match.
"""

from dataclasses import dataclass
from typing import Any

from psycopg import sql

from edda.index_ranges import END, IndexRange, cover, gaps
from edda.models import EmbeddingModel
from edda.store.conditions import Condition
from edda.store.database import Cursor, Row, fetch_all
from edda.store.queries import queries

SQL = queries("indexing")

# A tenant with fewer chunks has all its vectors compared, in some 40 ms: young HNSW graphs miss one or two in a hundred
# of the nearest, however long they are searched, and no more than one may be missed up to 50,000.
WITHOUT_INDEX = 60_000
# A tenant with a smaller part of an index's rows has them compared one by one: HNSW would meet too many of others'.
SMALL_SHARE = 64
FEW = 3_000  # more are not, for comparing or even counting them would cost more than HNSW,
YIELD = 4  # if so many times k of them are to be expected among the 20,000 rows that HNSW looks at
# Of a part so many, the nearest, are followed to chunks that match, until there are k. As pgvector's own limit is.
MOST_FOLLOWED = 20_000

COLUMNS = sql.SQL("c.version_id, c.ordinal, d.document_id, c.language")
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
# The distance is a sum, so that no approximate index can be chosen for its order.
ONE_BY_ONE = sql.SQL(
    "(SELECT {columns}, e.distance FROM ("
    "SELECT e.tenant_id, e.content_hash, (e.vector <=> %(vector)b) + 0 AS distance FROM embeddings e "
    "WHERE e.tenant_id = %(tenant_id)s AND e.model_id = {model_id} AND {segments} "
    "ORDER BY distance LIMIT %(most_followed)s) AS e {followed} WHERE ({condition}) "
    "ORDER BY e.distance LIMIT %(limit)s)"
)


@dataclass(frozen=True, slots=True)
class Part:
    """Some segments, and how they are searched."""

    first: int
    until: int
    by_index: bool

    @property
    def segments(self) -> sql.Composed:
        return sql.SQL("(e.segment >= {} AND e.segment < {})").format(sql.Literal(self.first), sql.Literal(self.until))


async def nearest(
    cursor: Cursor, model: EmbeddingModel, condition: Condition, values: dict[str, Any], limit: int, *, by_index: bool
) -> list[Row]:
    """The nearest `limit` visible chunks that satisfy the condition, nearest first, or fewer."""
    parts = [Part(0, END, by_index=False)]
    if by_index:
        parts = await _parts(cursor, model, values, limit)
    # All parts in one statement, and so as of one moment.
    statement = sql.SQL(" UNION ALL ").join(_composed(one, model, condition) for one in parts)
    await cursor.execute(statement, values | {"limit": limit, "most_followed": MOST_FOLLOWED})
    rows = await cursor.fetchall()
    rows.sort(key=lambda row: (row["distance"], row["document_id"], row["ordinal"]))
    return rows[:limit]


async def _parts(cursor: Cursor, model: EmbeddingModel, values: dict[str, Any], limit: int) -> list[Part]:
    """Every segment is in one of them."""
    found = await fetch_all(cursor, SQL["index_ranges"], {"model_id": model.model_id})
    ranges = cover([IndexRange(row["first"], row["until"], row["rows"]) for row in found if row["valid"]])
    few = [_few(one.rows, limit) for one in ranges]
    asked = {
        "tenant_id": values["tenant_id"],
        "model_id": model.model_id,
        "first": [one.first for one in ranges],
        "until": [one.until for one in ranges],
        "most": few,
    }
    counted = await fetch_all(cursor, SQL["rows_of_tenant"], asked)
    return [
        *(
            Part(one.first, one.until, by_index=row["rows"] > most)
            for one, row, most in zip(ranges, counted, few, strict=True)
        ),
        *(Part(first, until, by_index=False) for first, until in gaps(ranges)),
    ]


def _composed(part: Part, model: EmbeddingModel, condition: Condition) -> sql.Composed:
    return (BY_INDEX if part.by_index else ONE_BY_ONE).format(
        columns=COLUMNS,
        followed=FOLLOWED,
        condition=condition.clause,
        segments=part.segments,
        model_id=sql.Literal(model.model_id),
        dimensions=sql.Literal(model.dimensions),
    )


def _few(rows: int, top_k: int) -> int:
    """Up to how many of a tenant's are compared one by one, of an index of so many rows."""
    return 10 * top_k + min(rows // SMALL_SHARE, max(FEW, rows * YIELD * top_k // MOST_FOLLOWED))
