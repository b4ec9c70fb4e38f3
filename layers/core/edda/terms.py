"""Text to terms, for BM25: what a chunk is found by, and what a query looks for. docs/retrieval.md has the figures.

A term is a word stem of the document's language; four letters of a word (not in English: its words are seldom compound
or inflected); a few neighbouring characters, where a script puts no spaces between words; an identifier such as
`ERR-0x80070057`, whole, in parts, and what two and three neighbouring parts make. A query's language is told by its
function words. Where it has none, a word stands for its stems in every language that is written like it, and so does a
name always.
"""

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from itertools import pairwise
from typing import Any, NamedTuple
from uuid import UUID
from zlib import crc32

TERM_IDS = 1_000_000_000  # what pgvector's sparsevec takes for dimensions
GRAM = "~"  # what terms that are no words begin with
# BM25's parameters, as Lucene has them, and the length in words that is normal for a chunk: a constant, so that a
# chunk's weights depend on nothing but its text.
K1 = 1.2
B = 0.75
AVERAGE_WORDS = 150
GRAM_LETTERS = 4
GRAM_WEIGHT = 0.3
# Other than in these, words of a language are found by four letters, too.
_WITHOUT_GRAMS = frozenset({None, "en"})
_CLEAR = 0.67  # of the votes of the likeliest language: others with as many are not ruled out
_FEWEST_LETTERS = 3  # of a term, in scripts without spaces: what is shorter is in too many words
_LETTERS_A_PAIR = 4  # what a character says where there are no spaces, in letters
_MAX_QUERY_TERMS = 4_000  # sparsevec holds 16,000
# Tokens of one language, none of more terms: 40 MB at most, 13 MB of usual words.
_MAX_CACHED = 20_000
_MAX_CACHED_TERMS = 24
_CACHED_LANGUAGES = 4

# Scripts without spaces between words. Han, kana and Hangul: two characters are a word; Thai, Lao, Tibetan, Myanmar and
# Khmer: letters.
_SYLLABLES = (
    "\u1100-\u11ff\u3005-\u3007\u3040-\u30ff\u3130-\u318f\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
)
_LETTERS = (
    "\u0e01-\u0e4e\u0e50-\u0e59\u0e81-\u0edf\u0f00\u0f20-\u0f33\u0f35-\u0fbc\u1000-\u1049\u1050-\u109f\u1780-\u17d3"
)
UNSPACED = _SYLLABLES + _LETTERS
INVISIBLE = "\u00ad\u200b\u200e\u200f\u2060\ufeff"  # soft hyphens, zero widths: in words, but not of them
# `\w` knows no marks: vowels of India's scripts and points of Hebrew and Arabic would end a word.
MARKS = (
    "\u0300-\u036f\u0483-\u0487\u0591-\u05bd\u05bf-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06ed\u0711-\u074a"
    "\u07a6-\u07b0\u0816-\u082d\u08d3-\u0963\u0966-\u0df3\u0f18-\u0fbc\u1ab0-\u1aff\u1dc0-\u1dff\u200c\u200d\u20d0-\u20f0"
)
# Nothing is tried twice (`++`, `*+`): that takes two thirds of the time.
_WORD = rf"[^\W_{UNSPACED}]++(?:[{MARKS}]++[^\W_{UNSPACED}]*+)*+"
# Words, and what is joined to them without a space: identifiers, numbers, addresses, hyphenated words. A run of
# underscores is tried from its first one only: from each it would take the square of its length.
TOKEN = re.compile(rf"(?<!_)_*+{_WORD}(?:[-._/\\:@'’+#]++{_WORD})*+(?:\+\+|#)?|[{_SYLLABLES}]++|[{_LETTERS}]++")
HAS_UNSPACED = re.compile(rf"[{UNSPACED}]")
_IS_LETTERS = re.compile(rf"[{_LETTERS}]")
_HAS_SYLLABLES = re.compile(rf"[{_SYLLABLES}]")
_KANA = re.compile("[\u3040-\u30ff]")
_INVISIBLE = re.compile(f"[{INVISIBLE}]")
_PART = re.compile(_WORD)
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_IDENTIFIER = re.compile(r"[\d_/\\@#+:]|\w\.\w")
_HAS_DIGIT = re.compile(r"\d")
_VERSION = re.compile(r"^v(?=\d+$)")  # v1.2 is 1.2
_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue"})
_TWO_LETTERS = re.compile("([aou])e")
_HEXADECIMAL = re.compile("0x[0-9a-f]+", re.IGNORECASE)
_ACCENTS = re.compile("[\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0670\u200c\u200d]")
_SENTENCE_ENDS = (".", "?", "!", "。", "؟", "۔", "।", "።", "։")  # after NFKC
# None has its own first mark in it: a mark without its partner is left at the next one, not at the text's end.
_PHRASE = re.compile(r'"([^"]*)"|“([^“”]*)”|„([^„“”]*)[“”]|«([^«»]*)»|「([^「」]*)」')

