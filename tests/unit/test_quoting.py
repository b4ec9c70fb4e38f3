"""Quotes found again in the text that they claim to be from."""

import time

import pytest
from edda.quoting import find_quote, fold

STORED = (
    "Die „Regel“ lautet:\n  Nie mehr als 5\u00a0% — it's the firm\u2019s own\u00adership rule.\n"
    "Full-\u200btime staff get 25 days."
)


@pytest.mark.parametrize(
    ("quote", "stored"),
    [
        ("Full-time staff get 25 days.", "Full-\u200btime staff get 25 days."),
        ('die "regel" lautet: nie mehr als 5 % - it\'s', "Die „Regel“ lautet:\n  Nie mehr als 5\u00a0% — it's"),
        ("the firm's ownership rule", "the firm\u2019s own\u00adership rule"),
        ('"FULL-TIME  STAFF"', "Full-\u200btime staff"),
        ("５ ％ — it’s the firm", "5\u00a0% — it's the firm"),
    ],
)
def test_the_stored_span_is_found_however_it_is_written(quote: str, stored: str) -> None:
    span = find_quote(quote, fold(STORED))
    assert span is not None
    assert STORED[span[0] : span[1]] == stored


@pytest.mark.parametrize(
    "quote",
    [
        "Full-time staff get 26 days.",
        "Full-time staff ... 25 days",
        "taff get 25 days",  # a part of a word
        "Full-time staff get 25 day",
        "25",
        "the",
        "",
        '"…"',
        "staff get full-time",
    ],
)
def test_what_is_not_there_word_for_word_is_not_found(quote: str) -> None:
    assert find_quote(quote, fold(STORED)) is None


@pytest.mark.parametrize(
    ("text", "quote", "stored"),
    [
        ("dans le cafe\u0301 noir", "dans le caf\u00e9", "dans le cafe\u0301"),
        ("เขาอยู่ที่นี่", "เขาอยู่ที่นี่", "เขาอยู่ที่นี่"),
        ("we like that \u2764\ufe0f much", "we like that \u2764", "we like that \u2764\ufe0f"),
    ],
)
def test_a_quote_ends_behind_the_marks_of_its_last_letter(text: str, quote: str, stored: str) -> None:
    span = find_quote(quote, fold(text))
    assert span is not None
    assert text[span[0] : span[1]] == stored


def test_a_quote_of_one_word_proves_nothing_unless_it_is_all_there_is() -> None:
    text = "The notice period is three months."
    assert find_quote("period", fold(text)) is None
    assert find_quote("notice period", fold(text)) == (4, 17)
    assert find_quote("three months", fold(text)) is None
    assert find_quote("is three months", fold(text)) == (18, 33)
    assert find_quote("Closed.", fold("Closed.")) == (0, 7)


def test_scripts_without_spaces_are_quoted_anywhere() -> None:
    text = "员工每年享有二十五天的带薪假期。"
    assert find_quote("享有二十五天", fold(text)) == (4, 10)
    assert find_quote("享有二十六天", fold(text)) is None


def test_the_second_place_is_taken_when_the_first_is_inside_a_word() -> None:
    text = "unpaid leave is leave unpaid; paid leave is not"
    span = find_quote("paid leave is", fold(text))
    assert span is not None
    assert text[span[0] - 1] == " "


def test_a_long_text_takes_linear_time() -> None:
    began = time.process_time()
    assert find_quote("a " * 5_000 + "b", fold("a " * 20_000)) is None
    assert time.process_time() - began < 5
