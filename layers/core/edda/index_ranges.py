"""Which vectors are in which HNSW index, and which one is built next.

Vectors are written without an HNSW index: putting one row into a live graph costs sixty times its insertion. Each is
numbered as it is written, 1,024 numbers are a segment, and an index covers a range of segments. Search reads what no
index covers exactly. Rows never move, so nothing can be lost or doubled on the way.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

SEGMENT_ROWS = 1024  # as in the migration
END = 2**31 - 1  # beyond every segment


@dataclass(frozen=True, slots=True)
class IndexRange:
    """An HNSW index over the segments from `first` to before `until`, with so many rows."""

    first: int
    until: int
    rows: int = 0


@dataclass(frozen=True, slots=True)
class Graph:
    """How an HNSW graph is built: neighbours, and candidates looked at for each row."""

    m: int
    ef_construction: int


# By figures (benchmarks/README.md): the first keeps up with writers on two cores; the second costs twice as much, and
# is better where the graph is large.
FRESH = Graph(8, 32)
MERGED = Graph(16, 64)
MERGE_S_A_ROW = 0.001  # of 1,024 dimensions, in two processes on busy cores


@dataclass(frozen=True, slots=True)
class Policy:
    """When an index is built.

    `fresh_rows`: so many wait at least. `share`: and this part of what is indexed, for every build reads the whole
    table twice. `memory_bytes`: for one graph, which limits what is built or merged at once. `workers`: processes
    beside the first. `watch_s`: so long is watched how fast rows are written before indexes are merged, for meanwhile
    no other can be built on the table.
    """

    fresh_rows: int = 32_768
    share: int = 32
    memory_bytes: int = 512 * 1024**2
    workers: int = 1
    watch_s: float = 5

    def largest_rows(self, dimensions: int) -> int:
        """What a graph of this memory holds; beyond it, building would be ten times as slow."""
        return self.memory_bytes // graph_bytes(dimensions)


def graph_bytes(dimensions: int) -> int:
    """Memory for one row in a graph that is being built: vector, neighbours, and room to spare."""
    return 2 * dimensions + 800


@dataclass(frozen=True, slots=True)
class Build:
    """An index to build. With it, those over parts of its range are no longer needed."""

    first: int
    until: int
    rows: int
    graph: Graph
    is_merge: bool = False

    def may_take_its_time_at(self, rows_a_second: float, policy: Policy) -> bool:
        """Whether the tail stays short while this is built."""
        return rows_a_second * self.rows * MERGE_S_A_ROW <= policy.fresh_rows


def cover(ranges: Sequence[IndexRange]) -> list[IndexRange]:
    """The widest indexes, none overlapping another: while some are merged, small and large ones are there."""
    chosen: list[IndexRange] = []
    for one in sorted(ranges, key=lambda one: (one.first, -one.until)):
        if not chosen or one.first >= chosen[-1].until:
            chosen.append(one)
    return chosen


def gaps(covering: Sequence[IndexRange], end: int = END) -> Iterator[tuple[int, int]]:
    """The segments before `end` that no index covers."""
    first = 0
    for one in covering:
        if one.first > first:
            yield first, one.first
        first = one.until
    if first < end:
        yield first, end


def next_build(ranges: Sequence[IndexRange], end: int, dimensions: int, policy: Policy) -> Build | None:
    """What to build next, if anything. `end`: the segment that is being written.

    First what is searched exactly for want of an index. When that is short, neighbours are merged: as many as the
    memory allows, if together they are twice as large as the largest of them, so that a row is built into a graph again
    a few times only.
    """
    covering = cover(ranges)
    largest = policy.largest_rows(dimensions)
    wanted = max(policy.fresh_rows, min(largest, sum(one.rows for one in covering) // policy.share))
    for first, until in gaps(covering, end):
        if (until - first) * SEGMENT_ROWS >= wanted or until < end:  # a hole does not grow
            rows = min((until - first) * SEGMENT_ROWS, largest, 2 * wanted)
            segments = max(1, rows // SEGMENT_ROWS)
            return Build(first, first + segments, segments * SEGMENT_ROWS, FRESH)
    for position in range(len(covering)):
        run = list(_neighbours(covering[position:], largest))
        rows = sum(one.rows for one in run)
        if len(run) > 1 and rows >= 2 * max(one.rows for one in run):
            return Build(run[0].first, run[-1].until, rows, MERGED, is_merge=True)
    return None


def _neighbours(ranges: Sequence[IndexRange], largest: int) -> Iterator[IndexRange]:
    rows, until = 0, ranges[0].first
    for one in ranges:
        rows += one.rows
        if one.first != until or rows > largest:
            return
        until = one.until
        yield one
