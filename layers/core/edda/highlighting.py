"""Where the words and phrases of a query are in a text, as character offsets."""

import re
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from functools import lru_cache
from typing import NamedTuple

from edda.terms import GRAM, QueryTerms, document_weights

_RUN = re.compile(r"\S+")
_WORD = re.compile(r"\w+")
_EDGE = re.compile(r"^\W+|\W+$")


class Span(NamedTuple):
    """`text[start:end]`."""

    start: int
    end: int


def highlights(text: str, language: str | None, terms: QueryTerms) -> list[Span]:
    """In order, none overlaps another. A word is found by its stem in `language`, as in the index; an identifier whole
    if the query has it whole."""
    spans = list(_phrases(text, terms.phrases))
    if wanted := {term for term in terms.terms if not term.startswith(GRAM)}:
        for run in _RUN.finditer(text):
            spans += _in_run(run.group(), run.start(), language, wanted)
    return _joined(spans)


def _in_run(run: str, start: int, language: str | None, wanted: AbstractSet[str]) -> Iterator[Span]:
    """In characters without white space between them: a word and its punctuation, an identifier, a Chinese sentence."""
    of_run = _terms_of(run, language)
    if wanted.isdisjoint(of_run):
        return
    words = list(_WORD.finditer(run))
    of_words = [_terms_of(word.group(), language) for word in words]
    if not wanted & of_run <= frozenset().union(*of_words):  # a term of the whole
        trimmed = _EDGE.sub("", run)
        begin = run.find(trimmed)
        yield Span(start + begin, start + begin + len(trimmed))
        return
    for word, of_word in zip(words, of_words, strict=True):
        if not wanted.isdisjoint(of_word):
            yield from _in_word(word.group(), start + word.start(), wanted)


def _in_word(word: str, start: int, wanted: AbstractSet[str]) -> Iterator[Span]:
    """The word; of a script without spaces, the pairs of characters in it that are looked for."""
    pairs = [Span(start + i, start + i + 2) for i in range(len(word) - 1) if word[i : i + 2] in wanted]
    yield from pairs if pairs and not word.isascii() else [Span(start, start + len(word))]


def _phrases(text: str, phrases: Iterable[str]) -> Iterator[Span]:
    for phrase in phrases:
        pattern = r"\s+".join(re.escape(word) for word in phrase.split())
        for match in re.finditer(pattern, text, re.IGNORECASE):
            yield Span(*match.span())


def _joined(spans: Iterable[Span]) -> list[Span]:
    """Overlapping and touching ones as one."""
    found: list[Span] = []
    for span in sorted(spans):
        if found and span.start <= found[-1].end:
            found[-1] = Span(found[-1].start, max(found[-1].end, span.end))
        else:
            found.append(span)
    return found


@lru_cache(maxsize=50_000)
def _terms_of(word: str, language: str | None) -> frozenset[str]:
    return frozenset(document_weights(word, language))
