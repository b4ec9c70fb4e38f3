"""Candidates by words and by vectors: what comparing every chunk in Python gives, whichever way the store goes."""

import random
import time
from uuid import UUID, uuid4

import psycopg
import pytest
from edda.models import Chunk, Tenant
from edda.store import lexical
from edda.store.lexical import term_rows
from edda.store.search import SearchStore
from edda.terms import idf, query_terms, term_ids

from tests.database.shelf import WORDS, Shelf
from tests.postgres import MODEL_DIMENSIONS


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
