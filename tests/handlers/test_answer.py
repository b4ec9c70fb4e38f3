"""Answers, from the HTTP event to the citations, on a real database."""

from typing import Any

import pytest
from edda.errors import ProviderUnavailable
from edda.models import ChatRequest

from tests.fakes.chat import FakeChat, said
from tests.handlers.stage import HOSTILE, Answer, Stage, assert_problem, call, with_key

LEAVE = "Staff get 25 days of leave a year."
HANDBOOK = f"Welcome aboard.\n{LEAVE}\nUnused days expire in March.\nThe canteen is open from eleven to two.\n"
QUESTION = "How many days of leave do staff get?"
BY_WORDS = {"mode": "text"}  # the fake vectors mean nothing


def ok(answer: Answer) -> Any:
    assert answer.status == 200, answer.body
    return answer.json


def obedient(request: ChatRequest) -> str:
    """Cites the passage that says it, wherever it stands."""
    prompt = request.turns[-1].content
    number = prompt[: prompt.index(LEAVE)].rsplit("passage ", 1)[1].split("\n")[0]
    return said(f"Staff get 25 days of leave a year [{number}].", (int(number), LEAVE))


def test_an_extractive_answer_says_what_it_is_and_where_it_stands(stage: Stage) -> None:
    document_id = stage.ready(HANDBOOK.encode(), "handbook.txt", title="Handbook")
    body = ok(stage.client.ask(QUESTION, **BY_WORDS))
    assert (body["status"], body["kind"], body["model"], body["degraded"]) == ("answered", "extractive", None, [])
    assert body["answer"].splitlines()[0] == f"{LEAVE} [1]"
    first = body["citations"][0]
    chunks = stage.client.send("GET", f"/v1/documents/{document_id}/chunks").json["chunks"]
    (chunk,) = [one for one in chunks if LEAVE in one["text"]]
    assert first == {
        "marker": 1,
        "positions": [len(LEAVE) + 1],
        "document_id": document_id,
        "version_id": first["version_id"],
        "chunk_id": chunk["chunk_id"],
        "name": "handbook.txt",
        "title": "Handbook",
        "page": None,
        "heading_path": ["handbook.txt"],
        "char_start": HANDBOOK.index(LEAVE),
        "char_end": HANDBOOK.index(LEAVE) + len(LEAVE),
        "quote": LEAVE,
    }
    assert body["hits"][0]["chunk_id"] == chunk["chunk_id"]
    assert body["usage"] == {"requests": 0, "input_tokens": 0, "output_tokens": 0}


def test_a_generated_answer_is_what_the_model_wrote_and_its_quotes_are_the_documents(stage: Stage) -> None:
    stage.ready(HANDBOOK.encode())
    chat = FakeChat([obedient])
    body = ok(stage.with_chat(chat).ask(QUESTION, instructions="Be kind.", temperature=0.2, max_output_tokens=99))
    assert (body["status"], body["kind"], body["model"]) == ("answered", "generated", "fake/chat")
    (citation,) = body["citations"]
    assert body["answer"] == f"Staff get 25 days of leave a year [{citation['marker']}]."
    assert citation["quote"] == HANDBOOK[citation["char_start"] : citation["char_end"]] == LEAVE
    assert body["answer"][citation["positions"][0] :].startswith(f"[{citation['marker']}]")
    assert body["hits"][citation["marker"] - 1]["chunk_id"] == citation["chunk_id"]
    assert body["usage"]["requests"] == 1
    (request,) = chat.requests
    assert request.system.endswith("Be kind.")
    assert (request.temperature, request.max_output_tokens) == (0.2, 99)


def test_a_model_that_cites_what_is_not_there_is_not_believed(stage: Stage) -> None:
    stage.ready(HANDBOOK.encode())
    chat = FakeChat([said("Staff get 99 days of leave [1].", (1, "Staff get 99 days of leave"))])
    body = ok(stage.with_chat(chat).ask(QUESTION, **BY_WORDS))
    assert (body["kind"], body["usage"]["requests"]) == ("extractive", 2)
    assert [(one["part"], one["code"]) for one in body["degraded"]] == [("chat", "answer_rejected")]
    assert "99" not in body["answer"]


def test_a_provider_that_is_down_leaves_an_extractive_answer(stage: Stage) -> None:
    stage.ready(HANDBOOK.encode())
    body = ok(stage.with_chat(FakeChat([ProviderUnavailable("It is down.")])).ask(QUESTION, **BY_WORDS))
    assert (body["status"], body["kind"]) == ("answered", "extractive")
    assert body["degraded"] == [{"part": "chat", "code": "provider_unavailable", "message": "It is down."}]


def test_a_model_is_told_of_the_callers_own_documents_only(stage: Stage) -> None:
    stage.ready(HANDBOOK.encode())
    chat = FakeChat([obedient])
    for other in (stage.other, stage.with_chat(chat, stage.other)):
        body = ok(other.ask(QUESTION, top_k=50))
        assert (body["status"], body["citations"], body["hits"]) == ("not_found", [], [])
        assert body["answer"].startswith("I don't know")
    assert chat.requests == []


def test_a_lone_line_is_answered_from_with_those_around_it(stage: Stage) -> None:
    document_id = stage.ready(HANDBOOK.encode())
    lines = [one["text"] for one in stage.client.send("GET", f"/v1/documents/{document_id}/chunks").json["chunks"]]
    assert len(lines) > 1
    (hit,) = ok(stage.client.ask(QUESTION, **BY_WORDS))["hits"]
    assert hit["text"] == HANDBOOK[hit["char_start"] : hit["char_end"]] == "\n".join(lines)
    assert [hit["text"][one["start"] : one["end"]] for one in hit["highlights"]].count("leave") == 1


