"""Candidates by words and by vectors: what comparing every chunk in Python gives, whichever way the store goes."""

import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID, uuid4

import psycopg
import pytest
from edda.errors import InvalidRequest
from edda.filters import parse_filter
from edda.models import Candidate, Chunk, EmbeddingModel, Tenant
from edda.store import lexical
from edda.store.conditions import compile_filter
from edda.store.database import Database, HalfVector
from edda.store.lexical import insert_terms, term_rows
from edda.store.search import SearchStore
from edda.terms import QueryTerms, document_weights, idf, query_terms, term_ids
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


@pytest.fixture
def shelf(database_urls: DatabaseUrls, embedding_model: EmbeddingModel, tenant: Tenant, database: Database) -> Shelf:
    return Shelf(database_urls, embedding_model, tenant, database)


def _length(vector: list[float]) -> float:
    return math.sqrt(sum(value * value for value in vector))


def _best(scores: dict[tuple[UUID, int], float], depth: int) -> list[float]:
    return sorted(scores.values(), reverse=True)[:depth]


QUERIES = ["w250", "w0 w1", "w3 w40 w260 w260", "w0 w1 w2 w3 w4 w5 w120", "w299 nowhere", "w7"]


@pytest.mark.parametrize("exact_up_to", [20_000, 0])
@pytest.mark.parametrize("year", [None, 2])
async def test_by_words_the_best_are_those_of_bm25_in_its_order(
    shelf: Shelf, exact_up_to: int, year: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lexical, "FIRST_LOOK", 30)  # so that the first look is not the last
    await shelf.fill()
    for query in QUERIES:
        for depth in (1, 7, 100):
            found = await shelf.ask(None, query_terms(query), depth, year=year, exact_up_to=exact_up_to)
            truth = shelf.scores(query, year)
            assert len(found) == min(depth, len(truth)), query
            for key, one in found.items():
                assert one.text_score == pytest.approx(truth[key], rel=1e-4)
                assert one.similarity is None
            best = sorted((one.text_score or 0 for one in found.values()), reverse=True)
            assert best == pytest.approx(_best(truth, depth), rel=1e-4), query


async def test_queries_of_so_many_terms_that_their_sets_are_too_many(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lexical, "FIRST_LOOK", 30)
    await shelf.fill(60)
    for seed in range(40):
        words = random.Random(seed)
        query = " ".join(words.sample(WORDS[:40], 38) + words.sample(WORDS[40:], words.randint(2, 20)))
        for depth in (1, 10):
            found = await shelf.ask(None, query_terms(query), depth, exact_up_to=0)
            best = sorted((one.text_score or 0 for one in found.values()), reverse=True)
            assert best == pytest.approx(_best(shelf.scores(query), depth), rel=1e-4), query


@pytest.mark.parametrize(("terms", "weight"), [(4_000, 1.0), (4_000, 0.01), (120, 1.0)])
@pytest.mark.parametrize("least", [0.0, 30.0, 60.0, 5_000.0])
def test_what_is_still_to_be_looked_at_is_found_soon(terms: int, weight: float, least: float) -> None:
    every = [lexical.Term(n, n + 1, weight) for n in range(terms)]
    before = time.process_time()
    end, sets = lexical._still_to_look_at(every, 1, least)
    assert time.process_time() - before < 1
    assert end >= terms - lexical.MOST_LEFT
    assert len(sets) <= lexical.MOST_SETS
    if not sets:  # those that are left do not suffice together
        assert sum(one.most for one in every[end:]) <= least


