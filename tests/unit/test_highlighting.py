"""Where a query's words are in a text."""

import unicodedata
from itertools import pairwise

import pytest
from edda.highlighting import Span, highlights
from edda.terms import query_terms
from hypothesis import given
from hypothesis import strategies as st


def marked(query: str, text: str, language: str | None = "en") -> list[str]:
    return [text[start:end] for start, end in highlights(text, language, query_terms(query))]


@pytest.mark.parametrize(
    ("query", "text", "language", "found"),
    [
        ("contract", "The Contracts, and a (contract).", "en", ["Contracts", "contract"]),
        ("Häuser", "Das Haus; viele Häuser", "de", ["Haus", "Häuser"]),
        ("0x80070057", "see ERR-0x80070057.", "en", ["0x80070057"]),
        ("policy", "our leave-policy", "en", ["policy"]),
        ("休暇", "年次有給休暇の繰越", "ja", ["休暇"]),
        ("有給休暇", "年次有給休暇の繰越", "ja", ["有給休暇"]),
        ("車", "電車が来る。車", "ja", ["車", "車"]),
        ("ภาษา", "การเรียนภาษาไทย", "th", ["ภาษา"]),
        ("ลาพักร้อน", "พนักงานทุกคนมีสิทธิ์ลาพักร้อนสิบห้าวันต่อปี", "th", ["ลาพักร้อน"]),
        ("E-1234", "会議室はE-1234港区にあります。", "ja", ["E-1234"]),
        ("app_3.db", "at /var/lib/app_3.db now", "en", ["app_3.db"]),
        ("10.0.0.1", "on 10.0.0.1:8080, not 8080", "en", ["10.0.0.1"]),
        ("RFC2119", "as in RFC-2119.", "en", ["RFC-2119"]),
        ("C++", "is (C++).", "en", ["C++"]),
        ("книги", "Мои книги и книга", "ru", ["книги", "книга"]),
        ("die", "They were dying.", "en", ["dying"]),
        ("ajar", "Mereka belajar.", "id", ["belajar"]),
        ("name", "calls getUserName", "en", ["getUserName"]),
        ("Rechnung", "Die Rechnungen, nicht das Rechnen", "de", ["Rechnungen"]),
        ('"carry over"', "You may CARRY\n over days.", "en", ["CARRY\n over"]),
        ('"port 80"', "airport 80, port 8080, (port 80)", "en", ["80", "port", "port 80"]),
        ('"京大"', "東京大学で", "ja", ["京大"]),
        ('"a.b" "("', "a.b axb (", "en", ["a.b"]),
        ('"quote\'s end"', "the quote’s end", "en", ["quote’s end"]),
        ("hyphen", "a soft hy\u00adphen here", "en", ["hy\u00adphen"]),
        ('"soft hyphen"', "a so\u200bft hy\u00adphen here", "en", ["so\u200bft hy\u00adphen"]),
        ("สระว่ายน้ำ", "มีสระว่ายน้ำใหญ่", "th", ["สระว่ายน้ำ"]),
        ("nothing", "of the kind", "en", []),
        ("😀 !!!", "smile 😀 !!!", "en", []),
        ("contract", "contract", "xx", ["contract"]),
        ("contract", "contract", None, ["contract"]),
        ("contract", "", "en", []),
    ],
)
def test_words_identifiers_and_phrases_are_found(query: str, text: str, language: str | None, found: list[str]) -> None:
    assert marked(query, text, language) == found


def test_an_identifier_is_found_whole_where_the_query_has_it_whole() -> None:
    assert marked("ERR-0x80070057", "(ERR-0x80070057)") == ["ERR-0x80070057"]


TEXTS = st.text(st.sampled_from("ab cé休暇有給\n\".-_'😀ßÄไทย\u00ad\u200bน้ำﬁ…’"), max_size=60)


@given(TEXTS, TEXTS, st.sampled_from(["en", "de", "ja", "th", None, "xx"]))
def test_spans_are_in_order_within_the_text_and_do_not_touch(query: str, text: str, language: str | None) -> None:
    spans = highlights(text, language, query_terms(query))
    assert all(0 <= span.start < span.end <= len(text) for span in spans)
    assert all(one.end < two.start for one, two in pairwise(spans))
    assert spans == highlights(text, language, query_terms(query))


def test_no_span_begins_or_ends_within_a_written_character() -> None:
    text = "ผู้ที่ว่ายน้ำที่สระ"
    for query in ("สระว่ายน้ำ", "ายน", "ว่าย"):
        spans = highlights(text, "th", query_terms(query))
        assert spans
        for start, end in spans:
            assert not is_mark(text[start])
            assert end == len(text) or not is_mark(text[end])


def is_mark(character: str) -> bool:
    return unicodedata.category(character) == "Mn" or character == "ำ"


def test_spans_are_of_characters_not_of_bytes() -> None:
    assert highlights("😀 leave", "en", query_terms("leave")) == [Span(2, 7)]
