"""The text leg of search: BM25 by the table chunk_terms.

A query is a vector of its terms' idf, and a chunk's score its inner product with the chunk's weights. Which chunks are
scored is found by the index of terms, the rare ones first: chunks that have none of these are looked at only if the
terms that are left could still bring them among the best.
"""

import asyncio
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from psycopg import sql

from edda.models import Chunk
from edda.store.conditions import Condition
from edda.store.database import Cursor, Integers, Row, SparseVectors, Uuids, fetch_all, fetch_one
from edda.store.queries import queries
from edda.terms import K1, TERM_IDS, QueryTerms, document_weights, idf, term_ids

SQL = queries("search")
MOST_TERMS = 16_000  # of a chunk: sparsevec takes no more
AT_ONCE = 64  # chunks whose terms are worked out before others get a turn
# How often a term occurs is counted up to here; where a tenant has more chunks, up to FEW, and beyond that estimated
# from a sample: of chunks that one in a hundred has, 20 of 2,000 are expected, which puts idf wrong by 5 %.
MOST_COUNTED = 20_000
FEW = 2_000
SAMPLE = 2_000
FIRST_LOOK = 4_000  # chunks, or four times the depth: those with the rarest terms
HEAD = struct.Struct(">3i")

BEST = sql.SQL(
    "SELECT t.version_id, t.ordinal, d.document_id, t.language, t.content_hash, t.score "
    "FROM (SELECT * FROM chunks_with_terms(%(any_of)b, %(query)s::sparsevec) "
    "ORDER BY score DESC, version_id, ordinal OFFSET 0) t "
    "CROSS JOIN LATERAL (SELECT * FROM documents d WHERE d.current_version_id = t.version_id OFFSET 0) d "
    "CROSS JOIN LATERAL (SELECT * FROM document_versions v WHERE v.version_id = t.version_id OFFSET 0) v "
    "WHERE d.tenant_id = %(tenant_id)s AND ({condition}) "
    "ORDER BY t.score DESC, t.version_id, t.ordinal LIMIT %(limit)s"
)


# Writing ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TermRows:
    """Rows of chunk_terms, of one version."""

    ordinals: list[int]
    content_hashes: Uuids
    languages: list[str | None]
    weights: SparseVectors
    terms: Integers  # of all rows, one after another
    ends: list[int]


async def term_rows(tenant_id: UUID, chunks: Sequence[Chunk]) -> TermRows:
    """What is stored of the chunks' terms. To be made before a transaction: it takes half a millisecond a chunk."""
    rows = TermRows([], Uuids(), [], SparseVectors(), Integers(), [])
    for number, chunk in enumerate(chunks):
        if number % AT_ONCE == AT_ONCE - 1:
            await asyncio.sleep(0)
        weights = _by_id(tenant_id, document_weights(chunk.text, chunk.language))
        if len(weights) > MOST_TERMS:
            weights = dict(sorted(weights.items(), key=lambda item: -item[1])[:MOST_TERMS])
        ids = sorted(weights)
        rows.ordinals.append(chunk.ordinal)
        rows.content_hashes.append(chunk.content_hash.bytes)
        rows.languages.append(chunk.language)
        rows.weights.append(_to_binary(ids, [weights[one] for one in ids]))
        rows.terms.extend(ids)
        rows.ends.append(len(rows.terms))
    return rows


async def insert_terms(cursor: Cursor, tenant_id: UUID, version_id: UUID, rows: TermRows) -> None:
    values = {
        "tenant_id": tenant_id,
        "version_id": version_id,
        "ordinals": rows.ordinals,
        "content_hashes": rows.content_hashes,
        "languages": rows.languages,
        "weights": rows.weights,
        "terms": rows.terms,
        "starts": [end + 1 for end in (0, *rows.ends)][: len(rows.ends)],
        "ends": rows.ends,
    }
    await cursor.execute(SQL["insert_chunk_terms"], values)


def _to_binary(ids: Sequence[int], weights: Sequence[float]) -> bytes:
    """pgvector's wire format of `sparsevec`: int32 dimensions, non-zero ones and unused; indices, ascending from 0;
    float32 values."""
    return b"".join(
        (
            HEAD.pack(TERM_IDS, len(ids), 0),
            struct.pack(f">{len(ids)}i", *ids),
            struct.pack(f">{len(ids)}f", *weights),
        )
    )


def _by_id(tenant_id: UUID, weights: dict[str, float]) -> dict[int, float]:
    """Terms that share a number count together."""
    by_id: dict[int, float] = {}
    for number, weight in zip(term_ids(tenant_id, weights), weights.values(), strict=True):
        by_id[number] = by_id.get(number, 0.0) + weight
    return by_id


