"""What a search answers when a provider fails: what is left, and what is missing."""

import asyncio
from collections.abc import Sequence

import pytest
from edda.concurrency import Deadline
from edda.errors import (
    EddaError,
    EmbeddingRejected,
    ProviderMisconfigured,
    ProviderThrottled,
    ProviderUnavailable,
)
from edda.vectors import InvalidVector, WrongDimensions

from tests.fakes.reranker import FakeReranker
from tests.handlers.stage import Answer, Context, Stage, assert_problem, call, http_event

FAILURES = [
    (ProviderThrottled(retry_after_s=7.2), 503, "provider_throttled", "8"),
    (EmbeddingRejected("The provider calls this unsafe."), 422, "embedding_rejected", None),
    (InvalidVector(), 422, "embedding_rejected", None),
    (ProviderMisconfigured(), 500, "provider_misconfigured", None),
    (WrongDimensions("The embedding model returns 9 dimensions, not 8."), 500, "provider_misconfigured", None),
]
failures = pytest.mark.parametrize(("error", "status", "code", "retry_after"), FAILURES)


def texts(answer: Answer) -> list[str]:
    assert answer.status == 200, answer.body
    return [hit["text"] for hit in answer.json["hits"]]


# --- the embedding provider ------------------------------------------------------------------------------------------


@failures
def test_without_vectors_hybrid_goes_by_words_and_says_so(
    stage: Stage, error: EddaError, status: int, code: str, retry_after: str | None
) -> None:
    stage.ready(b"Everyone has leave.\nSomething else.")
    stage.world.embedder.script.append(error)
    answer = stage.client.search("leave")
    assert texts(answer) == ["Everyone has leave."]
    assert answer.json["degraded"] == [{"code": code, "message": error.message, "part": "vector"}]
    assert (answer.json["mode"], answer.json["model"]) == ("hybrid", None)
    scores = answer.json["hits"][0]["scores"]
    assert scores["vector"] is None
    assert scores["text"]["rank"] == 1
    assert stage.client.search("leave").json["degraded"] == []


@failures
def test_where_only_vectors_could_find_anything_what_the_provider_says_is_passed_on(
    stage: Stage, error: EddaError, status: int, code: str, retry_after: str | None
) -> None:
    stage.ready(b"Everyone has leave.")
    for body in ({"query": "leave", "mode": "vector"}, {"query": "😀"}):
        stage.world.embedder.script.append(error)
        answer = stage.client.send("POST", "/v1/search", json=body)
        assert_problem(answer, status, code)
        assert answer.headers.get("retry-after") == retry_after


def test_a_question_that_alone_is_refused_is_the_askers_matter(stage: Stage) -> None:
    stage.world.embedder.script.append({"text": EmbeddingRejected("No.")})
    assert_problem(stage.client.search("text", mode="vector"), 422, "embedding_rejected")


def test_a_connection_that_broke_is_no_reason_to_go_without_vectors(stage: Stage) -> None:
    stage.ready()
    stage.world.embedder.script.append(ProviderUnavailable("The provider was cut off."))
    assert stage.client.search().json["degraded"] == []
    stage.world.embedder.script += [ProviderUnavailable("The provider was cut off.")] * 2
    assert [one["code"] for one in stage.client.search().json["degraded"]] == ["provider_unavailable"]


def test_by_words_alone_the_provider_is_not_asked(stage: Stage) -> None:
    stage.ready(b"Everyone has leave.")
    asked = len(stage.world.embedder.requests)
    answer = stage.client.search("leave", mode="text")
    assert texts(answer) == ["Everyone has leave."]
    assert (answer.json["model"], answer.json["scored_by"]) == (None, "text")
    assert len(stage.world.embedder.requests) == asked


def test_a_provider_that_hangs_leaves_time_to_go_by_words(stage: Stage) -> None:
    stage.ready(b"Everyone has leave.")

    async def hang() -> None:
        await asyncio.Event().wait()

    stage.world.embedder.meanwhile = hang
    request = http_event("POST", "/v1/search", body='{"query": "leave"}', headers={"x-api-key": str(stage.client.key)})
    answer = call(stage.search_function, request, Context(seconds=4))
    assert texts(answer) == ["Everyone has leave."]
    assert answer.json["degraded"][0]["code"] == "provider_unavailable"


# --- the reranker ----------------------------------------------------------------------------------------------------

LINES = b"Leave for parents.\nDays of leave.\nThe days are long.\nNothing of the sort."


def test_the_reranker_has_the_last_word(stage: Stage) -> None:
    stage.ready(LINES)
    reranker = FakeReranker(script=[[0.0, 5.0, -1.0, 7.5]])
    answer = stage.with_reranker(reranker).search("days of leave")
    ((query, read),) = reranker.requests
    assert query == "days of leave"
    assert texts(answer) == [read[3], read[1], read[0], read[2]]
    assert (answer.json["scored_by"], answer.json["reranker"]) == ("rerank", "fake/overlap")
    assert [hit["score"] for hit in answer.json["hits"]] == [7.5, 5.0, 0.0, -1.0]
    assert [hit["scores"]["rerank"]["rank"] for hit in answer.json["hits"]] == [1, 2, 3, 4]
    assert answer.json["degraded"] == []


