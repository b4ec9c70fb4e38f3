"""Candidates of two legs, vectors and words, always min(depth, matching) by vectors; and the passages they stand for.

Where few chunks match, one statement compares all, by distance and by words. Where many do, each leg finds its own
(nearest.py, lexical.py), and is asked for the score of what the other found.

Statistics of a table that grows know nothing of its newest rows, so no plan may depend on them: tables are joined in
the order that is written here, each row by a look at a key (LATERAL with OFFSET 0 leaves the planner no other way), and
distances by hash, for a full join can be made in no other way while nothing may be sorted.
"""

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from psycopg import sql

from edda.errors import InvalidRequest
from edda.models import Candidate, EmbeddingModel, Hit, Passage
from edda.phrases import in_postgres
from edda.store import lexical
from edda.store.conditions import Condition, compile_filter
from edda.store.database import Cursor, Database, HalfVector, Integers, Row, fetch_all
from edda.store.nearest import MOST_FOLLOWED, WITHOUT_INDEX, nearest
from edda.store.queries import queries
from edda.terms import INVISIBLE, QueryTerms

SQL = queries("search")

# Up to here every matching chunk is compared: no recall is lost.
EXACT_UP_TO = 20_000
NO_LIMIT = 2**62
MOST_READ = 200_000  # texts, for phrases
MOST_PHRASES = 16  # Postgres keeps 32 regular expressions compiled
EVERYTHING = compile_filter(None).clause
# HNSW: candidates kept while searching each index; recall@10 by it is in benchmarks/README.md.
EF_SEARCH = 400

