"""Short passages with those around them."""

from dataclasses import replace
from uuid import UUID

from edda.highlighting import Span
from edda.models import Passage
from edda.searching import Found
from edda.widening import AROUND, MOST_TOKENS, is_short, widened

from tests.fakes.passages import found, hit

TEXT = "Leave.\n\nStaff get 25 days of it. It is for a year.  Unused days expire.\nThe canteen opens at noon."
SENTENCES = [
    "Leave.", "Staff get 25 days of it.", "It is for a year.", "Unused days expire.", "The canteen opens at noon.",
]  # fmt: skip
SPANS = [(TEXT.index(one), TEXT.index(one) + len(one)) for one in SENTENCES]


def passage(ordinal: int, span: tuple[int, int] | None = None) -> Passage:
    start, end = span or SPANS[ordinal]
    return Passage(UUID(int=ordinal), ordinal, TEXT[start:end], start, end, page=ordinal)


def sentence(ordinal: int) -> Found:
    start, end = SPANS[ordinal]
    one = hit(TEXT[start:end], ordinal=ordinal, char_start=start, char_end=end, page=ordinal)
    return replace(found(one), highlights=[Span(0, 2)])


def blank(text: str) -> str:
    return "".join(" " if character.isspace() else character for character in text)


def test_a_sentence_comes_with_those_around_it_as_one_passage_with_its_own_offsets() -> None:
    (one,) = widened([sentence(2)], [[passage(number) for number in (0, 1, 3, 4)]])
    assert blank(one.hit.text) == blank(TEXT)
    assert (one.hit.char_start, one.hit.char_end, one.hit.page, one.hit.ordinal) == (0, len(TEXT), 0, 2)
    (span,) = one.highlights
    assert one.hit.text[span.start : span.end] == "It"


def test_rows_of_a_table_stay_rows() -> None:
    row = replace(found(hit("valve,3 kg", ordinal=1, char_start=12, char_end=22)))
    beside = [
        Passage(UUID(int=0), 0, "part,weight", 0, 11, page=1),
        Passage(UUID(int=2), 2, "pump,4 kg", 23, 32, page=1),
    ]
    assert widened([row], [beside])[0].hit.text == "part,weight\nvalve,3 kg\npump,4 kg"


def test_what_overlaps_is_there_once() -> None:
    beside = [passage(1, (0, 40)), passage(3, (45, SPANS[3][1]))]
    (one,) = widened([sentence(2)], [beside])
    assert blank(one.hit.text) == blank(TEXT[: SPANS[3][1]])


def test_a_hit_that_another_one_has_is_left_out_and_no_text_is_there_twice() -> None:
    first, second = widened(
        [sentence(1), sentence(2), sentence(4)], [[passage(0), passage(2)], [passage(1)], [passage(3)]]
    )
    assert blank(first.hit.text) == blank(TEXT[: SPANS[2][1]])
    assert blank(second.hit.text) == blank(TEXT[SPANS[3][0] :])
    (alone,) = widened([replace(sentence(4), hit=replace(sentence(4).hit))], [[]])
    assert alone.hit == sentence(4).hit
    other = replace(sentence(2), hit=replace(sentence(2).hit, version_id=UUID(int=9)))
    assert len(widened([sentence(1), other], [[passage(2)], []])) == 2  # another document's


def test_it_ends_where_the_document_is_not_together_and_when_it_is_long_enough() -> None:
    (one,) = widened([sentence(1)], [[passage(3)]])
    assert one.hit == sentence(1).hit
    far = Passage(UUID(int=2), 2, "far", 500, 503, page=1)
    assert widened([sentence(1)], [[far]])[0].hit == sentence(1).hit
    long = Passage(UUID(int=2), 2, "word " * MOST_TOKENS, 33, 33 + 5 * MOST_TOKENS, page=1)
    assert widened([sentence(1)], [[long, passage(0)]])[0].hit.text == TEXT[: SPANS[1][1]]


def test_a_passage_of_some_sentences_is_not_short() -> None:
    assert is_short(hit("It is 25 days."))
    assert not is_short(hit("It is 25 days. " * 12))
    assert AROUND > 0
