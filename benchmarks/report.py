"""From single turns to medians, spread and ratios, as JSON and as a table."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

Result = Mapping[str, Any]
Place = tuple[str, int, int]  # regime, chunks asked for, dimensions
# What CPU costs as Lambda's memory, which carries a processor for each 1,769 MB: arm64 in us-east-1, November 2026, and
# as if all of the time were CPU. docs/cost-and-scale.md has the whole bill, with waiting and all other services.
DOLLARS_A_CPU_S = 0.0000133334 * 1.769
NUMBERS = (
    "seconds",
    "chunks_a_s",
    "cpu_s_a_thousand",
    "peak_megabytes",
    "database_cpu_s",
    "provider_requests",
    "provider_connections",
    "database_connections",
    "rows",
)
HEAD = (
    "| contestant | chunks/s (least–most) | × Edda | CPU s per 1,000 | peak MB | requests | connections"
    " (provider, database) | database CPU s per 1,000 | correct |"
)


def summarised(results: Iterable[Result]) -> list[dict[str, Any]]:
    """For each place and contestant the medians of the turns that were correct, and what went wrong in the others."""
    groups: dict[tuple[Place, str], list[Result]] = defaultdict(list)
    for one in results:
        groups[(one["regime"], one["asked_chunks"], one["dimensions"]), one["contestant"]].append(one)
    summary = []
    for ((regime, chunks, dimensions), contestant), turns in groups.items():
        good = [one for one in turns if "error" not in one]
        line: dict[str, Any] = {
            "regime": regime,
            "asked_chunks": chunks,
            "dimensions": dimensions,
            "contestant": contestant,
            "chunks": turns[0]["chunks"],
            "turns": len(turns),
            "correct_turns": len(good),
            "errors": sorted({one["error"] for one in turns if "error" in one}),
        }
        if good:
            line |= {name: median(one[name] for one in good) for name in NUMBERS}
            rates = [one["chunks_a_s"] for one in good]
            line |= {"least_chunks_a_s": min(rates), "most_chunks_a_s": max(rates)}
            line["dollars_a_million"] = line["cpu_s_a_thousand"] * 1000 * DOLLARS_A_CPU_S
        summary.append(line)
    return summary


def table(summary: Sequence[Result], limits: Mapping[str, float | None]) -> str:
    """Markdown: one table a place, the fastest first. `limits` is by `place_name`."""
    lines: list[str] = []
    for place in dict.fromkeys((one["regime"], one["asked_chunks"], one["dimensions"]) for one in summary):
        here = [one for one in summary if (one["regime"], one["asked_chunks"], one["dimensions"]) == place]
        edda = next((one["chunks_a_s"] for one in here if one["contestant"] == "edda/deployed" and "rows" in one), None)
        regime, chunks, dimensions = place
        lines += [f"### {regime}, {chunks:,} chunks, {dimensions:,} dimensions", "", HEAD, "|---" * 9 + "|"]
        lines += [_row(one, edda) for one in sorted(here, key=lambda one: -one.get("chunks_a_s", 0))]
        if limit := limits.get(place_name(*place)):
            ratio = f" Edda as deployed reaches {edda / limit:.2f} of it." if edda else ""
            lines += ["", f"The limit here is {limit:,.0f} chunks/s.{ratio}"]
        lines.append("")
    return "\n".join(lines)


def place_name(regime: str, chunks: int, dimensions: int) -> str:
    return f"{regime} {chunks} {dimensions}"


def _row(one: Result, edda: float | None) -> str:
    fewer = f" ({one['chunks']:,} chunks)" if one["chunks"] < one["asked_chunks"] else ""
    said = "yes" if one["correct_turns"] == one["turns"] else f"{one['correct_turns']} of {one['turns']} turns"
    if one["errors"]:
        said += ": " + "; ".join(one["errors"])[:300].replace("|", "/")
    if "rows" not in one:
        return f"| {one['contestant']}{fewer} | | | | | | | | {said} |"
    times = f"{one['chunks_a_s'] / edda:.3f}" if edda else ""
    return (
        f"| {one['contestant']}{fewer} | {one['chunks_a_s']:,.0f} ({one['least_chunks_a_s']:,.0f}–"
        f"{one['most_chunks_a_s']:,.0f}) | {times} | {one['cpu_s_a_thousand']:.3f} | {one['peak_megabytes']:.0f} "
        f"| {one['provider_requests']:,.0f} | {one['provider_connections']:,.0f}, {one['database_connections']:,.0f} "
        f"| {one['database_cpu_s'] / one['chunks'] * 1000:.3f} | {said} |"
    )
