"""The HNSW write wall: vectors written at an offered rate while searches go on, and what these find.

`.venv/bin/python -m benchmarks.index --help`. benchmarks/README.md says what is measured, and shows figures.
"""

import argparse
import asyncio
import hashlib
import json
import multiprocessing
import os
import statistics
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import psycopg
from edda.concurrency import Deadline
from edda.index_ranges import END, Policy
from edda.indexing import Indexing
from edda.models import EmbeddingModel
from edda.store.conditions import compile_filter
from edda.store.database import Cursor, HalfVector, register_vectors
from edda.store.indexing import IndexStore
from edda.store.search import SearchStore
from psycopg.rows import dict_row

from benchmarks.clusters import QUERIES, make, read
from benchmarks.postgres import EDDA_MODEL, TENANT, Fresh, Server, server

ROOT = Path(__file__).resolve().parent.parent
WAYS = {
    "live": "one HNSW index from the beginning, m = 16, ef_construction = 64: every row goes into it as it is written",
    "none": "no HNSW index: every search compares all vectors",
    "segments": "no HNSW index at first; the indexer builds them behind the writer",
}
BATCH_ROWS = 512  # written in one transaction
DOCUMENT_ROWS = 512
TOP_K = 10
# Documents and chunks are there beforehand and visible, so that a vector is found from its commit on. A chunk's id is
# its content hash, which follows from the row's number: so what is found says which vector it was.
FILL = """
SET session_replication_role = replica;
INSERT INTO documents (document_id, tenant_id, object_key, name, current_version_id)
    SELECT md5('d' || n)::uuid, %(tenant)s, 'benchmark/' || n, 'a', md5('v' || n)::uuid
    FROM generate_series(0, (%(rows)s - 1) / %(document_rows)s) n;
INSERT INTO document_versions (version_id, tenant_id, document_id, s3_version_id, sequencer, modified_at,
                               planned_chunks, chunked_at, status, finished_at)
    SELECT md5('v' || n)::uuid, %(tenant)s, md5('d' || n)::uuid, '1', 'a', now(),
           %(document_rows)s, now(), 'ready', now()
    FROM generate_series(0, (%(rows)s - 1) / %(document_rows)s) n;
INSERT INTO chunks (tenant_id, version_id, ordinal, chunk_id, content_hash, text, tokens, char_start, char_end,
                    heading_path)
    SELECT %(tenant)s, md5('v' || n / %(document_rows)s)::uuid, n %% %(document_rows)s, md5('t' || n)::uuid,
           md5('t' || n)::uuid, 'the text of chunk ' || n, 5, 0, 20, '{}'
    FROM generate_series(0, %(rows)s - 1) n;
INSERT INTO chunk_terms (tenant_id, version_id, ordinal, content_hash, weights, terms)
    SELECT tenant_id, version_id, ordinal, content_hash, '{}/1000000000', '{}' FROM chunks;
CREATE TABLE written (rows bigint NOT NULL);
INSERT INTO written VALUES (0);
GRANT SELECT, UPDATE ON written TO edda_app;
GRANT CREATE ON SCHEMA public TO edda_owner;
VACUUM ANALYZE documents, document_versions, chunks, chunk_terms;
"""
LIVE = (
    "CREATE INDEX embeddings_hnsw_{model}_0_{end} ON embeddings "
    "USING hnsw ((vector::halfvec({dimensions})) halfvec_cosine_ops) "
    "WHERE segment < {end} AND segment >= 0 AND model_id = {model}"
)
# As the embed function writes them.
WRITE = """
INSERT INTO embeddings (tenant_id, model_id, content_hash, vector)
SELECT %(tenant)s, %(model)s, v.content_hash, v.vector
FROM unnest(%(hashes)b::uuid[], %(vectors)b::halfvec[]) AS v (content_hash, vector)
WHERE EXISTS (SELECT FROM chunks c WHERE c.tenant_id = %(tenant)s AND c.content_hash = v.content_hash)
ORDER BY v.content_hash ON CONFLICT DO NOTHING
"""
COVERED = """
SELECT coalesce(sum(reltuples) FILTER (WHERE indisvalid AND reltuples > 0), 0)::bigint AS rows, count(*) AS indexes
FROM pg_index JOIN pg_class c ON c.oid = indexrelid
WHERE indrelid = 'embeddings'::regclass AND c.relname LIKE 'embeddings_hnsw_%%'
"""