@pytest.mark.parametrize("mode", ["hybrid", "vector", "text"])
def test_every_mode_can_be_reranked(stage: Stage, mode: str) -> None:
    stage.ready(LINES)
    answer = stage.with_reranker(FakeReranker()).search("days of leave", mode=mode)
    assert texts(answer)[0] == "Days of leave."
    assert answer.json["scored_by"] == "rerank"


RERANK_FAILURES = [
    ProviderThrottled("The reranker is limiting requests.", retry_after_s=9),
    ProviderMisconfigured("The reranker refused the request (HTTP 401)."),
]


def test_what_nobody_thought_of_in_a_reranker_costs_no_answer_and_tells_no_secret(stage: Stage) -> None:
    stage.ready(LINES)
    answer = stage.with_reranker(FakeReranker(script=[RuntimeError("password=hunter2")])).search("days of leave")
    assert len(texts(answer)) == 4
    assert answer.json["degraded"] == [{"code": "internal_error", "message": "Something went wrong.", "part": "rerank"}]


@pytest.mark.parametrize("error", RERANK_FAILURES, ids=["throttled", "locked out"])
def test_a_reranker_that_fails_leaves_the_order_before_it_and_the_answer_says_so(
    stage: Stage, error: EddaError
) -> None:
    stage.ready(LINES)
    before = stage.client.search("days of leave")
    answer = stage.with_reranker(FakeReranker(script=[error])).search("days of leave")
    assert answer.json["hits"] == before.json["hits"]
    assert answer.json["degraded"] == [{"code": error.code, "message": error.message, "part": "rerank"}]
    assert (answer.json["scored_by"], answer.json["reranker"]) == ("fused", None)


def test_a_reranker_is_asked_a_second_time_only_if_it_was_cut_off(stage: Stage) -> None:
    stage.ready(LINES)
    reranker = FakeReranker(script=[ProviderUnavailable("The reranker was cut off.")])
    assert stage.with_reranker(reranker).search("days").json["degraded"] == []
    reranker = FakeReranker(script=[ProviderUnavailable("The reranker was cut off.")] * 2)
    assert stage.with_reranker(reranker).search("days").json["degraded"][0]["code"] == "provider_unavailable"
    assert len(reranker.requests) == 2


def test_a_threshold_of_the_rerankers_scale_is_for_its_scores_only(stage: Stage) -> None:
    stage.ready(LINES)
    answer = stage.with_reranker(FakeReranker(script=[[0.0, 5.0, -1.0, 7.5]])).search("days", min_score=1)
    assert [hit["score"] for hit in answer.json["hits"]] == [7.5, 5.0]
    locked_out = FakeReranker(script=[ProviderMisconfigured()])
    assert len(texts(stage.with_reranker(locked_out).search("days", min_score=1))) == 4


def test_rerankers_may_be_left_out_and_read_as_many_as_asked_for(stage: Stage) -> None:
    stage.ready("\n".join(f"Line {n}." for n in range(40)).encode())
    reranker = FakeReranker()
    client = stage.with_reranker(reranker, candidates=12)
    assert client.search("line", rerank=False).json["scored_by"] == "fused"
    assert reranker.requests == []
    answer = client.search("line", top_k=5)
    assert sum(len(read) for _, read in reranker.requests) == 12
    assert [hit["scores"]["rerank"]["rank"] for hit in answer.json["hits"]] == [1, 2, 3, 4, 5]
    reranker.requests.clear()
    client.search("line", top_k=5, rerank_candidates=30)
    assert sum(len(read) for _, read in reranker.requests) == 30
    reranker.requests.clear()
    assert len(texts(client.search("line", top_k=40))) == 40  # each of them is read
    assert sum(len(read) for _, read in reranker.requests) == 40


def test_what_the_reranker_has_not_read_comes_last_with_the_score_it_had(stage: Stage) -> None:
    stage.ready(LINES)
    client = stage.with_reranker(FakeReranker(script=[[-3.0, -2.0]] * 2), candidates=2)
    first = client.search("days of leave", top_k=2).json
    second = client.search("days of leave", top_k=2, cursor=first["next_cursor"]).json
    assert [hit["score"] for hit in first["hits"]] == [-2.0, -3.0]
    assert (second["scored_by"], len(second["hits"])) == ("rerank", 2)
    for hit in second["hits"]:
        assert hit["scores"]["rerank"] is None
        assert hit["score"] == hit["scores"]["fused"]["score"]


def test_a_slow_reranker_is_not_waited_for(stage: Stage) -> None:
    stage.ready(LINES)

    class Slow(FakeReranker):
        async def rerank(self, query: str, texts: Sequence[str], deadline: Deadline) -> Sequence[float]:
            await asyncio.Event().wait()
            return []

    answer = stage.with_reranker(Slow(), timeout_s=0.1).search("days of leave")
    assert len(texts(answer)) == 4
    assert answer.json["degraded"][0]["part"] == "rerank"


def test_where_nothing_is_found_no_reranker_is_asked(stage: Stage) -> None:
    reranker = FakeReranker()
    assert texts(stage.with_reranker(reranker).search("days")) == []
    assert reranker.requests == []
