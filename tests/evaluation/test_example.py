"""Our own judged questions, through the functions in this process: is what comes out right? Nothing about time."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from evaluation.__main__ import EXAMPLE, SCORER
from evaluation.judged import load, missing_documents
from local.settings import ROOT
from tests.folders import state_folder

pytestmark = pytest.mark.skipif(not SCORER.exists(), reason="the scorer is not installed: make evaluation/.venv/.ready")
MODES = ("hybrid", "vector", "text")


def evaluate(state: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "evaluation", "--state", str(state), *arguments]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("EDDA_")}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def results(state: Path) -> Path:
    """Of one run of all modes."""
    folder = state / "first"
    done = evaluate(state, "--results", str(folder))
    assert done.returncode == 0, done.stderr + done.stdout
    assert "11 documents, 20 of 20 questions judged" in done.stdout
    assert "not found by any search: 1 no_text" in done.stdout
    return folder


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_judged_document_is_in_the_example() -> None:
    assert missing_documents(load(EXAMPLE)) == []


@pytest.mark.timeout(300)
def test_the_right_documents_are_found(results: Path) -> None:
    scores = json.loads((results / "scores.json").read_text())["scores"]
    assert set(scores) == set(MODES)
    assert scores["hybrid"]["nDCG@10"]["mean"] > 0.85
    assert scores["vector"]["Recall@100"]["mean"] == scores["hybrid"]["Recall@100"]["mean"] == 1
    settings = json.loads((results / "run.json").read_text())["settings"]
    assert (
        settings.items() >= {"chunk_tokens": 200, "embedding_provider": "in-process", "rerank_provider": "none"}.items()
    )
    assert not [name for name in settings if "key" in name]


@pytest.mark.timeout(300)
def test_identifiers_are_found_first_by_words(results: Path) -> None:
    first = {hit["query"]: hit["document"] for hit in lines(results / "hits-text.jsonl") if hit["rank"] == 1}
    assert first["order"] == "supplier-mail.eml"
    assert first["extension"] == "cold-store-runbook.txt"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mode", MODES)
def test_the_run_says_where_each_hit_is(results: Path, mode: str) -> None:
    hits = lines(results / f"hits-{mode}.jsonl")
    ranks: dict[str, list[int]] = {}
    for hit in hits:
        ranks.setdefault(hit["query"], []).append(hit["rank"])
    assert all(found == list(range(1, len(found) + 1)) for found in ranks.values())
    text = (EXAMPLE / "docs" / "handbook.md").read_text()
    handbook = [hit for hit in hits if hit["document"] == "handbook.md"]
    assert handbook
    assert all(0 <= hit["start"] < hit["end"] <= len(text) for hit in handbook)
    trec = [line.split("\t") for line in (results / f"run-{mode}.trec").read_text().splitlines()]
    assert [(line[0], line[2], int(line[3])) for line in trec] == [
        (hit["query"], hit["document"], hit["rank"]) for hit in hits
    ]


@pytest.mark.timeout(300)
def test_a_second_run_finds_its_documents_and_is_compared(results: Path, state: Path) -> None:
    again = state / "second"
    done = evaluate(state, "--results", str(again), "--modes", "vector", "--baseline", str(results / "scores.json"))
    assert done.returncode == 0, done.stderr + done.stdout
    assert "against the baseline" in done.stdout
    compared = json.loads((again / "scores.json").read_text())["differences"]["vector"]
    assert {one["mean"] for one in compared.values()} == {0}
    other = evaluate(state, "--depth", "7", "--baseline", str(results / "scores.json"))
    assert other.returncode == 2
    assert "is of another depth: 100, and not 7" in other.stderr
    assert (again / "run-vector.trec").read_text() == (results / "run-vector.trec").read_text()


INTERRUPTED = """
import sys
from pathlib import Path
from evaluation import api
from evaluation.__main__ import EXAMPLE, settings_of, tenant_of
from evaluation.in_process import in_process
from evaluation.judged import load
collection = load(EXAMPLE)
with in_process(Path(sys.argv[1]), tenant_of(collection, settings_of({})), {}) as route:
    client = api.Api(route.http)
    limit, api.DIRECT_LIMIT_BYTES = api.DIRECT_LIMIT_BYTES, 10
    client.upload(collection.items[0])  # with a form
    api.DIRECT_LIMIT_BYTES = limit
    route.work(last=True)
    assert [one["status"] for one in client.documents()] == ["ready"]
    for item in collection.items[1:4]:
        client.upload(item)  # and nobody works on them
"""


@pytest.mark.timeout(300)
def test_a_run_that_was_interrupted_is_taken_up() -> None:
    with state_folder("evaluation") as state:
        subprocess.run([sys.executable, "-c", INTERRUPTED, state], cwd=ROOT, check=True)
        done = evaluate(state, "--modes", "text", "--results", str(state / "results"))
        assert done.returncode == 0, done.stderr + done.stdout
        assert json.loads((state / "results" / "run.json").read_text())["states"] == {"ready": 10, "no_text": 1}
        assert "3 documents have changed, or were left behind: deleted and uploaded again" in " ".join(
            done.stdout.split()
        )


@pytest.mark.timeout(300)
def test_ways_to_chunk_are_compared_without_a_database(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "evaluation.offline",
        "--state",
        str(tmp_path),
        "structure:300/0",
        "sentence:100/0",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    whole, single = (tmp_path / "results" / f"example-{way}" for way in ("structure-300-0", "sentence-100-0"))
    assert len(done.stdout.splitlines()) == 2 * len(MODES)
    assert json.loads((whole / "scores.json").read_text())["scores"]["hybrid"]["nDCG@10"]["mean"] > 0.85
    assert json.loads((single / "scores.json").read_text())["differences"].keys() == set(MODES)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--corpus", "nowhere"], "nowhere is no folder"),
        (["--modes", "hybrid,magic"], "no mode of search: magic"),
        (["--api", "http://127.0.0.1:1", "--key", "k", "--chunk-tokens", "100"], "a deployment cuts as its template"),
        (["--baseline", "nowhere"], "nowhere is no file"),
        (["--baseline", "Makefile"], "Makefile is no scores.json of an evaluation"),
        (["--chunk-tokens", "0"], "chunk_tokens: Input should be greater than or equal to 20"),
        (["--chunk-tokens", "40"], "EDDA_CHUNK_OVERLAP_TOKENS may be half of EDDA_CHUNK_TOKENS at most"),
        (["--k", "5"], "unrecognized arguments: --k 5"),
        (["--api", "http://127.0.0.1:9", "--key", ""], "an API needs a key"),
        (["--api", "http://127.0.0.1:9", "--key", "k"], "Edda's API:"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(tmp_path: Path, arguments: list[str], said: str) -> None:
    done = evaluate(tmp_path, *arguments)
    assert done.returncode in (1, 2)
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "results").exists()
