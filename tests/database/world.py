"""One tenant's whole pipeline: a fake bucket, fake queues, and the real verbs on a real database.

Nothing moves by itself. A test puts and deletes objects, then lets the pipeline notice, embed or sweep, in the order
and as often as it likes. When it is over, `check` holds what must be true after every schedule.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

import psycopg
from edda.batching import RetryPolicy
from edda.concurrency import Deadline
from edda.embedding import Embedding
from edda.errors import EddaError, EmbeddingRejected
from edda.identity import content_hash
from edda.ingesting import Ingestion
from edda.messages import EmbedBatch, IngestVersion
from edda.models import Chunk, EmbeddingModel, ParseCursor, ParseOutcome, Tenant
from edda.observing import Observing
from edda.s3_events import object_changes
from edda.store.bucket import BucketStore, DeleteBrake
from edda.store.database import Database
from edda.store.embed import BatchLease, EmbedStore
from edda.store.ingest import IngestStore
from edda.store.keys import KeyStore, create_tenant
from edda.store.sweep import Patience, SweepStore
from edda.sweeping import Sweep

from tests.fakes.embedder import FakeEmbedder
from tests.fakes.objects import FakeObjectStore
from tests.fakes.queue import FakeQueue
from tests.postgres import DatabaseUrls

Record = dict[str, Any]
Meanwhile = Callable[[], Awaitable[None]]

MAX_DOCUMENT_BYTES = 100_000
BATCH_CHUNKS = 64  # small documents have several messages
MAX_CHUNKS = 1000


@dataclass(slots=True)
class LineParser:
    """One chunk a line; at most `part_lines` lines a part."""

    error: EddaError | None = None
    hangs: bool = False
    meanwhile: Meanwhile | None = None  # what happens elsewhere while this works
    part_lines: int = 1_000_000

    async def parse(
        self, path: Path, name: str, content_type: str | None, cursor: ParseCursor | None = None
    ) -> ParseOutcome:
        if self.meanwhile is not None:
            await self.meanwhile()
        if self.error is not None:
            raise self.error
        if self.hangs:
            await asyncio.Event().wait()
        text = path.read_text()  # noqa: ASYNC240 - a few bytes
        start = 0 if cursor is None else cursor.state["character"]
        first = 0 if cursor is None else cursor.chunks
        chunks: list[Chunk] = []
        lines = text[start:].splitlines(keepends=True)
        for line in lines[: self.part_lines]:
            if words := line.strip():
                end = start + len(words)
                chunks.append(
                    Chunk(first + len(chunks), words, start, end, len(words), None, (name,), "en", content_hash(words))
                )
            start += len(line)
        is_last = len(lines) <= self.part_lines
        next_part = None if is_last else ParseCursor(first + len(chunks), {"character": start})
        return ParseOutcome(chunks, "text/plain", start, None, "en", first, next_part)


@dataclass
class BusyEmbedder(FakeEmbedder):
    """The fake, with something happening elsewhere while it works."""

    meanwhile: Meanwhile | None = None

    async def embed(
        self, texts: Sequence[str], *, purpose: Literal["document", "query"], deadline: Deadline
    ) -> Sequence[bytes | EmbeddingRejected]:
        if self.meanwhile is not None:
            await self.meanwhile()
        return await super().embed(texts, purpose=purpose, deadline=deadline)


@dataclass(slots=True)
class World:
    urls: DatabaseUrls
    model: EmbeddingModel
    tenant: Tenant
    database: Database
    objects: FakeObjectStore
    parser: LineParser
    embedder: BusyEmbedder
    ingest_queue: FakeQueue
    embed_queue: FakeQueue
    ingestion: Ingestion
    embedding: Embedding
    sweep: Sweep

    @classmethod
    async def build(
        cls,
        urls: DatabaseUrls,
        model: EmbeddingModel,
        slug: str = "acme",
        *,
        database: Database | None = None,
        objects: FakeObjectStore | None = None,
    ) -> "World":
        tenant = await create_tenant(urls.owner, slug)
        database = database or connect(urls.app)
        objects, parser = objects or FakeObjectStore(), LineParser()
        embedder = BusyEmbedder(model.name, model.dimensions)
        ingest_queue, embed_queue = FakeQueue(), FakeQueue()
        ingest_store, keys = IngestStore(database, model.model_id, batch_chunks=BATCH_CHUNKS), KeyStore(database)
        bucket = BucketStore(database, DeleteBrake())
        observing = Observing(bucket, objects)
        return cls(
            urls=urls,
            model=model,
            tenant=tenant,
            database=database,
            objects=objects,
            parser=parser,
            embedder=embedder,
            ingest_queue=ingest_queue,
            embed_queue=embed_queue,
            ingestion=Ingestion(
                store=ingest_store,
                keys=keys,
                observing=observing,
                objects=objects,
                parser=parser,
                ingest_queue=ingest_queue,
                embed_queue=embed_queue,
                max_document_bytes=MAX_DOCUMENT_BYTES,
                max_chunks=MAX_CHUNKS,
            ),
            embedding=Embedding(EmbedStore(database, model.model_id), embedder, RetryPolicy(attempts=1)),
            sweep=Sweep(
                SweepStore(database, model.model_id),
                ingest_store,
                bucket,
                keys,
                observing,
                objects,
                ingest_queue,
                embed_queue,
                Patience(grace_s=0, event_s=0, walk_s=0),
            ),
        )

    @property
    def tenant_id(self) -> UUID:
        return self.tenant.tenant_id

    def key(self, name: str) -> str:
        return f"{self.tenant.slug}/{name}"

    # What users of the bucket do ---------------------------------------------------------------------------------

    async def put(self, name: str, text: str | bytes) -> Record:
        """Store an object: the event record that S3 makes of it."""
        body = text if isinstance(text, bytes) else text.encode()
        await self.objects.put(self.key(name), body, "text/plain")
        return self.objects.events[-1]

    async def delete(self, name: str) -> Record:
        await self.objects.delete(self.key(name))
        return self.objects.events[-1]

    # What the pipeline does --------------------------------------------------------------------------------------

    async def notice(self, *records: Record, seconds: float = 30) -> None:
        """The chunk function hears of these changes, in this order."""
        for change in object_changes({"Records": list(records)}):
            await self.ingestion.object_changed(change, Deadline.after(seconds))

    async def claim_batch(self, batch: EmbedBatch, lease_s: float) -> BatchLease | None:
        """As an embed function that dies afterwards."""
        (lease,) = await self.embedding.store.claim_batches(batch.tenant_id, [batch], lease_s)
        return lease

    async def embed(self, seconds: float = 30) -> dict[int, EddaError]:
        """The embed function gets every message that waits, as one batch; those that fail wait again."""
        bodies = self.embed_queue.take()
        batches = [EmbedBatch.model_validate_json(body) for body in bodies]
        failures = await self.embedding.embed_batches(batches, Deadline.after(seconds))
        self.embed_queue.messages += [bodies[position] for position in failures]
        return failures

    async def bring_in(self, name: str, text: str) -> Record:
        """Put, notice, embed: the whole way."""
        record = await self.put(name, text)
        await self.notice(record)
        await self.embed()
        return record

    async def run_sweep(self) -> dict[str, int]:
        """One round of the sweep: what it did, without what it did not."""
        done = await self.sweep.sweep(Deadline.after(30))
        return {kind: times for kind, times in done.items() if times}

    async def answer_ingest_queue(self) -> None:
        """The chunk function gets what the sweep rang for."""
        for body in self.ingest_queue.take():
            await self.ingestion.ingest(IngestVersion.model_validate_json(body), Deadline.after(30))

    # What a test looks at ----------------------------------------------------------------------------------------

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """As the owner, who sees everything."""
        with psycopg.connect(self.urls.owner, autocommit=True) as connection:
            cursor = connection.execute(query.encode(), values)
            return cursor.fetchall() if cursor.description else []

    def statuses(self, name: str) -> list[str]:
        """Of every version, oldest first."""
        return [row[0] for row in self._versions(name, "v.status")]

    def error_codes(self, name: str) -> list[str]:
        return [row[0] for row in self._versions(name, "v.error_code")]

    def visible(self, name: str) -> list[str]:
        """The texts that search may find, in order."""
        return [
            row[0]
            for row in self.rows(
                "SELECT c.text FROM documents d JOIN chunks c ON c.version_id = d.current_version_id "
                "JOIN embeddings e ON e.tenant_id = c.tenant_id AND e.content_hash = c.content_hash "
                "WHERE d.object_key = %s AND d.deleted_at IS NULL ORDER BY c.ordinal",
                self.key(name),
            )
        ]

    def chunk_ids(self, name: str) -> list[UUID]:
        return [
            row[0]
            for row in self.rows(
                "SELECT c.chunk_id FROM documents d JOIN chunks c ON c.version_id = d.current_version_id "
                "WHERE d.object_key = %s ORDER BY c.ordinal",
                self.key(name),
            )
        ]

    def vectors(self) -> int:
        return int(self.rows("SELECT count(*) FROM embeddings")[0][0])

    def metadata(self, name: str) -> tuple[dict[str, Any], str | None]:
        query = "SELECT metadata, metadata_problem FROM documents WHERE object_key = %s"
        metadata, problem = self.rows(query, self.key(name))[0]
        return metadata, problem

    def leases(self) -> list[tuple[Any, ...]]:
        return self.rows(
            "SELECT lease_until FROM document_versions WHERE lease_until IS NOT NULL "
            "UNION ALL SELECT lease_until FROM embed_batches WHERE lease_until IS NOT NULL"
        )

    def _versions(self, name: str, columns: str) -> list[tuple[Any, ...]]:
        return self.rows(
            f"SELECT {columns} FROM document_versions v JOIN documents d USING (document_id) "
            "WHERE d.object_key = %s ORDER BY v.sequencer, v.created_at",
            self.key(name),
        )


def connect(url: str, **options: Any) -> Database:
    """Another execution environment's connection."""

    async def conninfo() -> str:
        return url

    return Database(conninfo, **options)


