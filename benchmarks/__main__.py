"""`python -m benchmarks quick`: run a plan, and write results.json, results.md and plots."""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from typing import Any

from benchmarks.contestants import CONTESTANTS, ROOT
from benchmarks.corpus import corpus, read
from benchmarks.limits import Ceiling, bare_copy, provider_ceiling
from benchmarks.plans import PLANS
from benchmarks.postgres import server
from benchmarks.reach import aims
from benchmarks.reach import table as reach_table
from benchmarks.regimes import REGIMES
from benchmarks.report import place_name, summarised, table
from benchmarks.running import Cell, Stage, as_json, turns
from benchmarks.vectors import Vectors

STATE = ROOT / ".bench"
PLOTTER = ROOT / "benchmarks" / ".venv" / "bin" / "python"  # with matplotlib


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("plan", choices=PLANS)
    parser.add_argument("--state", type=Path, default=STATE, help="folder of database, corpus and logs (.bench)")
    parser.add_argument("--results", type=Path, help="folder of the results (the state's, by plan and time)")
    parser.add_argument("--texts", type=Path, help="a folder of text files to cut the corpus from")
    parser.add_argument(
        "--only", nargs="+", choices=CONTESTANTS, metavar="NAME", help="these, everywhere: " + ", ".join(CONTESTANTS)
    )
    parser.add_argument(
        "--regime", nargs="+", choices=REGIMES, metavar="NAME", help="these regimes: " + ", ".join(REGIMES)
    )
    parser.add_argument("--dimensions", type=int, choices=(384, 1536), help="only vectors of this size")
    parser.add_argument("--chunks", type=_positive, help="so many everywhere")
    parser.add_argument("--repetitions", type=_positive, help="so many everywhere")
    parser.add_argument("--turn-within", type=float, default=600, metavar="S", help="a turn is given up after this")
    parser.add_argument("--profile", action="store_true", help="Edda under cProfile, into the logs; slows it down")
    arguments = parser.parse_args()
    began = datetime.now(UTC)
    cells = _cells(arguments)
    if not cells:
        parser.error(f"the plan {arguments.plan} measures nothing of that")
    folder = arguments.results or arguments.state / "results" / f"{arguments.plan}-{began:%Y%m%d-%H%M%S}"
    folder.mkdir(parents=True, exist_ok=True)
    results: list[dict[str, Any]] = []
    with alone(arguments.state), server(arguments.state.resolve()) as running:
        stage = Stage(running, arguments.state.resolve(), arguments.texts, arguments.turn_within, arguments.profile)
        limits = _limits(stage, cells)
        for line in _said_of_limits(limits):
            _say(line)
        for result in turns(stage, cells):
            results.append(result)
            _say(_line(result))
            with (folder / "turns.jsonl").open("a") as file:
                file.write(json.dumps(result) + "\n")
    summary = summarised(results)
    aimed = aims(summary, limits["chunks_a_s"])
    machine = _machine()
    head = [f"{began:%d %B %Y, %H:%M} UTC. {_in_words(machine, results)}", f"`{' '.join(sys.argv)}`"]
    head += [f"{name}: {REGIMES[name].says}." for name in dict.fromkeys(cell.regime.name for cell in cells)]
    written = "\n\n".join([*head, *_said_of_limits(limits), reach_table(aimed), table(summary, limits["chunks_a_s"])])
    everything = {
        "began": began.isoformat(),
        "machine": machine,
        "command": sys.argv,
        "plan": [as_json(cell) for cell in cells],
        "limits": limits,
        "reach": [asdict(one) | {"reached": one.reached} for one in aimed],
        "summary": summary,
        "turns": results,
    }
    (folder / "results.json").write_text(json.dumps(everything, indent=1))
    (folder / "results.md").write_text(written)
    print(written)
    if PLOTTER.exists():
        subprocess.run([PLOTTER, "-m", "benchmarks.plots", folder], cwd=ROOT, check=True)
    print(f"results: {folder}")


