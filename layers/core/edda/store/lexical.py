"""The text leg of search: BM25 by the table chunk_terms.

A query is a vector of its terms' idf, and a chunk's score its inner product with the chunk's weights. Which chunks are
scored is found by the index of terms, the rare ones first: chunks that have none of these are looked at only if the
terms that are left could still bring them among the best.
"""

import asyncio
import re
import struct
import time
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import accumulate, takewhile
from typing import Any
from uuid import UUID

from psycopg import sql

from edda.models import Chunk
from edda.store.conditions import Condition
from edda.store.database import Cursor, Integers, Row, SparseVectors, Uuids, fetch_all, fetch_one
from edda.store.queries import queries
from edda.terms import GRAM, K1, TERM_IDS, QueryTerms, document_weights, is_always_a_term, query_terms, term_ids

SQL = queries("search")
MOST_TERMS = 16_000  # of a chunk: sparsevec takes no more
AT_ONCE = 64  # chunks whose terms are worked out before others get a turn
# How often a term occurs is counted up to here; where a tenant has more chunks, up to FEW, and beyond that estimated
# from a sample: of chunks that one in a hundred has, 20 of 2,000 are expected, which puts idf wrong by 5 %.
MOST_COUNTED = 25_000
FEW = 2_000
SAMPLE = 2_000
HASHES = 1_000  # by which it is told how many chunks there are, 3 % wrong
FIRST_LOOK = 4_000  # chunks, or four times the depth: those with the rarest terms
MOST_SETS = 32  # of terms that are looked for together
MOST_LEFT = 100  # terms, the most frequent, of which such sets are made: what they cost grows with their square
KNOWN_FOR_S = 600
MOST_KNOWN = 20_000
JOINED = re.compile(r"[-._/\\:@'’+#]")
HEAD = struct.Struct(">3i")