MUST_BE_EMPTY = {
    "a version that is ready has a vector for each of its chunks, and all the chunks that were planned": """
        SELECT v.version_id, v.planned_chunks, count(c.*), count(e.*)
        FROM document_versions v JOIN documents d ON d.current_version_id = v.version_id
        LEFT JOIN chunks c USING (version_id)
        LEFT JOIN embeddings e ON e.tenant_id = c.tenant_id AND e.content_hash = c.content_hash
        WHERE v.status = 'ready' GROUP BY 1, 2
        HAVING v.planned_chunks <> count(c.*) OR count(c.*) <> count(e.*)""",
    "a chunk of a finished visible version has a vector or says why not": """
        SELECT c.* FROM chunks c JOIN documents d ON d.current_version_id = c.version_id
        LEFT JOIN embeddings e ON e.tenant_id = c.tenant_id AND e.content_hash = c.content_hash
        WHERE e.content_hash IS NULL AND c.error_code IS NULL""",
    "only finished versions that did not fail are visible, and only of documents that are there": """
        SELECT d.document_id FROM documents d JOIN document_versions v ON v.version_id = d.current_version_id
        WHERE v.status NOT IN ('ready', 'partial') OR d.deleted_at IS NOT NULL OR v.document_id <> d.document_id""",
    "the visible version is the newest of those that could be seen": """
        SELECT d.document_id FROM documents d JOIN document_versions v USING (document_id)
        LEFT JOIN document_versions current ON current.version_id = d.current_version_id
        WHERE v.status IN ('ready', 'partial') AND v.superseded_at IS NULL
          AND COALESCE(current.sequencer, '') < v.sequencer""",
    "a deleted document has neither versions nor chunks": """
        SELECT d.document_id FROM documents d JOIN document_versions v USING (document_id)
        WHERE d.deleted_at IS NOT NULL""",
    "a chunk's id names one chunk of its version": """
        SELECT version_id, chunk_id FROM chunks GROUP BY 1, 2 HAVING count(*) > 1""",
    "every chunk has its terms, and no other has": """
        SELECT * FROM chunks c FULL JOIN chunk_terms t USING (version_id, ordinal)
        WHERE (c.tenant_id, c.content_hash) IS DISTINCT FROM (t.tenant_id, t.content_hash)""",
    "no vector is without a chunk": """
        SELECT e.content_hash FROM embeddings e WHERE NOT EXISTS (
            SELECT FROM chunks c WHERE c.tenant_id = e.tenant_id AND c.content_hash = e.content_hash)""",
    "every row hangs below its own tenant's": """
        SELECT c.version_id FROM chunks c JOIN document_versions v USING (version_id)
        JOIN documents d USING (document_id)
        WHERE c.tenant_id <> v.tenant_id OR v.tenant_id <> d.tenant_id""",
    "the ledger of a tenant is the sum of its documents'": """
        SELECT * FROM tenant_usage t FULL JOIN (
            SELECT tenant_id, day, sum(bytes) AS bytes, sum(chunks) AS chunks, sum(tokens_planned) AS tokens_planned,
                   sum(tokens) AS tokens, sum(tokens_unsettled) AS tokens_unsettled,
                   sum(provider_calls) AS provider_calls, sum(provider_calls_lost) AS provider_calls_lost,
                   sum(cost_planned) AS cost_planned, sum(cost) AS cost
            FROM document_usage GROUP BY 1, 2) d USING (tenant_id, day)
        WHERE (t.bytes, t.chunks, t.tokens_planned, t.tokens, t.tokens_unsettled, t.provider_calls,
               t.provider_calls_lost, t.cost_planned, t.cost)
              IS DISTINCT FROM (d.bytes, d.chunks, d.tokens_planned, d.tokens, d.tokens_unsettled, d.provider_calls,
               d.provider_calls_lost, d.cost_planned, d.cost)""",
    "nobody has settled more than was reserved": """
        SELECT * FROM document_usage
        WHERE tokens_unsettled < 0 OR tokens < 0 OR provider_calls_lost > provider_calls""",
    "a version that has ended has told of it, and events are numbered without a gap": """
        SELECT v.version_id FROM document_versions v JOIN document_event_counters c USING (document_id)
        WHERE v.finished_at IS NOT NULL AND NOT EXISTS (
            SELECT FROM document_events e WHERE e.body -> 'data' ->> 'version_id' = v.version_id::text
              AND e.type = 'document.' || v.status)
        UNION ALL
        SELECT document_id FROM document_events e JOIN document_event_counters c USING (document_id)
        GROUP BY document_id, c.sequence
        HAVING count(*) <> c.sequence - min(e.sequence) + 1 OR max(e.sequence) <> c.sequence""",
    "nobody sits in an open transaction": """
        SELECT state, query FROM pg_stat_activity
        WHERE datname = current_database() AND state LIKE 'idle in transaction%'""",
}


def check(urls: DatabaseUrls) -> None:
    """What is true after every schedule."""
    with psycopg.connect(urls.owner, autocommit=True) as connection:
        for promise, query in MUST_BE_EMPTY.items():
            assert connection.execute(query.encode()).fetchall() == [], promise
