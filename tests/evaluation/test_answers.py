"""`make evaluate-answers` on our own judged questions: is what it prints of the documents as they are cut now?"""

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from edda import grounding
from rich.console import Console

from evaluation import faithful
from evaluation.__main__ import EXAMPLE
from evaluation.judged import Collection, Item
from local.settings import ROOT


def evaluate(state: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "evaluation.answers", "--corpus", str(EXAMPLE), "--state", str(state), *arguments]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("EDDA_")} | variables
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.timeout(300)
def test_other_settings_measure_other_chunks_in_the_same_state(state: Path) -> None:
    first, other = evaluate(state), evaluate(state, EDDA_CHUNK_TOKENS="65", EDDA_CHUNK_OVERLAP_TOKENS="0")
    for done in (first, other):
        assert done.returncode == 0, done.stderr + done.stdout
    assert first.stdout != other.stdout
    counts = re.search(r"(\d+) answered at 0\.33: a quote meets what is judged (\S+),", first.stdout)
    assert counts is not None
    assert int(counts[1]) >= 12
    assert float(counts[2]) > 0.9


def test_faithful_answers_are_counted_and_a_rule_that_rejects_them_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "Staff get 25 days of leave a year. Unused days expire in March."
    collection = Collection(
        name="leave",
        items=[Item("a", text=text)],
        queries={"q": "How many days of leave do staff get?"},
        qrels={"q": {"a": 1}},
        spans={},
    )

    def printed() -> list[str]:
        with io.StringIO() as file:
            faithful.measure(Console(file=file, width=120), collection, collection.judged)
            return file.getvalue().splitlines()

    assert [line.split()[-3:] for line in printed()[1:]] == [["0", "of", "1"]] * 4
    monkeypatch.setattr(grounding, "LEAST_SUPPORT", 1.1)
    assert any("1 of 1" in line for line in printed())
    assert any("says what the cited passages do not say" in line for line in printed())


@pytest.mark.timeout(300)
def test_what_the_api_refuses_is_told_without_a_traceback(state: Path) -> None:
    done = evaluate(state, "--mode", "magic")
    assert done.returncode != 0
    assert "Edda's API: 422" in done.stderr + done.stdout
    assert "Traceback" not in done.stderr
