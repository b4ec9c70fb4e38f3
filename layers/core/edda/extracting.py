"""Answers without a model that writes: the sentences of the passages that say most of what was asked.

And the rule by which nothing is answered. Both need no statistics of the corpus: a word that many of the sentences have
weighs little, one that none has weighs most. The figures are in docs/answers.md.
"""

import math
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from edda.models import Hit
from edda.quoting import fold
from edda.rows import lines_of
from edda.sentences import Span, line_ends, paragraph_ends, parts, sentence_ends
from edda.terms import GRAM, query_terms
from edda.words import runs, stem, words

SENTENCES = 3
TOP_PASSAGES = 5  # sentences are taken from these; those after them only tell which words are common
RANK_WEIGHT = 0.5  # of the passage's place among them, beside the words
MOST_CHARACTERS = 600  # of one sentence
LINES_FROM = 300  # what is longer without a full stop is a table or a list: its lines are taken
FEWEST_SENTENCES = 30  # among fewer, a word of the one sentence that answers would count as a common one
OWN_WEIGHT = 2  # times: what a follow-up says itself, beside the words of the question before
LEAST_OF_BEST = 0.6  # a sentence whose score is less than this share of the best one's is left out
LEAST_COVERAGE = 0.75  # and one that has one word of the question, and says less of it than this share of the best

# Makes the words alone comparable with the mean of words and cosine.
WORDS_ALONE = 1.3
QUESTION_MARKS = ("?", "？", "؟")

_IDENTIFIER = re.compile(r"(?<![a-z0-9_])[a-z0-9_]+(?:[-./:#]+[a-z0-9_]+)*")
_PART = re.compile(r"[a-z0-9]+")
_LETTERS_BEFORE = re.compile(r"(?:[a-z]+[-./:#]+)+")
_BULLET = re.compile(r"[-*+•‣◦▪]\s+")
_ITEM = re.compile(r"[-*+•‣◦▪]\s|\(?(?:\d{1,3}|[a-z])[.)]\s")
_ENTRY = re.compile(r"[^\n]{0,60}?(?<!\d)\d{1,2}:\d\d:\d\d|\{\"")  # of a log: it has a time, or is JSON
_HEADING = re.compile(r"#{1,6}\s")
_NUMBER = re.compile(r"(?<![\w.])\d{3,}(?![\w.])")  # a year, a code
_BETWEEN_THOUSANDS = re.compile(r"(?<=\d)[.,'’\s](?=\d{3}(?!\d))")
_FIELD = re.compile(r"\w[\w /()-]{0,40}:\s")


@dataclass(frozen=True, slots=True)
class Sentence:
    """`passages[passage].text[start:end]`.

    `coverage`: how much of the question's words it has, 0 to 1. `shared`: so many. `score`: how good an answer it is,
    0: none. `header`: where that of its table is, if it is a row. `has_own`: it has a word of the follow-up itself.
    """

    passage: int
    start: int
    end: int
    coverage: float
    shared: int
    score: float
    header: Span | None = None
    has_own: bool = False


def asked_words(question: str, language_of: str = "") -> set[str]:
    """The words that say what is asked; none, if there are but function words, or no words. `language_of`: a longer
    text in the same language, which tells these better."""
    terms = query_terms(language_of or question)
    if not terms.terms and not terms.phrases:
        return set()
    whole = [term for term in terms.terms if len(term) == len(GRAM) + 1 or not term.startswith(GRAM)]
    known = runs(" ".join(whole).replace(GRAM, "")).union(whole)
    said = runs(question)
    asked = {stem(run) for run in said if run in known or fold(run).text in known}
    return asked if asked or language_of else {stem(run) for run in said}


