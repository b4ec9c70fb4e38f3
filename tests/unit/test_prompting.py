"""What a model is given within its budget, and how its reply is read."""

import pytest
from edda.models import ChatTurn
from edda.prompting import RULES, BudgetTooSmall, again, build_prompt, parse_reply
from edda.tokens import count_tokens

from tests.fakes.chat import said
from tests.fakes.passages import hit, hits

MARK = "<0a1b2c>"


def turns(*contents: str) -> list[ChatTurn]:
    return [ChatTurn("assistant" if number % 2 else "user", content) for number, content in enumerate(contents)]


def prompt(passages: list[str], history: list[ChatTurn] | None = None, budget: int = 4000, instructions: str = ""):  # type: ignore[no-untyped-def]  # as build_prompt
    return build_prompt("Why?", hits(*passages), history or [], instructions=instructions, budget=budget, mark=MARK)


def test_passages_stand_between_marks_with_their_place() -> None:
    built = build_prompt("Why?", [hit("Because.")], [], instructions="", budget=4000, mark=MARK)
    asked = built.turns[-1].content
    assert built.system == RULES
    assert f"{MARK} passage 1\n(handbook.pdf > Leave > page 4)\nBecause.\n{MARK} end of the passages" in asked
    assert asked.endswith("\n\nQuestion: Why?")


def test_instructions_come_behind_the_rules() -> None:
    assert (
        prompt(["x"], instructions="Be brief.").system
        == f"{RULES}\n\nThe operator wants, within these rules:\nBe brief."
    )


@pytest.mark.parametrize("budget", [500, 700, 1000, 2000, 4000])
def test_passages_are_packed_in_order_until_the_budget_is_used(budget: int) -> None:
    texts = [f"passage {number} " + "word " * 80 for number in range(30)]
    built = prompt(texts, budget=budget)
    whole = count_tokens(built.system) + sum(count_tokens(turn.content) for turn in built.turns)
    assert whole <= built.tokens <= budget
    assert [one.text for one in built.passages] == texts[: len(built.passages)]
    assert len(built.passages) == 30 or budget - built.tokens < 120


def test_a_shorter_passage_may_fit_where_a_longer_one_does_not() -> None:
    built = prompt(["word " * 30, "word " * 2000, "last " * 30], budget=700)
    assert [one.text[:4] for one in built.passages] == ["word", "last"]
    assert "passage 2\n(2.txt" in built.turns[-1].content


def test_a_budget_for_no_passage_says_what_is_needed() -> None:
    with pytest.raises(BudgetTooSmall) as raised:
        prompt(["word " * 900, "word " * 700], budget=500)
    assert len(prompt(["word " * 900, "word " * 700], budget=raised.value.needed).passages) == 1


def test_what_is_needed_is_enough_with_a_history_too() -> None:
    history = turns("word " * 60, "yes")
    with pytest.raises(BudgetTooSmall) as raised:
        prompt(["word " * 900, "word " * 700], history, budget=500)
    built = prompt(["word " * 900, "word " * 700], history, budget=raised.value.needed)
    assert (len(built.passages), len(built.turns)) == (1, 3 if built.tokens <= raised.value.needed - 80 else 1)


def test_the_oldest_turns_are_left_out_first_and_a_question_is_the_first() -> None:
    history = turns(*(f"turn {number} " + "word " * 90 for number in range(10)))
    built = prompt(["x"], history, budget=1600)
    kept = built.turns[:-1]
    assert kept
    assert [turn.role for turn in kept] == ["user", "assistant"] * (len(kept) // 2)
    assert list(kept) == history[-len(kept) :]
    assert sum(count_tokens(turn.content) for turn in kept) <= 400


def test_a_history_that_does_not_fit_leaves_room_for_passages() -> None:
    assert len(prompt(["x"], turns("word " * 5000, "yes"), budget=600).passages) == 1


@pytest.mark.parametrize(
    "text",
    [
        said("Yes [1].", (1, "yes it is")),
        f"```json\n{said('Yes [1].', (1, 'yes it is'))}\n```",
        f"Here it is: {said('Yes [1].', (1, 'yes it is'))} I hope it helps.",
        f"<think>{{maybe}} {{}} {{'found'}}</think>{said('Yes [1].', (1, 'yes it is'))} {{done}}",
        '{"answer": "Yes [1].", "citations": [{"passage": "[1]", "quote": "yes it is", "page": 3}], "status": "x"}',
    ],
)
def test_the_object_is_found_whatever_stands_around_it(text: str) -> None:
    draft = parse_reply(text)
    assert (draft.found, draft.answer) == (True, "Yes [1].")
    assert [(one.passage, one.quote) for one in draft.citations] == [(1, "yes it is")]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("No.", "JSON"),
        ("", "JSON"),
        ('{"answer": "cut o', "JSON"),
        ("[1, 2]", "JSON"),
        ("{}", "JSON"),
        ('{"error": "overloaded"}', "JSON"),
        ("{" * 5000 + "}" * 5000, "JSON"),
        ('{"answer": 7}', "answer"),
        ('{"answer": "x", "citations": [{"passage": "first", "quote": "y"}]}', "citations.0.passage"),
        ('{"answer": "x", "citations": [7]}', "citations.0"),
    ],
)
def test_what_is_no_answer_says_why(text: str, place: str) -> None:
    with pytest.raises(ValueError, match=place) as raised:
        parse_reply(text)
    assert not str(raised.value).startswith("{")


def test_asking_again_tells_what_was_wrong() -> None:
    built = prompt(["x"])
    first, reply, complaint = again(built, "my reply", "it says nothing.")
    assert first == built.turns[0]
    assert reply == ChatTurn("assistant", "my reply")
    assert "it says nothing." in complaint.content
