"""Runs as they are written, and what the scorer makes of them, in its own environment."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from evaluation.__main__ import SCORER
from evaluation.api import Hit
from evaluation.judged import Collection, Span
from evaluation.runs import ranked_documents, write_documents, write_facts, write_judgements, write_passages
from local.settings import ROOT

needs_scorer = pytest.mark.skipif(
    not SCORER.exists(), reason="the scorer is not installed: make evaluation/.venv/.ready"
)


def hit(item_id: str, score: float, span: Span = (0, 10)) -> Hit:
    return Hit(item_id, f"chunk of {item_id}", *span, score, None)


def written(folder: Path, found: dict[str, list[Hit]], **judged: Any) -> Path:
    folder.mkdir()
    empty: dict[str, Any] = {"qrels": {}, "spans": {}}
    queries = {query: "?" for documents in judged.values() for query in documents}
    write_judgements(folder, Collection("hand-made", [], queries, **(empty | judged)))
    (write_documents if "qrels" in judged else write_passages)(folder, "text", found)
    write_facts(folder, {"collection": "hand-made", "modes": ["text"], "depth": 100})
    return folder


def score(folder: Path, *arguments: str) -> dict[str, Any]:
    command = [str(SCORER), "-W", "error", "-m", "evaluation.scoring", str(folder), *arguments]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    found: dict[str, Any] = json.loads((folder / "scores.json").read_text())
    assert (folder / "scores.svg").read_text().startswith("<?xml")
    return found


def means(scores: dict[str, Any]) -> dict[str, float]:
    return {name: one["mean"] for name, one in scores["scores"]["text"].items()}


def test_a_document_stands_where_its_best_passage_does_and_equal_scores_keep_their_order() -> None:
    hits = [hit("b", 0.5), hit("a", 0.5), hit("b", 0.5), hit("c", 0.1), hit("a", 0.1)]
    ranked = list(ranked_documents(hits))
    assert [item for item, _ in ranked] == ["b", "a", "c"]
    assert ranked[0][1] > ranked[1][1] > ranked[2][1]
    assert ranked[1][1] == pytest.approx(0.5)


@needs_scorer
def test_measures_are_of_no_more_documents_than_were_asked_for(tmp_path: Path) -> None:
    folder = written(tmp_path / "r", {"q1": [hit("d0", 0.5), hit("d1", 0.4)]}, qrels={"q1": {"d1": 1, "d2": 1}})
    write_facts(folder, {"collection": "hand-made", "modes": ["text"], "depth": 2})
    assert means(score(folder)).keys() == {"nDCG@2", "Recall@2", "MRR@2", "MAP"}


@needs_scorer
def test_scores_are_those_of_trec_eval(tmp_path: Path) -> None:
    qrels = {"q1": {"d1": 1}, "q2": {"d1": 1, "d2": 1}, "q3": {"d1": 1}, "q4": {"d1": 0}}
    found = {
        "q1": [hit("d1", 0.5), hit("d0", 0.5)],  # at the top, of two that are equal
        "q2": [hit("d9", 0.9), hit("d2", 0.8)],  # one of two, second
        "q4": [hit("d1", 1.0)],  # nothing is relevant: it does not count
    }  # q3: nothing was found, which counts
    scores = score(written(tmp_path / "run", found, qrels=qrels))
    assert means(scores) == pytest.approx(
        {
            "nDCG@10": (1 + 0.6309297536 / 1.6309297536 + 0) / 3,
            "Recall@100": (1 + 0.5 + 0) / 3,
            "MRR@10": (1 + 0.5 + 0) / 3,
            "MAP": (1 + 0.25 + 0) / 3,
        }
    )
    assert scores["per_question"]["text"]["MRR@10"] == {"q1": 1, "q2": 0.5, "q3": 0}
    interval = scores["scores"]["text"]["MRR@10"]
    assert 0 <= interval["low"] < interval["mean"] < interval["high"] <= 1


@needs_scorer
def test_passages_are_scored_by_characters(tmp_path: Path) -> None:
    spans = {"q1": {"d1": [(0, 10), (5, 20)]}, "q2": {"d1": [(5000, 5010)]}, "q3": {"d1": [(0, 5)]}}
    found = {
        "q1": [hit("d2", 0.9, (0, 20)), hit("d1", 0.8, (10, 30)), hit("d1", 0.7, (15, 40))],
        "q2": [hit("d1", 0.9, (0, 4005)), hit("d1", 0.8, (5000, 5010))],
        "q3": [hit("d2", 0.9, (index, index + 1)) for index in range(5)] + [hit("d1", 0.1, (0, 5))],
    }
    assert means(score(written(tmp_path / "run", found, spans=spans))) == pytest.approx(
        {
            "characters@5": (0.5 + 1 + 0) / 3,
            "characters@5/4000": (0.5 + 0 + 0) / 3,
            "precision@5": (10 / 50 + 10 / 4015 + 0) / 3,
            "IoU@5": (10 / 60 + 10 / 4015 + 0) / 3,
        }
    )


@needs_scorer
@pytest.mark.parametrize(("better", "is_significant"), [(12, True), (2, False)])
def test_a_difference_to_the_baseline_is_tested_in_pairs(tmp_path: Path, better: int, is_significant: bool) -> None:
    def run_of(first: Sequence[str]) -> dict[str, list[Hit]]:
        return {f"q{n}": [hit(item, 0.9), hit("d1" if item == "d0" else "d0", 0.8)] for n, item in enumerate(first)}

    qrels = {f"q{n}": {"d1": 1} for n in range(20)}
    before = written(tmp_path / "before", run_of(["d0"] * 20), qrels=qrels)
    score(before)
    now = written(tmp_path / "now", run_of(["d1"] * better + ["d0"] * (20 - better)), qrels=qrels)
    compared = score(now, "--baseline", str(before / "scores.json"))["differences"]["text"]
    assert compared["MRR@10"]["mean"] == pytest.approx(0.5 * better / 20)
    assert (compared["MRR@10"]["better"], compared["MRR@10"]["worse"]) == (better, 0)
    assert (compared["MRR@10"]["p"] < 0.05) is is_significant
    assert compared["Recall@100"] | {"low": 0, "high": 0} == compared["Recall@100"]
    assert compared["Recall@100"]["p"] == 1