def ranked_sentences(question: str, passages: Sequence[Hit], own: Collection[str] = ()) -> list[Sentence]:
    """The sentences of the first passages, best first. `own`: of a follow-up that is asked together with the question
    before it, its own words."""
    asked = asked_words(question)
    headers: dict[tuple[int, Span], set[str]] = {}
    found: list[_Found] = []
    for index, hit in enumerate(passages):
        above = words(" ".join(hit.heading_path[-1:])) & asked
        for piece in pieces(hit.text, is_whole=hit.char_start == 0):
            text = hit.text[piece.start : piece.end]
            held = words(text) & asked
            if _HEADING.match(text) or text.endswith(QUESTION_MARKS):  # says what is below it, and answers nothing
                above, held = held, set()
            else:
                held |= above
            if piece.header and (index, piece.header) not in headers:
                headers[index, piece.header] = words(hit.text[slice(*piece.header)]) & asked
            if held and piece.header:
                held |= headers[index, piece.header]
            found.append((index, piece, held))
    found = _of_whole_identifiers(question, passages, found)
    of = max(len(found), FEWEST_SENTENCES)
    having = Counter(word for *_, held in found for word in held)
    weights = {word: _rarity(having[word], of) * (OWN_WEIGHT if word in own else 1) for word in asked}
    total = sum(weights.values()) or 1.0
    sentences = []
    for index, piece, held in found:
        if index < TOP_PASSAGES:
            # A header by itself says what the table is about, and answers nothing.
            told = held or (headers[index, piece.header] if piece.header else held)
            coverage = sum(weights[word] for word in told) / total
            score = coverage + RANK_WEIGHT * (1 - index / min(TOP_PASSAGES, len(passages))) if held else 0.0
            sentences.append(
                Sentence(
                    index, piece.start, piece.end, coverage, len(held), score, piece.header, not held.isdisjoint(own)
                )
            )
    return sorted(sentences, key=lambda one: (-one.score, one.passage, one.start))


def relevance(sentences: Sequence[Sentence], similarity: float | None) -> float:
    """How sure it is that what was found has to do with the question, about 0 to 1.

    `similarity` is the cosine of the nearest passage; None where no vector was compared.
    """
    coverage = max((one.coverage for one in sentences), default=0.0)
    if similarity is None:
        return min(1.0, WORDS_ALONE * coverage)
    return (coverage + max(0.0, similarity)) / 2


def best_sentences(sentences: Sequence[Sentence], passages: Sequence[Hit]) -> list[Sentence]:
    """Up to SENTENCES of them, none twice: passages overlap, and documents repeat each other. Before the first row of a
    table its header."""
    chosen: list[Sentence] = []
    texts: list[str] = []
    count = 0
    best = max(sentences, key=lambda one: one.score, default=None)
    for one in sentences:
        if best is None or one.score <= 0 or one.score < LEAST_OF_BEST * best.score or count == SENTENCES:
            continue
        if one.shared < 2 and one.coverage < LEAST_COVERAGE * best.coverage:
            continue
        row = [one] if one.header is None else [replace(one, start=one.header[0], end=one.header[1], header=None), one]
        new = [(part, fold(passages[part.passage].text[part.start : part.end]).text) for part in row]
        new = [(part, text) for part, text in new if not any(text in other or other in text for other in texts)]
        if not new or new[-1][0] is not one or new[-1][1].startswith("#"):  # a heading says nothing of its own
            continue
        chosen += [part for part, _ in new]
        texts += [text for _, text in new]
        count += 1
    return chosen


@dataclass(frozen=True, slots=True)
class Piece:
    """A sentence, line or row of a text."""

    start: int
    end: int
    header: Span | None = None


def pieces(text: str, *, is_whole: bool = False) -> Iterator[Piece]:
    """The sentences of a passage, items of a list apart; lines, where there are none, of logs, and of fields with their
    names; of tables the rows but for the header. `is_whole`: nothing is before it."""
    for start, end in parts(text, 0, len(text), paragraph_ends):
        for lines in lines_of(text, start, end, begins=is_whole or start > 0):
            for left, right in lines.rows or _sentences(text, lines.start, lines.end):
                if lines.header != (left, right):
                    yield Piece(left, _cut(text, left, right), lines.header)


def _sentences(text: str, start: int, end: int) -> Iterator[Span]:
    for begin, stop in _units(text, start, end):
        if _ENTRY.match(text, begin, stop):
            yield begin, stop
            continue
        bullet = _BULLET.match(text, begin, stop)
        for first, last in parts(text, bullet.end() if bullet else begin, stop, sentence_ends):
            yield from parts(text, first, last, line_ends if last - first > LINES_FROM else None)


