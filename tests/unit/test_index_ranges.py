"""Which index is built next."""

import random

import pytest
from edda.index_ranges import END, FRESH, MERGED, SEGMENT_ROWS, IndexRange, Policy, cover, gaps, next_build

POLICY = Policy(fresh_rows=8 * SEGMENT_ROWS, memory_bytes=100 * SEGMENT_ROWS * 928)
DIMENSIONS = 64  # 928 bytes a row, so that 100 segments fit


def full(first: int, until: int) -> IndexRange:
    return IndexRange(first, until, (until - first) * SEGMENT_ROWS)


def test_nothing_is_built_before_enough_rows_wait() -> None:
    assert next_build([], 7, DIMENSIONS, POLICY) is None
    build = next_build([], 8, DIMENSIONS, POLICY)
    assert build is not None
    assert (build.first, build.until, build.graph) == (0, 8, FRESH)


def test_what_waits_is_built_at_once_up_to_twice_what_is_wanted() -> None:
    build = next_build([full(0, 8)], 8 + 50, DIMENSIONS, POLICY)
    assert build is not None
    assert (build.first, build.until) == (8, 24)


def test_the_more_there_is_the_more_has_to_wait() -> None:
    large = [full(n, n + 96) for n in range(0, 960, 96)]
    policy = Policy(fresh_rows=8 * SEGMENT_ROWS, memory_bytes=POLICY.memory_bytes, share=32)
    assert next_build(large, 960 + 29, DIMENSIONS, policy) is None
    assert next_build(large, 960 + 30, DIMENSIONS, policy) is not None


def test_a_hole_is_filled_before_the_newest_rows_are_built() -> None:
    build = next_build([full(8, 16)], 100, DIMENSIONS, POLICY)
    assert build is not None
    assert (build.first, build.until) == (0, 8)


def test_a_hole_is_filled_however_small_it_is() -> None:
    build = next_build([full(0, 8), full(9, 40)], 41, DIMENSIONS, POLICY)
    assert build is not None
    assert (build.first, build.until, build.is_merge) == (8, 9, False)


def test_neighbours_are_merged_when_together_they_are_twice_as_large_as_the_largest() -> None:
    build = next_build([full(0, 8), full(8, 16)], 17, DIMENSIONS, POLICY)
    assert build is not None
    assert (build.first, build.until, build.rows, build.graph) == (0, 16, 16 * SEGMENT_ROWS, MERGED)
    assert next_build([full(0, 16), full(16, 24)], 25, DIMENSIONS, POLICY) is None


def test_nothing_is_merged_that_does_not_fit_into_memory() -> None:
    assert next_build([full(0, 60), full(60, 120)], 121, DIMENSIONS, POLICY) is None
    with_small = [full(0, 90), full(90, 98), full(98, 106), full(106, 114)]
    build = next_build(with_small, 115, DIMENSIONS, POLICY)
    assert build is not None
    assert (build.first, build.until) == (90, 114)


def test_ranges_that_are_not_neighbours_are_not_merged() -> None:
    build = next_build([full(0, 8), full(9, 17)], 18, DIMENSIONS, POLICY)
    assert build is not None
    assert not build.is_merge


def test_of_overlapping_indexes_the_widest_is_used() -> None:
    assert cover([full(0, 8), full(0, 16), full(8, 16), full(16, 20)]) == [full(0, 16), full(16, 20)]


@pytest.mark.parametrize("seed", range(20))
def test_covered_segments_and_gaps_are_every_segment_once(seed: int) -> None:
    numbers = random.Random(seed)
    ranges = [full(first, first + numbers.randint(1, 9)) for first in numbers.sample(range(60), 12)]
    covering = cover(ranges)
    pieces = sorted([(one.first, one.until) for one in covering] + list(gaps(covering)))
    assert pieces[0][0] == 0
    assert pieces[-1][1] == END
    assert [until for _, until in pieces[:-1]] == [first for first, _ in pieces[1:]]


@pytest.mark.parametrize("seed", range(5))
def test_building_comes_to_an_end_with_few_indexes_and_a_short_rest(seed: int) -> None:
    numbers, ranges, end, written, built = random.Random(seed), list[IndexRange](), 0, 0, 0
    for _ in range(200):
        end += numbers.randint(1, 20)
        while (build := next_build(ranges, end, DIMENSIONS, POLICY)) is not None:
            inside = [one for one in ranges if build.first <= one.first and one.until <= build.until]
            ranges = [*(one for one in ranges if one not in inside), full(build.first, build.until)]
            built += build.rows
        written = end * SEGMENT_ROWS
        rest = list(gaps(cover(ranges), end))
        indexed = written - sum(until - first for first, until in rest) * SEGMENT_ROWS
        assert all((until - first) * SEGMENT_ROWS < max(POLICY.fresh_rows, indexed // 32 + 1) for first, until in rest)
    assert len(ranges) <= 2 * written // POLICY.largest_rows(DIMENSIONS) + 5
    assert built <= 6 * written
