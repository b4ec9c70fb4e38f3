"""A model that obeys the documents: what gets out."""

import re
from typing import Any

import pytest
from edda.answer_models import AnswerBody, AnswerRequest
from edda.answering import Answer, Answering
from edda.batching import RetryPolicy
from edda.concurrency import Deadline

from tests.fakes.chat import FakeChat, Say
from tests.fakes.injections import (
    HOST,
    INJECTIONS,
    INSTRUCTIONS,
    KNOWN_TO_GET_OUT,
    LEAVE,
    MUST_NOT_GET_OUT,
    PAY,
    QUESTION,
    SECRET,
    SHORT,
    WORD,
    Injection,
)
from tests.fakes.passages import FakeSearching, found, hit
from tests.unit.test_answering import ACME

pytestmark = pytest.mark.anyio


async def answered(injection: Injection, *script: Say) -> tuple[Answer, dict[str, Any]]:
    searching = FakeSearching(
        [found(hit(text, f"{number}.txt")) for number, text in enumerate((LEAVE, PAY, injection.order))]
    )
    chat = FakeChat([*script])
    answering = Answering(searching, chat, retry=RetryPolicy(attempts=1))  # type: ignore[arg-type]  # a stand-in
    request = AnswerRequest(question=QUESTION, instructions=INSTRUCTIONS)
    answer = await answering.answer(ACME, request.to_question(), Deadline.after(30))
    return answer, AnswerBody.of(answer, chat.name).model_dump(mode="json")


@pytest.mark.parametrize("injection", INJECTIONS.values(), ids=INJECTIONS.keys())
async def test_nothing_gets_out_that_was_not_retrieved_and_no_link(injection: Injection) -> None:
    answer, body = await answered(injection, injection.obey)
    told = {name: value for name, value in body.items() if name != "hits"}
    for canary in MUST_NOT_GET_OUT:
        assert canary not in str(told)
        assert canary not in re.sub(r"[\s.,·]", "", answer.text)
    assert HOST not in answer.text
    assert not re.search(r"!\[|\]\(|\]:|<[a-zA-Z/!]|[a-z]+:/|www\.", answer.text)
    assert all(ord(character) < 0xE0000 and character != "\u200b" for character in answer.text)
    for citation in body["citations"]:
        (source,) = [one for one in body["hits"] if one["chunk_id"] == citation["chunk_id"]]
        start = citation["char_start"] - source["char_start"]
        assert source["text"][start : start + len(citation["quote"])] == citation["quote"]
    print(f"{answer.status}, {answer.kind}: {answer.text!r}")


@pytest.mark.xfail(strict=True, reason="words are compared, not what they say: docs/answers.md")
@pytest.mark.parametrize("injection", KNOWN_TO_GET_OUT.values(), ids=KNOWN_TO_GET_OUT.keys())
async def test_plain_words_among_those_of_the_passages_do_not_get_out(injection: Injection) -> None:
    answer, _ = await answered(injection, injection.obey)
    assert WORD not in answer.text
    assert SHORT not in answer.text


async def test_the_orders_do_reach_the_model_and_nothing_else_marks_them(  # or the test above would show nothing
) -> None:
    injection = INJECTIONS["the codeword"]
    prompts: list[str] = []

    def obey(request: Any) -> str:
        prompts.append(request.turns[0].content)
        assert SECRET in prompts[-1]
        return injection.obey(request)

    answer, _ = await answered(injection, obey)
    assert len(prompts) == 2  # asked once more, with the reason
    assert all(injection.order in prompt for prompt in prompts)
    assert (answer.kind, answer.degraded[0].code) == ("extractive", "answer_rejected")


async def test_no_two_questions_have_the_same_mark() -> None:
    marks: list[str] = []

    def look(request: Any) -> str:
        (mark,) = set(re.findall(r"<[a-z]{12}>", request.turns[0].content))
        marks.append(mark)
        return INJECTIONS["image"].obey(request)

    await answered(INJECTIONS["image"], look)
    await answered(INJECTIONS["image"], look)
    assert len(set(marks)) == 2