def _units(text: str, start: int, end: int) -> Iterator[Span]:
    """Where a new line begins something new: an item of a list, an entry of a log; every line, if all are fields."""
    lines = list(parts(text, start, end, line_ends))
    are_fields = len(lines) > 1 and all(_FIELD.match(text, *line) for line in lines)
    begin = start
    for first, _ in lines[1:]:
        was_heading = _HEADING.match(text, begin) is not None
        if are_fields or was_heading or any(one.match(text, first, end) for one in (_ITEM, _ENTRY, _HEADING)):
            yield from parts(text, begin, first, None)
            begin = first
    yield from parts(text, begin, end, None)


_Found = tuple[int, Piece, set[str]]


def _of_whole_identifiers(question: str, passages: Sequence[Hit], found: list[_Found]) -> list[_Found]:
    """Where an identifier that is asked for (E-1042) stands somewhere, its parts count for nothing elsewhere, and what
    names another one of its form (E-1043) instead does not answer. Where no number that is asked for stands anywhere,
    nothing answers."""
    text = fold(question).text
    if _lacks_numbers(text, passages):
        return [(index, piece, set[str]()) for index, piece, _ in found]
    asked = set(_identifiers(text))
    if not asked:
        return found
    named = [_names(fold(passages[index].text[piece.start : piece.end]).text) for index, piece, _ in found]
    known = set[str]().union(*named)
    wanted = {one if one in known else _bare(one) for one in asked} & known
    forms = {_form(one) for one in wanted}
    stems = {one: words(one) for one in wanted}
    in_part = set[str]().union(*stems.values()) - words(_IDENTIFIER.sub(" ", text))
    kept = []
    for (index, piece, held), names in zip(found, named, strict=True):
        present = wanted & names
        if wanted and not present and any(_form(one) in forms for one in names):
            kept.append((index, piece, set[str]()))
        else:
            whole = set[str]().union(*(stems[one] for one in present))
            kept.append((index, piece, {word for word in held if word not in in_part or word in whole}))
    return kept


def _lacks_numbers(folded: str, passages: Sequence[Hit]) -> bool:
    """Whether a question names a year, or a code by its number (the longest of its parts that have digits), and the
    passages name none of these."""
    numbers = set(_NUMBER.findall(_BETWEEN_THOUSANDS.sub("", folded)))
    for identifier in _identifiers(folded):
        parts_with_digits = [part for part in _PART.findall(identifier) if any(map(str.isdecimal, part))]
        numbers.update(sorted(parts_with_digits, key=len)[-1:])
    if not numbers:
        return False
    texts = (fold(hit.text).text for hit in passages)
    return all(numbers.isdisjoint(_PART.findall(f"{text} {_BETWEEN_THOUSANDS.sub('', text)}")) for text in texts)


def _names(folded: str) -> set[str]:
    """The identifiers in a text, also without the letters before them: ERR-0x8007 is 0x8007, too."""
    names = set(_identifiers(folded))
    return names | {_bare(one) for one in names}


def _bare(identifier: str) -> str:
    return _LETTERS_BEFORE.sub("", identifier, count=1) if _LETTERS_BEFORE.match(identifier) else identifier


def _identifiers(folded: str) -> Iterator[str]:
    """What names a thing by letters and digits, or by parts that are joined: E-1042, PUMP_STALL, 10.2.3."""
    for token in _IDENTIFIER.findall(folded):
        has_digit = any(character.isdecimal() for character in token)
        if "_" in token.strip("_") or (has_digit and not token.isdecimal()):
            yield token


def _form(identifier: str) -> str:
    """Its parts: letters, or digits with letters before or behind them, as of a hexadecimal number."""
    return _PART.sub(lambda part: "a" if part[0].isalpha() else "a9" if part[0][0].isalpha() else "9", identifier)


def _cut(text: str, start: int, end: int) -> int:
    """Where to end what is too long: between words."""
    if end - start <= MOST_CHARACTERS:
        return end
    return max(text.rfind(" ", start + MOST_CHARACTERS // 2, start + MOST_CHARACTERS), start + MOST_CHARACTERS // 2)


def _rarity(having: int, of: int) -> float:
    """By the square root: what none of the sentences has would otherwise outweigh what the question is about."""
    return math.sqrt(math.log(1 + (of - having + 0.5) / (having + 0.5)))
