"""Fusing: two legs to one order, whatever scales they have and whatever is missing."""

import math

import pytest
from edda.fusing import Fusion, Scores, fuse, languages_of_model
from edda.terms import query_terms
from hypothesis import given
from hypothesis import strategies as st

ENGLISH = query_terms("How many points did the Panthers defense surrender?")
GERMAN = query_terms("Wie viele Punkte gab die Verteidigung der Panthers ab?")
ARABIC = query_terms("كم نقطة تخلى عنها دفاع البانثرز؟")
UNCLEAR = query_terms("Panthers Verteidigung Punkte")
KNOWS_ENGLISH = frozenset({"en"})
# Nearest by vector; by words; neither.
CANDIDATES = [Scores(0.9, 1.0, "de"), Scores(0.2, 9.0, "de"), Scores(0.1, 0.0, "de")]
IN_ENGLISH = [Scores(one.similarity, one.text, "en") for one in CANDIDATES]


def order(scores: list[float]) -> list[int]:
    return sorted(range(len(scores)), key=lambda index: -scores[index])


def test_a_model_that_reads_the_query_decides_more_than_words_do() -> None:
    assert order(fuse(IN_ENGLISH, ENGLISH, Fusion(), KNOWS_ENGLISH))[0] == 0
    assert order(fuse(CANDIDATES, GERMAN, Fusion(), None))[0] == 0


@pytest.mark.parametrize("query", [GERMAN, ARABIC, UNCLEAR])
def test_a_model_that_does_not_read_the_query_decides_little(query: object) -> None:
    assert order(fuse(CANDIDATES, query, Fusion(), KNOWS_ENGLISH))[0] == 1  # type: ignore[arg-type] # parametrized


def test_an_unclear_query_is_judged_by_the_languages_of_what_its_words_find() -> None:
    unknown = [Scores(one.similarity, one.text, None) for one in CANDIDATES]
    assert order(fuse(IN_ENGLISH, UNCLEAR, Fusion(), KNOWS_ENGLISH))[0] == 0
    assert order(fuse(unknown, UNCLEAR, Fusion(), KNOWS_ENGLISH))[0] == 0


@pytest.mark.parametrize("query", ["7f3a-22", "740df9565f07e388", "Zwonkle", "zwonkle bulletin", "GPT-4 Zwonkle"])
@pytest.mark.parametrize("known", [KNOWS_ENGLISH, None])
@pytest.mark.parametrize("others", [1, 4, 80])
def test_the_only_passage_with_a_name_or_an_identifier_is_first(
    query: str, known: frozenset[str] | None, others: int
) -> None:
    """Whatever else the model takes for much nearer."""
    candidates = [Scores(0.01, 17.0, "en"), Scores(0.33, 0.0, "en")]
    candidates += [Scores(0.02 + number / 10_000, 0.0, "en") for number in range(others)]
    assert order(fuse(candidates, query_terms(query), Fusion(), known))[0] == 0


def test_a_passage_in_a_script_that_the_model_cannot_read_is_not_near() -> None:
    candidates = [Scores(0.5, 0.0, "th"), Scores(0.4, 0.0, "en"), Scores(0.1, 0.0, "de"), Scores(0.0, 1.0, "en")]
    assert order(fuse(candidates, ENGLISH, Fusion(), None))[0] == 0
    assert order(fuse(candidates, ENGLISH, Fusion(), KNOWS_ENGLISH))[0] == 1
    assert order(fuse(candidates, ENGLISH, Fusion(vector_weight=1), KNOWS_ENGLISH))[0] == 0


def test_where_no_word_tells_the_vector_does_though_the_script_is_foreign() -> None:
    candidates = [Scores(0.1, 5.0), Scores(0.3, 5.0), Scores(0.2, 5.0), Scores(0.9, 0.0)]
    assert order(fuse(candidates, ARABIC, Fusion(), KNOWS_ENGLISH)) == [1, 2, 0, 3]


def test_weights_of_0_and_1_leave_one_leg() -> None:
    for query in (ENGLISH, GERMAN, ARABIC):
        assert order(fuse(CANDIDATES, query, Fusion(vector_weight=0), KNOWS_ENGLISH)) == [1, 0, 2]
        assert order(fuse(CANDIDATES, query, Fusion(vector_weight=1), KNOWS_ENGLISH)) == [0, 1, 2]


