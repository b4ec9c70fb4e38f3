"""Search, from the HTTP event to the hits, on a real database."""

from typing import Any

import pytest
from edda.runtime import run
from edda.services import SearchServices

from functions.search import app as search_app
from tests.handlers.stage import HOSTILE, Answer, Context, Stage, assert_problem, call, event, http_event, with_key

LINES = [f"Line {n}." for n in range(15)]


def texts(answer: Answer) -> list[str]:
    assert answer.status == 200, answer.body
    return [hit["text"] for hit in answer.json["hits"]]


def test_a_hit_says_where_it_is(stage: Stage) -> None:
    document_id = stage.ready(b"First line.\nSecond line.\n", "a.txt", title="T", tags="x", metadata='{"y": 1}')
    answer = stage.client.search("Second line.", top_k=1)
    assert answer.json["model"] == stage.world.embedder.name
    (hit,) = answer.json["hits"]
    chunks = stage.client.send("GET", f"/v1/documents/{document_id}/chunks").json["chunks"]
    assert hit == {
        "document_id": document_id,
        "chunk_id": chunks[1]["chunk_id"],
        "ordinal": 1,
        "name": "a.txt",
        "title": "T",
        "page": None,
        "heading_path": ["a.txt"],
        "text": "Second line.",
        "char_start": 12,
        "char_end": 24,
        "language": "en",
        "metadata": {"y": 1},
        "tags": ["x"],
        "score": hit["score"],
        "scores": hit["scores"],
        "highlights": [{"start": 0, "end": 6}, {"start": 7, "end": 11}],
        "before": [],
        "after": [],
    }
    assert hit["scores"]["vector"] == {"rank": 1, "score": pytest.approx(1.0, abs=1e-3)}
    assert hit["scores"]["text"]["rank"] == 1
    assert hit["scores"]["text"]["score"] > 0
    assert hit["scores"]["fused"] == {"rank": 1, "score": hit["score"]}
    assert hit["scores"]["rerank"] is None
    assert stage.world.embedder.purposes[-1] == "query"


def test_the_answer_says_how_it_was_searched(stage: Stage) -> None:
    stage.ready()
    answer = stage.client.search()
    assert {name: value for name, value in answer.json.items() if name != "hits"} == {
        "mode": "hybrid",
        "scored_by": "fused",
        "model": stage.world.embedder.name,
        "reranker": None,
        "degraded": [],
        "no_terms": False,
        "next_cursor": None,
    }


@pytest.mark.parametrize("top_k", [1, 10, 15, 100])
def test_as_many_hits_as_asked_for_or_all_there_are(stage: Stage, top_k: int) -> None:
    stage.ready("\n".join(LINES).encode())
    answer = stage.client.search("Line 3.", top_k=top_k)
    assert len(texts(answer)) == min(top_k, len(LINES))
    scores = [hit["score"] for hit in answer.json["hits"]]
    assert scores == sorted(scores, reverse=True)
    assert texts(answer)[0] == "Line 3."


def test_ten_hits_by_default(stage: Stage) -> None:
    stage.ready("\n".join(LINES).encode())
    assert len(texts(stage.client.search())) == 10


def test_a_filter_leaves_as_many_as_match(stage: Stage) -> None:
    for year in (2023, 2024, 2025):
        stage.ready(f"In {year}.\nAgain {year}.".encode(), metadata=f'{{"year": {year}}}', tags="all")
    recent = {"field": "year", "op": ">=", "value": 2024}
    assert sorted(texts(stage.client.search(filter=recent))) == ["Again 2024.", "Again 2025.", "In 2024.", "In 2025."]
    both = {"and": [recent, {"not": {"field": "metadata.year", "op": "in", "value": [2025]}}]}
    assert sorted(texts(stage.client.search(filter=both))) == ["Again 2024.", "In 2024."]
    assert len(texts(stage.client.search(filter={"field": "tags", "op": "contains", "value": "all"}, top_k=5))) == 5
    assert texts(stage.client.search(filter={"field": "media_type", "op": "ne", "value": "text/plain"})) == []
    assert texts(stage.client.search(filter={"field": HOSTILE, "op": "eq", "value": HOSTILE})) == []
    assert len(texts(stage.client.search(filter={}))) == 6


def test_an_empty_tenant_finds_nothing(stage: Stage) -> None:
    assert texts(stage.client.search()) == []


def test_nobody_finds_what_is_anothers(stage: Stage) -> None:
    stage.ready(b"A secret.")
    assert texts(stage.other.search("A secret.", top_k=100)) == []
    assert texts(stage.client.search("A secret.")) == ["A secret."]


