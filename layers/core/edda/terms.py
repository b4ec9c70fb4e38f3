"""Text to terms, for BM25: what a chunk is found by, and what a query looks for.

A term is a word stem of the document's language; two characters that follow each other, where a script puts no spaces
between words; an identifier such as `ERR-0x80070057`, whole and in parts. A query's language is hard to tell from a few
words, so each of its words stands for its stems in every language that is written like it.
"""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any
from uuid import UUID
from zlib import crc32

TERM_IDS = 1_000_000_000  # what pgvector's sparsevec takes for dimensions
# BM25's parameters, as Lucene has them, and the length in words that is normal for a chunk: a constant, so that a
# chunk's weights depend on nothing but its text.
K1 = 1.2
B = 0.75
AVERAGE_WORDS = 120
_MAX_QUERY_TERMS = 4_000  # sparsevec holds 16,000
_MAX_CACHED = 200_000

# Scripts without spaces between words (Han, kana, Hangul; Thai, Lao, Myanmar, Khmer): pairs of characters.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17d3\u1100-\u11ff\u3005-\u3007\u3040-\u30ff\u3130-\u318f\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
)
# `\w` knows no marks: vowels of India's scripts and points of Hebrew and Arabic would end a word.
_MARKS = (
    "\u0300-\u036f\u0483-\u0487\u0591-\u05bd\u05bf-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06ed\u0711-\u074a"
    "\u07a6-\u07b0\u0816-\u082d\u08d3-\u0963\u0966-\u0df3\u0f18-\u0fbc\u1ab0-\u1aff\u1dc0-\u1dff\u200c\u200d\u20d0-\u20f0"
)
_LETTER = rf"(?:[^\W_{_UNSPACED}]|[{_MARKS}])"
# Words, and what is joined to them without a space: identifiers, numbers, addresses, hyphenated words.
_TOKEN = re.compile(rf"[{_UNSPACED}]+|{_LETTER}+(?:[-._/\\:@'’+#]+{_LETTER}+)*(?:\+\+|#)?|_+{_LETTER}[\w{_MARKS}]*")
_HAS_UNSPACED = re.compile(rf"[{_UNSPACED}]")
_ACCENTS = re.compile("[\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u200c\u200d]")
_PART = re.compile(rf"{_LETTER}+")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_IDENTIFIER = re.compile(r"[\d_/\\@#+:]|\w\.\w")
_PHRASE = re.compile(r'"([^"]*)"|“([^”]*)”|„([^“”]*)[“”]|«([^»]*)»|「([^」]*)」')

_STEMMERS = {
    "ar": "arabic", "ca": "catalan", "cs": "czech", "da": "danish", "de": "german", "el": "greek", "en": "english",
    "eo": "esperanto", "es": "spanish", "et": "estonian", "eu": "basque", "fa": "persian", "fi": "finnish",
    "fr": "french", "ga": "irish", "hi": "hindi", "hu": "hungarian", "hy": "armenian", "id": "indonesian",
    "it": "italian", "lt": "lithuanian", "nb": "norwegian", "ne": "nepali", "nl": "dutch", "no": "norwegian",
    "pl": "polish", "pt": "portuguese", "ro": "romanian", "ru": "russian", "sr": "serbian", "sv": "swedish",
    "ta": "tamil", "tr": "turkish", "yi": "yiddish",
}  # fmt: skip
# Which of these a word can be a word of, by its first letter.
_SCRIPTS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("\u0370", "\u03ff", ("el",)),
    ("\u0400", "\u052f", ("ru", "sr")),
    ("\u0530", "\u058f", ("hy",)),
    ("\u0590", "\u05ff", ("yi",)),
    ("\u0600", "\u06ff", ("ar", "fa")),
    ("\u0900", "\u097f", ("hi", "ne")),
    ("\u0b80", "\u0bff", ("ta",)),
)
_LATIN = tuple(
    language
    for language in _STEMMERS
    if language not in {"el", "ru", "hy", "yi", "ar", "fa", "hi", "ne", "ta"} and language != "no"
)


@dataclass(frozen=True, slots=True)
class QueryTerms:
    """What the text leg looks for. `terms` is empty when there is no word in the query."""

    terms: dict[str, float]  # weight in the query, before idf
    phrases: tuple[str, ...]  # quoted: a hit holds each of them, white space and case apart


