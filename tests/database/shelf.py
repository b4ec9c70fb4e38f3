"""One tenant's chunks, written as the pipeline leaves them, and what search must find among them."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID, uuid4

import psycopg
from edda.filters import parse_filter
from edda.models import Candidate, Chunk, EmbeddingModel, Tenant
from edda.store.conditions import compile_filter
from edda.store.database import Database, HalfVector
from edda.store.lexical import insert_terms, term_rows
from edda.store.search import SearchStore
from edda.terms import QueryTerms, document_weights, query_terms
from edda.vectors import from_floats, to_halfvec_binary

from tests.postgres import MODEL_DIMENSIONS, DatabaseUrls

WORDS = [f"w{n}" for n in range(300)]


@dataclass
class Shelf:
    """One tenant's chunks, and what is known of them."""

    urls: DatabaseUrls
    model: EmbeddingModel
    tenant: Tenant
    database: Database
    numbers: random.Random = field(default_factory=lambda: random.Random(1))
    chunks: dict[tuple[UUID, int], tuple[Chunk, dict[str, float], list[float], int]] = field(default_factory=dict)
    hidden: int = 0

    async def add(
        self,
        texts: Sequence[str],
        *,
        year: int = 1,
        visible: bool = True,
        language: str | None = "en",
        vectors: bool = True,
        title: str | None = None,
        headings: tuple[str, ...] = (),
    ) -> UUID:
        document, version = uuid4(), uuid4()
        chunks = [Chunk(n, text, 0, len(text), 1, None, headings, language, uuid4()) for n, text in enumerate(texts)]
        tenant_id = self.tenant.tenant_id
        rows = await term_rows(tenant_id, chunks, title)
        with psycopg.connect(self.urls.owner) as connection:
            connection.execute(
                "INSERT INTO documents (document_id, tenant_id, object_key, name, title, metadata) "
                "VALUES (%s, %s, %s, 'a', %s, jsonb_build_object('year', %s::integer))",
                [document, tenant_id, f"{self.tenant.slug}/{document}", title, year],
            )
            connection.execute(
                "INSERT INTO document_versions (version_id, tenant_id, document_id, s3_version_id, sequencer, "
                "modified_at, planned_chunks) VALUES (%s, %s, %s, '1', 'a', now(), %s)",
                [version, tenant_id, document, len(texts)],
            )
            for n, chunk in enumerate(chunks):
                vector = [self.numbers.gauss(0, 1) for _ in range(MODEL_DIMENSIONS)]
                connection.execute(
                    "INSERT INTO chunks (tenant_id, version_id, ordinal, chunk_id, content_hash, text, tokens, "
                    "char_start, char_end, heading_path, language) VALUES (%s, %s, %s, %s, %s, %s, 1, 0, 1, %s, %s)",
                    [tenant_id, version, n, chunk.content_hash, chunk.content_hash, chunk.text, [*headings], language],
                )
                if vectors:
                    connection.execute(
                        "INSERT INTO embeddings VALUES (%s, %s, %s, %s)",
                        [tenant_id, self.model.model_id, chunk.content_hash, str(vector)],
                    )
                if visible:
                    weights = document_weights(chunk.text, language)
                    self.chunks[version, chunk.ordinal] = (chunk, weights, vector if vectors else [], year)
                else:
                    self.hidden += 1
            if visible:
                query = "UPDATE documents SET current_version_id = %s WHERE document_id = %s"
                connection.execute(query, [version, document])
        async with self.database.transaction(tenant_id) as cursor:
            await insert_terms(cursor, tenant_id, version, rows)
        return document

    async def fill(self, documents: int = 40, *, size: int = 10) -> None:
        """Words as in languages: a few are everywhere, most are rare."""
        for n in range(documents):
            await self.add([self.text() for _ in range(size)], year=n % 4)

    def text(self) -> str:
        count = self.numbers.randint(5, 60)
        return " ".join(self.numbers.choices(WORDS, [1 / (n + 1) for n in range(len(WORDS))], k=count))

    def scores(self, query: str, year: int | None = None) -> dict[tuple[UUID, int], float]:
        """BM25 of every visible chunk that has a term of the query."""
        asked = query_terms(query)
        every = [weights for _, weights, _, _ in self.chunks.values()]
        frequencies = {term: sum(term in weights for weights in every) for term in asked.terms}
        told = asked.weights(len(every) + self.hidden, frequencies)
        scores = {
            key: sum(weights.get(term, 0) * weight for term, weight in told.items())
            for key, (_, weights, _, of_year) in self.chunks.items()
            if year is None or of_year == year
        }
        return {key: score for key, score in scores.items() if score > 0}

    def similarities(self, vector: list[float], year: int | None = None) -> dict[tuple[UUID, int], float]:
        return {
            key: sum(a * b for a, b in zip(vector, other, strict=True)) / (_length(vector) * _length(other))
            for key, (_, _, other, of_year) in self.chunks.items()
            if other and (year is None or of_year == year)
        }

    async def ask(
        self,
        vector: list[float] | None,
        terms: QueryTerms | None,
        depth: int = 20,
        *,
        year: int | None = None,
        exact_up_to: int = 20_000,
        most_read: int = 200_000,
    ) -> dict[tuple[UUID, int], Candidate]:
        filter_ = parse_filter({"field": "year", "op": "eq", "value": year}) if year is not None else None
        half = None
        if vector is not None:
            half = HalfVector(to_halfvec_binary(from_floats(vector, MODEL_DIMENSIONS)))
        store = SearchStore(self.database, self.model, exact_up_to=exact_up_to, most_read=most_read)
        found = await store.candidates(self.tenant.tenant_id, half, terms, compile_filter(filter_), depth)
        assert len({(one.version_id, one.ordinal) for one in found}) == len(found)
        return {(one.version_id, one.ordinal): one for one in found}


def _length(vector: list[float]) -> float:
    return math.sqrt(sum(value * value for value in vector))
