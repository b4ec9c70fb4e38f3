"""Answers without a model that writes: the sentences of the passages that say most of what was asked.

And the rule by which nothing is answered. Both need no statistics of the corpus: a word that many of the sentences have
weighs little, one that none has weighs most. The figures are in docs/answers.md.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edda.models import Hit
from edda.quoting import fold
from edda.sentences import LINE_END, SENTENCE_END, Span, parts
from edda.terms import query_terms
from edda.words import runs, stem, words

SENTENCES = 3
TOP_PASSAGES = 5  # sentences are taken from these; those after them only tell which words are common
RANK_WEIGHT = 0.5  # of the passage's place among them, beside the words
MOST_CHARACTERS = 600  # of one sentence
LINES_FROM = 300  # what is longer without a full stop is a table or a list: its lines are taken
FEWEST_SENTENCES = 30  # among fewer, a word of the one sentence that answers would count as a common one
LEAST_OF_BEST = 0.6  # a sentence that says less of what was asked than this share of the best is left out

# Makes the words alone comparable with the mean of words and cosine.
WORDS_ALONE = 1.3

_PARAGRAPH_END = re.compile(r"\n[ \t]*\n\s*")


@dataclass(frozen=True, slots=True)
class Sentence:
    """`passages[passage].text[start:end]`. `coverage`: how much of the question's words it has, 0 to 1."""

    passage: int
    start: int
    end: int
    coverage: float
    score: float


def ranked_sentences(question: str, passages: Sequence[Hit]) -> list[Sentence]:
    """The sentences of the first passages, best first."""
    asked = _asked(question)
    found = [
        (index, span, words(hit.text[span[0] : span[1]]) & asked)
        for index, hit in enumerate(passages)
        for span in sentence_spans(hit.text)
    ]
    of = max(len(found), FEWEST_SENTENCES)
    weights = {word: _rarity(sum(word in held for *_, held in found), of) for word in asked}
    total = sum(weights.values()) or 1.0
    sentences = []
    for index, (start, end), held in found:
        if index < TOP_PASSAGES:
            coverage = sum(weights[word] for word in held) / total
            score = coverage + RANK_WEIGHT * (1 - index / min(TOP_PASSAGES, len(passages)))
            sentences.append(Sentence(index, start, end, coverage, score))
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
    """Up to SENTENCES of them, none twice: passages overlap, and documents repeat each other."""
    chosen: list[Sentence] = []
    texts: set[str] = set()
    least = LEAST_OF_BEST * max((one.score for one in sentences), default=0.0)
    for one in sentences:
        text = fold(passages[one.passage].text[one.start : one.end]).text
        if one.score < least or one.coverage <= 0 or text.startswith("#"):  # a heading says nothing of its own
            continue
        if any(text in other or other in text for other in texts):
            continue
        texts.add(text)
        chosen.append(one)
        if len(chosen) == SENTENCES:
            break
    return chosen


def sentence_spans(text: str) -> Iterator[Span]:
    """The sentences of a passage; lines, where there are none."""
    for start, end in parts(text, 0, len(text), _PARAGRAPH_END):
        for first, last in parts(text, start, end, SENTENCE_END):
            separator = LINE_END if last - first > LINES_FROM else None
            for left, right in parts(text, first, last, separator):
                yield left, _cut(text, left, right)


def _asked(question: str) -> set[str]:
    """The words that say what is asked; of a question of function words alone, these."""
    said = runs(question)
    terms = query_terms(question).terms
    return {stem(run) for run in said if fold(run).text in terms} or {stem(run) for run in said}


def _cut(text: str, start: int, end: int) -> int:
    """Where to end what is too long: between words."""
    if end - start <= MOST_CHARACTERS:
        return end
    return max(text.rfind(" ", start + MOST_CHARACTERS // 2, start + MOST_CHARACTERS), start + MOST_CHARACTERS // 2)


def _rarity(having: int, of: int) -> float:
    """By the square root: what none of the sentences has would otherwise outweigh what the question is about."""
    return math.sqrt(math.log(1 + (of - having + 0.5) / (having + 0.5)))