@pytest.mark.parametrize("exact_up_to", [20_000, 0])
@pytest.mark.parametrize("year", [None, 2])
async def test_both_legs_are_there_and_every_candidate_has_both_scores(
    shelf: Shelf, exact_up_to: int, year: int | None
) -> None:
    await shelf.fill()
    vector = [shelf.numbers.gauss(0, 1) for _ in range(MODEL_DIMENSIONS)]
    near = shelf.similarities(vector, year)
    for query in QUERIES:
        truth = shelf.scores(query, year)
        for depth in (1, 20, 300):
            found = await shelf.ask(vector, query_terms(query), depth, year=year, exact_up_to=exact_up_to)
            for key, one in found.items():
                assert one.similarity == pytest.approx(near[key], abs=2e-3)
                assert one.text_score == pytest.approx(truth.get(key, 0.0), rel=1e-4)
            by_vectors = sorted((one.similarity or 0 for one in found.values()), reverse=True)[:depth]
            assert by_vectors == pytest.approx(_best(near, depth), abs=2e-3)
            by_words = sorted((one.text_score or 0 for one in found.values()), reverse=True)[:depth]
            wanted = _best(truth, depth)
            assert by_words[: len(wanted)] == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("exact_up_to", [20_000, 0])
async def test_a_query_without_terms_leaves_the_text_leg_empty(shelf: Shelf, exact_up_to: int) -> None:
    await shelf.fill(3)
    vector = [1.0] * MODEL_DIMENSIONS
    for query in ("", "🙂🙂", "unheard"):
        assert await shelf.ask(None, query_terms(query), exact_up_to=exact_up_to) == {}
        found = await shelf.ask(vector, query_terms(query), 5, exact_up_to=exact_up_to)
        assert [one.text_score for one in found.values()] == [0.0] * 5
    found = await shelf.ask(vector, None, 5, exact_up_to=exact_up_to)
    assert [one.text_score for one in found.values()] == [None] * 5


@pytest.mark.parametrize("exact_up_to", [20_000, 0])
async def test_nothing_that_is_not_visible_is_found_and_nothing_of_others(
    shelf: Shelf, other_tenant: Tenant, exact_up_to: int
) -> None:
    other = Shelf(shelf.urls, shelf.model, other_tenant, shelf.database)
    await other.add(["alpha beta"] * 30)
    await shelf.add(["alpha beta", "alpha", "beta"], visible=False)
    await shelf.add(["alpha", "gamma"])
    vector = [1.0] * MODEL_DIMENSIONS
    found = await shelf.ask(vector, query_terms("alpha beta"), exact_up_to=exact_up_to)
    assert found.keys() == shelf.chunks.keys()
    found = await shelf.ask(None, query_terms("alpha"), exact_up_to=exact_up_to)
    assert found.keys() == shelf.scores("alpha").keys()
    assert len(await other.ask(None, query_terms("alpha"), 100, exact_up_to=exact_up_to)) == 30


@pytest.mark.parametrize("exact_up_to", [20_000, 0])
async def test_a_chunk_that_the_provider_refused_is_found_by_its_words(shelf: Shelf, exact_up_to: int) -> None:
    await shelf.add(["a red house", "a blue house"], vectors=False)
    await shelf.add(["a green house"])
    for vector in (None, [1.0] * MODEL_DIMENSIONS):
        found = await shelf.ask(vector, query_terms("house"), exact_up_to=exact_up_to)
        assert found.keys() == shelf.chunks.keys()
        assert sum(one.similarity is None for one in found.values()) == (3 if vector is None else 2)


@pytest.mark.parametrize("exact_up_to", [20_000, 0])
@pytest.mark.parametrize("year", [None, 1])
async def test_chunks_that_an_earlier_release_stored_are_found_by_their_vectors(
    shelf: Shelf, exact_up_to: int, year: int | None
) -> None:
    """It knows no table of terms, and may have stored some parts of a document or all."""
    await shelf.add(["a red house", "a blue house", "a red roof"])
    await shelf.add(["a green house"])
    with psycopg.connect(shelf.urls.owner) as connection:
        connection.execute("DELETE FROM chunk_terms WHERE ordinal <> 1")
    vector = [1.0] * MODEL_DIMENSIONS
    for terms in (None, query_terms("house")):
        found = await shelf.ask(vector, terms, year=year, exact_up_to=exact_up_to)
        assert found.keys() == shelf.chunks.keys()
        near = shelf.similarities(vector)
        assert {key: one.similarity for key, one in found.items()} == pytest.approx(near, abs=2e-3)
    assert [key for key, one in found.items() if one.text_score] == [key for key in found if key[1] == 1]
    quoted = await shelf.ask(vector, query_terms('"a"'), year=year)
    assert quoted.keys() == shelf.chunks.keys()


