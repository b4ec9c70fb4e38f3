"""The benchmark's harness, at its smallest. Nothing here says how fast anything is."""

import asyncio
import base64
import json
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from benchmarks.checking import check
from benchmarks.plans import PLANS
from benchmarks.postgres import PEER_TABLE, Fresh
from benchmarks.processes import RunningProvider, provider
from benchmarks.provider import Behaviour
from benchmarks.regimes import REGIMES
from benchmarks.vectors import Vectors
from tests.postgres import DatabaseUrls

ROOT = Path(__file__).parents[2]
DIMENSIONS = 384
ROWS = "SELECT text, embedding FROM chunks"
TEXTS = ["one text", "another\ntext", "a third"]


@pytest.fixture(scope="module")
def vectors() -> Vectors:
    return Vectors(DIMENSIONS)


@pytest.fixture
def fresh(database_urls: DatabaseUrls) -> Fresh:
    with psycopg.connect(database_urls.owner, autocommit=True) as connection:
        connection.execute("ALTER TABLE chunks RENAME TO edda_chunks")
        connection.execute(PEER_TABLE.format(dimensions=DIMENSIONS).encode())
    return Fresh(database_urls.owner, database_urls.owner, database_urls.app)


def store(fresh: Fresh, *rows: tuple[int, str, list[float]]) -> None:
    for number, text, vector in rows:
        fresh.rows("INSERT INTO chunks VALUES (%s, %s, %s)", [number, text, str(vector)])


@contextmanager
def mock(**behaviour: Any) -> Iterator[RunningProvider]:
    with provider(Behaviour(dimensions=DIMENSIONS, request_ms=0, text_ms=0, **behaviour)) as running:
        yield running


def ask(running: RunningProvider, texts: list[str], **options: Any) -> httpx.Response:
    body = {"model": "m", "input": texts, "dimensions": DIMENSIONS, **options}
    return httpx.post(f"{running.url}/v1/embeddings", json=body, trust_env=False)


def test_a_whole_run_stores_and_counts_what_it_should(state: Path) -> None:
    results_folder = state / "results"
    command = [sys.executable, "-m", "benchmarks", "smoke", "--state", str(state), "--results", str(results_folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    results = json.loads((results_folder / "results.json").read_text())
    assert {one["contestant"] for one in results["turns"]} == {"edda/deployed", "reference/plain"}
    for one in results["turns"]:
        assert "error" not in one, one["error"]
        assert one["rows"] == one["chunks"] == one["provider_texts"] == 50
        assert one["provider_requests"] >= 1
        assert one["provider_connections"] >= 1
        assert one["database_connections"] >= 1
    assert results["limits"]["bare_copy_rows_a_s"]
    assert "| edda/deployed |" in (results_folder / "results.md").read_text()


def test_environments_that_share_a_limit_are_counted(state: Path) -> None:
    options = ["--regime", "a-minute", "--environments", "2", "--seconds", "1", "--texts", "4", "--headers"]
    command = [sys.executable, "-m", "benchmarks.governing", "--state", str(state), *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    line = json.loads(done.stdout)
    assert line["requests"] >= 1
    assert line["failed"] == 0
    assert line["throttled"] <= line["refused_by_provider"]
    assert 0 < line["of_the_limit"] <= 1.1


def test_the_provider_says_the_same_in_base64_and_in_json(vectors: Vectors) -> None:
    with mock() as running:
        in_json = ask(running, TEXTS).json()["data"]
        in_base64 = ask(running, TEXTS, encoding_format="base64").json()["data"]
        assert running.stats()["texts"] == 2 * len(TEXTS)
    layout = f"<{DIMENSIONS}f"
    for text, plain, packed in zip(TEXTS, in_json, in_base64, strict=True):
        wanted = vectors.floats(text)
        assert plain["embedding"] == wanted
        assert struct.unpack(layout, base64.b64decode(packed["embedding"])) == pytest.approx(wanted, rel=1e-6)
        assert sum(value * value for value in wanted) == pytest.approx(1, abs=1e-6)


def test_the_provider_refuses_what_is_above_its_minute() -> None:
    with mock(requests_a_minute=60) as running:
        answers = [ask(running, ["text"]) for _ in range(8)]
    assert [answer.status_code for answer in answers].count(200) >= 5
    refused = [answer for answer in answers if answer.status_code == 429]
    assert refused
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)


def test_the_provider_says_its_limits_if_asked_to() -> None:
    with mock(tokens_a_minute=60_000, says_limits=True) as running:
        answer = ask(running, ["four letters" * 4])
    assert answer.headers["x-ratelimit-limit-tokens"] == "60000"
    assert int(answer.headers["x-ratelimit-remaining-tokens"]) == 5000 - 12
    with mock(tokens_a_minute=60_000) as running:
        assert "x-ratelimit-limit-tokens" not in ask(running, ["text"]).headers


def test_the_provider_fails_now_and_then_and_the_same_way_each_time() -> None:
    runs = []
    for _ in range(2):
        with mock(errors=0.3) as running:
            runs.append([ask(running, ["text"]).status_code for _ in range(30)])
    assert runs[0] == runs[1]
    assert set(runs[0]) == {200, 500}


def test_the_provider_lets_so_many_through_at_once() -> None:
    async def many(url: str) -> list[int]:
        async with httpx.AsyncClient(trust_env=False) as client:
            asking = [client.post(f"{url}/v1/embeddings", json={"model": "m", "input": "text"}) for _ in range(12)]
            return [answer.status_code for answer in await asyncio.gather(*asking)]

    with provider(Behaviour(request_ms=20, concurrent=3)) as running:
        assert asyncio.run(many(running.url)) == [200] * 12
        assert running.stats()["most_in_flight"] == 3


def test_what_was_stored_whole_is_correct(fresh: Fresh, vectors: Vectors) -> None:
    store(fresh, *((number, text, vectors.floats(text)) for number, text in enumerate(TEXTS)))
    assert check(fresh, ROWS, TEXTS, vectors) == (3, None)


def test_a_chunk_that_is_missing_or_double_is_found(fresh: Fresh, vectors: Vectors) -> None:
    store(fresh, *((number, text, vectors.floats(text)) for number, text in enumerate([*TEXTS[:2], TEXTS[0]])))
    assert check(fresh, ROWS, TEXTS, vectors) == (3, "1 of 3 chunks are missing, 1 rows are double")


def test_swapped_and_damaged_vectors_are_found(fresh: Fresh, vectors: Vectors) -> None:
    one, other, third = (vectors.floats(text) for text in TEXTS)
    store(fresh, (0, TEXTS[0], other), (1, TEXTS[1], one), (2, TEXTS[2], third))
    assert "is another's" in str(check(fresh, ROWS, TEXTS, vectors)[1])
    fresh.rows("DELETE FROM chunks")
    store(fresh, (0, TEXTS[0], one), (1, TEXTS[1], other), (2, TEXTS[2], [*third[:-1], 0.5]))
    assert "is damaged" in str(check(fresh, ROWS, TEXTS, vectors)[1])


@pytest.mark.parametrize("plan", PLANS)
def test_a_plan_names_what_there_is(plan: str) -> None:
    cells = PLANS[plan]()
    assert cells
    assert all(cell.contestants and cell.regime.name in REGIMES for cell in cells)
