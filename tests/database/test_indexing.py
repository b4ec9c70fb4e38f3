"""Search over HNSW indexes that are built behind the writers: always what comparing every vector would give.

Rows are put into segments by hand, so that a few of them make many segments. Graphs this small are searched whole, so
what an index gives is exact too, and any difference is a row in no part or in two.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from uuid import UUID, uuid4

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
from edda.store.search import SearchStore
from edda.vectors import to_halfvec_binary

from tests.database.world import connect
from tests.postgres import MODEL_DIMENSIONS, DatabaseUrls, as_owner

POLICY = Policy(fresh_rows=4 * SEGMENT_ROWS, workers=0, watch_s=0)
TRUTH = """
SELECT c.chunk_id, (e.vector <=> %(vector)s::halfvec) + 0 AS distance
FROM documents d JOIN chunks c ON c.version_id = d.current_version_id
JOIN embeddings e ON e.tenant_id = c.tenant_id AND e.content_hash = c.content_hash
WHERE d.tenant_id = %(tenant)s AND e.model_id = %(model)s
  AND (%(year)s::text IS NULL OR d.metadata ->> 'year' = %(year)s)
ORDER BY distance, d.document_id, c.ordinal LIMIT %(limit)s
"""


@dataclass
class Library:
    """One tenant's documents, written and searched."""

    urls: DatabaseUrls
    model: EmbeddingModel
    tenant: Tenant
    database: Database
    numbers: random.Random = field(default_factory=lambda: random.Random(1))

    def add(self, segment: int, rows: int = 20, *, visible: bool = True, year: int | None = None) -> UUID:
        """A document whose vectors are in this segment."""
        with psycopg.connect(self.urls.owner) as connection:
            return self.add_by(connection, segment, rows, visible=visible, year=year)

    def add_by(
        self,
        connection: "psycopg.Connection[tuple[object, ...]]",
        segment: int,
        rows: int = 20,
        *,
        visible: bool = True,
        year: int | None = None,
    ) -> UUID:
        document, version = uuid4(), uuid4()
        connection.execute(
            "INSERT INTO documents (document_id, tenant_id, object_key, name, metadata) "
            "VALUES (%s, %s, %s, 'a', jsonb_build_object('year', %s::integer))",
            [document, self.tenant.tenant_id, f"{self.tenant.slug}/{document}", year],
        )
        connection.execute(
            "INSERT INTO document_versions (version_id, tenant_id, document_id, s3_version_id, sequencer, modified_at, "
            "planned_chunks) VALUES (%s, %s, %s, '1', 'a', now(), %s)",
            [version, self.tenant.tenant_id, document, rows],
        )
        for ordinal in range(rows):
            content_hash = uuid4()
            connection.execute(
                "INSERT INTO chunks (tenant_id, version_id, ordinal, chunk_id, content_hash, text, tokens, char_start, "
                "char_end, heading_path) VALUES (%s, %s, %s, %s, %s, 'a', 1, 0, 1, '{}')",
                [self.tenant.tenant_id, version, ordinal, content_hash, content_hash],
            )
            connection.execute(
                "INSERT INTO chunk_terms VALUES (%s, %s, %s, %s, NULL, '{}/1000000000', '{}')",
                [self.tenant.tenant_id, version, ordinal, content_hash],
            )
            connection.execute(
                "INSERT INTO embeddings (tenant_id, model_id, content_hash, vector, segment) "
                "VALUES (%s, %s, %s, %s, %s)",
                [self.tenant.tenant_id, self.model.model_id, content_hash, self.vector(), segment],
            )
        if visible:
            query = "UPDATE documents SET current_version_id = %s WHERE document_id = %s"
            connection.execute(query, [version, document])
        return document

    def delete(self, document: UUID) -> None:
        """Its chunks and vectors."""
        hashes = "SELECT content_hash FROM chunks JOIN document_versions USING (version_id) WHERE document_id = %s"
        with psycopg.connect(self.urls.owner) as connection:
            connection.execute(f"DELETE FROM embeddings WHERE content_hash IN ({hashes})".encode(), [document])
            connection.execute("DELETE FROM documents WHERE document_id = %s", [document])

    def vector(self) -> str:
        return str([self.numbers.gauss(0, 1) for _ in range(MODEL_DIMENSIONS)])

    async def check(self, top_k: int = 10, year: int | None = None, exact_up_to: int = 0) -> None:
        """Search finds what comparing with every vector finds."""
        vector = [self.numbers.gauss(0, 1) for _ in range(MODEL_DIMENSIONS)]
        filter_ = None if year is None else parse_filter({"field": "year", "op": "eq", "value": year})
        store = SearchStore(self.database, self.model, exact_up_to=exact_up_to, without_index=0)
        half = HalfVector(to_halfvec_binary(_float32(vector)))
        found = await store.candidates(self.tenant.tenant_id, half, None, compile_filter(filter_), top_k)
        found.sort(key=lambda one: (-(one.similarity or 0), one.document_id, one.ordinal))
        hits = await store.hits(self.tenant.tenant_id, found)
        values = {
            "vector": str(vector),
            "tenant": self.tenant.tenant_id,
            "model": self.model.model_id,
            "year": None if year is None else str(year),
            "limit": top_k,
        }
        with psycopg.connect(self.urls.owner, row_factory=psycopg.rows.tuple_row) as connection:
            truth = connection.execute(TRUTH, values).fetchall()
        assert [1 - hit.score for hit in hits] == pytest.approx([distance for _, distance in truth], abs=1e-6)
        assert [hit.chunk_id for hit in hits] == [chunk_id for chunk_id, _ in truth]

    def written_up_to(self, segment: int) -> None:
        """As if so many had been written."""
        as_owner(self.urls, "SELECT setval('embedding_numbers', %s)", [segment * SEGMENT_ROWS])

    def ranges(self) -> list[tuple[int, int, bool]]:
        """Of the indexes there are, and whether they are valid."""
        names = as_owner(
            self.urls,
            "SELECT relname, indisvalid FROM pg_index JOIN pg_class ON oid = indexrelid "
            "WHERE relname LIKE 'embeddings_hnsw%'",
        )
        return sorted((*map(int, name.split("_")[3:]), valid) for name, valid in names)

    def index_scans(self) -> int:
        query = "SELECT sum(idx_scan)::int FROM pg_stat_user_indexes WHERE indexrelname LIKE 'embeddings_hnsw%'"
        return as_owner(self.urls, query)[0][0] or 0

    async def index(self, policy: Policy = POLICY) -> dict[str, int]:
        return await Indexing(self.store, policy).index(Deadline.after(60))

    async def build(self) -> None:
        """The next index, if one is due, and nothing dropped."""
        async with self.store.alone() as connection:
            assert connection is not None
            due = await self.store.due(connection, POLICY)
            if due is not None:
                await self.store.create(connection, due, POLICY)

    @property
    def store(self) -> IndexStore:
        async def conninfo() -> str:
            return self.urls.owner

        return IndexStore(conninfo)

    @asynccontextmanager
    async def building(self) -> AsyncIterator["asyncio.Task[dict[str, int]]"]:
        """An indexer that has begun on an index and cannot end it before the block does."""
        with psycopg.connect(self.urls.owner) as writer:
            writer.execute("DELETE FROM embeddings WHERE false")  # a transaction that may still write
            task = asyncio.create_task(self.index())
            waits = "SELECT 1 FROM pg_stat_progress_create_index WHERE phase LIKE 'waiting for writers%'"
            while not as_owner(self.urls, waits):  # noqa: ASYNC110 - Postgres tells nobody
                await asyncio.sleep(0.005)
            yield task
        await asyncio.wait([task])