# What is left to choose is the access to each table. A bitmap of a tenant's every row might be made for each key, and
# whole rows be kept in memory, for keys that come once.
SETTINGS = {
    "enable_sort": "off",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_memoize": "off",
    "jit": "off",
    "hnsw.iterative_scan": "strict_order",
    "hnsw.max_scan_tuples": str(MOST_FOLLOWED),
}
# Only what is visible: a version becomes so in one update, so no search mixes two. One that is visible has all the
# chunks that were planned: if there are too many, nothing is compared.
ALL_CHUNKS = sql.SQL(
    "matching AS MATERIALIZED ("
    "SELECT d.document_id, v.version_id, v.planned_chunks, COALESCE(d.title, v.title) AS title "
    "FROM documents d CROSS JOIN LATERAL "
    "(SELECT * FROM document_versions v WHERE v.version_id = d.current_version_id OFFSET 0) v "
    "WHERE d.tenant_id = %(tenant_id)s AND ({condition}) LIMIT %(exact_up_to)s + 1), "
    "total AS MATERIALIZED (SELECT COALESCE(sum(planned_chunks), 0) AS chunks FROM matching), "
    "visible AS MATERIALIZED ("
    "SELECT m.document_id, t.version_id, t.ordinal, t.language, t.content_hash, {score} AS score "
    "FROM matching m "
    "CROSS JOIN LATERAL {rows} t {read}"
    "WHERE (SELECT chunks FROM total) <= %(exact_up_to)s)"
)
ROWS = sql.SQL("(SELECT * FROM chunk_terms t WHERE t.version_id = m.version_id OFFSET 0)")
# Chunks that an earlier release stored while this one was deployed have no row of terms.
WITHOUT_ROWS = sql.SQL(
    "(SELECT c.version_id, c.ordinal, c.language, c.content_hash, t.weights FROM chunks c "
    "LEFT JOIN LATERAL (SELECT * FROM chunk_terms t WHERE t.version_id = c.version_id AND t.ordinal = c.ordinal "
    "OFFSET 0) t ON true WHERE c.version_id = m.version_id OFFSET 0)"
)
# Those that hold each phrase, headings above it and title included: found by one of its words, then read. Where there
# is none, all are read. No phrase has the character between these, and what is not seen is taken out.
READ = sql.SQL(
    "CROSS JOIN LATERAL ("
    "SELECT concat_ws(E'\\x02', {title}, array_to_string(c.heading_path, E'\\x02'), c.text) AS text FROM chunks c "
    "WHERE c.version_id = t.version_id AND c.ordinal = t.ordinal OFFSET 0) c "
    "CROSS JOIN LATERAL (SELECT WHERE (CASE WHEN c.text ~ {any_invisible} THEN translate(c.text, {invisible}, '') "
    "ELSE c.text END) ~ ALL (%(phrases)s) OFFSET 0) r "
)
WITH_PHRASES = sql.SQL(
    "total AS (SELECT 0 AS chunks), visible AS MATERIALIZED ("
    "SELECT d.document_id, t.version_id, t.ordinal, t.language, t.content_hash, t.score "
    "FROM (SELECT * FROM chunks_with_terms(%(any_of)b, '{{}}', %(query)s::sparsevec) OFFSET 0) t "
    "CROSS JOIN LATERAL (SELECT * FROM documents d WHERE d.current_version_id = t.version_id OFFSET 0) d "
    "CROSS JOIN LATERAL (SELECT * FROM document_versions v WHERE v.version_id = t.version_id OFFSET 0) v "
    "{read}WHERE d.tenant_id = %(tenant_id)s AND ({condition}))"
)
# The distance is a sum, so that no approximate index can be chosen.
WITH_DISTANCES = sql.SQL(
    "near AS MATERIALIZED (SELECT e.content_hash, (e.vector <=> %(vector)b) + 0 AS distance FROM embeddings e "
    "WHERE e.tenant_id = %(tenant_id)s AND e.model_id = {model_id} "
    "AND {texts}), "
    "scored AS MATERIALIZED (SELECT v.document_id, v.version_id, v.ordinal, v.language, v.score, n.distance "
    "FROM visible v FULL JOIN near n ON n.content_hash = v.content_hash)"
)
OF_VISIBLE = sql.SQL("e.content_hash = ANY (ARRAY(SELECT content_hash FROM visible))")
# All of them, unless there are too many: in the order of writing, which is faster than by hash.
OF_TENANT = sql.SQL("e.segment >= 0 AND (SELECT chunks FROM total) <= %(exact_up_to)s")
WITHOUT_DISTANCES = sql.SQL(
    "scored AS (SELECT document_id, version_id, ordinal, language, score, NULL::float8 AS distance FROM visible)"
)
SCORED_COLUMNS = sql.SQL("document_id, version_id, ordinal, language, score, distance")
NEAREST = sql.SQL(
    "(SELECT {columns} FROM scored WHERE distance IS NOT NULL AND version_id IS NOT NULL "
    "ORDER BY distance, document_id, ordinal LIMIT %(limit)s)"
)
BEST = sql.SQL(
    "(SELECT {columns} FROM scored WHERE score > 0 ORDER BY score DESC, document_id, ordinal LIMIT %(limit)s)"
)
# Who holds the phrases was found by words, though it may have none of the terms.
BEST_WITH_PHRASES = sql.SQL(
    "(SELECT {columns} FROM scored ORDER BY COALESCE(score, 0) DESC, document_id, ordinal LIMIT %(limit)s)"
)
TOTAL = sql.SQL("SELECT NULL, NULL, (SELECT count(*) FROM visible)::integer, NULL, NULL, chunks FROM total")


