"""Whether an answer that a model wrote stands on the passages it was given.

It is rejected, with a reason that the model is told, if it cites what was not retrieved, quotes what is not there,
leaves a part without a citation, or says what neither the cited passages nor the question say: numbers, codes, links,
and sentences with hardly a word of theirs. So what a document makes a model say beyond the documents does not get out.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edda.models import Hit
from edda.neutralising import REMOVED, neutralise
from edda.prompting import Draft
from edda.quoting import Folded, find_quote, fold
from edda.sentences import Span, line_ends, parts, sentence_ends
from edda.terms import UNSPACED, query_terms
from edda.words import words

# Of a sentence's words so many must be in the passages it cites, or in the question. Paraphrases and summaries have
# more; what was never in a document has the small words only.
LEAST_SUPPORT = 0.4
SAME_LANGUAGE = 0.2  # of the words asked in the passages, where its language is not known: names alone are less
SMALL_NUMBERS = 3  # of a paragraph, that the source may have in words
LEAD_WORDS = 3  # of one line that ends with a colon: what a list begins with
SHINGLE = 6  # words in a row that are the instructions' own

MARKER = re.compile(r"\[(\d{1,3})\]")
_MARKERS = re.compile(r"\[(\d{1,3}(?:\s*[,;]\s*\d{1,3})+)\]")
# What must be in the sources as it is: what has a digit or an underscore, what is too long for a word, what is spelled.
_SIGN = rf"[^\W_{UNSPACED}]"
_TOKEN = re.compile(rf"(?:{_SIGN}|_)+(?:(?:[-./:#@+]+|(?<=\d),(?=\d))(?:{_SIGN}|_)+)*")
_IS_SIGN = re.compile(_SIGN)
_LONGEST_WORD = 27
_SPELLED = re.compile(rf"(?:(?<!\w){_SIGN}(?!\w)[\s.,·_-]*){{5,}}")
_COUNTED = 20  # numbers up to here are in words as often as not
_GROUPED = re.compile(r"(?<=\d)(?<!\d{4})[,'’\u00a0\u202f ](?=\d{3}(?!\d))")
_OTHER_DIGIT = re.compile(r"(?![0-9])\d")
_DECIMAL_BEFORE = re.compile(r"(?<![\d.,])\d+[.,]\Z")
_DECIMAL_AFTER = re.compile(r"[.,]\d+(?![.,]?\d)")
_PAIR = re.compile(r"\b(?=([^\W\d_]+) ([^\W\d_]+))")  # neighbouring words, each twice
_LIST_NUMBER = re.compile(r"^\s*\d{1,2}[.)]\s", re.M)


class Rejected(Exception):
    """The answer cannot be given; the message says why, in a sentence for the model. Callers see it as well, so nothing
    that the model chose is in it."""


@dataclass(frozen=True, slots=True)
class Citation:
    """`passages[passage].text[start:end]` proves what the answer says where its marker stands."""

    passage: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Grounded:
    """The answer as plain text, with markers [n] for `passages[n - 1]`; `removed`: so many links were taken out."""

    text: str
    citations: tuple[Citation, ...]
    removed: int


@dataclass(frozen=True, slots=True)
class _Source:
    """What may be repeated, read once: in the form of `_plain`, and its words."""

    plain: str
    words: set[str]

    @classmethod
    def of(cls, text: str) -> "_Source":
        return cls(_plain(text), words(text))


def ground(draft: Draft, passages: Sequence[Hit], asked: Sequence[str], told: str) -> Grounded:
    """The answer with its citations, each checked. Raises Rejected.

    `asked` is what the user said, and the model was told: the question first, and turns before it. `told` is what the
    model was told to do.
    """
    citations = _checked_citations(draft, passages)
    cited = {one.passage for one in citations}
    sources = "\n".join([*(_all_text(passages[index]) for index in sorted(cited)), *asked])
    inert = neutralise(_MARKERS.sub(_single, draft.answer), sources)
    if inert.foreign:
        raise Rejected("it holds a link or an address that the cited passages do not hold.")
    text = inert.text
    if not MARKER.sub("", text).strip():
        raise Rejected("it says nothing.")
    numbers = {int(number) - 1 for number in MARKER.findall(text)}
    if not numbers:
        raise Rejected("it has no citation.")
    if numbers - cited:
        raise Rejected("it has a marker for which there is no quote among the citations.")
    said = _Source.of("\n".join(asked))
    read = {index: _Source.of(_all_text(passages[index])) for index in numbers}
    _check_blocks(text, read, said, _same_language(asked[0], passages))
    _check_not_told(text, told, sources)
    return Grounded(text, tuple(one for one in citations if one.passage in numbers), inert.removed)


def positions(text: str, passage: int) -> list[int]:
    """Where the passage's markers begin in an answer."""
    return [match.start() for match in MARKER.finditer(text) if int(match[1]) == passage + 1]


