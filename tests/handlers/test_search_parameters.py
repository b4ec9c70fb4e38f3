"""Modes, threshold, grouping, context, pages; and questions that are no questions."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.reranker import FakeReranker
from tests.handlers.stage import FUZZ, Answer, Client, Stage, assert_problem

LINES = [f"Line {n} of leave." if n % 2 else f"Line {n}." for n in range(30)]


def texts(answer: Answer) -> list[str]:
    assert answer.status == 200, answer.body
    return [hit["text"] for hit in answer.json["hits"]]


def pages(client: Client, query: str, **rest: Any) -> list[list[str]]:
    """The chunk ids of each page, to the end."""
    found: list[list[str]] = []
    cursor = None
    while cursor is not None or not found:
        answer = client.search(query, cursor=cursor, **rest)
        assert answer.status == 200, answer.body
        found.append([hit["chunk_id"] for hit in answer.json["hits"]])
        cursor = answer.json["next_cursor"]
        assert len(found) < 100
    return found


@pytest.fixture
def full(stage: Stage) -> Stage:
    """Thirty lines of one document, of which fifteen are about leave."""
    stage.ready("\n".join(LINES).encode())
    return stage


# --- modes -----------------------------------------------------------------------------------------------------------


def test_by_words_only_what_has_one_is_found(full: Stage) -> None:
    answer = full.client.search("leave", mode="text", top_k=100)
    assert sorted(texts(answer)) == sorted(line for line in LINES if "leave" in line)
    assert all(hit["scores"]["vector"] is None for hit in answer.json["hits"])
    assert all(hit["score"] == hit["scores"]["text"]["score"] > 0 for hit in answer.json["hits"])


def test_by_vectors_everything_is_found_and_the_score_is_the_cosine(full: Stage) -> None:
    answer = full.client.search("Line 7 of leave.", mode="vector", top_k=100)
    assert len(texts(answer)) == 30
    assert texts(answer)[0] == "Line 7 of leave."
    assert answer.json["hits"][0]["score"] == pytest.approx(1.0, abs=1e-3)
    assert all(hit["score"] == hit["scores"]["vector"]["score"] for hit in answer.json["hits"])
    assert all(hit["scores"]["text"] is None for hit in answer.json["hits"])
    assert answer.json["no_terms"] is False


def test_hybrid_finds_all_that_either_finds_with_both_scores(full: Stage) -> None:
    answer = full.client.search("leave", top_k=100)
    assert len(texts(answer)) == 30
    for hit in answer.json["hits"]:
        assert hit["scores"]["vector"] is not None
        assert (hit["scores"]["text"] is not None) == ("leave" in hit["text"])


def test_a_quoted_phrase_is_in_every_hit(full: Stage) -> None:
    assert texts(full.client.search('"7 of  LEAVE"')) == ["Line 7 of leave."]
    assert texts(full.client.search('"7 of leave"', mode="text")) == ["Line 7 of leave."]
    assert texts(full.client.search('"leave of 7"')) == []
    assert len(texts(full.client.search('"of"', top_k=100))) == 15  # function words have no terms, but are read
    assert len(texts(full.client.search('"of"', mode="text", top_k=100))) == 15


@pytest.mark.parametrize("mode", ["hybrid", "text"])
def test_a_piece_of_an_identifier_finds_its_line_first(stage: Stage, mode: str) -> None:
    lines = [
        f"path=/var/lib/app_{n}.db on 10.0.{n // 20}.{n % 20}:8080 with v1.{n % 20}.{n // 20}-rc1, PN-{1000 + n}-A"
        for n in range(400)
    ]
    stage.ready("\n".join(lines).encode())
    for piece, line in [("app_3.db", 3), ("lib/app_120.db", 120), ("10.0.3.12", 72), ("1.2.3", 62), ("PN1010", 10)]:
        assert texts(stage.client.search(piece, mode=mode))[0] == lines[line], piece


@pytest.mark.parametrize(("mode", "part"), [("hybrid", "vector"), ("vector", "vector"), ("text", "text")])
def test_a_threshold_is_of_what_means_the_same_for_every_question(full: Stage, mode: str, part: str) -> None:
    every = full.client.search("Line 7 of leave.", mode=mode, top_k=100).json["hits"]
    threshold = sorted(hit["scores"][part]["score"] for hit in every)[-3] - 1e-6
    some = full.client.search("Line 7 of leave.", mode=mode, top_k=100, min_score=threshold).json["hits"]
    assert some == [hit for hit in every if hit["scores"][part]["score"] >= threshold]
    assert 3 <= len(some) < len(every)
    assert texts(full.client.search("Line", mode=mode, min_score=10**6)) == []


def test_each_part_can_have_a_threshold(full: Stage) -> None:
    every = full.client.search("leave", top_k=100).json["hits"]
    least = sorted(hit["scores"]["vector"]["score"] for hit in every)[10]
    near = full.client.search("leave", top_k=100, min_score={"vector": least - 1e-6}).json["hits"]
    assert near == [hit for hit in every if hit["scores"]["vector"]["score"] >= least - 1e-6]
    with_word = full.client.search("leave", top_k=100, min_score={"text": 1e-9}).json["hits"]
    assert with_word == [hit for hit in every if hit["scores"]["text"]]
    both = full.client.search("leave", top_k=100, min_score={"vector": least - 1e-6, "text": 1e-9}).json["hits"]
    assert both == [hit for hit in every if hit in near and hit in with_word]
    # A part that took no part in it, here the words, has no say.
    assert len(texts(full.client.search("😀", top_k=100, min_score={"text": 1}))) == 30


def test_weights_say_which_leg_counts(full: Stage) -> None:
    def order(**body: Any) -> list[str]:
        return texts(full.client.search("Line 7 of leave", top_k=100, **body))

    by_vector = order(fusion={"vector_weight": 1, "neighbour_weight": 0})
    assert by_vector == order(mode="vector")
    by_words = order(fusion={"vector_weight": 0, "neighbour_weight": 0})
    only_words = order(mode="text")
    assert by_words[: len(only_words)] == only_words
    assert order(fusion={}) == order()


# --- context and groups ----------------------------------------------------------------------------------------------


def test_the_neighbours_of_a_hit_come_with_it(full: Stage) -> None:
    hits = full.client.search("Line 0.", context=2, top_k=100).json["hits"]
    by_text = {hit["text"]: hit for hit in hits}
    one = by_text["Line 7 of leave."]
    assert [passage["text"] for passage in one["before"]] == ["Line 5 of leave.", "Line 6."]
    assert [passage["text"] for passage in one["after"]] == ["Line 8.", "Line 9 of leave."]
    assert one["before"][0]["char_end"] <= one["before"][1]["char_start"]
    assert by_text["Line 0."]["before"] == []
    assert [passage["ordinal"] for passage in by_text["Line 0."]["after"]] == [1, 2]
    assert by_text["Line 29 of leave."]["after"] == []


def test_grouped_by_document_each_has_its_best_hits_together(stage: Stage) -> None:
    ids = [stage.ready(f"Leave in {n}.\nMore leave in {n}.\nAlso {n}.".encode(), f"{n}.txt") for n in range(4)]
    answer = stage.client.search("leave", group_by="document", hits_per_document=2, top_k=3)
    documents = [hit["document_id"] for hit in answer.json["hits"]]
    assert len(documents) == 6
    assert documents[::2] == documents[1::2]
    assert len(set(documents)) == 3
    assert set(documents) < set(ids)
    best = [hit["score"] for hit in answer.json["hits"]][::2]
    assert best == sorted(best, reverse=True)
    rest = stage.client.search(
        "leave", group_by="document", hits_per_document=2, top_k=3, cursor=answer.json["next_cursor"]
    )
    assert {hit["document_id"] for hit in rest.json["hits"]} == set(ids) - set(documents)
    assert rest.json["next_cursor"] is None


@pytest.mark.parametrize("mode", ["hybrid", "vector", "text"])
def test_a_large_document_does_not_keep_others_from_their_groups(stage: Stage, mode: str) -> None:
    stage.ready("\n".join(f"leave leave {n}" for n in range(60)).encode(), "large.txt")
    others = {stage.ready(f"Some {n} words, and leave.".encode(), f"{n}.txt") for n in range(3)}
    answer = stage.client.search("leave", mode=mode, group_by="document", hits_per_document=1, top_k=4, depth=5)
    assert len({hit["document_id"] for hit in answer.json["hits"]}) == 4
    assert others < {hit["document_id"] for hit in answer.json["hits"]}


@pytest.mark.parametrize(
    ("body", "fits"),
    [
        ({"top_k": 100, "context": 4}, True),
        ({"top_k": 100, "context": 5}, False),
        ({"top_k": 100, "group_by": "document", "hits_per_document": 10}, True),
        ({"top_k": 100, "group_by": "document", "hits_per_document": 11}, False),
    ],
)
def test_an_answer_has_its_limit(stage: Stage, body: dict[str, Any], fits: bool) -> None:
    answer = stage.client.search("leave", **body)
    assert answer.status == (200 if fits else 422)
    if not fits:
        assert "1000" in answer.json["errors"][0]["message"]


def test_an_answer_that_no_gateway_takes_is_refused_in_words(stage: Stage) -> None:
    for number in range(5):
        line = f"{number} " + '"' * 9_000  # each of them two characters in JSON
        stage.ready("\n".join(f"{n} {line}" for n in range(10)).encode(), f"{number}.txt")
    assert stage.client.search("x", mode="vector", top_k=50).status == 200
    answer = stage.client.search("x", mode="vector", top_k=50, context=5)
    assert_problem(answer, 422, "answer_too_large")


# --- pages -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["hybrid", "vector", "text"])
@pytest.mark.parametrize("top_k", [1, 7, 30])
def test_pages_are_the_whole_in_order(full: Stage, mode: str, top_k: int) -> None:
    (whole,) = pages(full.client, "leave", mode=mode, top_k=100)
    found = pages(full.client, "leave", mode=mode, top_k=top_k)
    assert [one for page in found for one in page] == whole
    assert all(len(page) == top_k for page in found[:-1])


def test_reranked_pages_are_the_whole_too(full: Stage) -> None:
    client = full.with_reranker(FakeReranker(), candidates=12)
    found = [one for page in pages(client, "of leave 7", top_k=5) for one in page]
    assert len(found) == len(set(found)) == 30


def test_what_comes_and_goes_between_pages_neither_doubles_nor_hides_the_rest(full: Stage) -> None:
    first = full.client.search("Line 7 of leave.", mode="vector", top_k=10).json
    new = full.ready(b"Line 7 of leave.\nLine 7 of leave.", "b.txt")
    found = [hit["chunk_id"] for hit in first["hits"]]
    cursor = first["next_cursor"]
    while cursor:
        answer = full.client.search("Line 7 of leave.", mode="vector", top_k=10, cursor=cursor).json
        found += [hit["chunk_id"] for hit in answer["hits"] if hit["document_id"] != new]
        cursor = answer["next_cursor"]
    assert len(found) == len(set(found)) == 30


def test_a_cursor_belongs_to_its_search(full: Stage) -> None:
    cursor = full.client.search("leave").json["next_cursor"]
    assert full.client.search("leave", cursor=cursor, top_k=3, context=1).status == 200
    others: list[dict[str, Any]] = [
        {"query": "leaves"},
        {"mode": "vector"},
        {"filter": {"field": "name", "op": "eq", "value": "a.txt"}},
        {"min_score": 0.1},
        {"group_by": "document"},
        {"depth": 100},
        {"fusion": {"vector_weight": 0.5}},
        {"cursor": cursor[:-1] + ("A" if cursor[-1] != "A" else "B")},
        {"cursor": cursor.upper()},
    ]
    for other in others:
        answer = full.client.send("POST", "/v1/search", json={"query": "leave", "cursor": cursor} | other)
        assert_problem(answer, 422, "invalid_request")
        assert answer.fields == ["cursor"]
    assert_problem(full.other.search("leave", cursor=cursor), 422, "invalid_request")


# --- questions that are no questions ---------------------------------------------------------------------------------

ODD = {
    "emoji only": "😀🎉",
    "punctuation only": "?!. -- ...",
    "one quotation mark": 'days "of leave',
    "quotation marks in a row": '"" """ "',
    "an empty phrase": '""',
    "operators of tsquery": "leave & !days | (off <-> line:*) \\ '",
    "like patterns": "%_\\",
    "SQL": "'; DROP TABLE chunks; --",
    "JSON": '{"query": 1}',
    "many words": "leave " * 1300,
    "one long word": "x" * 8000,
    "many different words": " ".join(f"w{n:04}" for n in range(1300)),
    "Klingon": "nuqneH HIja' Qapla'",
    "no letters of Unicode's": "\U000e0001\u200b\ufeff",
    "combining characters": "e" + "\u0301" * 3000,
    "right to left": "\u202eevael",
    "stop words": "the of and to a in is it",
    "German stop words": "der die das und ist",
}