@dataclass(frozen=True, slots=True)
class Run:
    """One way, and what its processes need to know."""

    way: str
    vectors: Path
    dimensions: int
    rows: int
    rows_a_second: float
    seconds: float
    pause_s: float  # between searches
    began: float  # a reading of time.time
    owner: str
    application: str
    tenant: UUID
    model_id: int


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.index", description=__doc__)
    parser.add_argument("ways", nargs="*", metavar="way", help=", ".join(WAYS) + ": all, unless some are named")
    parser.add_argument("--rows-a-second", type=float, default=4000, help="offered")
    parser.add_argument("--seconds", type=float, default=180, help="of writing, each way")
    parser.add_argument("--dimensions", type=int, default=1024)
    parser.add_argument("--pause", type=float, default=0.5, metavar="SECONDS", help="between searches")
    parser.add_argument("--state", type=Path, default=ROOT / ".bench" / "index", help="of Postgres, and the vectors")
    options = parser.parse_args()
    options.ways = options.ways or list(WAYS)
    if unknown := set(options.ways) - set(WAYS):
        parser.error(f"no such way: {', '.join(sorted(unknown))}; there are {', '.join(WAYS)}")
    options.state.mkdir(parents=True, exist_ok=True)
    vectors = make(options.state, _rows(options), options.dimensions)
    folder = ROOT / ".bench" / "results" / time.strftime("index-%Y%m%d-%H%M%S")
    folder.mkdir(parents=True)
    results: dict[str, Any] = {"options": {k: str(v) for k, v in vars(options).items()}, "ways": {}}
    with server(options.state) as postgres:
        for way in options.ways:
            with postgres.fresh("edda", options.dimensions) as fresh:
                results["ways"][way] = _measure(way, options, postgres, fresh, vectors)
            (folder / "results.json").write_text(json.dumps(results, indent=1))
            print(way, _line(results["ways"][way]), flush=True)
    plotter = ROOT / "benchmarks" / ".venv" / "bin" / "python"
    if plotter.exists():
        subprocess.run([plotter, "-m", "benchmarks.index_plot", folder], check=True)
    print(folder)


def _measure(way: str, options: argparse.Namespace, postgres: Server, fresh: Fresh, vectors: Path) -> dict[str, Any]:
    rows = _rows(options)
    tenant = fresh.rows("SELECT tenant_id FROM tenants WHERE slug = %s", [TENANT])[0][0]
    model = fresh.rows("SELECT model_id FROM embedding_models WHERE name = %s", [EDDA_MODEL])[0][0]
    with psycopg.connect(fresh.superuser_url, autocommit=True, cursor_factory=psycopg.ClientCursor) as connection:
        for statement in FILL.split(";\n"):
            connection.execute(statement.encode(), {"tenant": tenant, "rows": rows, "document_rows": DOCUMENT_ROWS})
        if way == "live":
            connection.execute(LIVE.format(model=model, end=END, dimensions=options.dimensions).encode())
        connection.execute("CHECKPOINT")
    run = Run(
        *(way, vectors, options.dimensions, rows, options.rows_a_second, options.seconds, options.pause),
        *(time.time() + 2, fresh.owner_url, fresh.application_url, tenant, model),
    )
    context = multiprocessing.get_context("spawn")
    with context.Pool(3) as pool:
        cpu_s = postgres.cpu_s
        searching = pool.apply_async(_run, (search, run))
        indexing = pool.apply_async(_run, (index, run)) if way == "segments" else None
        written = pool.apply_async(_run, (write, run)).get()
        searches = searching.get()
        built = indexing.get() if indexing else {}
        cpu_s = postgres.cpu_s - cpu_s
    return {
        "says": WAYS[way],
        "written": written,
        "searches": _with_recall(searches, vectors),
        "indexer": built,
        "postgres_cpu_s": cpu_s,
        "rows": fresh.rows("SELECT count(*) FROM embeddings")[0][0],
        "load": os.getloadavg()[0],
        "indexes": fresh.rows(
            "SELECT relname, reltuples::bigint, pg_relation_size(oid) FROM pg_class WHERE relname LIKE %s",
            ["embeddings_hnsw_%"],
        ),
    }


