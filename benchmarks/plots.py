"""Plots of a results folder, with matplotlib: `benchmarks/.venv/bin/python -m benchmarks.plots FOLDER`."""

import json
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt

mpl.use("svg")

Lines = list[dict[str, Any]]
UNITS = {
    "chunks_a_s": "chunks/s",
    "cpu_s_a_thousand": "CPU seconds for 1,000 chunks",
    "dollars_a_million": "dollars for 1,000,000 chunks (CPU alone, at Lambda's price)",
}


def main() -> None:
    folder = Path(sys.argv[1])
    results = json.loads((folder / "results.json").read_text())
    summary = [one for one in results["summary"] if "rows" in one]
    for (regime, chunks, dimensions), lines in _by_place(summary).items():
        name = f"{regime}-{chunks}-{dimensions}"
        title = f"{regime}, {chunks:,} chunks, {dimensions:,} dimensions"
        limit = results["limits"]["chunks_a_s"].get(f"{regime} {chunks} {dimensions}")
        _bars(folder / f"throughput-{name}.svg", title, "chunks_a_s", lines, limit)
        _bars(folder / f"cpu-{name}.svg", title, "cpu_s_a_thousand", lines)
        _bars(folder / f"cost-{name}.svg", title, "dollars_a_million", lines)
    growth = [one for one in summary if one["regime"] == "unlimited"]
    _curves(folder / "seconds-by-chunks.svg", growth, lambda one: one["chunks"], "chunks", "seconds")
    limited = [one for one in summary if one["regime"].startswith("concurrent-")]
    at_once = "requests that the provider takes at once"
    _curves(
        folder / "throughput-by-concurrency.svg",
        limited,
        lambda one: int(one["regime"].rpartition("-")[2]),
        at_once,
        "chunks_a_s",
    )


def _by_place(summary: Lines) -> Mapping[tuple[str, int, int], Lines]:
    places: dict[tuple[str, int, int], Lines] = defaultdict(list)
    for one in summary:
        places[one["regime"], one["asked_chunks"], one["dimensions"]].append(one)
    return places


def _bars(file: Path, title: str, name: str, lines: Lines, limit: float | None = None) -> None:
    """One bar a contestant, with the least and the most seen."""
    lines = sorted(lines, key=lambda one: one[name])
    figure, axes = plt.subplots(figsize=(8, 0.4 * len(lines) + 1.5), layout="constrained")
    colours = ["tab:orange" if one["contestant"].startswith("edda") else "tab:blue" for one in lines]
    values = [one[name] for one in lines]
    names = [f"{one['contestant']}  {_short(one[name])}" for one in lines]
    axes.barh(names, values, color=colours)
    if name == "chunks_a_s":
        spread = [
            [one[name] - one["least_chunks_a_s"] for one in lines],
            [one["most_chunks_a_s"] - one[name] for one in lines],
        ]
        axes.errorbar(values, range(len(lines)), xerr=spread, fmt="none", ecolor="black", capsize=3)
    if limit:
        axes.axvline(limit, color="tab:red", linestyle="--", label=f"limit: {limit:,.0f}")
        axes.legend()
    axes.set(xlabel=UNITS[name], title=title)
    figure.savefig(file)
    plt.close(figure)


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _curves(file: Path, lines: Lines, x: Callable[[dict[str, Any]], int], x_says: str, y: str) -> None:
    """A curve for each contestant that was measured at more than one place; each place at its largest size."""
    curves: dict[str, dict[int, tuple[int, float]]] = defaultdict(dict)
    for one in lines:
        points = curves[f"{one['contestant']}, {one['dimensions']}"]
        points[x(one)] = max(points.get(x(one), (0, 0.0)), (one["chunks"], one[y]))
    curves = {name: points for name, points in curves.items() if len(points) > 1}
    if not curves:
        return
    figure, axes = plt.subplots(figsize=(8, 6), layout="constrained")
    for name, points in curves.items():
        axes.plot(sorted(points), [points[place][1] for place in sorted(points)], marker="o", label=name)
    axes.set(xscale="log", yscale="log", xlabel=x_says, ylabel=UNITS.get(y, y))
    axes.legend(fontsize="small")
    figure.savefig(file)
    plt.close(figure)


if __name__ == "__main__":
    main()