def _checked_citations(draft: Draft, passages: Sequence[Hit]) -> list[Citation]:
    folded: dict[int, Folded] = {}
    found: list[Citation] = []
    for one in draft.citations:
        index = one.passage - 1
        if not 0 <= index < len(passages):
            raise Rejected(f"it cites a passage that there is not; they are numbered 1 to {len(passages)}.")
        passage = folded.setdefault(index, fold(passages[index].text))
        span = find_quote(one.quote, passage)
        if span is None:
            raise Rejected(f"a quote is not in passage {one.passage}, word for word, or too short to tell.")
        citation = Citation(index, *span)
        if citation not in found:
            found.append(citation)
    return found


def _check_blocks(text: str, read: Mapping[int, _Source], said: _Source, same_language: bool) -> None:
    """Each paragraph and item of a list has a marker, and each sentence is supported by what its block cites."""
    leads = 1
    for start, end in _blocks(text):
        block = text[start:end]
        numbers = {int(number) - 1 for number in MARKER.findall(block)}
        plain = MARKER.sub("", _LIST_NUMBER.sub("", block)).replace(REMOVED, "")
        is_lead = not numbers and plain.rstrip().endswith(":") and len(_content(plain)) <= LEAD_WORDS
        if is_lead and leads:
            leads -= 1
        elif not numbers:
            raise Rejected("a part of it has no citation.")
        if is_lead:
            numbers = set(read)
        sources = [said, *(read[index] for index in sorted(numbers))]
        _check_hard(plain, [one.plain for one in sources])
        if same_language and not is_lead:
            known = set[str]().union(*(one.words for one in sources))
            _check_names(plain, known)
            _check_support(plain, known)


def _same_language(question: str, passages: Sequence[Hit]) -> bool:
    """Whether an answer in the question's language can be expected to share words with the passages.

    Only what the user wrote may say that it cannot: a document that brings a second language changes nothing.
    """
    asked, found = query_terms(question).languages, {hit.language for hit in passages}
    if asked and None not in found:
        return not found.isdisjoint(asked)
    content = words(question)
    shared = content & words("\n".join(_all_text(hit) for hit in passages))
    return len(shared) >= SAME_LANGUAGE * len(content)


def _check_hard(text: str, known: Sequence[str]) -> None:
    text = _GROUPED.sub("", text)
    counted = 0
    for token, times in Counter([*filter(_is_hard, _TOKEN.findall(text)), *_SPELLED.findall(text)]).items():
        if _holds(known, token) or _is_compound(known, token):
            continue
        counted += times
        if not _is_small(token) or counted > SMALL_NUMBERS:
            raise Rejected("it holds a number, a code or a name that the cited passages do not hold.")


def _is_hard(token: str) -> bool:
    if "_" in token or any(character.isdecimal() for character in token):
        return True
    return len(token) > _LONGEST_WORD and max(map(len, re.split(r"[-./:#@+]", token))) > _LONGEST_WORD


