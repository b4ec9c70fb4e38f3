"""Sentences that answer, and when nothing does."""

from edda.extracting import SENTENCES, best_sentences, ranked_sentences, relevance, sentence_spans
from edda.models import Hit

from tests.fakes.passages import hit, hits

LEAVE = "Staff get 25 days of paid leave a year. Unused days expire in March. The office closes at noon on Fridays."
TRAVEL = "Travel is booked by the team's assistant. Trains are preferred to planes."


def chosen(question: str, passages: list[Hit]) -> list[str]:
    best = best_sentences(ranked_sentences(question, passages), passages)
    return [passages[one.passage].text[one.start : one.end] for one in best]


def test_the_sentence_with_the_questions_words_is_the_first() -> None:
    assert chosen("How many days of paid leave do staff get?", hits(TRAVEL, LEAVE))[0] == LEAVE[:39]
    assert chosen("When does the office close on Fridays?", hits(LEAVE, TRAVEL))[0] == (
        "The office closes at noon on Fridays."
    )


def test_a_sentence_with_none_of_its_words_is_not_taken() -> None:
    assert chosen("Are trains preferred?", hits(TRAVEL)) == ["Trains are preferred to planes."]


def test_no_more_than_some_and_none_twice() -> None:
    texts = [f"Leave of kind {number} is paid." for number in range(9)]
    assert len(chosen("Which leave is paid?", hits(*texts))) == SENTENCES
    assert chosen("Which leave is paid?", hits(texts[0], texts[0], texts[0].upper())) == [texts[0]]


def test_scripts_without_spaces_have_sentences_and_words() -> None:
    text = "员工每年享有二十五天的带薪假期。办公室周五中午关门。"
    assert chosen("员工有多少天带薪假期？", hits(text))[0] == "员工每年享有二十五天的带薪假期。"


def test_a_table_is_taken_by_its_lines() -> None:
    rows = "\n".join(f"| part {number:04} | steel | {number * 7} g |" for number in range(40))
    assert chosen("What does part 0017 weigh?", hits(rows))[0] == "| part 0017 | steel | 119 g |"


def test_a_sentence_without_end_is_cut_between_words() -> None:
    text = "word " * 1000
    (start, end), *_ = sentence_spans(text)
    assert text[start:end].endswith("word")
    assert end - start <= 600
    assert all(b - a <= 600 for a, b in sentence_spans("x" * 5000))


def test_what_has_nothing_to_do_with_the_question_is_not_relevant() -> None:
    passages = [hit(LEAVE), hit(TRAVEL, "travel.txt")]
    asked = ranked_sentences("How many days of paid leave do staff get?", passages)
    strange = ranked_sentences("Who wrote the novel about whales?", passages)
    assert relevance(asked, 0.6) > 0.5
    assert relevance(strange, 0.1) < 0.2
    assert relevance(asked, None) > relevance(strange, None)
    assert relevance([], -0.2) == 0


def test_a_question_without_words_finds_no_sentence() -> None:
    assert chosen("🤷", hits(LEAVE)) == []
    assert chosen("?!", hits(TRAVEL)) == []