def _rows(options: argparse.Namespace) -> int:
    """Offered, in whole batches."""
    return int(options.rows_a_second * options.seconds) // BATCH_ROWS * BATCH_ROWS


def _run(work: Callable[[Run], Any], run: Run) -> Any:
    return asyncio.run(work(run))


async def write(run: Run) -> list[tuple[float, int]]:
    """Write at the offered rate, or as fast as it goes, until the time is up: (seconds, rows so far) by batch."""
    done: list[tuple[float, int]] = []
    vectors, hashes = read(run.vectors), _hashes(run.rows)
    async with await psycopg.AsyncConnection.connect(run.application, autocommit=True) as connection:
        await register_vectors(connection)
        for first in range(0, run.rows, BATCH_ROWS):
            due = run.began + first / run.rows_a_second
            await asyncio.sleep(max(0.0, due - time.time()))
            if time.time() > run.began + run.seconds:
                break
            async with connection.transaction(), connection.cursor() as cursor:
                await cursor.execute("SELECT set_config('app.tenant_id', %s, true)", [str(run.tenant)])
                values = {
                    "tenant": run.tenant,
                    "model": run.model_id,
                    "hashes": hashes[first : first + BATCH_ROWS],
                    "vectors": [half_vector(one) for one in vectors[first : first + BATCH_ROWS]],
                }
                await cursor.execute(WRITE, values)
                await cursor.execute("UPDATE written SET rows = %s", [first + BATCH_ROWS])
            done.append((time.time() - run.began, first + BATCH_ROWS))
    return done


async def _there(connection: psycopg.AsyncConnection[dict[str, Any]], run: Run) -> dict[str, Any]:
    async with connection.transaction(), connection.cursor() as cursor:
        await cursor.execute("SELECT set_config('app.tenant_id', %s, true)", [str(run.tenant)])
        await cursor.execute("SELECT count(*) >= %s AS enough FROM embeddings", [100 * TOP_K])
        return (await cursor.fetchone()) or {}


async def search(run: Run) -> list[dict[str, Any]]:
    """Search again and again until writing is over: when, for how long, what was there and what was found."""
    done: list[dict[str, Any]] = []
    numbers = {str(one): n for n, one in enumerate(_hashes(run.rows))}
    queries = read(run.vectors, queries=True)
    connection = await psycopg.AsyncConnection.connect(
        run.application, autocommit=True, row_factory=dict_row, prepare_threshold=None
    )
    async with connection:
        await register_vectors(connection)
        snapshot = Snapshot(connection)
        store = SearchStore(snapshot, EmbeddingModel(run.model_id, EDDA_MODEL, run.dimensions))  # type: ignore[arg-type]  # in a database's place
        await asyncio.sleep(max(0.0, run.began - time.time()))
        # Visible chunks without vectors are the benchmark's own: where too few have one, all are looked at.
        while not (await _there(connection, run))["enough"]:  # noqa: ASYNC110 - Postgres has no event for it
            await asyncio.sleep(0.1)
        while (seconds := time.time() - run.began) < run.seconds:
            query = len(done) % QUERIES
            async with snapshot.of(run.tenant) as cursor:
                there = await (await cursor.execute("SELECT rows FROM written")).fetchone()
                covered = await (await cursor.execute(COVERED)).fetchone()
                assert there
                assert covered
                began = time.perf_counter()
                vector = half_vector(queries[query])
                best = await store.candidates(run.tenant, vector, None, compile_filter(None), TOP_K)
                hits = await store.hits(run.tenant, best)
                took_s = time.perf_counter() - began
            done.append(
                {
                    "at_s": seconds,
                    "took_s": took_s,
                    "query": query,
                    "rows": there["rows"],
                    "tail": there["rows"] - covered["rows"] if run.way == "segments" else 0,
                    "indexes": covered["indexes"],
                    "found": [numbers[str(hit.chunk_id)] for hit in hits],
                }
            )
            await asyncio.sleep(run.pause_s)
    return done