BEST = sql.SQL(
    "SELECT t.version_id, t.ordinal, d.document_id, t.language, t.content_hash, t.score "
    "FROM (SELECT * FROM chunks_with_terms(%(any_of)b, %(all_of)s, %(query)s::sparsevec) "
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


async def term_rows(tenant_id: UUID, chunks: Sequence[Chunk], title: str | None = None) -> TermRows:
    """What is stored of the terms of chunks: of their text, the headings above it and the title of the document.

    To be made before a transaction: it takes a third of a millisecond a chunk.
    """
    above = (title,) if title else ()
    rows = TermRows([], Uuids(), [], SparseVectors(), Integers(), [])
    for number, chunk in enumerate(chunks):
        if number % AT_ONCE == AT_ONCE - 1:
            await asyncio.sleep(0)
        weights = _by_id(tenant_id, document_weights(chunk.text, chunk.language, (*above, *chunk.heading_path)))
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


class CommonTerms:
    """What is known of terms that many chunks have: which part of a tenant's. To count them takes long, and changes
    little; those that few have are counted for every query, so what is new is found."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[UUID, int], tuple[float, float]] = OrderedDict()

    def share(self, tenant_id: UUID, number: int) -> float | None:
        share, until = self._known.get((tenant_id, number), (0.0, 0.0))
        return share if until > time.monotonic() else None

    def learn(self, tenant_id: UUID, number: int, share: float) -> None:
        self._known[tenant_id, number] = (share, time.monotonic() + KNOWN_FOR_S)
        if len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)


async def text_query(cursor: Cursor, tenant_id: UUID, asked: QueryTerms, chunks: int, common: CommonTerms) -> TextQuery:
    """How much each term of the query tells, of a tenant's `chunks`. What is not visible is counted with the rest."""
    numbers = dict(zip(asked.terms, term_ids(tenant_id, asked.terms), strict=True))
    known = await _frequencies(cursor, tenant_id, sorted(set(numbers.values())), chunks, common)
    frequencies = {term: known[number] for term, number in numbers.items()}
    weights = asked.weights(max([chunks, *known.values()]), frequencies)
    by_id = _by_id(tenant_id, {term: weight for term, weight in weights.items() if frequencies[term]})
    terms = (Term(number, known[number], weight) for number, weight in by_id.items())
    return TextQuery(tuple(sorted(terms, key=lambda term: (term.chunks, term.number))))


async def rarest(cursor: Cursor, tenant_id: UUID, phrases: Sequence[str], chunks: int) -> tuple[Integers | None, int]:
    """Of the words of these phrases, the terms of the one that the fewest chunks have: who holds the phrases has one of
    them; and how many chunks have. None when no word is certain to be a term of such a chunk: function words, say."""
    # Apart: what is joined to an identifier may be a piece of a longer one.
    words = {word.lower() for phrase in phrases for word in JOINED.sub(" ", phrase).split()}
    certain = [group for word in words for group in _certain(query_terms(word))]
    # A letter is none where an apostrophe joins it to a word.
    certain = [group for group in certain if len(group[0]) > 1] or certain
    groups = [term_ids(tenant_id, group) for group in certain]
    if not groups:
        return None, 0
    every = sorted({number for group in groups for number in group})
    known = await _frequencies(cursor, tenant_id, every, chunks, CommonTerms())
    fewest = min(groups, key=lambda group: sum(known[number] for number in group))
    return Integers(number for number in fewest if known[number]), sum(known[number] for number in fewest)


def _certain(word: QueryTerms) -> list[tuple[str, ...]]:
    """Of each of these a chunk that holds the word has one, in whatever language. An ideograph is a term by itself."""
    ideographs = [(term,) for term in word.terms if term.startswith(GRAM) and len(term) == len(GRAM) + 1]
    return [group for group in word.alternatives if is_always_a_term(group[0])] + ideographs


async def best(cursor: Cursor, query: TextQuery, condition: Condition, values: dict[str, Any], depth: int) -> list[Row]:
    """The `depth` chunks with the highest scores above 0 that satisfy the condition, best first."""
    terms = query.terms
    counted = accumulate(term.chunks for term in terms)
    end = max(min(1, len(terms)), sum(1 for _ in takewhile(max(FIRST_LOOK, 4 * depth).__ge__, counted)))
    statement, rows = BEST.format(condition=condition.clause), list[Row]()
    sets: list[list[int]] = []
    while end:
        asked = {
            "any_of": Integers(term.number for term in terms[:end]),
            "all_of": ["{" + ",".join(map(str, some)) + "}" for some in sets],
            "query": query.vector,
            "limit": depth,
        }
        await cursor.execute(statement, values | asked)
        rows = await cursor.fetchall()
        if sets or end == len(terms):
            break
        # Others have none of these terms: to be among the best they need several of those that are left.
        least = rows[-1]["score"] if len(rows) == depth else 0.0
        before = end
        end, sets = _still_to_look_at(terms, end, least)
        if not sets and end == before:
            break
    return rows


def _still_to_look_at(terms: Sequence[Term], end: int, least: float) -> tuple[int, list[list[int]]]:
    """What chunks with a score above `least` have: one of the first terms, up to which, or all of one of these sets."""

    def sets(first: int) -> list[list[int]] | None:
        left = sorted(terms[first:], key=lambda term: -term.most)
        found = _sets([term.most for term in left], least)
        return None if found is None else [[left[place].number for place in places] for places in found]

    # The fewer terms are left, the fewer sets they make.
    ends = range(max(end, len(terms) - MOST_LEFT), len(terms))
    end = ends.start + bisect_left(ends, True, key=lambda first: sets(first) is not None)
    return end, sets(end) or []


def _sets(most: Sequence[float], least: float) -> list[list[int]] | None:
    """The smallest sets of places whose sum is above `least`; `most` descends. None when these are too many."""
    found: list[list[int]] = []
    rest = [*accumulate(reversed(most), initial=0.0)][::-1]  # sums from each place on

    def add(chosen: list[int], total: float, first: int) -> None:
        for place in range(first, len(most)):
            if total + rest[place] <= least or len(found) > MOST_SETS:
                return
            if total + most[place] > least:
                found.append([*chosen, place])
            else:
                add([*chosen, place], total + most[place], place + 1)

    add([], 0.0, 0)
    return found if len(found) <= MOST_SETS else None


async def count_chunks(cursor: Cursor, tenant_id: UUID) -> int:
    """How many a tenant has, visible or not. Where many are, it follows from how near the first ones lie: hashes are
    spread evenly."""
    row = await fetch_one(cursor, SQL["first_hashes"], {"tenant_id": tenant_id, "sample": HASHES})
    assert row is not None  # noqa: S101 - an aggregate returns a row
    if row["chunks"] < HASHES:
        return int(row["chunks"])
    return int(row["chunks"] * 2**128 / max(1, UUID(row["last"]).int))


async def _frequencies(
    cursor: Cursor, tenant_id: UUID, numbers: Collection[int], chunks: int, common: CommonTerms
) -> dict[int, int]:
    """How many of a tenant's `chunks` have each of these terms."""
    shares = {number: share for number in numbers if (share := common.share(tenant_id, number)) is not None}
    frequencies = {number: max(1, round(share * chunks)) for number, share in shares.items()}
    unknown = [number for number in numbers if number not in frequencies]
    if not unknown:
        return frequencies
    most = MOST_COUNTED if chunks <= MOST_COUNTED else FEW
    counted = await fetch_all(cursor, SQL["term_frequencies"], {"ids": Integers(unknown), "most": most})
    frequencies |= {number: row["chunks"] for number, row in zip(unknown, counted, strict=True)}
    many = [number for number in unknown if frequencies[number] >= most]
    if many:
        units = [to_sparse({number: 1.0}) for number in many]
        values = {"tenant_id": tenant_id, "sample": SAMPLE, "units": units}
        sampled = await fetch_all(cursor, SQL["sampled_frequencies"], values)
        for number, row in zip(many, sampled, strict=True):
            frequencies[number] = max(most, round(row["chunks"] * chunks / row["sampled"]))
    for number in unknown:
        if frequencies[number] >= FEW:
            common.learn(tenant_id, number, frequencies[number] / chunks)
    return frequencies