PHRASES = [
    ("the quick brown", {0, 1, 2}),
    ("ERR-0x80070057", {4}),
    ("a.b(c)|d*", {5}),
    ("straße ÄNDERN", {6}),
    ("東京大学", {7}),
    ("quick fox", set()),
    ("unheard passage", set()),
    ("quick-brown", set()),
    ("10 km", {9}),
    ("port 80", {10}),
    ("rport 80", set()),
    ("airport 80", {9, 19}),
    ("80-81", {11}),
    ("max_size", {11}),
    ("MaxSize", {12}),
    ("maxsize", {12}),
    ("猫", {13}),
    ("学で学", {7}),
    ("Café Müller", {14, 15}),
    ("Mu\u0308ller", {14, 15}),
    ("Müll", set()),
    ("iPhone", {16}),
    ("を買", {16}),
    ("rock n roll", {17}),
    ("ลาพักร้อน", {18}),
    ("quote's end – now", {20}),
    ("efficient", {20}),
    ("eﬃcient", {20}),
    ("contains 80% grass", {21}),
    ("word con", set()),
    ("tains 80%", set()),
    ("🚀", {21}),
]


@pytest.mark.parametrize("exact_up_to", [20_000, 0])
@pytest.mark.parametrize(("phrase", "wanted"), PHRASES)
async def test_a_quoted_phrase_is_held_by_every_candidate(
    shelf: Shelf, phrase: str, wanted: set[int], exact_up_to: int
) -> None:
    texts = [
        "The quick brown fox",
        "he saw THE\n  Quick\tbrown dog, and the quick",
        "x the quick brown",
        "To be or not to be, that is the question",
        "failed with err-0x80070057 twice",
        "call a.b(c)|d* now",
        "die Straße\nändern wir",
        "彼は東京大学で学んだ",
        "the brown quick thing; be to not or",
        "airport\u2028 80, 10\u00a0km away",
        "(port 80)",
        "80-81-82, my_max_size_1",
        "maxSize",
        "白い猫が好き",
        "das Café Müller",
        "das CAFE\u0301 Mu\u0308ller",
        "iPhoneを買った",
        "rock 'n'roll, rock n roll",
        "สิทธิ์ลาพักร้อนสิบห้าวัน",
        "a port, and airport 80",
        "the eﬃcient “inner” quote’s end - now",
        "this con\u200btains 80% gra\u00adss \u00ad🚀",
    ]
    await shelf.add(texts)
    quoted = query_terms(f'other words "{phrase}"')
    assert quoted.phrases == (phrase,)
    for vector in (None, [1.0] * MODEL_DIMENSIONS):
        found = await shelf.ask(vector, quoted, exact_up_to=exact_up_to)
        assert {ordinal for _, ordinal in found} == wanted
    two = query_terms(f'"{phrase}" "the"')
    found = await shelf.ask(None, two, exact_up_to=exact_up_to)
    assert {ordinal for _, ordinal in found} == {n for n in wanted if "the" in texts[n].lower()}


@pytest.mark.parametrize("exact_up_to", [20_000, 0])
async def test_a_phrase_may_be_in_the_title_or_the_headings(shelf: Shelf, exact_up_to: int) -> None:
    await shelf.add(["first words", "second words"], title="Flumgart Observations", headings=("The Who", "Cats"))
    await shelf.add(["Flumgart observed, The cats"])
    for phrase in ("flumgart observations", "Cats", "the who"):
        for vector in (None, [1.0] * MODEL_DIMENSIONS):
            found = await shelf.ask(vector, query_terms(f'"{phrase}" "words"'), exact_up_to=exact_up_to)
            assert {ordinal for _, ordinal in found} == {0, 1}
    for phrase in ("Observations The", "Who Cats", "cats first"):  # not across them
        assert await shelf.ask(None, query_terms(f'"{phrase}"'), exact_up_to=exact_up_to) == {}