def test_only_what_the_filter_lets_through_is_answered_from(stage: Stage) -> None:
    stage.ready(HANDBOOK.encode(), tags="hr")
    tagged = {"field": "tags", "op": "contains", "value": "hr"}
    assert ok(stage.client.ask(QUESTION, filter=tagged, **BY_WORDS))["status"] == "answered"
    assert ok(stage.client.ask(QUESTION, filter={"not": tagged}, **BY_WORDS))["status"] == "not_found"
    assert ok(stage.client.ask(QUESTION, filter={"field": HOSTILE, "op": "eq", "value": 1}))["status"] == "not_found"


def test_nothing_is_made_up(stage: Stage) -> None:
    stage.ready(HANDBOOK.encode())
    body = ok(stage.client.ask("Who wrote the novel about whales?", **BY_WORDS))
    assert (body["status"], body["citations"]) == ("not_found", [])
    assert body["relevance"] < 0.33


def test_a_follow_up_finds_what_the_question_before_was_about(stage: Stage) -> None:
    stage.ready(HANDBOOK.encode())
    history = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": "25 [1]."}]
    body = ok(stage.client.ask("Since when?", history=history, **BY_WORDS))
    assert LEAVE in body["answer"]


@pytest.mark.parametrize("question", ["🤷", "the of and", '"', "x" * 8000, "& | ! :* <->", "\u202e\u200b?"])
def test_any_text_is_a_question(stage: Stage, question: str) -> None:
    stage.ready(HANDBOOK.encode())
    ok(stage.client.ask(question))
    ok(stage.with_chat(FakeChat()).ask(question, token_budget=10_000))


@pytest.mark.parametrize(
    ("body", "code", "place"),
    [
        ({}, "invalid_request", "question"),
        ({"question": ""}, "invalid_request", "question"),
        ({"question": " \x00\n"}, "invalid_request", "question"),
        ({"question": "x" * 8001}, "invalid_request", "question"),
        ({"question": 7}, "invalid_request", "question"),
        ({"question": "x", "top_k": 0}, "invalid_request", "top_k"),
        ({"question": "x", "top_k": 51}, "invalid_request", "top_k"),
        ({"question": "x", "mode": "magic"}, "invalid_request", "mode"),
        ({"question": "x", "query": "y"}, "invalid_request", "query"),
        ({"question": "x", "token_budget": 499}, "invalid_request", "token_budget"),
        ({"question": "x", "token_budget": 100_001}, "invalid_request", "token_budget"),
        ({"question": "x", "max_output_tokens": 1}, "invalid_request", "max_output_tokens"),
        ({"question": "x", "temperature": 1.1}, "invalid_request", "temperature"),
        ({"question": "x", "instructions": "y" * 4001}, "invalid_request", "instructions"),
        ({"question": "x", "filter": []}, "invalid_filter", "filter"),
        ({"question": "x", "history": [{"role": "system", "content": "y"}]}, "invalid_request", "history.0.role"),
        ({"question": "x", "history": [{"role": "user", "content": ""}]}, "invalid_request", "history.0.content"),
        ({"question": "x", "history": [{"role": "user", "content": "y"}]}, "invalid_request", "history"),
        ({"question": "x", "history": [{"role": "assistant", "content": "y"}]}, "invalid_request", "history"),
        (
            {"question": "x", "history": [{"role": role, "content": "y"} for role in ("user", "user", "assistant")]},
            "invalid_request",
            "history",
        ),
    ],
)
def test_a_question_with_a_mistake_names_the_field(stage: Stage, body: Any, code: str, place: str) -> None:
    answer = stage.client.send("POST", "/v1/answers", json=body)
    assert_problem(answer, 422, code)
    assert answer.fields == [place]
    assert stage.world.embedder.requests == []


def test_a_budget_for_not_one_passage_says_how_much_is_needed(stage: Stage) -> None:
    stage.ready(b"Leave. " + b"Staff leave " * 60)
    client = stage.with_chat(FakeChat())
    answer = client.ask(f"How do staff leave? {'word ' * 400}", token_budget=500)
    problem = assert_problem(answer, 422, "invalid_request")
    assert answer.fields == ["token_budget"]
    needed = int("".join(filter(str.isdecimal, problem["errors"][0]["message"])))
    assert client.ask(f"How do staff leave? {'word ' * 400}", token_budget=needed).status == 200
    assert stage.client.ask("leave " * 1300, token_budget=500).status == 200  # no model, no budget for the question


def test_only_who_has_a_key_is_answered(stage: Stage) -> None:
    assert_problem(stage.stranger.ask(QUESTION), 401, "unauthorized")


def test_the_function_knows_its_own_path_only(stage: Stage) -> None:
    recorded = with_key("answer-question", stage.client)
    recorded["rawPath"] = recorded["requestContext"]["http"]["path"] = "/v1/search"
    assert_problem(call(stage.answer_function, recorded), 404, "not_found")


@pytest.mark.parametrize("name", ["answer-question", "answer-nasty"])
def test_the_recorded_events_are_answered(stage: Stage, name: str) -> None:
    stage.ready(HANDBOOK.encode(), tags="hr")
    body = ok(call(stage.answer_function, with_key(name, stage.client)))
    assert body["status"] in {"answered", "not_found"}