class SearchStore:
    """Search over the visible chunks of one tenant."""

    def __init__(
        self,
        database: Database,
        model: EmbeddingModel,
        *,
        exact_up_to: int = EXACT_UP_TO,
        without_index: int = WITHOUT_INDEX,
        most_read: int = MOST_READ,
    ) -> None:
        self._database = database
        self._model = model
        self._exact_up_to = exact_up_to
        self._without_index = without_index
        self._most_read = most_read
        self._common = lexical.CommonTerms()

    async def candidates(
        self, tenant_id: UUID, vector: HalfVector | None, terms: QueryTerms | None, condition: Condition, depth: int
    ) -> list[Candidate]:
        """The best `depth` of each leg that is asked, with the scores of both: by `vector`, by `terms`.

        They satisfy the condition and hold every phrase. By vectors min(depth, matching) are found, by words those
        that have one of the terms, or a phrase. In no particular order.

        Raises InvalidRequest for too many phrases, and for such as would have to be sought in too many chunks.
        """
        if terms is not None and len(terms.phrases) > MOST_PHRASES:
            raise InvalidRequest(
                f"A query has no more than {MOST_PHRASES} quoted phrases, this one {len(terms.phrases)}."
            )
        values = {**condition.values, "tenant_id": tenant_id, "vector": vector, "limit": depth}
        async with self._database.transaction(tenant_id) as cursor:
            await _configure(cursor, SETTINGS | {"hnsw.ef_search": str(min(1000, max(EF_SEARCH, 2 * depth)))})
            chunks = await lexical.count_chunks(cursor, tenant_id)
            query = lexical.TextQuery(())
            if terms is not None:
                query = await lexical.text_query(cursor, tenant_id, terms, chunks, self._common)
            if vector is None and not query.terms and not (terms and terms.phrases):
                return []
            values["query"] = query.vector
            if terms is not None and terms.phrases:
                any_of, to_read = await lexical.rarest(cursor, tenant_id, terms.phrases, chunks)
                if to_read > self._most_read:
                    raise InvalidRequest("The words of a phrase are too frequent to seek it in so many documents.")
                values["phrases"] = [in_postgres(phrase) for phrase in terms.phrases]
                rows = await self._with_phrases(cursor, query, condition, values, any_of)
                return _candidates(rows, terms)
            # How many match a filter is asked for; how many there are is known well enough.
            found = None
            if condition.clause != EVERYTHING or chunks <= self._exact_up_to:
                texts = OF_TENANT if condition.clause == EVERYTHING else OF_VISIBLE
                some = {"exact_up_to": self._exact_up_to}
                found = await self._exact(cursor, ALL_CHUNKS, query, condition, values | some, texts=texts)
            if found is None:
                found = await self._by_legs(cursor, query, condition, values, chunks)
            return _candidates(found, terms)

    async def _exact(
        self,
        cursor: Cursor,
        chunks: sql.SQL,
        query: lexical.TextQuery,
        condition: Condition,
        values: dict[str, Any],
        *,
        texts: sql.SQL = OF_VISIBLE,
        rows: sql.SQL = ROWS,
    ) -> list[Row] | None:
        """Every matching chunk is compared. None when there are too many. `texts`: whose vectors are read."""
        score = sql.SQL("-(t.weights <#> %(query)s::sparsevec)" if query.terms else "NULL::float8")
        distances = WITHOUT_DISTANCES if values["vector"] is None else WITH_DISTANCES
        legs = []
        if values["vector"] is not None:
            legs.append(NEAREST)
        if query.terms or "phrases" in values:
            legs.append(BEST_WITH_PHRASES if "phrases" in values else BEST)
        legs.append(TOTAL)
        read: sql.Composable = sql.SQL("")
        if "phrases" in values:
            read = READ.format(
                title=sql.SQL("m.title" if chunks is ALL_CHUNKS else "COALESCE(d.title, v.title)"),
                any_invisible=sql.Literal(f"[{INVISIBLE}]"),
                invisible=sql.Literal(INVISIBLE),
            )
        statement = sql.SQL("WITH {chunks}, {distances} {legs}").format(
            chunks=chunks.format(condition=condition.clause, score=score, read=read, rows=rows),
            distances=distances.format(model_id=sql.Literal(self._model.model_id), texts=texts),
            legs=sql.SQL(" UNION ALL ").join(leg.format(columns=SCORED_COLUMNS) for leg in legs),
        )
        await cursor.execute(statement, values)
        *found, total = await cursor.fetchall()
        if total["distance"] > values.get("exact_up_to", NO_LIMIT):
            return None
        if total["ordinal"] < total["distance"] and rows is ROWS and "phrases" not in values:
            return await self._exact(cursor, chunks, query, condition, values, texts=texts, rows=WITHOUT_ROWS)
        return found

    async def _with_phrases(
        self,
        cursor: Cursor,
        query: lexical.TextQuery,
        condition: Condition,
        values: dict[str, Any],
        any_of: Integers | None,
    ) -> list[Row]:
        """Raises InvalidRequest when too many would have to be read."""
        if any_of is not None:
            return await self._exact(cursor, WITH_PHRASES, query, condition, values | {"any_of": any_of}) or []
        limit = {"exact_up_to": self._most_read}
        rows = await self._exact(cursor, ALL_CHUNKS, query, condition, values | limit, rows=WITHOUT_ROWS)
        if rows is None:
            raise InvalidRequest(
                "A phrase of function words, single letters or symbols cannot be sought in so many documents."
            )
        return rows

    async def _by_legs(
        self, cursor: Cursor, query: lexical.TextQuery, condition: Condition, values: dict[str, Any], chunks: int
    ) -> list[Row]:
        depth = values["limit"]
        by_words = await lexical.best(cursor, query, condition, values, depth)
        if values["vector"] is None:
            return [row | {"distance": None} for row in by_words]
        by_vectors = await nearest(cursor, self._model, condition, values, depth, by_index=chunks > self._without_index)
        if len(by_vectors) < depth:
            # All parts together had too few: they are all compared after all.
            return await self._exact(cursor, ALL_CHUNKS, query, condition, values | {"exact_up_to": NO_LIMIT}) or []
        if not query.terms:
            return [row | {"score": None} for row in by_vectors]
        values = values | {
            "model_id": self._model.model_id,
            "content_hashes": [row["content_hash"] for row in by_words],
            "version_ids": [row["version_id"] for row in by_vectors],
            "ordinals": Integers(row["ordinal"] for row in by_vectors),
        }
        distances = await fetch_all(cursor, SQL["distances"], values)
        scores = await fetch_all(cursor, SQL["text_scores"], values)
        return [
            *(row | distance for row, distance in zip(by_words, distances, strict=True)),
            *(row | score for row, score in zip(by_vectors, scores, strict=True)),
        ]

    async def hits(self, tenant_id: UUID, candidates: Sequence[Candidate]) -> list[Hit]:
        """The passages, in the candidates' order, of those that are still visible. `score` is the similarity, or what
        there is."""
        async with self._database.transaction(tenant_id) as cursor:
            await _configure(cursor, SETTINGS)
            values = {
                "document_ids": [one.document_id for one in candidates],
                "version_ids": [one.version_id for one in candidates],
                "ordinals": Integers(one.ordinal for one in candidates),
            }
            rows = await fetch_all(cursor, SQL["hits"], values)
        return [_hit(row, candidates[row["position"] - 1]) for row in rows]

    async def neighbours(self, tenant_id: UUID, hits: Sequence[Hit], n: int) -> list[list[Passage]]:
        """For each hit up to `n` chunks before it and `n` after it, in the document's order, without itself."""
        async with self._database.transaction(tenant_id) as cursor:
            await _configure(cursor, SETTINGS)
            values = {
                "version_ids": [hit.version_id for hit in hits],
                "ordinals": Integers(hit.ordinal for hit in hits),
                "n": n,
            }
            rows = await fetch_all(cursor, SQL["neighbours"], values)
        found: list[list[Passage]] = [[] for _ in hits]
        for row in rows:
            found[row.pop("position") - 1].append(Passage(**row))
        return found


async def _configure(cursor: Cursor, settings: dict[str, str]) -> None:
    """For the rest of this transaction."""
    query = "SELECT set_config(name, value, true) FROM unnest(%s::text[], %s::text[]) AS s (name, value)"
    await cursor.execute(query, [list(settings), list(settings.values())])


def _candidates(rows: Iterable[Row], terms: QueryTerms | None) -> list[Candidate]:
    """One for each chunk. Where words were asked for, what has none of them has a score of 0."""
    found: dict[tuple[UUID, int], Candidate] = {}
    for row in rows:
        found[row["version_id"], row["ordinal"]] = Candidate(
            version_id=row["version_id"],
            ordinal=row["ordinal"],
            document_id=row["document_id"],
            language=row["language"],
            similarity=None if row["distance"] is None else 1.0 - row["distance"],
            text_score=None if terms is None else max(0.0, row["score"] or 0.0),
        )
    return list(found.values())


def _hit(row: Row, candidate: Candidate) -> Hit:
    score = candidate.similarity if candidate.similarity is not None else candidate.text_score
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
        score=score or 0.0,
    )
