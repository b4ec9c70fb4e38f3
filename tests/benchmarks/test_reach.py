"""The table of what was aimed at: computed from medians as a run writes them."""

from typing import Any

import pytest

from benchmarks.reach import Aim, aims, table
from benchmarks.report import place_name


def line(contestant: str, chunks: int, rate: float, *, regime: str = "unlimited", **figures: Any) -> dict[str, Any]:
    usual = {"dimensions": 1536, "correct_turns": 5, "cpu_s_a_thousand": 0.1, "peak_megabytes": 100.0}
    seconds = {"chunks": chunks, "chunks_a_s": rate, "seconds": chunks / rate}
    return {"contestant": contestant, "regime": regime, "asked_chunks": chunks, **usual, **seconds, **figures}


def figure(lines: list[Aim], against: str, where: str) -> Aim:
    (found,) = (one for one in lines if against in one.against and one.where == where)
    return found


SUMMARY = [
    line("edda/deployed", 2_000, 5_000, cpu_s_a_thousand=0.06),
    line("edda/deployed", 20_000, 10_000, cpu_s_a_thousand=0.04, peak_megabytes=210.0),
    line("edda/one-environment", 2_000, 3_000),
    line("edda/one-environment", 20_000, 6_000, peak_megabytes=110.0),
    line("node/startup", 2_000, 500, cpu_s_a_thousand=2.0),
    line("node/ideal", 2_000, 5_500),
    line("node/ideal", 20_000, 9_000),
    line("synchronous/users", 2_000, 8) | {"chunks": 100},
    line("pgai/tuned", 2_000, 900, correct_turns=0),
]


def test_ratios_are_of_the_same_run_and_say_whether_they_are_what_was_aimed_at() -> None:
    lines = aims(SUMMARY, {place_name("unlimited", 2_000, 1536): 16_000.0})
    here, there = "unlimited, 2,000 chunks", "unlimited, 20,000 chunks"
    startup = figure(lines, "the startup does it: × its chunks/s", here)
    assert (startup.figure, startup.aim, startup.reached) == (10.0, 10, True)
    ideal = figure(lines, "idealised Node: × its chunks/s", here)
    assert ideal.figure == pytest.approx(0.909, abs=0.001)
    assert ideal.reached is False
    assert figure(lines, "idealised Node: × its CPU", there).reached
    assert figure(lines, "the physical limit", here).figure == 0.3125
    assert figure(lines, "the same: × the startup's", here).figure == 0.03
    assert figure(lines, "CPU seconds for 1,000", there).figure == 0.04
    assert figure(lines, "time for a chunk", there).figure == 0.5
    assert figure(lines, "peak memory: ×", there).figure == 1.1
    assert figure(lines, "peak memory, MB", there).figure == 110


def test_who_takes_one_chunk_after_another_keeps_its_rate_and_nobody_else_does() -> None:
    lines = aims(SUMMARY, {})
    there = "unlimited, 20,000 chunks"
    assert figure(lines, "synchronous Python", f"{there} (it: 100)").figure == 1250
    assert figure(lines, "the startup does it: × its chunks/s", there).figure is None
    without = aims([one for one in SUMMARY if one["asked_chunks"] == 2_000], {})
    assert not [one for one in without if one.where.startswith(there) and one.figure is not None]


def test_what_was_not_measured_or_not_correct_is_said_to_be_so() -> None:
    lines = aims(SUMMARY, {})
    for against in ("pgai", "LangChain", "the physical limit"):
        one = figure(lines, against, "unlimited, 2,000 chunks")
        assert (one.figure, one.reached) == (None, None)
    assert all(one.reached is None for one in aims([], {}))


def test_the_table_shows_each_line_with_its_sign() -> None:
    written = table(aims(SUMMARY, {}))
    assert "| Node as the startup does it: × its chunks/s | unlimited, 2,000 chunks | ≥ 10 | 10 | yes |" in written
    assert "| idealised Node: × its chunks/s | unlimited, 2,000 chunks | ≥ 1 | 0.909 | **no** |" in written
    assert "| idealised Node: × its CPU seconds | unlimited, 2,000 chunks | ≤ 0.7 | 0.6 | yes |" in written
    assert "| LangChain, tuned: × its chunks/s | unlimited, 2,000 chunks | ≥ 5 | not measured |  |" in written