@pytest.mark.parametrize("mode", ["hybrid", "vector", "text"])
@pytest.mark.parametrize("query", ODD.values(), ids=ODD)
def test_any_text_is_a_question(full: Stage, query: str, mode: str) -> None:
    answer = full.client.search(query, mode=mode, top_k=30)
    assert answer.status == 200, answer.body
    assert answer.json["degraded"] == []
    if mode == "vector":
        assert len(answer.json["hits"]) == 30


@pytest.mark.parametrize("query", ["😀🎉", "?!. -- ...", '""'])
def test_without_a_word_hybrid_goes_by_vectors_and_says_so(full: Stage, query: str) -> None:
    answer = full.client.search(query, top_k=30)
    assert len(texts(answer)) == 30
    assert answer.json["no_terms"] is True
    assert all(hit["scores"]["text"] is None and hit["highlights"] == [] for hit in answer.json["hits"])
    by_words = full.client.search(query, mode="text")
    assert (texts(by_words), by_words.json["no_terms"], by_words.json["next_cursor"]) == ([], True, None)


@pytest.mark.parametrize(
    "filter_",
    [
        {"field": "nowhere", "op": "eq", "value": 1},
        {"field": "name", "op": "gt", "value": 7},
        {"field": "tags", "op": "contains", "value": "y"},
        {"field": "language", "op": "eq", "value": "tlh"},
        {"field": "document_id", "op": "eq", "value": "00000000-0000-0000-0000-000000000000"},
    ],
    ids=["a field that is not there", "another type", "no such tag", "an unknown language", "no such document"],
)
@pytest.mark.parametrize("mode", ["hybrid", "vector", "text"])
def test_a_filter_that_nothing_satisfies_finds_nothing(full: Stage, filter_: dict[str, Any], mode: str) -> None:
    assert texts(full.client.search("leave", mode=mode, filter=filter_)) == []
    assert len(texts(full.client.search("leave", mode=mode, filter={"not": filter_}, top_k=15))) == 15


