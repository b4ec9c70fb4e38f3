"""How fast search answers, beside the bare SQL of a vector search, and how much of the nearest it finds.

`.venv/bin/python -m benchmarks.search quick` or `full`. benchmarks/README.md says what is measured, and shows figures.
"""

import argparse
import asyncio
import hashlib
import json
import multiprocessing
import os
import random
import statistics
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import psycopg
from edda.concurrency import Deadline
from edda.filters import parse_filter
from edda.index_ranges import Policy
from edda.indexing import Indexing
from edda.models import Candidate, Chunk, EmbeddingModel, Tenant
from edda.store.conditions import compile_filter
from edda.store.database import Database, FloatVectors, HalfVector, Uuids, register_vectors
from edda.store.indexing import IndexStore
from edda.store.keys import create_key
from edda.store.lexical import insert_terms, term_rows
from edda.store.migrations import register_model
from edda.store.search import SearchStore
from edda.terms import query_terms
from psycopg.rows import dict_row

from benchmarks.clusters import make, read
from benchmarks.cost.svg import curves
from benchmarks.handler import MODEL, handled
from benchmarks.index import half_vector
from benchmarks.postgres import TENANT, Fresh, Server, server

ROOT = Path(__file__).resolve().parent.parent
DIMENSIONS = 384
DOCUMENT_CHUNKS = 20
TOP_K, DEPTH = 10, 200  # a page, and what each leg finds for it by default
WORDS, VOCABULARY = 110, 60_000  # of a chunk, and of the corpus: frequencies as in languages (Zipf)
MODES = ("vector", "text", "hybrid")
SHARES = {"all": None, "1 in 2": 500, "1 in 10": 100, "1 in 100": 10, "1 in 1,000": 1}  # of documents, by a filter
PLANS: dict[str, tuple[tuple[int, ...], tuple[int, ...], float]] = {  # chunks; clients; seconds each
    "smoke": ((2_000,), (1,), 0.5),
    "quick": ((20_000,), (1, 8), 4),
    "full": ((20_000, 200_000), (1, 2, 4, 8, 16, 32), 8),
}
DOCUMENTS = """
INSERT INTO documents (document_id, tenant_id, object_key, name, current_version_id, metadata)
    SELECT md5('d' || n)::uuid, %(tenant)s, 'benchmark/' || n, 'a', md5('v' || n)::uuid,
           jsonb_build_object('part', n %% 1000)
    FROM generate_series(0, %(documents)s - 1) n;
INSERT INTO document_versions (version_id, tenant_id, document_id, s3_version_id, sequencer, modified_at, language,
                               planned_chunks, chunked_at, status, finished_at)
    SELECT md5('v' || n)::uuid, %(tenant)s, md5('d' || n)::uuid, '1', 'a', now(), 'en', %(size)s, now(), 'ready', now()
    FROM generate_series(0, %(documents)s - 1) n;
"""
CHUNKS = """
INSERT INTO chunks (tenant_id, version_id, ordinal, chunk_id, content_hash, text, tokens, char_start, char_end,
                    heading_path, language)
SELECT %(tenant)s, %(version)s, n - 1, h, h, t, 150, 0, length(t), '{}', 'en'
FROM unnest(%(hashes)b::uuid[], %(texts)s::text[]) WITH ORDINALITY AS c (h, t, n)
"""
VECTORS = """
INSERT INTO embeddings (tenant_id, model_id, content_hash, vector)
SELECT %(tenant)s, %(model)s, h, v FROM unnest(%(hashes)b::uuid[], %(vectors)b::halfvec[]) AS e (h, v)
"""
# The simplest there is: the same vectors, indexed, and nothing beside them.
BARE_TABLE = """
CREATE TABLE bare AS SELECT content_hash AS id, vector::halfvec(384) AS vector FROM embeddings;
CREATE INDEX ON bare USING hnsw (vector halfvec_cosine_ops);
GRANT SELECT ON bare TO edda_app
"""
BARE = f"SELECT id FROM bare ORDER BY vector <=> %(vector)b LIMIT {TOP_K}"


