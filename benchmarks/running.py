"""Turns, interleaved: every contestant once, in another order each time, and again."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.checking import check
from benchmarks.contestants import ROOT, Contestant
from benchmarks.corpus import corpus, read
from benchmarks.postgres import Fresh, Server
from benchmarks.processes import Failed, RunningProvider, provider, turn
from benchmarks.regimes import Regime
from benchmarks.vectors import Vectors


@dataclass(frozen=True, slots=True)
class Cell:
    """One row of the plan: these contestants under the same circumstances."""

    regime: Regime
    chunks: int
    dimensions: int
    contestants: Sequence[Contestant]
    repetitions: int


@dataclass(frozen=True, slots=True)
class Stage:
    """What all turns share."""

    server: Server
    state: Path
    texts: Path | None
    turn_within_s: float
    profile: bool = False


@dataclass(frozen=True, slots=True)
class _Counters:
    """What counts up on both sides of a contestant."""

    database_cpu_s: float
    provider_cpu_s: float
    provider: dict[str, int]
    sessions: int  # open now

    @classmethod
    def now(cls, server: Server, mock: RunningProvider, fresh: Fresh) -> "_Counters":
        return cls(server.cpu_s, mock.cpu_s, mock.stats(), fresh.sessions)


def turns(stage: Stage, cells: Sequence[Cell]) -> Iterator[dict[str, Any]]:
    """One result after another."""
    for cell in cells:
        for repetition in range(cell.repetitions):
            shift = repetition % len(cell.contestants)
            for contestant in [*cell.contestants[shift:], *cell.contestants[:shift]]:
                yield _turn(stage, cell, contestant, repetition)


def _turn(stage: Stage, cell: Cell, contestant: Contestant, repetition: int) -> dict[str, Any]:
    chunks = min(cell.chunks, contestant.most_chunks or cell.chunks)
    result: dict[str, Any] = {
        "contestant": contestant.title,
        "regime": cell.regime.name,
        "asked_chunks": cell.chunks,
        "chunks": chunks,
        "dimensions": cell.dimensions,
        "repetition": repetition,
        "load": round(os.getloadavg()[0], 2),
    }
    if contestant.missing:
        return result | {"error": contestant.missing}
    try:
        with stage.server.fresh(contestant.database, cell.dimensions) as fresh:
            return result | _measure(stage, cell, contestant, chunks, fresh)
    except Failed as error:
        return result | {"error": str(error)}


def _measure(stage: Stage, cell: Cell, contestant: Contestant, chunks: int, fresh: Fresh) -> dict[str, Any]:
    texts = corpus(stage.state, chunks, stage.texts)
    _index(contestant, cell.regime, fresh)
    with provider(replace(cell.regime.behaviour, dimensions=cell.dimensions)) as mock:
        task = {
            "variant": contestant.variant,
            "corpus": str(texts),
            "chunks": chunks,
            "dimensions": cell.dimensions,
            "live_index": cell.regime.live_index,
            "profile": stage.profile,
            "base_url": f"{mock.url}/v1",
            "database_url": fresh.url_for(contestant.database),
            "owner_url": fresh.owner_url,
        }
        environment = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        environment |= {"PYTHONPATH": f"{ROOT}:{ROOT / 'benchmarks' / 'peers'}", "OPENAI_API_KEY": "benchmark"}
        before: list[_Counters] = []
        log = stage.state / "logs" / f"{contestant.name}-{contestant.variant}-{cell.regime.name}.log"
        task_file = log.with_suffix(".task.json")
        task_file.parent.mkdir(parents=True, exist_ok=True)
        task_file.write_text(json.dumps(task))
        effort = turn(
            [*contestant.command, str(task_file)],
            environment,
            log,
            stage.turn_within_s,
            at_go=lambda: before.append(_Counters.now(stage.server, mock, fresh)),
        )
        after = _Counters.now(stage.server, mock, fresh)
    rows, wrong = check(fresh, contestant.rows, read(texts), _vectors(cell.dimensions))
    return {
        "seconds": effort.seconds,
        "chunks_a_s": chunks / effort.seconds,
        "cpu_s": effort.cpu_s,
        "cpu_s_a_thousand": effort.cpu_s / chunks * 1000,
        "peak_megabytes": effort.peak_megabytes,
        "database_cpu_s": after.database_cpu_s - before[0].database_cpu_s,
        "provider_cpu_s": after.provider_cpu_s - before[0].provider_cpu_s,
        "database_connections": max(after.sessions, before[0].sessions),
        "rows": rows,
        "said": effort.said,
        **{f"provider_{name}": value for name, value in after.provider.items()},
        **({"error": wrong} if wrong else {}),
    }


_vectors = cache(Vectors)


def _index(contestant: Contestant, regime: Regime, fresh: Fresh) -> None:
    """What writes into a live index finds one. Edda builds its own afterwards: `benchmarks.index` measures that."""
    if regime.live_index and contestant.index:
        fresh.rows(contestant.index)


def as_json(cell: Cell) -> dict[str, Any]:
    return {
        "regime": cell.regime.name,
        "says": cell.regime.says,
        "behaviour": asdict(cell.regime.behaviour),
        "chunks": cell.chunks,
        "dimensions": cell.dimensions,
        "repetitions": cell.repetitions,
    }
