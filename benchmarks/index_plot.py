"""The curves of `benchmarks.index`: `benchmarks/.venv/bin/python -m benchmarks.index_plot FOLDER`."""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt

mpl.use("svg")

PANELS = ("rows accepted and searchable", "rows no index covers", "search, ms", "recall@10, mean of 20")
MEAN_OF = 20


def main() -> None:
    folder = Path(sys.argv[1])
    ways = json.loads((folder / "results.json").read_text())["ways"]
    figure, panels = plt.subplots(len(PANELS), 1, figsize=(9, 12), sharex=True, layout="constrained")
    for way, measured in ways.items():
        written, searches = measured["written"], measured["searches"]
        at_s = [one["at_s"] for one in searches]
        rate = written[-1][1] / written[-1][0]
        panels[0].plot(*zip(*written, strict=True), label=f"{way}: {rate:,.0f} rows/s")
        if way == "segments":
            panels[1].plot(at_s, [one["tail"] for one in searches], label=way, color="tab:green")
        panels[2].plot(at_s, [one["took_s"] * 1000 for one in searches], ".", markersize=3, label=way)
        panels[3].plot(at_s, _means(searches), label=way)
    panels[2].set_yscale("log")
    for panel, title in zip(panels, PANELS, strict=True):
        panel.set_title(title)
        panel.grid(visible=True, alpha=0.3)
        panel.legend()
    panels[3].axhline(0.97, color="grey", linestyle="--")
    panels[-1].set_xlabel("seconds")
    figure.savefig(folder / "curve.svg")


def _means(searches: list[dict[str, Any]]) -> list[float]:
    """Of each search and those before it."""
    recalls = [one["recall"] for one in searches]
    return [sum(recalls[max(0, n - MEAN_OF + 1) : n + 1]) / min(n + 1, MEAN_OF) for n in range(len(recalls))]


if __name__ == "__main__":
    main()
