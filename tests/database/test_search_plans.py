"""Search takes time in proportion to what it looks at, whatever the statistics say."""

import re
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import psycopg
import pytest
from edda.concurrency import Deadline
from edda.filters import parse_filter
from edda.index_ranges import SEGMENT_ROWS, Policy
from edda.indexing import Indexing
from edda.models import EmbeddingModel, Tenant
from edda.store.conditions import compile_filter
from edda.store.database import Database, HalfVector
from edda.store.indexing import IndexStore
from edda.store.search import EXACT_UP_TO, SearchStore
from edda.terms import query_terms, term_ids
from edda.vectors import to_halfvec_binary

from tests.postgres import MODEL_DIMENSIONS, DatabaseUrls

COMMON, RARE = [f"common{n}" for n in range(4)], [f"rare{n}" for n in range(400)]
ROWS = 22_000  # above what is always compared
LIMIT_S = 2  # for a statement: quadratic ones take 3 to 60, linear ones a fifth of one
DOCUMENTS = """
INSERT INTO documents (document_id, tenant_id, object_key, name, metadata)
    SELECT md5(%(kind)s || 'd' || n)::uuid, %(tenant)s, %(kind)s || n, 'a', jsonb_build_object('kind', %(kind)s::text)
    FROM generate_series(1, %(documents)s) n;
INSERT INTO document_versions (version_id, tenant_id, document_id, s3_version_id, sequencer, modified_at,
                               planned_chunks)
    SELECT md5(%(kind)s || 'v' || n)::uuid, %(tenant)s, md5(%(kind)s || 'd' || n)::uuid, '1', 'a', now(), 11
    FROM generate_series(1, %(documents)s) n;
INSERT INTO chunks (tenant_id, version_id, ordinal, chunk_id, content_hash, text, tokens, char_start, char_end,
                    heading_path)
    SELECT %(tenant)s, md5(%(kind)s || 'v' || n %% %(documents)s + 1)::uuid, n, md5(%(kind)s || 'c' || n)::uuid,
           md5(%(kind)s || 'h' || n)::uuid, 'a', 1, 0, 1, '{}'
    FROM generate_series(1, %(rows)s) n;
INSERT INTO chunk_terms (tenant_id, version_id, ordinal, content_hash, weights, terms)
    SELECT %(tenant)s, md5(%(kind)s || 'v' || n %% %(documents)s + 1)::uuid, n, md5(%(kind)s || 'h' || n)::uuid,
           format('{%%s:1,%%s:1}/1000000000', a + 1, b + 1)::sparsevec, ARRAY[a, b]
    FROM generate_series(1, %(rows)s) n,
         LATERAL (SELECT (%(common)s::integer[])[n %% 4 + 1] AS a, (%(rare)s::integer[])[n %% 400 + 1] AS b) t;
-- Around the circle; what is asked for lies at its beginning.
INSERT INTO embeddings (tenant_id, model_id, content_hash, vector, segment)
    SELECT %(tenant)s, %(model)s, md5(%(kind)s || 'h' || n)::uuid,
           (ARRAY[cos(angle), sin(angle)] || array_fill(0.0::float8, ARRAY[%(rest)s]))::halfvec, n %% 8
    FROM generate_series(1, %(rows)s) n, LATERAL (SELECT %(from)s + n / 30000.0::float8 AS angle) a;
UPDATE documents SET current_version_id = md5(%(kind)s || 'v' || substr(object_key, 2))::uuid
    WHERE tenant_id = %(tenant)s AND name = 'a' AND %(visible)s AND metadata ->> 'kind' = %(kind)s;
"""


class Explaining(Database):
    """Every statement is explained before it is run."""

    def __init__(self, conninfo: Callable[[], Awaitable[str]]) -> None:
        super().__init__(conninfo)
        self.plans: list[str] = []

    @asynccontextmanager
    async def transaction(self, tenant_id: UUID | None) -> AsyncIterator[Any]:
        async with super().transaction(tenant_id) as cursor:
            yield ExplainingCursor(cursor, self.plans)