@pytest.fixture
async def library(
    database_urls: DatabaseUrls, embedding_model: EmbeddingModel, tenant: Tenant
) -> AsyncIterator[Library]:
    database = connect(database_urls.app)
    yield Library(database_urls, embedding_model, tenant, database)
    await database.aclose()


async def test_without_any_index_all_is_found(library: Library) -> None:
    await library.check()
    library.add(0, 5)
    await library.check()
    library.add(3)
    await library.check()


async def test_rows_are_numbered_as_they_are_written(library: Library) -> None:
    assert as_owner(library.urls, "SELECT nextval('embedding_numbers')") == [(1,)]
    library.written_up_to(7)
    await library.database.aclose()
    as_owner(
        library.urls,
        "INSERT INTO embeddings (tenant_id, model_id, content_hash, vector) VALUES (%s, %s, %s, %s)",
        [library.tenant.tenant_id, library.model.model_id, uuid4(), library.vector()],
    )
    assert as_owner(library.urls, "SELECT segment FROM embeddings") == [(7,)]


async def test_what_is_built_is_found_by_the_index_and_what_came_later_beside_it(library: Library) -> None:
    for segment in range(6):
        library.add(segment, 60)
    library.written_up_to(5)
    assert await library.index() == {"indexes_built": 1, "indexes_dropped": 0}
    assert library.ranges() == [(0, 5, True)]
    for _ in range(5):
        await library.check()
    await library.database.aclose()  # its session tells what it read when it ends
    assert library.index_scans() == 5


