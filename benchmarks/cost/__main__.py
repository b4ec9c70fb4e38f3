"""`make cost`, `make scale`: tables on standard output, plots as SVG. No network: assumptions.toml has the numbers.

`docs` writes the same tables and plots into docs/cost-and-scale.md and docs/plots.
"""

import argparse
import sys
from pathlib import Path

from benchmarks.cost import tables
from benchmarks.cost.assumptions import DEFAULT, load

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "cost-and-scale.md"
PLOTS = ROOT / "docs" / "plots"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cost", description=__doc__)
    parser.add_argument("what", choices=("cost", "scale", "docs"))
    parser.add_argument(
        "--assumptions", type=Path, default=DEFAULT, help="a copy of assumptions.toml with your numbers"
    )
    parser.add_argument("--measured", type=Path, help="a results.json of python -m benchmarks")
    parser.add_argument("--provider", help="scale: one of the file's providers")
    parser.add_argument("--plots", type=Path, default=ROOT / ".bench" / "cost", help="folder of the SVGs (.bench/cost)")
    arguments = parser.parse_args()
    try:
        assumptions = load(arguments.assumptions, arguments.measured)
        provider = assumptions.provider(arguments.provider or assumptions.scale.provider)
    except (OSError, ValueError, LookupError) as error:
        sys.exit(f"{error}")
    sections: list[tables.Section] = []
    plots: dict[str, str] = {}
    if arguments.what in {"cost", "docs"}:
        sections += tables.cost(assumptions)
        plots |= tables.cost_plots(assumptions)
    if arguments.what in {"scale", "docs"}:
        sections += tables.scale(assumptions, provider)
        plots |= tables.scale_plots(assumptions)
    folder = PLOTS if arguments.what == "docs" else arguments.plots
    folder.mkdir(parents=True, exist_ok=True)
    for name, plot in plots.items():
        (folder / name).write_text(plot)
    if arguments.what == "docs":
        DOCUMENT.write_text(tables.written_into(DOCUMENT.read_text(), sections))
        return
    print(f"Prices of {assumptions.as_of}, {assumptions.region}. Measured: {assumptions.measured.where}")
    for section in sections:
        print(f"\n## {section.title}\n\n{section.text}")
    print(f"\nplots: {folder}")


if __name__ == "__main__":
    main()