class ExplainingCursor:
    """In a cursor's place."""

    def __init__(self, cursor: Any, plans: list[str]) -> None:
        self._cursor, self._plans = cursor, plans
        self.fetchone, self.fetchall = cursor.fetchone, cursor.fetchall

    async def execute(self, query: Any, values: Any = None) -> None:
        text = query if isinstance(query, str) else query.as_string(self._cursor.connection)
        await self._cursor.execute(f"EXPLAIN {text}", values)
        self._plans.append("\n".join(row["QUERY PLAN"] for row in await self._cursor.fetchall()))
        await self._cursor.execute(text, values)


class Filled:
    """A tenant's many vectors, searched by another's statistics or none."""

    def __init__(self, urls: DatabaseUrls, model: EmbeddingModel, tenant: Tenant) -> None:
        self.urls, self.model, self.tenant = urls, model, tenant

    def add(
        self, kind: str, tenant: Tenant | None = None, *, start: float, visible: bool = True, rows: int = ROWS
    ) -> None:
        values = {
            "kind": kind,
            "tenant": (tenant or self.tenant).tenant_id,
            "model": self.model.model_id,
            "rows": rows,
            "documents": rows // 11,
            "from": start,
            "rest": MODEL_DIMENSIONS - 2,
            "visible": visible,
            "common": term_ids((tenant or self.tenant).tenant_id, COMMON),
            "rare": term_ids((tenant or self.tenant).tenant_id, RARE),
        }
        with psycopg.connect(self.urls.owner, autocommit=True, cursor_factory=psycopg.ClientCursor) as connection:
            connection.execute("SET session_replication_role = replica")
            connection.execute(DOCUMENTS, values)

    def analyze(self, *tables: str) -> None:
        with psycopg.connect(self.urls.owner, autocommit=True) as connection:
            for table in tables:
                connection.execute(f"ANALYZE {table}".encode())

    def reads_of_terms(self) -> tuple[int, int]:
        """How often the table was read from its beginning, and its index was used, by sessions that are over."""
        with psycopg.connect(self.urls.owner, autocommit=True) as connection:
            row = connection.execute(
                "SELECT t.seq_scan, i.idx_scan FROM pg_stat_user_tables t JOIN pg_stat_user_indexes i USING (relid) "
                "WHERE i.indexrelname = 'chunk_terms_by_term'"
            ).fetchone()
        assert row is not None
        return row[0], row[1]

    async def index(self) -> None:
        with psycopg.connect(self.urls.owner, autocommit=True) as connection:
            connection.execute("SELECT setval('embedding_numbers', %s)", [8 * SEGMENT_ROWS])

        async def conninfo() -> str:
            return self.urls.owner

        policy = Policy(fresh_rows=8 * SEGMENT_ROWS, watch_s=0)
        assert (await Indexing(IndexStore(conninfo), policy).index(Deadline.after(60)))["indexes_built"] == 1

    async def search(self, kind: str | None = None, words: str | None = None) -> list[float]:
        """The scores of the nearest ten; psycopg.errors.QueryCanceled if that takes too long."""
        return (await self.explained(kind, words))[0]

    async def explained(self, kind: str | None = None, words: str | None = None) -> tuple[list[float], str]:
        """And the plans of all statements."""

        async def conninfo() -> str:
            return psycopg.conninfo.make_conninfo(self.urls.app, options=f"-c statement_timeout={LIMIT_S}s")

        filter_ = parse_filter({"field": "kind", "op": "eq", "value": kind}) if kind else None
        vector = HalfVector(to_halfvec_binary(_first_axis()))
        database = Explaining(conninfo)
        try:
            store = SearchStore(database, self.model, without_index=0)
            terms = None if words is None else query_terms(words)
            found = await store.candidates(self.tenant.tenant_id, vector, terms, compile_filter(filter_), 10)
            assert len(await store.hits(self.tenant.tenant_id, found)) == len(found)
        finally:
            await database.aclose()
        scores = sorted((one.similarity or 0 for one in found), reverse=True)
        return scores, "\n".join(database.plans)


@pytest.fixture
def filled(database_urls: DatabaseUrls, embedding_model: EmbeddingModel, tenant: Tenant) -> Filled:
    return Filled(database_urls, embedding_model, tenant)


EVERY = ("documents", "document_versions", "chunks", "chunk_terms", "embeddings")