_STEMMERS = {
    "ar": "arabic", "ca": "catalan", "cs": "czech", "da": "danish", "de": "german", "el": "greek", "en": "english",
    "eo": "esperanto", "es": "spanish", "et": "estonian", "eu": "basque", "fa": "persian", "fi": "finnish",
    "fr": "french", "ga": "irish", "hi": "hindi", "hu": "hungarian", "hy": "armenian", "id": "indonesian",
    "it": "italian", "lt": "lithuanian", "ne": "nepali", "nl": "dutch", "no": "norwegian", "pl": "polish",
    "pt": "portuguese", "ro": "romanian", "ru": "russian", "sr": "serbian", "sv": "swedish", "ta": "tamil",
    "tr": "turkish", "yi": "yiddish",
}  # fmt: skip
# Languages by script, as Unicode names its characters. Others than these are written in Latin letters.
_SCRIPTS = {
    "ARABIC": ("ar", "fa", "ur"), "ARMENIAN": ("hy",), "BENGALI": ("bn",), "CJK": ("zh", "ja"),
    "CYRILLIC": ("ru", "sr", "bg", "uk", "mk", "be", "kk"), "DEVANAGARI": ("hi", "ne", "mr"), "ETHIOPIC": ("am",),
    "GEORGIAN": ("ka",), "GREEK": ("el",), "GUJARATI": ("gu",), "GURMUKHI": ("pa",), "HANGUL": ("ko",),
    "HEBREW": ("he", "yi"), "HIRAGANA": ("ja",), "KANNADA": ("kn",), "KATAKANA": ("ja",), "KHMER": ("km",),
    "LAO": ("lo",), "MALAYALAM": ("ml",), "MYANMAR": ("my",), "ORIYA": ("or",), "SINHALA": ("si",), "TAMIL": ("ta",),
    "TELUGU": ("te",), "THAI": ("th",), "TIBETAN": ("bo",),
}  # fmt: skip
_NOT_LATIN = frozenset(language for languages in _SCRIPTS.values() for language in languages) - {"sr"}
LATIN = "LATIN"


@dataclass(frozen=True, slots=True)
class QueryTerms:
    """What the text leg looks for. `terms` is empty when there is nothing but function words in the query, or no word.

    `languages`: those the query is in, as far as can be told (ISO 639-1); none: written in Latin letters, and unclear.
    """

    terms: dict[str, float]  # weight in the query, before idf
    phrases: tuple[str, ...]  # quoted, but not in passing: a hit holds each of them, white space and case apart
    languages: tuple[str, ...] = ()
    alternatives: tuple[tuple[str, ...], ...] = ()  # for each word, terms of which a chunk has but one
    words: int = 0  # that tell a model something: in a sentence all do, but none with a digit

    def weights(self, chunks: int, frequencies: Mapping[str, int]) -> dict[str, float]:
        """How much each term tells: its weight times idf. `frequencies`: in how many of a tenant's chunks it is.

        Stems of one word count as often as the most frequent of them, or a stem in a wrong language, which hardly a
        chunk has, would tell the most; and the less, the rarer they are beside it.
        """
        weights: defaultdict[str, float] = defaultdict(float)
        for terms in self.alternatives:
            if most := max(frequencies.get(term, 0) for term in terms):
                for term in terms:
                    weights[term] += idf(chunks, most) * math.sqrt(frequencies.get(term, 0) / most)
        for term, weight in self.terms.items():
            if term.startswith(GRAM) and (frequency := frequencies.get(term, 0)):
                weights[term] = weight * idf(chunks, frequency)
        return {term: weight for term, weight in weights.items() if weight > 0}


