"""Nearest passages, always min(k, matching) of them.

Small sets are searched exactly. Large ones go through HNSW with an iterative scan; when a filter leaves that with
fewer than k rows, the exact search answers, so an index never costs a row.
"""

from typing import Any
from uuid import UUID

from psycopg import sql

from edda.models import EmbeddingModel, Hit
from edda.store.conditions import Condition
from edda.store.database import Cursor, Database, HalfVector, Row

# Up to here the exact search is the better one: no recall is lost and it takes tens of milliseconds.
EXACT_UP_TO = 20_000

HIT_COLUMNS = sql.SQL(
    "d.document_id, c.chunk_id, c.version_id, c.ordinal, d.name, COALESCE(d.title, v.title) AS title, c.text, "
    "c.char_start, c.char_end, c.page, c.heading_path, c.language, d.metadata, d.tags"
)
# Only what is visible: a version becomes so in one update, so no search mixes two.
VISIBLE = sql.SQL(
    "documents d JOIN document_versions v ON v.version_id = d.current_version_id "
    "JOIN chunks c ON c.version_id = v.version_id"
)


MATCHING = sql.SQL(
    "SELECT count(*) AS n FROM (SELECT FROM {visible} WHERE d.tenant_id = %(tenant_id)s AND ({condition}) "
    "LIMIT %(exact_up_to)s + 1) AS matching"
)
# The distance is a sum, so that no approximate index can be chosen for its order.
EXACT = sql.SQL(
    "SELECT {columns}, (e.vector <=> %(vector)b) + 0 AS distance FROM {visible} "
    "JOIN embeddings e ON e.tenant_id = d.tenant_id AND e.content_hash = c.content_hash "
    "WHERE e.model_id = {model_id} AND d.tenant_id = %(tenant_id)s AND ({condition}) "
    "ORDER BY distance, document_id, ordinal LIMIT %(limit)s"
)
# Model and dimensions are literals: each model's index is a partial one, over an expression.
APPROXIMATE = sql.SQL(
    "SELECT {columns}, e.vector::halfvec({dimensions}) <=> %(vector)b AS distance FROM embeddings e "
    "JOIN chunks c ON c.tenant_id = e.tenant_id AND c.content_hash = e.content_hash "
    "JOIN documents d ON d.current_version_id = c.version_id "
    "JOIN document_versions v ON v.version_id = c.version_id "
    "WHERE e.model_id = {model_id} AND e.tenant_id = %(tenant_id)s AND ({condition}) "
    "ORDER BY e.vector::halfvec({dimensions}) <=> %(vector)b LIMIT %(limit)s"
)


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
            "exact_up_to": self._exact_up_to,
        }
        async with self._database.transaction(tenant_id) as cursor:
            counted = await self._fetch(cursor, MATCHING, condition, values)
            if counted[0]["n"] <= self._exact_up_to:
                rows = await self._fetch(cursor, EXACT, condition, values)
            else:
                await cursor.execute("SET LOCAL hnsw.iterative_scan = strict_order")
                await cursor.execute(
                    "SELECT set_config('hnsw.ef_search', %s, true)", [str(min(1000, max(200, 2 * top_k)))]
                )
                rows = await self._fetch(cursor, APPROXIMATE, condition, values)
                if len(rows) < min(top_k, counted[0]["n"]):
                    rows = await self._fetch(cursor, EXACT, condition, values)
        return [_hit(row) for row in rows]

    async def _fetch(self, cursor: Cursor, query: sql.SQL, condition: Condition, values: dict[str, Any]) -> list[Row]:
        composed = query.format(
            columns=HIT_COLUMNS,
            visible=VISIBLE,
            condition=condition.clause,
            model_id=sql.Literal(self._model.model_id),
            dimensions=sql.Literal(self._model.dimensions),
        )
        await cursor.execute(composed, values)
        return await cursor.fetchall()


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