async def test_indexes_are_merged_when_nothing_waits(library: Library) -> None:
    for segment in range(16):
        library.add(segment, 30)
        if segment in {4, 8, 12}:
            library.written_up_to(segment)
            await library.build()
            await library.check()
    assert library.ranges() == [(0, 4, True), (4, 8, True), (8, 12, True)]
    library.written_up_to(13)
    await library.build()  # wide and narrow ones side by side
    assert library.ranges() == [(0, 4, True), (0, 12, True), (4, 8, True), (8, 12, True)]
    await library.check()
    await library.index()
    assert library.ranges() == [(0, 12, True)]
    await library.check()


async def test_nothing_is_merged_while_much_is_written(library: Library) -> None:
    """A merge would keep newer rows from their index."""
    for segment in range(9):
        library.add(segment, 30)
    for segment in (4, 8):
        library.written_up_to(segment)
        await library.build()
    indexing = asyncio.create_task(library.index(replace(POLICY, watch_s=1)))
    watches = (
        "SELECT 1 FROM pg_stat_activity WHERE application_name = 'edda indexing' AND state = 'idle' "
        "AND query LIKE '%AS numbers%' AND state_change < now() - interval '0.2 s'"
    )
    while not as_owner(library.urls, watches):  # noqa: ASYNC110 - Postgres tells nobody
        await asyncio.sleep(0.005)
    library.written_up_to(1000)
    assert await indexing == {"indexes_built": 0, "indexes_dropped": 0}
    assert library.ranges() == [(0, 4, True), (4, 8, True)]


async def test_while_an_index_is_being_built_all_is_found_also_what_is_written_meanwhile(library: Library) -> None:
    for segment in range(6):
        library.add(segment)
    library.written_up_to(5)
    async with library.building() as indexing:
        assert library.ranges() == [(0, 5, False)]
        await library.check()
        library.add(2)  # a slow writer, whose numbers are old
        library.add(6)
        await library.check()
    assert (await indexing)["indexes_built"] == 1
    assert library.ranges() == [(0, 5, True)]
    await library.check()
    library.add(2)
    await library.check()


async def test_a_transaction_with_old_numbers_that_commits_after_the_build_is_found(library: Library) -> None:
    for segment in range(6):
        library.add(segment)
    library.written_up_to(5)
    with psycopg.connect(library.urls.owner) as slow:
        library.add_by(slow, 1, 30)
        indexing = asyncio.create_task(library.index())
        while not library.ranges():  # noqa: ASYNC110 - Postgres tells nobody
            await asyncio.sleep(0.005)
        await library.check()
        slow.commit()
        await library.check()
    await indexing
    await library.check()


async def test_what_a_killed_build_left_is_not_used_and_is_built_again(library: Library) -> None:
    for segment in range(6):
        library.add(segment)
    library.written_up_to(5)
    async with library.building() as indexing:
        as_owner(
            library.urls,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'edda indexing'",
        )
        with pytest.raises(psycopg.OperationalError):
            await indexing
    assert library.ranges() == [(0, 5, False)]
    await library.check()
    assert await library.index() == {"indexes_built": 1, "indexes_dropped": 1}
    assert library.ranges() == [(0, 5, True)]
    await library.check()


async def test_of_two_indexers_one_works(library: Library) -> None:
    for segment in range(6):
        library.add(segment)
    library.written_up_to(5)
    async with library.building() as indexing:
        assert await library.index() == {"indexes_built": 0, "indexes_dropped": 0}
    assert (await indexing)["indexes_built"] == 1
    assert await library.index() == {"indexes_built": 0, "indexes_dropped": 0}


