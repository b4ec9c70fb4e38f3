"""What the search function adds to its SQL: whole invocations in a process of their own, and where their time goes."""

import importlib.util
import json
import os
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import psycopg

ROOT = Path(__file__).resolve().parent.parent
MODEL = "in-process/all-MiniLM-L6-v2"
WARM = 5  # invocations before those that count


@dataclass
class Clock:
    """Seconds spent since it was last read."""

    sql_s: float = 0
    embedding_s: float = 0


@dataclass(frozen=True, slots=True)
class Context:
    """Lambda's."""

    def get_remaining_time_in_millis(self) -> int:
        return 29_000


class TimedEmbedder:
    """The embedder, with how long it took."""

    def __init__(self, embedder: Any, clock: Clock) -> None:
        self._embedder, self._clock = embedder, clock
        self.name, self.dimensions, self.limits = embedder.name, embedder.dimensions, embedder.limits

    async def embed(self, texts: Sequence[str], *, purpose: Literal["document", "query"], deadline: Any) -> Any:
        began = time.perf_counter()
        found = await self._embedder.embed(texts, purpose=purpose, deadline=deadline)
        self._clock.embedding_s += time.perf_counter() - began
        return found

    async def aclose(self) -> None:
        await self._embedder.aclose()


def handled(application_url: str, key: str, questions: Sequence[str], modes: Sequence[str]) -> dict[str, Any]:
    """Medians of the function's invocations by mode, in ms."""
    sys.path.insert(0, str(_model_folder().parent))
    os.environ |= {
        "EDDA_DATABASE_URL": application_url,
        "EDDA_EMBEDDING_PROVIDER": "in-process",
        "POWERTOOLS_SERVICE_NAME": "search",
        "AWS_DEFAULT_REGION": "eu-central-1",
    }
    clock = Clock()
    gateway = _gateway(clock)
    event = json.loads((ROOT / "events" / "search-question.json").read_text())
    event["headers"]["authorization"] = f"Bearer {key}"
    measured = {}
    for mode in modes:
        rows: list[tuple[float, float, float]] = []
        for question in questions:
            event["body"] = json.dumps({"query": question, "mode": mode})
            clock.sql_s = clock.embedding_s = 0
            began = time.perf_counter()
            answer = gateway(event, Context())
            took_s = time.perf_counter() - began
            assert answer["statusCode"] == 200, answer
            rows.append((took_s, clock.sql_s, clock.embedding_s))
        rows = rows[WARM:]
        total, sql, embedding = (1000 * statistics.median(column) for column in zip(*rows, strict=True))
        ratio = statistics.median((took - embedded) / in_sql for took, in_sql, embedded in rows)
        measured[mode] = {"total_ms": total, "sql_ms": sql, "embedding_ms": embedding, "ratio": ratio}
    return measured


def _gateway(clock: Clock) -> Any:
    """The function on its real services, whose statements and embedding are timed."""
    from edda import services

    execute = psycopg.AsyncCursor.execute

    async def timed(self: Any, *arguments: Any, **named: Any) -> Any:
        began = time.perf_counter()
        try:
            return await execute(self, *arguments, **named)
        finally:
            clock.sql_s += time.perf_counter() - began

    psycopg.AsyncCursor.execute = timed  # type: ignore[method-assign]  # this process does nothing else
    made: list[Any] = []

    async def provide() -> Any:
        if not made:
            real = await services.search_services()
            embedder = TimedEmbedder(real.searching.embedder, clock)
            made.append(replace(real, searching=replace(real.searching, embedder=embedder)))
        return made[0]

    spec = importlib.util.spec_from_file_location("search_app", ROOT / "functions" / "search" / "app.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.build(provide)


def _model_folder() -> Path:
    from local.model import minilm_folder

    return minilm_folder()