@pytest.mark.parametrize(
    ("body", "field", "message"),
    [
        ({"query": ""}, "query", "is empty"),
        ({"query": " \x00 "}, "query", "is empty"),
        ({"query": "a" * 8001}, "query", "must have at most 8000 characters"),
        ({"query": 7}, "query", "must be a string"),
        ({"top_k": 5}, "query", "is missing"),
        ([], "body", "must be an object"),
        ("text", "body", "must be an object"),
        ({"query": "a", "fusion": 1}, "fusion", "must be an object"),
        ({"query": "a", "top_k": 0}, "top_k", "must be at least 1"),
        ({"query": "a", "top_k": 101}, "top_k", "must be at most 100"),
        ({"query": "a", "top_k": "5"}, "top_k", "must be a whole number"),
        ({"query": "a", "top_k": 5.5}, "top_k", "must be a whole number"),
        ({"query": "a", "mode": "fuzzy"}, "mode", "must be 'hybrid', 'vector' or 'text'"),
        ({"query": "a", "topk": 5}, "topk", "there is no such field"),
        ({"query": "a", "min_score": "x"}, "min_score", "must be a number"),
        ({"query": "a", "min_score": {"text": "x"}}, "min_score.text", "must be a number"),
        ({"query": "a", "min_score": {"cosine": 1}}, "min_score.cosine", "there is no such field"),
        ({"query": "a", "min_score": {"rerank": 0.5}}, "min_score.rerank", "this deployment has no reranker"),
        ({"query": "a", "min_score": {"text": 1}, "mode": "vector"}, "min_score.text", "no hit of this search has"),
        ({"query": "a", "min_score": {"vector": 1}, "mode": "text"}, "min_score.vector", "no hit of this search has"),
        ({"query": "a", "min_score": {"rerank": 1}, "rerank": False}, "min_score.rerank", "no hit of this search has"),
        ({"query": "a", "hits_per_document": 2}, "hits_per_document", "needs group_by: document"),
        ({"query": "a", "mode": "text", "fusion": {}}, "fusion", "means nothing in mode text"),
        ({"query": "a", "filter": {"field": "tags", "op": "eq", "value": "a"}}, "filter.value", "use contains"),
        ({"query": "a", "filter": {"field": "tags", "op": "in", "value": ["a"]}}, "filter.value[0]", "use contains"),
    ],
)
def test_what_is_wrong_with_a_question_is_said_in_plain_words(
    stage: Stage, body: Any, field: str, message: str
) -> None:
    answer = stage.client.send("POST", "/v1/search", json=body)
    assert answer.status == 422, answer.body
    assert [error["field"] for error in answer.json["errors"]] == [field]
    assert message in answer.json["errors"][0]["message"]