def document_weights(text: str, language: str | None, headings: Sequence[str] = ()) -> dict[str, float]:
    """BM25's weight of each term of a chunk, idf apart: above 0, below K1 + 1. `language` is ISO 639-1.

    `headings`: those that it stands under; their words count as its own. Score of a chunk: sum over the query's terms
    of this weight times `QueryTerms.weights`.
    """
    if above := [heading for heading in headings if heading not in text]:
        text = "\n".join([*above, text])
    counts: dict[str, int] = {}
    words = 0
    text = _normalised(text)
    known = _known_tokens(language)
    tokens = Counter(TOKEN.findall(text))
    has_unspaced = not text.isascii() and HAS_UNSPACED.search(text) is not None
    for token, count in tokens.items():
        if has_unspaced and HAS_UNSPACED.match(token):
            words += count * len(token)
            terms: Iterable[str] = _of_run(token)
        else:
            terms, parts = known[token]
            words += count * parts
        for term in terms:
            counts[term] = counts.get(term, 0) + count
    norm = K1 * (1 - B + B * words / AVERAGE_WORDS)
    most = max(counts.values(), default=0)
    by_count = [count * (K1 + 1) / (count + norm) for count in range(most + 1)]
    return {term: by_count[count] for term, count in counts.items()}


def terms_of(text: str, language: str | None) -> frozenset[str]:
    """Those that `document_weights` gives."""
    known = _known_tokens(language)
    tokens = TOKEN.findall(_normalised(text))
    return frozenset(
        term for token in tokens for term in (_of_run(token) if HAS_UNSPACED.match(token) else known[token][0])
    )


def query_terms(query: str) -> QueryTerms:
    """The terms of a query in any language. Linear; of a very long query the first are taken."""
    text = _normalised(query)
    quoted = (" ".join("".join(found).split()) for found in _PHRASE.findall(_INVISIBLE.sub("", query)))
    phrases = tuple(dict.fromkeys(phrase for phrase in quoted if _is_word(phrase) or _has_symbol(phrase)))
    if phrases and _is_sentence(_PHRASE.sub(" ", text)):
        phrases = tuple(phrase for phrase in phrases if _is_word(phrase) and not query_terms(phrase).terms)
    tokens = TOKEN.findall(text)
    languages, is_clear = _languages_of(tokens)
    terms: Counter[str] = Counter()
    alternatives: list[tuple[str, ...]] = []
    grams: set[str] = set()
    words = 0
    is_sentence = is_clear and not any(map(_HAS_DIGIT.search, tokens))
    for token in tokens:
        of_token, more = _looked_for(token, languages if is_clear else ())
        if not _HAS_DIGIT.search(token):
            words += len(of_token) if HAS_UNSPACED.match(token) else is_sentence or bool(of_token)
        room = _MAX_QUERY_TERMS - len(terms) - len(grams)
        for group in of_token:
            room -= len(group)
            if room < 0:
                break
            alternatives.append(group)
            terms.update(group)
        grams.update(more[: max(room, 0)])
        if room <= 0:
            break
    if not terms and not any(len(gram) == len(GRAM) + 1 for gram in grams):
        grams.clear()  # of function words
    weights = {term: float(count) for term, count in terms.items()} | dict.fromkeys(grams, GRAM_WEIGHT)
    return QueryTerms(weights, phrases, languages, tuple(alternatives), words)


