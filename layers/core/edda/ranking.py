"""Candidates in order, and what of them stands on a page."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Literal, NamedTuple
from uuid import UUID

from edda.models import Candidate
from edda.paging import Position

Key = tuple[UUID, int]
ScoredBy = Literal["vector", "text", "fused", "rerank"]
SCORE_DIGITS = 6  # that are told: half-precision vectors are good for about four


class PartScore(NamedTuple):
    """How one part judged a hit, and the how-many-eth that made it, from 1."""

    rank: int
    score: float


@dataclass(frozen=True, slots=True)
class PartScores:
    """None where a part was not asked, or found nothing in this chunk."""

    vector: PartScore | None = None
    text: PartScore | None = None
    fused: PartScore | None = None
    rerank: PartScore | None = None


@dataclass(frozen=True, slots=True)
class Ranked:
    """A candidate with the score that it is ranked by. Section 0 comes first: see `Position`."""

    candidate: Candidate
    scores: PartScores
    score: float
    section: int = 1
    before: float = 0.0  # the score it had, if a reranker read it

    @property
    def key(self) -> Key:
        return self.candidate.version_id, self.candidate.ordinal

    @property
    def position(self) -> Position:
        return Position(self.section, -self.score, -self.before, *self.key)


def ranked(candidates: Sequence[Candidate], fused: Sequence[float] | None) -> list[Ranked]:
    """Best first: by what they were fused to, or by the one leg that was asked. Equal ones are in the order of their
    keys: all sorting here is stable."""
    order = sorted(range(len(candidates)), key=lambda i: (candidates[i].version_id.int, candidates[i].ordinal))
    candidates = [candidates[index] for index in order]
    by_vector = _parts([one.similarity for one in candidates])
    by_text = _parts([one.text_score or None for one in candidates])
    by_fusion = _parts([fused[index] for index in order] if fused is not None else [None] * len(candidates))
    found = []
    for candidate, vector, text, fusion in zip(candidates, by_vector, by_text, by_fusion, strict=True):
        deciding = fusion or vector or text  # none: found by a phrase without a word that counts
        found.append(Ranked(candidate, PartScores(vector, text, fusion), deciding.score if deciding else 0.0))
    found.sort(key=_score, reverse=True)
    return found


def reranked(before: Sequence[Ranked], scores: Sequence[float]) -> list[Ranked]:
    """The first ones in the order of these scores, equal ones as they were; the others, which were not read, behind
    them, with the scores they had."""
    read = [
        replace(one, scores=replace(one.scores, rerank=part), score=part.score, section=0, before=one.score)
        for one, part in zip(before, _parts(scores), strict=False)
        if part is not None
    ]
    return sorted(read, key=_score, reverse=True) + list(before[len(scores) :])


def above(order: Sequence[Ranked], thresholds: Sequence[tuple[ScoredBy, float]]) -> list[Ranked]:
    """Those that each of these parts gave at least so much, as it is told: a hit's own score leaves it in. A part that
    found nothing in a chunk gave it less."""

    def passes(scores: PartScores) -> bool:
        return all(
            (part := getattr(scores, name)) is not None and round(part.score, SCORE_DIGITS) >= least
            for name, least in thresholds
        )

    return [one for one in order if passes(one.scores)]


def grouped(hits: Iterable[Ranked], per_document: int) -> list[list[Ranked]]:
    """One group a document, in the order of their best hits, each with its best hits."""
    groups: dict[UUID, list[Ranked]] = defaultdict(list)
    for one in hits:
        group = groups[one.candidate.document_id]
        if len(group) < per_document:
            group.append(one)
    return list(groups.values())


def behind(groups: Sequence[Sequence[Ranked]], position: Position | None, *, by_document: bool) -> int:
    """The first group that was not on the pages up to `position`.

    A score may differ a little from one search to the next (providers' vectors do), so the hit itself is looked for
    first.
    """
    if position is None:
        return 0
    key = position[-2:]
    for index, (first, *_) in enumerate(groups):
        if first.key == key or (by_document and first.key[0] == key[0]):
            return index + 1
    return next((index for index, (first, *_) in enumerate(groups) if first.position > position), len(groups))


def _score(one: Ranked) -> float:
    return one.score


def _parts(scores: Sequence[float | None]) -> list[PartScore | None]:
    """Scores with their ranks; of equal ones the first is first."""
    known = [(score, index) for index, score in enumerate(scores) if score is not None]
    known.sort(key=itemgetter(0), reverse=True)
    found: list[PartScore | None] = [None] * len(scores)
    for rank, (score, index) in enumerate(known, 1):
        found[index] = PartScore(rank, score)
    return found