@pytest.mark.parametrize("analyzed", [(), ("embeddings", "chunks"), EVERY])
@pytest.mark.parametrize("indexed", [False, True])
async def test_what_is_near_and_does_not_match_is_passed_by(
    filled: Filled, analyzed: tuple[str, ...], indexed: bool
) -> None:
    """Vectors of a file that is still being embedded, and of documents that a filter leaves out."""
    filled.add("a", start=0.0, visible=False)
    filled.add("b", start=0.8)
    filled.add("c", start=0.0, rows=11_000)
    filled.analyze(*analyzed)
    if indexed:
        await filled.index()
    assert len(await filled.search("b")) == 10
    assert len(await filled.search()) == 10


@pytest.mark.parametrize("analyzed_before", [("embeddings", "chunks"), EVERY])
async def test_statistics_may_be_of_another_tenant_s_time(
    filled: Filled, other_tenant: Tenant, analyzed_before: tuple[str, ...]
) -> None:
    filled.add("z", other_tenant, start=0.0, rows=110)
    filled.analyze(*analyzed_before)
    filled.add("a", start=0.0, visible=False)
    filled.add("b", start=0.8)
    filled.add("c", start=0.0, rows=11_000)
    assert len(await filled.search("b")) == 10
    assert len(await filled.search("c")) == 10  # compared whole
    assert len(await filled.search()) == 10


STATISTICS = ["none", "of empty tables", "fresh"]
WORDS = "common1 common2 common3 rare7 unheard"


@pytest.mark.parametrize("statistics", STATISTICS)
async def test_what_every_statement_of_a_search_reads(filled: Filled, other_tenant: Tenant, statistics: str) -> None:
    """Small tenant, filter, large tenant by its parts and by the index of terms: always by keys, and joined by hash
    where all of it is compared."""
    if statistics == "of empty tables":
        filled.analyze(*EVERY)
    filled.add("z", other_tenant, start=0.0)
    filled.add("s", start=0.1, rows=1_100)
    if statistics == "fresh":
        filled.analyze(*EVERY)
    for kind in (None, "s"):
        scores, plans = await filled.explained(kind, WORDS)
        assert len(scores) >= 10
        _reads_by_keys(plans)
        _compares_all_by_hash(plans, by_text=kind is not None)
    filled.add("a", start=0.0)
    filled.add("b", start=0.5)
    await filled.index()
    if statistics == "fresh":
        filled.analyze(*EVERY)
    scores, plans = await filled.explained("s", WORDS)
    _reads_by_keys(plans)
    _compares_all_by_hash(plans, by_text=True)
    before = filled.reads_of_terms()
    scores, plans = await filled.explained(None, WORDS)
    assert len(scores) >= 10
    _reads_by_keys(plans)
    assert "Index Scan using embeddings_hnsw" in plans
    assert "Hash Full Join" not in plans
    sequential, by_term = filled.reads_of_terms()
    assert sequential == before[0]
    assert by_term > before[1]


async def test_vectors_are_compared_once_where_a_tenant_has_a_little_too_many_chunks(filled: Filled) -> None:
    filled.add("a", start=0.0)
    assert EXACT_UP_TO < ROWS < 2 * EXACT_UP_TO
    _, plans = await filled.explained(None, WORDS)
    assert "Full Join" not in plans


def _reads_by_keys(plans: str) -> None:
    assert not re.findall(r"Seq Scan on (?:documents|document_versions|chunks|chunk_terms|embeddings) ", plans), plans
    # Of chunk_terms only what is asked for by its key.
    for line in re.findall(r".* on chunk_terms .*", plans):
        assert "Index Scan using chunk_terms_pkey" in line, plans


def _compares_all_by_hash(plans: str, *, by_text: bool) -> None:
    assert "Hash Full Join" in plans, plans
    assert "Memoize" not in plans, plans
    if by_text:
        assert "Index Scan using embeddings_pkey on embeddings" in plans, plans
        assert "embeddings_by_segment" not in plans, plans


def _first_axis() -> bytes:
    return struct.pack(f"<{MODEL_DIMENSIONS}f", 1, *[0] * (MODEL_DIMENSIONS - 1))