@dataclass(frozen=True, slots=True)
class Run:
    """What a client's process needs to know."""

    mode: str  # or bare
    application: str
    tenant: UUID
    model_id: int
    vectors: Path
    seconds: float
    seed: int
    began: float  # a reading of time.time: all begin then


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search", description=__doc__)
    parser.add_argument("plan", choices=PLANS, nargs="?", default="quick")
    parser.add_argument("--chunks", type=int, nargs="+", help="other sizes than the plan's")
    parser.add_argument("--clients", type=int, nargs="+", help="others than the plan's")
    parser.add_argument("--seconds", type=float, help="of each of the runs")
    parser.add_argument("--state", type=Path, default=ROOT / ".bench" / "search", help="of Postgres, and the vectors")
    options = parser.parse_args()
    options.state.mkdir(parents=True, exist_ok=True)
    folder = ROOT / ".bench" / "results" / time.strftime("search-%Y%m%d-%H%M%S")
    folder.mkdir(parents=True)
    results: dict[str, Any] = {"plan": options.plan, "sizes": {}}
    sizes, clients, seconds = PLANS[options.plan]
    clients, seconds = options.clients or clients, options.seconds or seconds
    with server(options.state) as postgres:
        for chunks in options.chunks or sizes:
            with postgres.fresh("edda", DIMENSIONS) as fresh:
                vectors = make(options.state, chunks, DIMENSIONS)
                results["sizes"][chunks] = _measure(postgres, fresh, vectors, clients, seconds)
            (folder / "results.json").write_text(json.dumps(results, indent=1))
            print("\n".join(_lines(chunks, results["sizes"][chunks])), flush=True)
    lines = {
        f"{mode}, {chunks:,} chunks": [
            (one["clients"], one["p50_ms"]) for one in measured["runs"] if one["mode"] == mode
        ]
        for chunks, measured in results["sizes"].items()
        for mode in ("bare", *MODES)
    }
    (folder / "search.svg").write_text(curves("Search: median", "clients", "ms", lines))
    print(folder)


def _measure(postgres: Server, fresh: Fresh, vectors: Path, clients: Sequence[int], seconds: float) -> dict[str, Any]:
    chunks = len(read(vectors))
    ((tenant,),) = fresh.rows("SELECT tenant_id FROM tenants WHERE slug = %s", [TENANT])
    model = asyncio.run(register_model(fresh.owner_url, MODEL, DIMENSIONS))
    began = time.time()
    asyncio.run(_fill(fresh, tenant, model, vectors, chunks))
    filled_s = time.time() - began
    measured: dict[str, Any] = {"filled_s": filled_s, "load": os.getloadavg()[0], "runs": []}
    context = multiprocessing.get_context("spawn")
    with context.Pool(max(clients)) as pool:
        pool.map(time.sleep, [0.5] * max(clients), chunksize=1)  # until all processes are there
        for count in clients:
            for mode in ("bare", *MODES):
                cpu_s, start = postgres.cpu_s, time.time() + 1
                runs = [
                    Run(mode, fresh.application_url, tenant, model.model_id, vectors, seconds, seed, start)
                    for seed in range(count)
                ]
                took = [one for some in pool.map(_client, runs, chunksize=1) for one in some]
                cpu_s = postgres.cpu_s - cpu_s
                measured["runs"].append(
                    {"mode": mode, "clients": count, "searches": len(took), "per_s": len(took) / seconds}
                    | _percentiles(took)
                    | {"postgres_cpu_ms": 1000 * cpu_s / len(took)}
                )
    for one in measured["runs"]:
        bare = next(o for o in measured["runs"] if o["mode"] == "bare" and o["clients"] == one["clients"])
        one["ratio"] = one["p50_ms"] / bare["p50_ms"]
    measured["recall"] = asyncio.run(_recall(fresh, tenant, model, vectors, chunks))
    key = asyncio.run(create_key(fresh.owner_url, Tenant(tenant, TENANT), "benchmark"))
    with context.Pool(1) as pool:  # of its own: it has an environment
        asked = [_question(random.Random(n)) for n in range(200 if seconds > 1 else 10)]
        measured["handler"] = pool.apply(handled, (fresh.application_url, key, asked, MODES))
    return measured


# The corpus -------------------------------------------------------------------------------------------------------


def _word(rank: int) -> str:
    """A word of its own for each rank; none is another's stem."""
    letters = ""
    for _ in range(4):
        rank, place = divmod(rank, 16)
        letters += "bdfgklmnprstvxzq"[place] + "aiou"[place % 4]
    return letters