# Searching --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Term:
    """A term of a query that some chunk has. `weight` is that in the query times idf."""

    number: int
    chunks: int
    weight: float

    @property
    def most(self) -> float:
        """What it can add to a score."""
        return self.weight * (K1 + 1)


@dataclass(frozen=True, slots=True)
class TextQuery:
    """The terms, the rarest first."""

    terms: tuple[Term, ...]

    @property
    def vector(self) -> str:
        """As pgvector reads it: it counts dimensions from 1."""
        return to_sparse({term.number: term.weight for term in self.terms})


def to_sparse(weights: dict[int, float]) -> str:
    """A sparsevec as text."""
    items = ",".join(f"{number + 1}:{weights[number]:.6g}" for number in sorted(weights))
    return f"{{{items}}}/{TERM_IDS}"


async def text_query(cursor: Cursor, tenant_id: UUID, asked: QueryTerms) -> TextQuery:
    """How much each term of the query tells. Chunks that are not visible are counted with the others."""
    weights = _by_id(tenant_id, asked.terms)
    if not weights:
        return TextQuery(())
    chunks = await _chunks(cursor, tenant_id)
    frequencies = await _frequencies(cursor, tenant_id, list(weights), chunks)
    terms = (
        Term(number, frequency, weight * idf(max(chunks, frequency), frequency))
        for (number, weight), frequency in zip(weights.items(), frequencies, strict=True)
        if frequency
    )
    return TextQuery(tuple(sorted(terms, key=lambda term: (term.chunks, term.number))))


async def rarest(cursor: Cursor, tenant_id: UUID, alternatives: Sequence[QueryTerms]) -> Integers:
    """Of several words, each with all terms that it may stand for, those of the one that the fewest chunks have."""
    numbers = [term_ids(tenant_id, one.terms) for one in alternatives]
    every = sorted({number for some in numbers for number in some})
    chunks = await _chunks(cursor, tenant_id)
    known = dict(zip(every, await _frequencies(cursor, tenant_id, every, chunks), strict=True))
    fewest = min(numbers, key=lambda some: sum(known[number] for number in some), default=[])
    return Integers(number for number in fewest if known[number])


async def best(cursor: Cursor, query: TextQuery, condition: Condition, values: dict[str, Any], depth: int) -> list[Row]:
    """The `depth` chunks with the highest scores above 0 that satisfy the condition, best first."""
    terms, end, rows = query.terms, 0, list[Row]()
    looked_at = max(FIRST_LOOK, 4 * depth)
    statement = BEST.format(condition=condition.clause)
    while end < len(terms):
        while end < len(terms) and (end == 0 or sum(term.chunks for term in terms[: end + 1]) <= looked_at):
            end += 1
        any_of = Integers(term.number for term in terms[:end])
        await cursor.execute(statement, values | {"any_of": any_of, "query": query.vector, "limit": depth})
        rows = await cursor.fetchall()
        # A chunk that has none of these terms cannot have more than this.
        least = rows[-1]["score"] if len(rows) == depth else 0.0
        if sum(term.most for term in terms[end:]) <= least:
            break
        while end < len(terms) and sum(term.most for term in terms[end:]) > least > 0:
            end += 1
        looked_at = max(4 * looked_at, sum(term.chunks for term in terms[:end]))
    return rows


async def _chunks(cursor: Cursor, tenant_id: UUID) -> int:
    """How many a tenant has. Hashes are spread evenly: where many are, it follows from how near the first ones lie."""
    row = await fetch_one(cursor, SQL["first_hashes"], {"tenant_id": tenant_id, "sample": SAMPLE})
    assert row is not None  # noqa: S101 - an aggregate returns a row
    if row["chunks"] < SAMPLE:
        return int(row["chunks"])
    return int(row["chunks"] * 2**128 / max(1, UUID(row["last"]).int))


async def _frequencies(cursor: Cursor, tenant_id: UUID, numbers: list[int], chunks: int) -> list[int]:
    """How many of a tenant's `chunks` have each of these terms."""
    most = MOST_COUNTED if chunks <= MOST_COUNTED else FEW
    counted = await fetch_all(cursor, SQL["term_frequencies"], {"ids": Integers(numbers), "most": most})
    frequencies = [int(row["chunks"]) for row in counted]
    many = [place for place, frequency in enumerate(frequencies) if frequency >= most]
    if many:
        values = {
            "tenant_id": tenant_id,
            "sample": SAMPLE,
            "units": [to_sparse({numbers[place]: 1.0}) for place in many],
        }
        for place, row in zip(many, await fetch_all(cursor, SQL["sampled_frequencies"], values), strict=True):
            frequencies[place] = max(most, round(row["chunks"] * chunks / max(1, row["sampled"])))
    return frequencies