def term_ids(tenant_id: UUID, terms: Iterable[str]) -> list[int]:
    """The numbers of a tenant's terms, in their order, 0 to TERM_IDS - 1. A term of 100,000 shares its one with a
    chance of 1 in 10,000. A function of tenant and term that may never change."""
    salt = crc32(tenant_id.bytes)
    return [crc32(term.encode(), salt) % TERM_IDS for term in terms]


def idf(chunks: int, chunks_with_term: int) -> float:
    """Lucene's: above 0 for every term that some chunk has."""
    return math.log(1 + (chunks - chunks_with_term + 0.5) / (chunks_with_term + 0.5))


def is_always_a_term(term: str) -> bool:
    """Whether a chunk that holds this has it for a term, whatever its language: function words are none in theirs, and
    one or two letters of a script without spaces only where they stand alone."""
    return _plain(term) not in _speakers() and not (len(term) < _FEWEST_LETTERS and _IS_LETTERS.match(term))


def is_of_script(language: str, languages: Iterable[str]) -> bool:
    """Whether one of `languages` is written like `language`, so that they share names and loanwords."""
    return any(_scripts_of(language) & _scripts_of(other) for other in languages)


def _looked_for(token: str, languages: Sequence[str]) -> tuple[list[tuple[str, ...]], list[str]]:
    """A query's token: for each of its words what it may be in a chunk; and four letters each. `languages`: those it
    is in, if that is clear. What is capitalised may be a name, which texts in other languages have with their stems."""
    if HAS_UNSPACED.match(token):
        terms = _of_run(token)
        return [(term,) for term in terms if not term.startswith(GRAM)], [one for one in terms if one.startswith(GRAM)]
    found: list[tuple[str, ...]] = []
    grams: list[str] = []
    for piece, is_word in _pieces(token):
        script, plain = _script(piece), _plain(piece)
        spoken = [language for language in languages if _written_in(language, script)]
        if not is_word:
            found.append((piece,))
            continue
        if not any(plain in _stop_words(language) for language in spoken):
            of_word = [*spoken, _most_common(script)]
            if not spoken or piece != piece.lower():
                of_word = spoken + [language for language in _STEMMERS if _written_in(language, script)]
            forms = [_stem(piece, language) for language in of_word]
            if "de" in of_word:
                forms += [term for form in _with_umlauts_otherwise(piece) for term in (_plain(form), _stem(form, "de"))]
            found.append(tuple(dict.fromkeys((plain, *forms))))
        if spoken != ["en"]:
            grams += _grams(plain)
    return found, grams


def _with_umlauts_otherwise(word: str) -> list[str]:
    """Mueller for Müller, Müller for Mueller."""
    lower = unicodedata.normalize("NFC", word.lower())
    forms = (lower.translate(_UMLAUTS), _TWO_LETTERS.sub(r"\1", lower))
    return [form for form in forms if form != lower]


# What a query is in ----------------------------------------------------------------------------------------------


def _is_sentence(text: str) -> bool:
    """Whether it is one that somebody wrote: with function words of a language, or with an end. What is quoted in it is
    a title, a name, a word of others as often as what must be found; by the latter alone nobody asks."""
    return (_is_word(text) and text.rstrip().endswith(_SENTENCE_ENDS)) or _languages_of(TOKEN.findall(text))[1]


def languages_of(text: str) -> tuple[Mapping[str, int], tuple[str, ...]]:
    """Of a text in Latin letters or others: how many function words of each language are in it, and those languages
    that most of them belong to, if they tell."""
    tokens = TOKEN.findall(_normalised(text))
    words = Counter(language for word in {_plain(token) for token in tokens} for language in _speakers().get(word, ()))
    languages, is_clear = _languages_of(tokens)
    return words, languages if is_clear else ()


def shows_function_words(language: str) -> bool:
    """Whether a text in it can be told by them from others in its script."""
    return language not in _NOT_LATIN and bool(_stop_words(language))