def document_weights(text: str, language: str | None) -> dict[str, float]:
    """BM25's weight of each term of a chunk, idf apart: above 0, below K1 + 1. `language` is ISO 639-1.

    Score of a chunk: sum over the query's terms of weight × idf × weight in the query.
    """
    counts: Counter[str] = Counter()
    words = 0
    text = _normalised(text)
    known = _known_words(language if language in _STEMMERS else None)
    tokens = Counter(_TOKEN.findall(text))
    has_unspaced = not text.isascii() and _HAS_UNSPACED.search(text) is not None
    for token, count in tokens.items():
        if has_unspaced and _HAS_UNSPACED.match(token):
            words += count * len(token)
            for term in _pairs(token):
                counts[term] += count
        else:
            terms, parts = known[token]
            words += count * parts
            for term in terms:
                counts[term] += count
    norm = K1 * (1 - B + B * words / AVERAGE_WORDS)
    return {term: count * (K1 + 1) / (count + norm) for term, count in counts.items()}


def query_terms(query: str) -> QueryTerms:
    """The terms of a query in any language. Linear; of a very long query the first are taken."""
    counts: Counter[str] = Counter()
    phrases = tuple(
        phrase
        for groups in _PHRASE.findall(query)
        if (phrase := " ".join("".join(groups).split())) and _is_word(phrase)
    )
    for token in _TOKEN.findall(_normalised(query)):
        if _HAS_UNSPACED.match(token):
            counts.update(_pairs(token))
        else:
            counts.update({term for language in _languages(token) for term in _known_words(language)[token][0]})
        if len(counts) >= _MAX_QUERY_TERMS:
            break
    return QueryTerms({term: float(count) for term, count in counts.items()}, phrases)


def term_id(tenant_id: UUID, term: str) -> int:
    """The number of a tenant's term, 0 to TERM_IDS - 1. A term of 100,000 shares it with a chance of 1 in 10,000."""
    return term_ids(tenant_id, (term,))[0]


def term_ids(tenant_id: UUID, terms: Iterable[str]) -> list[int]:
    """The numbers of a tenant's terms, in their order. A function of tenant and term that may never change."""
    salt = crc32(tenant_id.bytes)
    return [crc32(term.encode(), salt) % TERM_IDS for term in terms]


def idf(chunks: int, chunks_with_term: int) -> float:
    """Lucene's: above 0 for every term that some chunk has."""
    return math.log(1 + (chunks - chunks_with_term + 0.5) / (chunks_with_term + 0.5))


def _normalised(text: str) -> str:
    return text if text.isascii() else unicodedata.normalize("NFKC", text)


def _is_word(text: str) -> bool:
    return _TOKEN.search(_normalised(text)) is not None


def _pairs(run: str) -> Iterator[str]:
    """Neighbouring characters of a run; the character itself when it stands alone."""
    if len(run) == 1:
        yield run
    for index in range(len(run) - 1):
        yield run[index : index + 2]


def _languages(word: str) -> tuple[str | None, ...]:
    """Languages whose stemmers may know the word, and None: the word as it is."""
    first = next((character for character in word.lower() if character.isalpha()), "")
    if not first:
        return (None,)
    if first < "\u0370":
        return (None, *_LATIN)
    for low, high, languages in _SCRIPTS:
        if low <= first <= high:
            return (None, *languages)
    return (None,)


@cache
def _known_words(language: str | None) -> "_KnownWords":
    return _KnownWords(language)


class _KnownWords(dict[str, tuple[tuple[str, ...], int]]):
    """A token's terms in one language, and of how many words it is made. Worked out once."""

    def __init__(self, language: str | None) -> None:
        super().__init__()
        self._stemmer: Any = None
        if language is not None:
            import Stemmer

            self._stemmer = Stemmer.Stemmer(_STEMMERS[language], 0)

    def __missing__(self, token: str) -> tuple[tuple[str, ...], int]:
        parts = _PART.findall(token)
        terms = [self._stem(part) for part in parts]
        if len(parts) > 1 or len(token) > len(parts[0]):
            if "'" in token or "’" in token:  # l'homme, the dog's
                terms = [term for term, part in zip(terms, parts, strict=True) if len(part) > 1]
            if _IDENTIFIER.search(token):
                terms.append(_plain(token))
        camel = [piece for part in parts for piece in _CAMEL.split(part)]
        if len(camel) > len(parts):
            terms += [self._stem(piece) for piece in camel if len(piece) > 1]
        found = (tuple(terms), len(parts))
        if len(self) >= _MAX_CACHED:
            self.clear()
        self[token] = found
        return found

    def _stem(self, word: str) -> str:
        lower = word.lower()
        return _plain(self._stemmer.stemWord(lower) if self._stemmer is not None else lower)


def _plain(word: str) -> str:
    """Lower case, without accents."""
    lower = word.lower()
    if lower.isascii():
        return lower
    return unicodedata.normalize("NFC", _ACCENTS.sub("", unicodedata.normalize("NFD", lower)))
