"""Two scores to one: how near a chunk's vector is, and how well its words match. docs/retrieval.md has the figures.

Both are made comparable by how they lie among the candidates (zero mean, unit deviation), because neither has a scale:
the sum of idfs grows with the query, and each model's cosines lie elsewhere. How much the vector counts depends on
whether the model can read the query: it places texts in a foreign language by the names in them at best, and makes
nothing of an identifier.
"""

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

from edda.terms import QueryTerms, is_of_script

# How much a vector counts if the query's language is foreign to the model, but written like one that it knows; and if
# it is not even that: hardly, but it orders what no word tells apart.
_FOREIGN = 1 / 3
_FOREIGN_SCRIPT = 0.01
_ENOUGH_WORDS = 3  # of a query, to tell a model what it is about: of fewer, each matters as it is written
_ROUNDING = 1e-9  # scores no further apart than this are equal
_BEST = 10  # hits of the text leg whose languages tell that of an unclear query
# Parts of the names of models that know English only. Of others it is assumed that they read whatever they get.
_ENGLISH_ONLY = ("all-minilm", "all-mpnet", "embed-english", "bge-small-en", "bge-base-en", "bge-large-en")


@dataclass(frozen=True, slots=True)
class Scores:
    """What is known of a candidate. None: this leg was not asked. `language` is the chunk's, ISO 639-1. Candidates of
    one `document` (anything hashable) are neighbours if their ordinals are; None: not known."""

    similarity: float | None
    text: float | None
    language: str | None = None
    document: Hashable = None
    ordinal: int = 0


@dataclass(frozen=True, slots=True)
class Fusion:
    """Measured defaults. `vector_weight`: 0 is text alone, 1 is vectors alone. `neighbour_weight`: how much of the
    scores of the chunks just before and after a chunk, where these are good, is added to its own. 0.1 finds more
    passages in long documents, and puts documents of a single chunk behind."""

    vector_weight: float = 0.65
    neighbour_weight: float = 0.0


def languages_of_model(name: str, said: str = "") -> frozenset[str] | None:
    """The languages (ISO 639-1) that an embedding model reads; None: all. `said`: "en,de" or "all", if somebody knows
    it; else its name tells."""
    if said:
        return None if said == "all" else frozenset(said.split(","))
    name = name.lower()
    return frozenset({"en"}) if any(part in name for part in _ENGLISH_ONLY) else None


def fuse(
    candidates: Sequence[Scores], query: QueryTerms, fusion: Fusion, model_languages: frozenset[str] | None
) -> list[float]:
    """One score for each candidate, higher is better. Good for an order: 0 is a mean candidate of this query.

    Where one leg found nothing or was not asked, the order is the other's.
    """
    vector = _standardised([one.similarity for one in candidates])
    text = _standardised([one.text for one in candidates])
    weight = fusion.vector_weight
    if text is None:
        weight = 1.0
    elif vector is None:
        weight = 0.0
    elif 0 < weight < 1:
        readability = _readability(candidates, query, model_languages)
        if model_languages is not None and readability > 0.5:
            vector = [_believed(*one, model_languages) for one in zip(candidates, vector, strict=True)]
        weight *= readability * min(1.0, max(_FOREIGN_SCRIPT, query.words / _ENOUGH_WORDS))
    nothing = [0.0] * len(candidates)
    fused = [
        weight * similarity + (1 - weight) * words
        for similarity, words in zip(vector or nothing, text or nothing, strict=True)
    ]
    return _with_neighbours(candidates, fused, fusion.neighbour_weight)


def _standardised(scores: Sequence[float | None]) -> list[float] | None:
    """With a mean of 0 and a deviation of 1, what is missing like the lowest. None where nothing tells them apart."""
    lowest = min((score for score in scores if score is not None), default=None)
    if lowest is None:
        return None
    filled = [lowest if score is None else score for score in scores]
    mean = math.fsum(filled) / len(filled)
    deviation = math.sqrt(math.fsum((score - mean) ** 2 for score in filled) / len(filled))
    return [(score - mean) / deviation for score in filled] if deviation > _ROUNDING else None


def _believed(candidate: Scores, similarity: float, known: frozenset[str]) -> float:
    """That a text in a foreign language is near to what the model has read says little."""
    if similarity <= 0 or candidate.language is None:
        return similarity
    return similarity * _readable((candidate.language,), known)


def _readability(candidates: Sequence[Scores], query: QueryTerms, known: frozenset[str] | None) -> float:
    """How much of the query the model understands, 0 to 1."""
    if known is None:
        return 1.0
    if query.languages:
        return _readable(query.languages, known)
    best = sorted((one for one in candidates if one.text), key=lambda one: -(one.text or 0.0))[:_BEST]
    languages = [one.language for one in best if one.language is not None]
    return math.fsum(_readable((one,), known) for one in languages) / len(languages) if languages else 1.0


def _readable(languages: Iterable[str], known: frozenset[str]) -> float:
    if not known.isdisjoint(languages):
        return 1.0
    return _FOREIGN if any(is_of_script(one, known) for one in languages) else _FOREIGN_SCRIPT


def _with_neighbours(candidates: Sequence[Scores], fused: Sequence[float], weight: float) -> list[float]:
    """An answer is seldom alone: what is beside good chunks counts for more."""
    if not weight:
        return list(fused)
    good = {
        (one.document, one.ordinal): score
        for one, score in zip(candidates, fused, strict=True)
        if one.document is not None and score > 0
    }
    return [
        score
        + weight
        * sum(good.get((one.document, one.ordinal + step), 0.0) for step in (-1, 1) if one.document is not None)
        for one, score in zip(candidates, fused, strict=True)
    ]