@contextmanager
def alone(state: Path) -> Iterator[None]:
    """Two runs in one folder would be on one another's database, and on one another's nerves."""
    state.mkdir(parents=True, exist_ok=True)
    with (state / "lock").open("w") as file:
        try:
            flock(file, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            sys.exit(f"another run is using {state}")
        yield


def _cells(arguments: argparse.Namespace) -> list[Cell]:
    cells = PLANS[arguments.plan]()
    if arguments.regime:
        cells = [cell for cell in cells if cell.regime.name in arguments.regime]
    if arguments.dimensions:
        cells = [cell for cell in cells if cell.dimensions == arguments.dimensions]
    if arguments.only:  # also who is not in the plan
        wanted = [CONTESTANTS[name] for name in arguments.only]
        cells = [replace(cell, contestants=wanted) for cell in cells]
    changed: dict[str, Any] = {}
    if arguments.chunks:
        changed["chunks"] = arguments.chunks
    if arguments.repetitions:
        changed["repetitions"] = arguments.repetitions
    cells = [replace(cell, **changed) for cell in cells if cell.contestants]
    return list({(cell.regime.name, cell.chunks, cell.dimensions, *cell.contestants): cell for cell in cells}.values())


def _limits(stage: Stage, cells: list[Cell]) -> dict[str, Any]:
    """Measured here and now, as everything else is."""
    ceilings: dict[str, Ceiling] = {}
    copies: dict[str, float] = {}
    chunks_a_s: dict[str, float | None] = {}
    for cell in cells:
        texts = read(corpus(stage.state, cell.chunks, stage.texts))
        size = f"{cell.chunks} {cell.dimensions}"
        if size not in copies:
            copies[size] = bare_copy(stage.server, texts[:20_000], Vectors(cell.dimensions))
        tokens = sum(map(len, texts)) / 4 / len(texts)
        limit = cell.regime.provider_limit(cell.chunks, tokens)
        chunks_a_s[place_name(cell.regime.name, cell.chunks, cell.dimensions)] = min(
            copies[size], limit or copies[size]
        )
    largest = max(cells, key=lambda cell: cell.chunks)
    texts = read(corpus(stage.state, largest.chunks, stage.texts))[:20_000]
    for dimensions in sorted({cell.dimensions for cell in cells}):
        for at_once in (1, 128):
            if len(texts) >= at_once:
                ceiling = provider_ceiling(texts[:5000], dimensions, at_once)
                ceilings[f"{dimensions} dimensions, {at_once} a request"] = ceiling
    return {
        "provider": {name: asdict(one) for name, one in ceilings.items()},
        "bare_copy_rows_a_s": copies,
        "chunks_a_s": chunks_a_s,
    }


def _said_of_limits(limits: dict[str, Any]) -> list[str]:
    ceilings = [f"{one['texts_a_s']:,.0f} texts/s at {name}" for name, one in limits["provider"].items()]
    copies = [
        f"{rate:,.0f} rows/s of {size.replace(' ', ' × ')}" for size, rate in limits["bare_copy_rows_a_s"].items()
    ]
    return [f"The mock provider's ceiling: {'; '.join(ceilings)}.", f"A bare COPY: {'; '.join(copies)}."]


def _in_words(machine: dict[str, Any], results: list[dict[str, Any]]) -> str:
    loads = [one["load"] for one in results]
    return (
        f"{machine['cores']} cores, {machine['processor']}, Python {machine['python']}, Node {machine['node']}; "
        f"load before a turn {min(loads):.1f} to {max(loads):.1f}."
    )


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise ValueError
    return number


def _machine() -> dict[str, Any]:
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    node = subprocess.run(["node", "--version"], capture_output=True, text=True, check=False)
    return {
        "system": platform.platform(),
        "processor": model[1] if model else platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "node": node.stdout.strip(),
        "load": os.getloadavg(),
    }


def _line(result: dict[str, Any]) -> str:
    figures = f"{result['chunks_a_s']:,.0f} chunks/s, {result['cpu_s']:.2f} s of CPU" if "seconds" in result else ""
    place = f"{result['regime']} {result['chunks']}×{result['dimensions']}"
    return f"{place} {result['contestant']}: {figures} {result.get('error', '')}".rstrip()


def _say(text: str) -> None:
    print(f"{datetime.now(UTC):%H:%M:%S} {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted; the turns so far are in the results' turns.jsonl")