@pytest.mark.parametrize(
    ("body", "code", "place"),
    [
        ({}, "invalid_request", "query"),
        ({"query": ""}, "invalid_request", "query"),
        ({"query": " \n\t"}, "invalid_request", "query"),
        ({"query": "\x00"}, "invalid_request", "query"),
        ({"query": "x" * 8001}, "invalid_request", "query"),
        ({"query": 7}, "invalid_request", "query"),
        ({"query": ["x"]}, "invalid_request", "query"),
        ({"query": "x", "top_k": 0}, "invalid_request", "top_k"),
        ({"query": "x", "top_k": 101}, "invalid_request", "top_k"),
        ({"query": "x", "top_k": "5"}, "invalid_request", "top_k"),
        ({"query": "x", "top_k": True}, "invalid_request", "top_k"),
        ({"query": "x", "topk": 5}, "invalid_request", "topk"),
        ({"query": "x", "top_k": 10**6}, "invalid_request", "top_k"),
        ({"query": "x" * 20_000}, "invalid_request", "query"),
        ({"query": "x", "mode": "fuzzy"}, "invalid_request", "mode"),
        ({"query": "x", "mode": None}, "invalid_request", "mode"),
        ({"query": "x", "depth": 0}, "invalid_request", "depth"),
        ({"query": "x", "depth": 1001}, "invalid_request", "depth"),
        ({"query": "x", "fusion": {"vector_weight": 1.1}}, "invalid_request", "fusion.vector_weight"),
        ({"query": "x", "fusion": {"weight": 1}}, "invalid_request", "fusion.weight"),
        ({"query": "x", "fusion": None}, "invalid_request", "fusion"),
        ({"query": "x", "group_by": "page"}, "invalid_request", "group_by"),
        ({"query": "x", "hits_per_document": 0}, "invalid_request", "hits_per_document"),
        ({"query": "x", "context": -1}, "invalid_request", "context"),
        ({"query": "x", "context": 6}, "invalid_request", "context"),
        ({"query": "x", "rerank": "yes"}, "invalid_request", "rerank"),
        ({"query": "x", "rerank": True}, "invalid_request", "rerank"),
        ({"query": "x", "rerank_candidates": 0}, "invalid_request", "rerank_candidates"),
        ({"query": "x", "cursor": "x"}, "invalid_request", "cursor"),
        ({"query": "x", "cursor": "x" * 201}, "invalid_request", "cursor"),
        ({"query": "x", "cursor": 7}, "invalid_request", "cursor"),
        ({"query": "x", "filter": []}, "invalid_filter", "filter"),
        (
            {"query": "x", "filter": {"field": "created_at", "op": "lt", "value": "soon"}},
            "invalid_filter",
            "filter.value",
        ),
        ({"query": "x", "filter": {"field": "y", "op": "~", "value": 1}}, "invalid_filter", "filter.op"),
        ({"query": "x", "filter": {"and": [{"not": {}}]}}, "invalid_filter", "filter.and[0].not"),
        ([], "invalid_request", "body"),
        (None, "invalid_request", "body"),
    ],
)
def test_a_question_with_a_mistake_names_the_field(stage: Stage, body: Any, code: str, place: str) -> None:
    answer = stage.client.send("POST", "/v1/search", json=body)
    assert_problem(answer, 422, code)
    assert answer.fields == [place]
    assert stage.world.embedder.requests == []


@pytest.mark.parametrize("min_score", ["0.5", [0.5], {"cosine": 0.5}, {"vector": "0.5"}, True])
def test_a_threshold_is_a_number_or_some_of_parts(stage: Stage, min_score: Any) -> None:
    answer = stage.client.search("x", min_score=min_score)
    assert_problem(answer, 422, "invalid_request")
    assert {place.split(".")[0] for place in answer.fields} == {"min_score"}


def test_a_question_may_be_long_and_loses_its_nuls(stage: Stage) -> None:
    assert stage.client.search("x" * 8000).status == 200
    assert stage.client.search(" a\x00b\n").status == 200
    assert stage.world.embedder.requests[-1] == ["ab"]


def test_the_provider_gets_a_deadline(stage: Stage) -> None:
    request = http_event("POST", "/v1/search", body='{"query": "x"}', headers={"x-api-key": str(stage.client.key)})
    assert_problem(call(stage.search_function, request, Context(seconds=3)), 503, "temporarily_unavailable")


def test_a_function_that_is_warm_answers_again_and_again(stage: Stage) -> None:
    stage.ready()
    assert {stage.client.search("Some text.").status for _ in range(20)} == {200}


def test_a_connection_that_broke_in_between_is_made_anew(stage: Stage) -> None:
    stage.ready()
    stage.world.rows("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'edda'")
    assert texts(stage.client.search()) == ["Some text."]


def test_services_that_cannot_be_built_are_no_secret_told(stage: Stage) -> None:
    async def provide() -> SearchServices:
        raise RuntimeError("password=hunter2")

    request = http_event("POST", "/v1/search", body='{"query": "x"}', headers={"x-api-key": "x"})
    assert b"hunter2" not in call(search_app.build(provide), request).body


def test_the_recorded_question_is_answered(stage: Stage) -> None:
    stage.ready(b"Everyone has 30 days.", metadata='{"year": 2026}', tags="hr")
    assert texts(call(stage.search_function, with_key("search-question", stage.client))) == ["Everyone has 30 days."]
    assert call(stage.search_function, event("search-question")).status == 401


def test_the_recorded_question_with_parameters_is_answered(stage: Stage) -> None:
    stage.ready(b"Before.\nAnnual  leave may be carried over by form HR-204.\nAfter.", tags="hr")
    answer = call(stage.search_function, with_key("search-parameters", stage.client))
    assert texts(answer) == ["Annual  leave may be carried over by form HR-204."]
    (hit,) = answer.json["hits"]
    assert [passage["text"] for passage in hit["before"] + hit["after"]] == ["Before.", "After."]
    marked = [hit["text"][span["start"] : span["end"]] for span in hit["highlights"]]
    assert {"Annual  leave", "HR-204"} <= set(marked)


def test_the_nasty_question_is_data(stage: Stage) -> None:
    stage.ready(b"Some text.")
    assert texts(call(stage.search_function, with_key("search-nasty", stage.client))) == ["Some text."]
    assert call(stage.search_function, event("search-nasty")).status == 401


def test_a_better_passage_comes_first_over_documents(stage: Stage) -> None:
    stage.ready(b"Alpha.\nBeta.", "1.txt")
    stage.ready(b"Gamma.\nDelta.", "2.txt")
    assert texts(stage.client.search("Gamma."))[0] == "Gamma."
    assert run(stage.world.embed()) == {}