def _texts(count: int) -> Iterator[str]:
    numbers = np.random.default_rng(2)
    shares = 1 / (np.arange(VOCABULARY) + 10.0)  # function words are in no chunk
    drawn = np.cumsum(shares / shares.sum())
    for _ in range(count):
        ranks = np.searchsorted(drawn, numbers.random(WORDS))
        yield " ".join(_word(int(rank)) for rank in ranks)


def _question(numbers: random.Random) -> str:
    """Some words, common and rare ones."""
    return " ".join(
        _word(min(VOCABULARY - 1, int(10 ** numbers.uniform(0.5, 4.7)))) for _ in range(numbers.randint(3, 8))
    )


async def _fill(fresh: Fresh, tenant: UUID, model: EmbeddingModel, file: Path, count: int) -> None:
    """Documents, chunks, terms and vectors as the pipeline leaves them, and indexed."""
    vectors, texts = read(file), _texts(count)
    definition = fresh.rows("SELECT pg_get_indexdef('chunk_terms_by_term'::regclass)")[0][0]
    fresh.rows("DROP INDEX chunk_terms_by_term")  # made afterwards in one go, for time
    async with await psycopg.AsyncConnection.connect(
        fresh.superuser_url, autocommit=True, row_factory=dict_row
    ) as connection:
        await register_vectors(connection)
        await connection.execute("SET session_replication_role = replica")
        for statement in DOCUMENTS.split(";\n")[:2]:
            values = {"tenant": tenant, "documents": count // DOCUMENT_CHUNKS, "size": DOCUMENT_CHUNKS}
            await psycopg.AsyncClientCursor(connection).execute(statement.encode(), values)
        for first in range(0, count, DOCUMENT_CHUNKS):
            chunks = [
                Chunk(n, text, 0, len(text), 1, None, (), "en", UUID(int=_number(first + n)))
                for n, text in zip(range(DOCUMENT_CHUNKS), texts, strict=False)
            ]
            hashes = Uuids(one.content_hash.bytes for one in chunks)
            version = _version(first // DOCUMENT_CHUNKS)
            values = {"tenant": tenant, "version": version, "hashes": hashes, "texts": [one.text for one in chunks]}
            rows = await term_rows(tenant, chunks)
            some = vectors[first : first + DOCUMENT_CHUNKS].astype("<f4")
            embedded = {"model": model.model_id, "vectors": FloatVectors(one.tobytes() for one in some)}
            async with connection.transaction(), connection.cursor() as cursor:
                await cursor.execute(CHUNKS, values)
                await insert_terms(cursor, tenant, version, rows)
                await cursor.execute(VECTORS, values | embedded)
        await connection.execute(definition.encode())
        for statement in BARE_TABLE.split(";\n"):
            await connection.execute(statement.encode())
        await connection.execute("GRANT CREATE ON SCHEMA public TO edda_owner")

        async def owner() -> str:
            return fresh.owner_url

        indexing = Indexing(IndexStore(owner), Policy(watch_s=0))
        while any((await indexing.index(Deadline.after(600))).values()):
            pass
        await connection.execute("VACUUM ANALYZE")


def _number(row: int) -> int:
    """Spread evenly, as hashes are."""
    return (row + 1) * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128


def _version(document: int) -> UUID:
    return UUID(bytes=hashlib.md5(b"v%d" % document, usedforsecurity=False).digest())


# Clients ----------------------------------------------------------------------------------------------------------


def _client(run: Run) -> list[float]:
    return asyncio.run(_bare(run) if run.mode == "bare" else _search(run))


async def _bare(run: Run) -> list[float]:
    async with await psycopg.AsyncConnection.connect(
        run.application, autocommit=True, prepare_threshold=None
    ) as connection:
        await register_vectors(connection)

        async def ask(vector: HalfVector, _: str) -> None:
            await (await connection.execute(BARE, {"vector": vector})).fetchall()

        return await _repeatedly(run, ask)


async def _search(run: Run) -> list[float]:
    async def conninfo() -> str:
        return run.application

    database = Database(conninfo)
    store = SearchStore(database, EmbeddingModel(run.model_id, MODEL, DIMENSIONS))
    everything = compile_filter(None)

    async def ask(vector: HalfVector, text: str) -> None:
        found = await store.candidates(
            run.tenant,
            None if run.mode == "text" else vector,
            None if run.mode == "vector" else query_terms(text),
            everything,
            DEPTH,
        )
        await store.hits(run.tenant, found[:TOP_K])

    try:
        return await _repeatedly(run, ask)
    finally:
        await database.aclose()


async def _repeatedly(run: Run, ask: Callable[[HalfVector, str], Coroutine[Any, Any, None]]) -> list[float]:
    """How long each took, from the common beginning on. The first two are not counted."""
    numbers, queries = random.Random(run.seed), read(run.vectors, queries=True)
    took: list[float] = []
    for warm in range(1 << 30):
        vector, text = half_vector(queries[numbers.randrange(len(queries))]), _question(numbers)
        if warm == 2:
            await asyncio.sleep(max(0.0, run.began - time.time()))
        began = time.perf_counter()
        await ask(vector, text)
        if warm >= 2:
            took.append(time.perf_counter() - began)
        if warm >= 2 and time.time() > run.began + run.seconds:
            break
    return took


async def _recall(fresh: Fresh, tenant: UUID, model: EmbeddingModel, file: Path, chunks: int) -> dict[str, Any]:
    """Of the nearest ten in float32, how many are found, by the share of documents that a filter leaves."""

    async def conninfo() -> str:
        return fresh.application_url

    vectors, queries = read(file)[:chunks].astype(np.float32), read(file, queries=True).astype(np.float32)[:100]
    parts = np.arange(chunks) // DOCUMENT_CHUNKS % 1000
    places = {_version(n): n * DOCUMENT_CHUNKS for n in range(chunks // DOCUMENT_CHUNKS)}
    database, recalls = Database(conninfo), {}
    store = SearchStore(database, model)
    for says, below in SHARES.items():
        matching = np.flatnonzero(parts < (1000 if below is None else below))
        filter_ = None if below is None else parse_filter({"field": "part", "op": "lt", "value": below})
        found_of_all, fewer = [], 0
        for query in queries:
            scores = vectors[matching] @ query
            truth = {int(one) for one in matching[np.argsort(-scores)[:TOP_K]]}
            vector = half_vector(query.astype(np.float16))
            found = await store.candidates(tenant, vector, None, compile_filter(filter_), TOP_K)
            rows = {places[one.version_id] + one.ordinal for one in _nearest(found)}
            found_of_all.append(len(rows & truth) / len(truth))
            fewer += len(rows) < min(TOP_K, len(matching))
        recalls[says] = {"matching": len(matching), "recall": statistics.fmean(found_of_all), "too_few": fewer}
    await database.aclose()
    return recalls


def _nearest(found: Sequence[Candidate]) -> list[Candidate]:
    return sorted(found, key=lambda one: -(one.similarity or 0))[:TOP_K]


# Results ----------------------------------------------------------------------------------------------------------


def _percentiles(took: list[float]) -> dict[str, float]:
    ordered = sorted(one * 1000 for one in took)
    return {"p50_ms": ordered[len(ordered) // 2], "p99_ms": ordered[int(len(ordered) * 0.99)]}


def _lines(chunks: int, measured: dict[str, Any]) -> Iterator[str]:
    yield f"{chunks:,} chunks, filled in {measured['filled_s']:.0f} s, load {measured['load']:.1f}"
    for one in measured["runs"]:
        yield (
            f"  {one['clients']:>2} clients, {one['mode']:<6}: p50 {one['p50_ms']:.1f} ms, p99 {one['p99_ms']:.1f} ms, "
            f"{one['per_s']:.0f}/s, {one['ratio']:.1f} x bare, Postgres {one['postgres_cpu_ms']:.1f} CPU ms each"
        )
    for says, one in measured["recall"].items():
        yield f"  recall@10 of {says} ({one['matching']:,}): {one['recall']:.4f}, too few {one['too_few']}"
    for mode, one in measured["handler"].items():
        yield (
            f"  handler, {mode}: p50 {one['total_ms']:.1f} ms, of it SQL {one['sql_ms']:.1f}, the query's embedding "
            f"{one['embedding_ms']:.1f}; without it {one['ratio']:.2f} x its SQL"
        )


if __name__ == "__main__":
    main()