IDENTIFIERS = [
    ("cfg_v2.ini", r"C:\Turbine\cfg_v2.ini"),
    ("PN-1001", "PN-1001-A"),
    ("4711-0815", "4711-0815/7"),
    ("10.0.0.1", "http://10.0.0.1:8080/"),
    ("v1.2.3", "v1.2.3-beta"),
    ("example.com", "user@example.com"),
    ("bar_baz", "foo_bar_baz"),
    ("b.c", "a.b.c"),
    ("dog", "the dog's"),
    ("homme", "l'homme"),
]


@pytest.mark.parametrize("exact_up_to", [20_000, 0])
async def test_a_phrase_may_be_part_of_a_longer_identifier(shelf: Shelf, exact_up_to: int) -> None:
    await shelf.add([f"see {text} below" for _, text in IDENTIFIERS])
    await shelf.add(["PN 1001 4711 0815 10 0 1 v1 2 3 bar baz b c example com cfg v2 ini hommes dogs"])
    for number, (phrase, _) in enumerate(IDENTIFIERS):
        found = await shelf.ask(None, query_terms(f'"{phrase}"'), exact_up_to=exact_up_to)
        assert [ordinal for _, ordinal in found] == [number], phrase


async def test_no_more_than_sixteen_phrases_are_sought(shelf: Shelf) -> None:
    await shelf.add([" ".join(f"p{n}" for n in range(17))])
    assert len(await shelf.ask(None, query_terms(" ".join(f'"p{n}" "p{n}"' for n in range(16))))) == 1
    with pytest.raises(InvalidRequest, match="no more than 16 quoted phrases, this one 17"):
        await shelf.ask(None, query_terms(" ".join(f'"p{n}"' for n in range(17))))


async def test_a_phrase_of_words_that_too_many_chunks_have_is_refused(shelf: Shelf) -> None:
    await shelf.add([f"house number {n}" for n in range(31)])
    assert len(await shelf.ask(None, query_terms('"house number"'), 100, most_read=31)) == 31
    assert len(await shelf.ask(None, query_terms('"house number 17"'), most_read=30)) == 1
    with pytest.raises(InvalidRequest):
        await shelf.ask(None, query_terms('"house number"'), most_read=30)


async def test_a_phrase_of_function_words_is_found_by_reading_what_matches(shelf: Shelf) -> None:
    """No chunk in their language has a term of them."""
    await shelf.add(["To be or  not\nto be, that is the question", "not to be found", "Sein oder nicht"])
    quoted = query_terms('"to be or not to be"')
    for vector in (None, [1.0] * MODEL_DIMENSIONS):
        assert {ordinal for _, ordinal in await shelf.ask(vector, quoted)} == {0}
        with pytest.raises(InvalidRequest):  # too many would have to be read
            await shelf.ask(vector, quoted, most_read=2)


async def test_a_phrase_of_two_letters_between_others_is_found(shelf: Shelf) -> None:
    """Thai has no spaces between words, and terms of three and four letters."""
    await shelf.add(["เขาจะไปโรงเรียน", "เขาอยู่บ้าน", "ไป"])
    assert {ordinal for _, ordinal in await shelf.ask(None, query_terms('"ไป"'))} == {0, 2}


async def test_where_a_tenant_has_many_chunks_frequencies_are_near_the_truth(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lexical, "MOST_COUNTED", 100)
    monkeypatch.setattr(lexical, "FEW", 30)
    monkeypatch.setattr(lexical, "SAMPLE", 400)
    await shelf.fill(100)
    asked = query_terms("w0 w1 w10 w250")
    async with shelf.database.transaction(shelf.tenant.tenant_id) as cursor:
        chunks = await lexical.count_chunks(cursor, shelf.tenant.tenant_id)
        query = await lexical.text_query(cursor, shelf.tenant.tenant_id, asked, chunks, lexical.CommonTerms())
    assert chunks == pytest.approx(1000, rel=0.2)
    every = [weights for _, weights, _, _ in shelf.chunks.values()]
    numbers = dict(zip(term_ids(shelf.tenant.tenant_id, asked.terms), asked.terms, strict=True))
    for term in query.terms:
        truth = sum(numbers[term.number] in weights for weights in every)
        assert idf(len(every), term.chunks) == pytest.approx(idf(len(every), truth), abs=0.35)
        assert term.chunks == truth or term.chunks >= 30
    assert {term.chunks for term in query.terms if term.chunks < 30}  # the rare one was counted