@pytest.mark.parametrize("text", [None, 0.0])
def test_without_a_text_leg_vectors_decide(text: float | None) -> None:
    candidates = [Scores(similarity, text) for similarity in (0.1, 0.3, 0.2)]
    assert order(fuse(candidates, ARABIC, Fusion(vector_weight=0), KNOWS_ENGLISH)) == [1, 2, 0]


def test_without_vectors_words_decide() -> None:
    candidates = [Scores(None, text) for text in (1.0, 3.0, 2.0)]
    assert order(fuse(candidates, ENGLISH, Fusion(), KNOWS_ENGLISH)) == [1, 2, 0]


def test_a_candidate_that_one_leg_does_not_know_counts_as_its_last() -> None:
    fused = fuse([Scores(0.5, None), Scores(0.5, 1.0), Scores(0.1, 3.0)], ENGLISH, Fusion(), None)
    assert fused[0] == pytest.approx(fused[1])


def test_a_chunk_beside_good_ones_is_before_its_equals() -> None:
    places = [("a", 1), ("a", 2), ("b", 3), (None, 2), (None, 3), ("a", 9)]
    texts = [9.0, 5.0, 5.0, 5.0, 5.0, 1.0]
    candidates = [
        Scores(None, text, document=place[0], ordinal=place[1]) for text, place in zip(texts, places, strict=True)
    ]
    fused = fuse(candidates, ENGLISH, Fusion(neighbour_weight=0.1), None)
    assert fused[1] == pytest.approx(fused[2] + 0.1 * fused[0])
    assert fused[2] == fused[3] == fused[4]
    assert fuse(candidates, ENGLISH, Fusion(), None)[1] == fused[2]


def test_none_and_one_and_equal_candidates_are_no_trouble() -> None:
    assert fuse([], ENGLISH, Fusion(), None) == []
    assert fuse([Scores(0.5, 2.0)], ENGLISH, Fusion(), None) == [0.0]
    assert fuse([Scores(0.5, 2.0)] * 3, ENGLISH, Fusion(), KNOWS_ENGLISH) == [0.0, 0.0, 0.0]


def test_which_languages_a_model_reads() -> None:
    assert languages_of_model("in-process/all-MiniLM-L6-v2") == KNOWS_ENGLISH
    assert languages_of_model("bedrock/cohere.embed-english-v3") == KNOWS_ENGLISH
    assert languages_of_model("openai/text-embedding-3-small") is None
    assert languages_of_model("bedrock/amazon.titan-embed-text-v2:0") is None
    assert languages_of_model("openai/paraphrase-multilingual-MiniLM-L12-v2") is None
    assert languages_of_model("openai/bge-m3", "en,de") == frozenset({"en", "de"})
    assert languages_of_model("openai/bge-small-en-v2-multilingual", "all") is None


ANY = st.lists(st.tuples(st.integers(-100, 100), st.integers(0, 500)), max_size=30)


@given(ANY, st.floats(0.1, 1000), st.floats(0.1, 1000))
def test_the_scale_of_a_leg_makes_no_difference(rows: list[tuple[int, int]], of_one: float, of_other: float) -> None:
    plain = fuse([Scores(*row) for row in rows], ENGLISH, Fusion(), KNOWS_ENGLISH)
    scaled = [Scores(similarity * of_one, text * of_other) for similarity, text in rows]
    assert all(math.isfinite(score) for score in plain)
    assert fuse(scaled, ENGLISH, Fusion(), KNOWS_ENGLISH) == pytest.approx(plain, abs=1e-3)


@given(ANY, st.floats(0, 1))
def test_what_both_legs_prefer_is_never_behind(rows: list[tuple[int, int]], weight: float) -> None:
    fused = fuse([Scores(*row) for row in rows], ENGLISH, Fusion(weight), KNOWS_ENGLISH)
    for one, first in zip(rows, fused, strict=True):
        for other, second in zip(rows, fused, strict=True):
            if one[0] >= other[0] and one[1] >= other[1]:
                assert first >= second - 1e-9