def _languages_of(tokens: Sequence[str]) -> tuple[tuple[str, ...], bool]:
    """The languages of a query: those that most of its function words belong to; if it has none, those of its script.
    And whether it has some: () and False where it is written in Latin letters and has none."""
    letters: Counter[str] = Counter()
    votes: defaultdict[str, float] = defaultdict(float)
    words: Counter[str] = Counter()
    for token in tokens:
        letters[_script(token)] += len(token) * (_LETTERS_A_PAIR if HAS_UNSPACED.match(token) else 1)
    for word in {_plain(token) for token in tokens if len(token) > 1}:  # a letter may stand for anything
        speakers = _speakers().get(word, ())
        for language in speakers:
            votes[language] += 1 / len(speakers)
            words[language] += 1
    del letters[""]
    if not letters:
        return (), False
    script = max(letters, key=lambda one: letters[one])
    if script == "CJK" and any(_KANA.search(token) for token in tokens):
        return ("ja",), True
    voted = {one: count for one, count in votes.items() if words[one] > 1 and _written_in(one, script)}
    if voted:
        most = max(voted.values())
        return tuple(sorted(one for one, count in voted.items() if count >= _CLEAR * most)), True
    if script == LATIN:
        return (), False
    return _SCRIPTS.get(script, ("und",)), False


@lru_cache(maxsize=10_000)
def _script(word: str) -> str:
    """Of the first letter; "" if there is none."""
    letter = next((character for character in word if character.isalpha()), None)
    return "" if letter is None else unicodedata.name(letter, "?").split()[0].split("-")[0]


def _written_in(language: str, script: str) -> bool:
    return script in _scripts_of(language)


def _most_common(script: str) -> str:
    """The language that words are taken for where a document's is not told: in lists, tables, code."""
    return _SCRIPTS.get(script, ("en",))[0]


@cache
def _scripts_of(language: str) -> frozenset[str]:
    scripts = {script for script, languages in _SCRIPTS.items() if language in languages}
    return frozenset(scripts if language in _NOT_LATIN else scripts | {LATIN})


# Words -----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=_CACHED_LANGUAGES)
def _known_tokens(language: str | None) -> "_KnownTokens":
    return _KnownTokens(language)


class _KnownTokens(dict[str, tuple[tuple[str, ...], int]]):
    """The terms of a token in a document of one language, and of how many words it is made. Worked out once."""

    def __init__(self, language: str | None) -> None:
        super().__init__()
        self._language = language
        self._stop_words = _stop_words(language)

    def __missing__(self, token: str) -> tuple[tuple[str, ...], int]:
        terms: list[str] = []
        for piece, is_word in _pieces(token):
            if not is_word:
                terms.append(piece)
                continue
            plain = _plain(piece)
            if plain not in self._stop_words:
                terms.append(_stem(piece, self._language or _most_common(_script(piece))))
            if self._language not in _WITHOUT_GRAMS:
                terms += _grams(plain)
        found = (tuple(terms), 1 if token.isalpha() else len(_PART.findall(token)))
        if len(terms) <= _MAX_CACHED_TERMS:
            if len(self) >= _MAX_CACHED:
                self.clear()
            self[token] = found
        return found


def _pieces(token: str) -> list[tuple[str, bool]]:
    """The words of a token (True) and, if it is an identifier, the whole and what neighbouring parts make (False)."""
    if token.isalpha() and token[1:].islower():  # most are
        return [(token, True)]
    parts = _PART.findall(token)
    words = parts
    if "'" in token or "’" in token:  # l'homme, the dog's
        words = [part for part in parts if len(part) > 1]
    camel = [piece for part in parts for piece in _CAMEL.split(part)]
    if len(camel) > len(parts):
        words = words + [piece for piece in camel if len(piece) > 1]
    pieces = [(word, True) for word in words]
    pieces += [(part[2:], True) for part in parts if _HEXADECIMAL.fullmatch(part)]
    if (len(parts) > 1 or len(token) > len(parts[0])) and _IDENTIFIER.search(token):
        joints = joints_of(token)
        if not any(joint.end - joint.start == len(token) for joint in joints):
            pieces.append((_plain(token), False))
        pieces += [(joint.term, False) for joint in joints]
    return pieces


