"""Where the words and phrases of a query are in a text, as character offsets."""

import re
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from functools import lru_cache
from typing import NamedTuple

from edda.terms import GRAM, HAS_UNSPACED, TOKEN, UNSPACED, QueryTerms, joints_of, terms_of

_WORD = re.compile(r"\w+")
_LETTER = rf"[^\W_{UNSPACED}]"
_terms_of = lru_cache(maxsize=10_000)(terms_of)


class Span(NamedTuple):
    """`text[start:end]`."""

    start: int
    end: int


def highlights(text: str, language: str | None, terms: QueryTerms) -> list[Span]:
    """In order, none overlaps another. A word is found by its stem in `language`, as in the index; of an identifier
    as much as the query has of it."""
    spans = list(_phrases(text, terms.phrases))
    if wanted := _words(terms.terms):
        # Most tokens hold nothing: each different one is looked at once.
        tokens = {token for token in set(TOKEN.findall(text)) if not wanted.isdisjoint(_terms_of(token, language))}
        for token in TOKEN.finditer(text) if tokens else ():
            if token.group() in tokens:
                spans += _in_token(token.group(), token.start(), language, wanted)
    return _joined(spans)


def _words(terms: Iterable[str]) -> frozenset[str]:
    """Without pieces of words; single ideographs only where there is nothing else."""
    found = frozenset(term for term in terms if not term.startswith(GRAM))
    return found or frozenset(term for term in terms if len(term) == len(GRAM) + 1)


def _in_token(token: str, start: int, language: str | None, wanted: AbstractSet[str]) -> Iterator[Span]:
    """In a word, an identifier, or characters without spaces between words."""
    of_token = _terms_of(token, language)
    if HAS_UNSPACED.match(token):
        yield from _in_word(token, start, of_token, wanted)
        return
    words = list(_WORD.finditer(token))
    of_words = [_terms_of(word.group(), language) for word in words]
    if of_more := (wanted & of_token) - frozenset().union(*of_words):  # several of its words, or the whole
        joints = [joint for joint in joints_of(token) if joint.term in of_more]
        if not of_more <= {joint.term for joint in joints}:
            yield Span(start, start + len(token))
            return
        yield from (Span(start + joint.start, start + joint.end) for joint in joints)
    for word, of_word in zip(words, of_words, strict=True):
        if not wanted.isdisjoint(of_word):
            yield from _in_word(word.group(), start + word.start(), of_word, wanted)


def _in_word(word: str, start: int, of_word: AbstractSet[str], wanted: AbstractSet[str]) -> Iterator[Span]:
    """The word; of characters without spaces between words, those that are looked for."""
    found = [term.removeprefix(GRAM) for term in wanted & of_word]
    is_unspaced = len(_words(of_word)) > 1 or any(len(piece) == 1 for piece in found)
    if not word.isascii() and is_unspaced:
        pieces = [(at, at + len(piece)) for piece in found for at in _places(piece, word)]
        if pieces:
            yield from (Span(start + begin, start + end) for begin, end in pieces)
            return
    yield Span(start, start + len(word))


def _places(piece: str, word: str) -> Iterator[int]:
    at = word.find(piece)
    while at >= 0:
        yield at
        at = word.find(piece, at + 1)


def _phrases(text: str, phrases: Iterable[str]) -> Iterator[Span]:
    for phrase in phrases:
        pattern = r"\s+".join(re.escape(word) for word in phrase.split())
        # Not within a longer word, as in the search.
        before = f"(?<!{_LETTER})" if re.match(_LETTER, phrase) else ""
        pattern = before + pattern + (f"(?!{_LETTER})" if re.match(_LETTER, phrase[-1]) else "")
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
