"""What was aimed at, and what there is: each line from the medians of one run, ratios within it.

Who takes one chunk after another is measured with few, and that rate taken for every number. Others are compared where
they were measured; the slow among them had fewer chunks there, which is said. The sizes are those of the run: 2,000,
20,000 and 200,000 for the record. What was not measured is said to be so.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from benchmarks.report import place_name

Line = Mapping[str, Any]
EDDA = "edda/deployed"
ONE_BY_ONE = "synchronous/users"
ONE = "edda/one-environment"  # memory is one function's, not that of all its environments together
SMALL, LARGE, LARGEST = 2_000, 20_000, 200_000
HEAD = "| against | where | aim | there is | reached |"


@dataclass(frozen=True, slots=True)
class Aim:
    """`figure` is compared with `aim`, from below or from above. None: not measured in this run."""

    against: str
    where: str
    aim: float
    figure: float | None
    at_most: bool = False

    @property
    def reached(self) -> bool | None:
        if self.figure is None:
            return None
        return self.figure <= self.aim if self.at_most else self.figure >= self.aim


@dataclass(frozen=True, slots=True)
class Medians:
    """The summary of a run, to be asked for single figures."""

    summary: Sequence[Line]

    def line(self, contestant: str, regime: str, chunks: int, name: str) -> Line | None:
        """With 1,536 dimensions, else with what there is. Of who takes one chunk after another, at the nearest size."""
        found = [
            one
            for one in self.summary
            if one["contestant"] == contestant and one["regime"] == regime and name in one and one["correct_turns"]
        ]
        if contestant != ONE_BY_ONE:
            found = [one for one in found if one["asked_chunks"] == chunks]
        return min(found, key=lambda one: (abs(one["asked_chunks"] - chunks), -one["dimensions"]), default=None)

    def of(self, contestant: str, regime: str, chunks: int, name: str) -> float | None:
        """The figure of that line."""
        line = self.line(contestant, regime, chunks, name)
        return None if line is None else float(line[name])

    def times(self, peer: str, regime: str, chunks: int, name: str = "chunks_a_s") -> float | None:
        """Edda's figure in units of the peer's."""
        edda, other = self.of(EDDA, regime, chunks, name), self.of(peer, regime, chunks, name)
        return edda / other if edda is not None and other else None

    def where(self, peer: str, regime: str, chunks: int) -> str:
        """The place, and how many chunks the peer had if they were others."""
        line = self.line(peer, regime, chunks, "chunks_a_s")
        fewer = "" if line is None or line["chunks"] == chunks else f" (it: {line['chunks']:,})"
        return f"{regime}, {chunks:,} chunks{fewer}"

    def sizes(self, regime: str) -> list[int]:
        """How many chunks Edda had there."""
        found = {one["asked_chunks"] for one in self.summary if one["contestant"] == EDDA and one["regime"] == regime}
        return sorted(found) or [SMALL]


def aims(summary: Sequence[Line], limits: Mapping[str, float | None]) -> list[Aim]:
    """Every line of the table, in its order. `limits` is by `place_name`."""
    medians = Medians(summary)
    return [*_against_peers(medians), *_against_limits(medians, limits), *_cost_and_growth(medians)]


def table(lines: Iterable[Aim]) -> str:
    """Markdown."""
    rows = ["### What was aimed at, and what there is", "", HEAD, "|---" * 5 + "|"]
    for line in lines:
        sign = "≤" if line.at_most else "≥"
        figure = "not measured" if line.figure is None else f"{line.figure:,.3g}"
        said = {True: "yes", False: "**no**", None: ""}[line.reached]
        rows.append(f"| {line.against} | {line.where} | {sign} {line.aim:g} | {figure} | {said} |")
    rows += ["", f"Of Edda, it is `{EDDA}`, and for memory `{ONE}`. HNSW under load has a benchmark of its own.", ""]
    return "\n".join(rows)


def _against_peers(medians: Medians) -> Iterator[Aim]:
    usual = [chunks for chunks in medians.sizes("unlimited") if chunks < LARGEST]
    times: list[tuple[str, str, str, Iterable[int], Callable[[int], float]]] = [
        ("Node as the startup does it", "node/startup", "unlimited", usual, lambda one: 20 if one >= LARGE else 10),
        ("Node as the startup does it", "node/startup", "concurrent-16", medians.sizes("concurrent-16"), lambda _: 25),
        ("idealised Node", "node/ideal", "unlimited", usual, lambda _: 1),
        ("idealised Node", "node/ideal", "no-latency", medians.sizes("no-latency"), lambda _: 1),
        ("LlamaIndex, tuned", "llamaindex/tuned", "unlimited", usual, lambda _: 5),
        ("LangChain, tuned", "langchain/tuned", "unlimited", usual, lambda _: 5),
        ("pgai, tuned", "pgai/tuned", "unlimited", usual, lambda _: 5),
        ("synchronous Python", "synchronous/users", "unlimited", usual, lambda _: 200),
    ]
    for says, peer, regime, sizes, aim in times:
        for chunks in sizes:
            where = medians.where(peer, regime, chunks)
            yield Aim(f"{says}: × its chunks/s", where, aim(chunks), medians.times(peer, regime, chunks))
            if peer == "node/ideal":
                cpu = medians.times(peer, regime, chunks, "cpu_s_a_thousand")
                yield Aim(f"{says}: × its CPU seconds", where, 0.7, cpu, at_most=True)


def _against_limits(medians: Medians, limits: Mapping[str, float | None]) -> Iterator[Aim]:
    for chunks in (one for one in medians.sizes("unlimited") if one < LARGEST):
        places = (place_name("unlimited", chunks, dimensions) for dimensions in (1536, 384))
        limit = next((limits[place] for place in places if limits.get(place)), None)
        rate = medians.of(EDDA, "unlimited", chunks, "chunks_a_s")
        figure = rate / limit if rate is not None and limit else None
        yield Aim("the physical limit: share of it", f"unlimited, {chunks:,} chunks", 0.85, figure)


def _cost_and_growth(medians: Medians) -> Iterator[Aim]:
    sizes = medians.sizes("unlimited")
    for chunks in (one for one in sizes if one < LARGEST):
        where = f"unlimited, {chunks:,} chunks"
        cpu = medians.of(EDDA, "unlimited", chunks, "cpu_s_a_thousand")
        yield Aim("CPU seconds for 1,000 chunks", where, 0.1, cpu, at_most=True)
        startup = medians.times("node/startup", "unlimited", chunks, "cpu_s_a_thousand")
        yield Aim("the same: × the startup's", where, 1 / 20, startup, at_most=True)
    peak = medians.of(ONE, "unlimited", LARGE, "peak_megabytes")
    yield Aim("peak memory, MB", f"unlimited, {LARGE:,} chunks", 200, peak, at_most=True)
    for fewer, more in pairwise(sizes):
        time, where = _growth(medians, EDDA, fewer, more, "seconds"), f"unlimited, {more:,} chunks"
        per_chunk = None if time is None else time * fewer / more
        yield Aim(f"time for a chunk: × what it is at {fewer:,}", where, 1.2, per_chunk, at_most=True)
        memory = _growth(medians, ONE, fewer, more, "peak_megabytes")
        yield Aim(f"peak memory: × what it is at {fewer:,}", where, 1.2, memory, at_most=True)


def _growth(medians: Medians, contestant: str, fewer: int, more: int, name: str) -> float | None:
    """Both with vectors of one size, the largest that both were measured with."""
    for dimensions in (1536, 384):
        same = Medians([one for one in medians.summary if one["dimensions"] == dimensions])
        small, large = (same.of(contestant, "unlimited", chunks, name) for chunks in (fewer, more))
        if small and large is not None:
            return large / small
    return None
