"""Where the words and phrases of a query are in a text, as character offsets."""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from functools import lru_cache
from typing import NamedTuple

from edda.phrases import in_python
from edda.terms import GRAM, HAS_UNSPACED, INVISIBLE, TOKEN, QueryTerms, joints_of, terms_of

_WORD = re.compile(r"\w+")
_INVISIBLE_ONES = frozenset(INVISIBLE)
# Written with what is before them, though letters by name: Thai and Lao AM.
_VOWELS = ("\u0e33", "\u0eb3")
# Whose stems begin with the word's first letter; other stemmers take prefixes off, too.
_KEEP_BEGINNINGS = frozenset({None, "da", "de", "en", "es", "fi", "fr", "it", "no", "pt", "sv"})
_LONGEST_KEPT = 32  # characters: longer tokens seldom come twice, and may have a great many terms
_terms_of_short = lru_cache(maxsize=5_000)(terms_of)  # 36 MB at most


class Span(NamedTuple):
    """`text[start:end]`."""

    start: int
    end: int


def highlights(text: str, language: str | None, terms: QueryTerms) -> list[Span]:
    """In order, none overlaps another. A word is found by its stem in `language`, as in the index; of an identifier
    as much as the query has of it."""
    if not text.isascii() and not _INVISIBLE_ONES.isdisjoint(text):
        seen = [place for place, character in enumerate(text) if character not in _INVISIBLE_ONES]
        spans = highlights("".join(text[place] for place in seen), language, terms)
        return [Span(seen[start], seen[end - 1] + 1) for start, end in spans]
    spans = [Span(*found.span()) for phrase in terms.phrases for found in in_python(phrase).finditer(text)]
    if wanted := _words(terms.terms):
        # Most tokens hold nothing: each different one is looked at once, and a plain word not even then.
        letters = frozenset(term[0] for term in wanted)
        tokens = {
            token
            for token in set(TOKEN.findall(text))
            if (not _is_plain(token, language) or token[0].lower() in letters)
            and not wanted.isdisjoint(_terms_of(token, language))
        }
        for token in TOKEN.finditer(text) if tokens else ():
            if token.group() in tokens:
                spans += _in_token(token.group(), token.start(), language, wanted)
    return _joined(spans)


def _is_plain(token: str, language: str | None) -> bool:
    """Whether its one term begins as it does."""
    return token.isascii() and token[1:].islower() and token.isalpha() and language in _KEEP_BEGINNINGS


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
            yield from (_written(word, start, *piece) for piece in pieces)
            return
    yield Span(start, start + len(word))


def _written(word: str, start: int, begin: int, end: int) -> Span:
    """No character without the marks that are written over and under it."""
    while begin and _is_mark(word[begin]):
        begin -= 1
    while end < len(word) and _is_mark(word[end]):
        end += 1
    return Span(start + begin, start + end)


def _is_mark(character: str) -> bool:
    return character in _VOWELS or unicodedata.category(character)[0] == "M"


def _terms_of(token: str, language: str | None) -> AbstractSet[str]:
    return _terms_of_short(token, language) if len(token) <= _LONGEST_KEPT else terms_of(token, language)


def _places(piece: str, word: str) -> Iterator[int]:
    at = word.find(piece)
    while at >= 0:
        yield at
        at = word.find(piece, at + 1)


def _joined(spans: Iterable[Span]) -> list[Span]:
    """Overlapping and touching ones as one."""
    found: list[Span] = []
    for span in sorted(spans):
        if found and span.start <= found[-1].end:
            found[-1] = Span(found[-1].start, max(found[-1].end, span.end))
        else:
            found.append(span)
    return found