async def test_hits_are_in_the_order_asked_for_and_neighbours_beside_them(shelf: Shelf) -> None:
    document = await shelf.add([f"alpha {n}" for n in range(9)])
    await shelf.add(["alpha last"])
    store = SearchStore(shelf.database, shelf.model)
    tenant_id = shelf.tenant.tenant_id
    found = list((await shelf.ask(None, query_terms("alpha"))).values())
    found.sort(key=lambda one: (one.document_id != document, -one.ordinal))
    hits = await store.hits(tenant_id, found)
    assert [hit.text for hit in hits] == [f"alpha {n}" for n in reversed(range(9))] + ["alpha last"]
    beside = await store.neighbours(tenant_id, [hits[0], hits[4], hits[9]], 2)
    assert [[one.ordinal for one in some] for some in beside] == [[6, 7], [2, 3, 5, 6], []]
    assert [one.text for one in beside[0]] == ["alpha 6", "alpha 7"]
    with psycopg.connect(shelf.urls.owner) as connection:
        connection.execute("UPDATE documents SET current_version_id = NULL WHERE document_id = %s", [document])
    assert [hit.text for hit in await store.hits(tenant_id, found)] == ["alpha last"]
    assert await store.hits(tenant_id, []) == []
    assert await store.neighbours(tenant_id, [], 1) == []


async def test_a_chunk_is_found_by_its_headings_and_its_document_s_title(shelf: Shelf) -> None:
    tenant_id = shelf.tenant.tenant_id
    chunk = Chunk(0, "sixteen litres", 0, 14, 2, None, ("Volume", "Boxes"), "en", uuid4())
    rows = await term_rows(tenant_id, [chunk], "Courier handbook")
    for word in ("litre", "volume", "box", "courier"):
        assert set(term_ids(tenant_id, query_terms(word).terms)) & set(rows.terms)
    assert not set(term_ids(tenant_id, query_terms("lorry").terms)) & set(rows.terms)


async def test_a_chunk_may_have_more_terms_than_a_sparsevec_holds(shelf: Shelf) -> None:
    await shelf.add([" ".join(f"x{n}y" for n in range(40_000)) + " found found found"])
    assert len(await shelf.ask(None, query_terms("found"))) == 1


def test_sets_of_terms_are_the_smallest_that_reach_what_is_asked() -> None:
    numbers = random.Random(1)
    for _ in range(200):
        most = sorted((numbers.uniform(0.1, 5) for _ in range(numbers.randint(0, 6))), reverse=True)
        least = numbers.uniform(0, 8)
        found = lexical._sets(most, least)
        every = [[place for place in range(len(most)) if mask >> place & 1] for mask in range(1, 2 ** len(most))]
        enough = [places for places in every if sum(most[place] for place in places) > least]
        smallest = [places for places in enough if not any(set(other) < set(places) for other in enough)]
        assert found is not None
        assert sorted(found) == sorted(smallest)
    assert lexical._sets([1.0] * 20, 9.5) is None


async def test_what_was_common_is_known_for_a_while_and_what_is_rare_is_counted_anew(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lexical, "FEW", 5)
    common = lexical.CommonTerms()

    async def frequencies() -> list[int]:
        async with shelf.database.transaction(shelf.tenant.tenant_id) as cursor:
            asked = query_terms("common rare")
            query = await lexical.text_query(cursor, shelf.tenant.tenant_id, asked, 10, common)
        return [term.chunks for term in query.terms]

    await shelf.add(["common"] * 8 + ["rare"])
    assert await frequencies() == [1, 8]
    await shelf.add(["common", "rare"])
    assert await frequencies() == [2, 8]
