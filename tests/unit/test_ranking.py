"""Candidates in order."""

from dataclasses import replace
from uuid import UUID

from edda.models import Candidate
from edda.ranking import SCORE_DIGITS, PartScore, Ranked, above, behind, grouped, ranked, reranked


def candidate(number: int, similarity: float | None, text: float | None = None, document: int = 0) -> Candidate:
    return Candidate(UUID(int=document + 1), number, UUID(int=document + 100), "en", similarity, text)


def ordinals(order: list[Ranked]) -> list[int]:
    return [one.candidate.ordinal for one in order]


CANDIDATES = [candidate(0, 0.1, 5.0), candidate(1, 0.9, None), candidate(2, 0.5, 0.0), candidate(3, 0.3, 7.0)]


def test_each_part_says_its_score_and_rank() -> None:
    order = ranked(CANDIDATES, [0.2, 0.3, 0.1, 0.9])
    assert ordinals(order) == [3, 1, 0, 2]
    assert order[0].scores.vector == PartScore(3, 0.3)
    assert order[0].scores.text == PartScore(1, 7.0)
    assert order[0].scores.fused == PartScore(1, 0.9)
    assert order[0].scores.rerank is None
    assert order[1].scores.text is None  # no word of the query's
    assert order[3].scores.text is None
    assert order[2].scores.text == PartScore(2, 5.0)


def test_one_leg_alone_decides() -> None:
    assert ordinals(ranked([candidate(0, 0.1), candidate(1, -0.2), candidate(2, 0.0)], None)) == [0, 2, 1]
    by_text = ranked([candidate(0, None, 1.0), candidate(1, None, 2.0), candidate(2, None, 0.0)], None)
    assert ordinals(by_text) == [1, 0, 2]
    assert [one.score for one in by_text] == [2.0, 1.0, 0.0]
    assert by_text[2].scores.text is None


def test_a_threshold_of_a_told_score_leaves_its_hit_in() -> None:
    order = ranked([candidate(number, number / 7) for number in range(7)], None)
    for rank, one in enumerate(order, 1):
        told = round(one.score, SCORE_DIGITS)
        assert len(above(order, [("vector", told)])) == rank
        assert len(above(order, [("vector", told + 1e-6)])) == rank - 1


def test_equal_scores_are_in_the_same_order_every_time() -> None:
    many = [candidate(number, 0.5, document=number % 3) for number in range(9)]
    assert [one.key for one in ranked(many, None)] == [one.key for one in ranked(many[::-1], None)]


def test_what_the_reranker_read_comes_first_and_the_rest_as_it_was() -> None:
    order = reranked(ranked(CANDIDATES, [0.4, 0.3, 0.2, 0.1]), [-5.0, 1.5])
    assert ordinals(order) == [1, 0, 2, 3]
    assert [one.score for one in order] == [1.5, -5.0, 0.2, 0.1]
    assert order[0].scores.rerank == PartScore(1, 1.5)
    assert order[2].scores.rerank is None
    assert sorted(order, key=lambda one: one.position) == order


def test_what_the_reranker_judged_alike_stays_in_order_and_no_page_skips_or_repeats_it() -> None:
    order = reranked(ranked([candidate(n, n / 10) for n in range(6)], None), [1.0, 2.0, 2.0, 2.0])
    assert ordinals(order) == [4, 3, 2, 5, 1, 0]
    assert [one.scores.rerank and one.scores.rerank.rank for one in order] == [1, 2, 3, 4, None, None]
    assert sorted(order, key=lambda one: one.position) == order
    groups = [[one] for one in order]
    for place, (gone,) in enumerate(groups):
        assert behind(groups[:place] + groups[place + 1 :], gone.position, by_document=False) == place


def test_groups_are_in_the_order_of_their_best_hits() -> None:
    order = ranked([candidate(n, 1 - n / 10, document=d) for n, d in enumerate([0, 1, 0, 0, 2, 1])], None)
    groups = grouped(order, 2)
    assert [ordinals(group) for group in groups] == [[0, 2], [1, 5], [4]]


def test_the_next_page_begins_behind_the_hit_where_the_last_one_ended() -> None:
    groups = [[one] for one in ranked([candidate(n, 1 - n / 10) for n in range(6)], None)]
    assert behind(groups, None, by_document=False) == 0
    last = groups[2][0]
    assert behind(groups, last.position, by_document=False) == 3
    # The hit is gone meanwhile: behind where it was.
    assert behind(groups[:2] + groups[3:], last.position, by_document=False) == 2
    # Hits have come before it.
    come = [[replace(groups[0][0], candidate=candidate(90 + n, 1.0))] for n in range(3)]
    assert behind(come + groups, last.position, by_document=False) == 6
    # Its score was not quite the same this time.
    moved = [[replace(one, score=one.score + 1e-7)] for (one,) in groups]
    assert behind(moved, last.position, by_document=False) == 3
    assert behind(groups, groups[5][0].position, by_document=False) == 6


def test_a_document_is_found_again_by_another_hit_of_its_own() -> None:
    order = ranked([candidate(n, 1 - n / 10, document=d) for n, d in enumerate([0, 0, 1, 1, 2])], None)
    position = order[0].position
    groups = grouped(order[1:], 3)  # its best hit is gone
    assert behind(groups, position, by_document=True) == 1