async def test_an_indexer_that_is_silent_loses_the_lock(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its machine is no more, and nobody has told Postgres."""
    monkeypatch.setattr("edda.store.indexing.IDLE_S", 1)

    async def be_silent() -> None:
        async with library.store.alone():
            locks = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory'"
            assert as_owner(library.urls, locks)
            async with asyncio.timeout(20):
                while as_owner(library.urls, locks):  # noqa: ASYNC110 - Postgres tells nobody
                    await asyncio.sleep(0.05)

    with pytest.raises(psycopg.errors.IdleSessionTimeout):
        await be_silent()
    assert await library.index() == {"indexes_built": 0, "indexes_dropped": 0}


async def test_deleted_vectors_are_gone_wherever_they_were(library: Library) -> None:
    documents = [library.add(segment, 40) for segment in range(6)]
    library.written_up_to(5)
    await library.index()
    library.delete(documents[1])
    library.delete(documents[5])
    await library.check()
    for document in documents:
        library.delete(document)
    await library.check()


@pytest.mark.parametrize("segment", [2, 7])
async def test_what_is_not_visible_yet_hides_nothing(library: Library, segment: int) -> None:
    """By the index and beside it: many vectors of a document that is still being embedded are nearer."""
    library.add(segment, 25)
    for _ in range(5):
        library.add(segment, 100, visible=False)
    library.written_up_to(5)
    await library.index()
    await library.check(top_k=20)
    await library.check(top_k=30)


@pytest.mark.parametrize("top_k", [1, 10, 100])
async def test_a_filter_never_costs_a_row(library: Library, top_k: int) -> None:
    for segment in range(8):
        library.add(segment, 50, year=2020)
        library.add(segment, 5, year=2021)
    library.written_up_to(6)
    await library.index()
    await library.check(top_k, year=2021)
    await library.check(top_k, year=2021, exact_up_to=1000)
    await library.check(top_k, year=1999)


async def test_a_tenant_with_few_of_the_rows_of_an_index_finds_its_own(library: Library, other_tenant: Tenant) -> None:
    other = Library(library.urls, library.model, other_tenant, library.database)
    for segment in range(6):
        other.add(segment, 60)
    library.add(2, 30)
    library.add(7, 3)
    library.written_up_to(5)
    await library.index()
    await library.check(40)
    await other.check(10)


async def test_many_rows_are_searched_by_an_index_however_large_it_is(library: Library) -> None:
    """How many are counted must not grow with the table."""
    library.add(2, 3_200)
    library.written_up_to(5)
    await library.index()
    as_owner(library.urls, "UPDATE pg_class SET reltuples = 1e6 WHERE relname LIKE 'embeddings_hnsw%'")
    await library.check(10)
    await library.database.aclose()  # its session tells what it read when it ends
    assert library.index_scans() == 1


async def test_each_model_has_its_own_indexes(library: Library) -> None:
    for segment in range(6):
        library.add(segment)
    as_owner(library.urls, "INSERT INTO embedding_models (name, dimensions) VALUES ('fake/other', 8)")
    as_owner(library.urls, "INSERT INTO embedding_models (name, dimensions, state) VALUES ('fake/old', 4, 'retiring')")
    as_owner(
        library.urls,
        "INSERT INTO embeddings (tenant_id, model_id, content_hash, vector, segment) "
        "SELECT tenant_id, (SELECT model_id FROM embedding_models WHERE dimensions = 8), content_hash, "
        "'[1,2,3,4,5,6,7,8]', segment FROM embeddings",
    )
    library.written_up_to(5)
    assert (await library.index())["indexes_built"] == 2
    await library.check()


@pytest.mark.parametrize("seed", range(6))
async def test_whatever_happens_search_finds_what_comparing_all_finds(
    library: Library, other_tenant: Tenant, seed: int
) -> None:
    numbers = random.Random(seed)
    other = Library(library.urls, library.model, other_tenant, library.database, random.Random(2))
    documents: list[UUID] = []
    segment = 0
    for _ in range(40):
        match numbers.choice(["write", "write", "write", "late", "other", "delete", "index", "build", "drop"]):
            case "write":
                segment += numbers.randint(0, 3)
                library.written_up_to(max(1, segment))
                visible = numbers.random() < 0.8
                documents.append(
                    library.add(segment, numbers.randint(1, 60), visible=visible, year=numbers.randint(1, 3))
                )
            case "late":
                documents.append(library.add(numbers.randint(0, segment), numbers.randint(1, 20)))
            case "other":
                other.add(segment, numbers.randint(1, 60))
            case "delete" if documents:
                library.delete(documents.pop(numbers.randrange(len(documents))))
            case "index":
                await library.index()
            case "build":
                await library.build()
            case "drop" if library.ranges():
                first, until, _ = numbers.choice(library.ranges())
                as_owner(library.urls, f"DROP INDEX embeddings_hnsw_{library.model.model_id}_{first}_{until}")
            case _:
                continue
        await library.check(numbers.choice([1, 10, 40]), numbers.choice([None, None, 1]))


def _float32(vector: list[float]) -> bytes:
    import struct

    return struct.pack(f"<{len(vector)}f", *vector)