class Joint(NamedTuple):
    """Neighbouring parts of an identifier, `token[start:end]`, and the term that they are."""

    start: int
    end: int
    term: str


def joints_of(token: str) -> list[Joint]:
    """Each two and three neighbouring parts of an identifier, whatever joins them, so that it is found by a piece of
    it: `app_3.db` in `/var/lib/app_3.db`, `RFC2119` in `RFC-2119`. What joins two numbers tells them apart."""
    parts = list(_PART.finditer(token))
    plain = [_VERSION.sub("", _plain(part[0])) for part in parts]
    joined = []
    for (left, right), one, other in zip(pairwise(parts), plain, plain[1:], strict=False):
        between = token[left.end() : right.start()]
        joined.append(between if one[-1:].isdigit() and other[:1].isdigit() else "")
    joints = []
    for size in (2, 3):
        for first in range(len(parts) - size + 1):
            term = plain[first]
            for at in range(first + 1, first + size):
                term += joined[at - 1] + plain[at]
            joints.append(Joint(parts[first].start(), parts[first + size - 1].end(), term))
    return joints


def _grams(word: str) -> list[str]:
    """Four neighbouring letters of a word, its ends marked."""
    padded = f"_{word}_"
    return [GRAM + padded[start : start + GRAM_LETTERS] for start in range(len(padded) - GRAM_LETTERS + 1)]


def _of_run(run: str) -> list[str]:
    """Of characters without spaces. Syllables and ideographs: pairs, and each for itself (one alone is a word as well);
    letters: threes and fours."""
    if _HAS_SYLLABLES.match(run):
        return [run[start : start + 2] for start in range(len(run) - 1)] + [GRAM + one for one in run]
    if len(run) < _FEWEST_LETTERS:
        return [run]
    return [
        run[start : start + size]
        for size in (_FEWEST_LETTERS, _FEWEST_LETTERS + 1)
        for start in range(len(run) - size + 1)
    ]


def _stem(word: str, language: str | None) -> str:
    lower = word.lower()
    stemmer = _stemmer(language)
    return _plain(lower if stemmer is None else stemmer.stemWord(lower))


@cache
def _stemmer(language: str | None) -> Any:
    """Snowball's, None where it has none."""
    if language not in _STEMMERS:
        return None
    import Stemmer

    return Stemmer.Stemmer(_STEMMERS[language], 0)


def _normalised(text: str) -> str:
    return text if text.isascii() else _INVISIBLE.sub("", unicodedata.normalize("NFKC", text))


def _plain(word: str) -> str:
    """Lower case, without accents."""
    lower = word.lower()
    if lower.isascii():
        return lower
    return unicodedata.normalize("NFC", _ACCENTS.sub("", unicodedata.normalize("NFD", lower)))


def _is_word(text: str) -> bool:
    return TOKEN.search(_normalised(text)) is not None


def _has_symbol(text: str) -> bool:
    """🚀, €, +: not only punctuation."""
    return any(unicodedata.category(character)[0] == "S" for character in text)


# Function words --------------------------------------------------------------------------------------------------


@cache
def _all_stop_words() -> dict[str, frozenset[str]]:
    lines = files("edda").joinpath("stop_words.txt").read_text(encoding="utf-8").splitlines()
    lists = (line.partition(": ") for line in lines if not line.startswith("#"))
    return {language: frozenset(_plain(word) for word in words.split()) for language, _, words in lists}


def _stop_words(language: str | None) -> frozenset[str]:
    return _all_stop_words().get(language or "", frozenset())


@cache
def _speakers() -> dict[str, tuple[str, ...]]:
    """The languages that each function word belongs to."""
    speakers: dict[str, tuple[str, ...]] = {}
    for language, words in _all_stop_words().items():
        for word in words:
            speakers[word] = (*speakers.get(word, ()), language)
    return speakers