def _is_small(token: str) -> bool:
    """A number that the source may have in words."""
    plain = _plain(token)
    return plain.isdecimal() and int(plain) <= _COUNTED


def _holds(known: Sequence[str], token: str) -> bool:
    wanted = _plain(token)
    return not wanted or any(_stands_in(text, wanted) for text in known)


def _stands_in(text: str, wanted: str) -> bool:
    """As a whole: not as a piece of a longer word or number."""
    start = -1
    while (start := text.find(wanted, start + 1)) >= 0:
        end = start + len(wanted)
        is_ended = not _IS_SIGN.match(text, end) or (wanted.isdecimal() and text[end].isalpha())  # 25km
        if is_ended and not (start and _IS_SIGN.match(text, start - 1)):
            # A date of three parts may be cited in part, a decimal may not.
            first = _DECIMAL_BEFORE.search(text, max(0, start - 20), start) if wanted[0].isdecimal() else None
            last = _DECIMAL_AFTER.match(text, end) if wanted[-1].isdecimal() else None
            if not (first or last):
                return True
    return False


def _is_compound(known: Sequence[str], token: str) -> bool:
    """A number that is known and plain words: 25-day, 25km."""
    pieces = re.split(r"[-/]|(?<=\d)(?=[^\W\d_])", token)
    return len(pieces) > 1 and all(
        (_holds(known, piece) or _is_small(piece)) if piece.isdecimal() else piece.isalpha() and piece.islower()
        for piece in pieces
    )


def _check_names(text: str, known: set[str]) -> None:
    """A first name and a surname that nobody has told. One such word may begin a sentence, or be a German noun."""
    for pair in _PAIR.finditer(text):
        if all(word[0].isupper() and words(word).isdisjoint(known) for word in pair.groups()):
            raise Rejected("it holds a number, a code or a name that the cited passages do not hold.")


def _check_support(text: str, known: set[str]) -> None:
    for start, end in parts(text, 0, len(text), sentence_ends):
        said = _content(text[start:end])
        if said and len(said & known) < LEAST_SUPPORT * len(said):
            raise Rejected("a sentence says what the cited passages do not say.")


def _check_not_told(text: str, told: str, sources: str) -> None:
    """Nothing of the model's instructions gets out."""
    said, own = _word_list(text), _word_list(told)
    secret = {tuple(own[at : at + SHINGLE]) for at in range(len(own) - SHINGLE + 1)}
    allowed = _word_list(sources)
    secret -= {tuple(allowed[at : at + SHINGLE]) for at in range(len(allowed) - SHINGLE + 1)}
    if any(tuple(said[at : at + SHINGLE]) in secret for at in range(len(said) - SHINGLE + 1)):
        raise Rejected("it repeats what you were told.")


def _blocks(text: str) -> list[Span]:
    return list(parts(text, 0, len(text), line_ends))


def _content(text: str) -> set[str]:
    """Words that say something: short ones are most often grammar's."""
    return {word for word in words(text) if len(word) > 3 or not word.isascii() or not word.isalpha()}


def _all_text(hit: Hit) -> str:
    """What of a passage may be repeated."""
    return "\n".join([hit.text, hit.name, hit.title or "", *hit.heading_path])


def _plain(text: str) -> str:
    """Numbers and codes in one form: 1,000 and 1 000 are 1000."""
    folded = unicodedata.normalize("NFC", fold(_GROUPED.sub("", text)).text)  # Hangul as syllables again
    return _OTHER_DIGIT.sub(lambda digit: str(unicodedata.decimal(digit[0])), folded).strip(" .,·-_:")


def _word_list(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", fold(MARKER.sub("", text)).text)


def _single(match: re.Match[str]) -> str:
    """[1, 2] as [1] [2]."""
    return " ".join(f"[{number}]" for number in re.findall(r"\d+", match[1]))