numbers = st.integers(-2, 1100) | st.floats(-2, 2) | st.just(1e308)
PARAMETERS: dict[str, st.SearchStrategy[Any]] = {
    "top_k": st.integers(-1, 101),
    "mode": st.sampled_from(["hybrid", "vector", "text", "", None]),
    "depth": st.integers(-1, 1001),
    "fusion": st.dictionaries(st.sampled_from(["vector_weight", "neighbour_weight"]), numbers),
    "min_score": numbers | st.dictionaries(st.sampled_from(["vector", "text", "fused", "rerank"]), numbers),
    "group_by": st.sampled_from(["document", None, "page"]),
    "hits_per_document": st.integers(-1, 21),
    "context": st.integers(-1, 6),
    "rerank": st.booleans() | st.none(),
    "rerank_candidates": st.integers(-1, 201) | st.none(),
    "cursor": st.none() | st.text(max_size=10),
    "filter": st.none() | st.just({"field": "name", "op": "starts_with", "value": "a"}),
}


@FUZZ
@given(body=st.fixed_dictionaries({"query": st.text(min_size=1, max_size=50)}, optional=PARAMETERS))
def test_whatever_the_parameters_the_answer_is_hits_or_says_what_is_wrong(full: Stage, body: dict[str, Any]) -> None:
    client = full.with_reranker(FakeReranker())
    answer = client.send("POST", "/v1/search", json=body)
    assert answer.status in {200, 422}, answer.body
    if answer.status == 200:
        assert answer.json["degraded"] == []
        per_group = body.get("hits_per_document", 3) if body.get("group_by") else 1
        assert len(answer.json["hits"]) <= body.get("top_k", 10) * per_group