async def index(run: Run) -> list[dict[str, Any]]:
    """The indexer, called once a second until writing is over."""

    async def conninfo() -> str:
        return run.owner

    indexing, done = Indexing(IndexStore(conninfo), Policy()), []
    while time.time() < run.began + run.seconds:
        until_s = run.began + run.seconds - time.time()
        done.append(await indexing.index(Deadline.after(until_s)) | {"at_s": time.time() - run.began})
        await asyncio.sleep(1)
    return done


class Snapshot:
    """In a database's place: whatever is asked sees the same moment, so that what is found can be judged."""

    def __init__(self, connection: psycopg.AsyncConnection[dict[str, Any]]) -> None:
        self._connection = connection

    @asynccontextmanager
    async def of(self, tenant: UUID) -> AsyncIterator[Cursor]:
        async with self._connection.transaction(), self._connection.cursor() as cursor:
            await cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            await cursor.execute("SELECT set_config('app.tenant_id', %s, true)", [str(tenant)])
            yield cursor

    @asynccontextmanager
    async def transaction(self, tenant_id: UUID) -> AsyncIterator[Cursor]:
        async with self._connection.transaction(), self._connection.cursor() as cursor:
            yield cursor


def half_vector(vector: "np.ndarray[Any, np.dtype[np.float16]]") -> HalfVector:
    """Dimensions, a reserved zero, and the numbers, big-endian."""
    return HalfVector(len(vector).to_bytes(2, "big") + b"\0\0" + vector.astype(">f2").tobytes())


def _hashes(rows: int) -> list[UUID]:
    return [UUID(bytes=hashlib.md5(b"t%d" % n, usedforsecurity=False).digest()) for n in range(rows)]


def _with_recall(searches: list[dict[str, Any]], file: Path) -> list[dict[str, Any]]:
    """Recall@10 of each search: of the rows that were there, by comparing with each of them in float32."""
    vectors, queries = read(file), read(file, queries=True).astype(np.float32)
    best: list[list[tuple[float, int]]] = [[] for _ in searches]
    block = 20_000
    for first in range(0, max((one["rows"] for one in searches), default=0), block):
        scores = queries @ vectors[first : first + block].astype(np.float32).T
        for one, nearest in zip(searches, best, strict=True):
            row = scores[one["query"], : max(0, one["rows"] - first)]
            top = np.argsort(-row)[:TOP_K] if len(row) <= TOP_K else np.argpartition(-row, TOP_K)[:TOP_K]
            nearest += [(float(row[n]), first + int(n)) for n in top]
            nearest.sort(reverse=True)
            del nearest[TOP_K:]
    for one, nearest in zip(searches, best, strict=True):
        truth = {number for _, number in nearest}
        one["recall"] = len(truth & set(one.pop("found"))) / len(truth) if truth else 1.0
    return searches


def _line(measured: dict[str, Any]) -> str:
    searches, written = measured["searches"], measured["written"]
    took = sorted(one["took_s"] * 1000 for one in searches)
    recalls = [one["recall"] for one in searches]
    windows = [statistics.fmean(recalls[n : n + 20]) for n in range(0, max(1, len(recalls) - 19), 20)]
    return (
        f"{written[-1][1] / written[-1][0]:,.0f} rows/s accepted ({written[-1][1]:,} rows), recall@10 "
        f"{statistics.fmean(recalls):.4f} (least of 20 searches in a row {min(windows):.3f}), search p50 "
        f"{took[len(took) // 2]:.0f} ms p95 {took[int(len(took) * 0.95)]:.0f} ms, longest tail "
        f"{max(one['tail'] for one in searches):,}, Postgres {measured['postgres_cpu_s']:.0f} CPU s, "
        f"load {measured['load']:.1f}"
    )


if __name__ == "__main__":
    main()
