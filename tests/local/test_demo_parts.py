"""What the demo decides without a stack: which way a file goes, what counts as a problem, what the report says."""

import json
from pathlib import Path

import httpx
import pytest
from rich.console import Console

from local.client import ApiError, EddaClient
from local.demo import DOCUMENTS, problems_of
from local.report import Answered, Report, Search, show
from local.uploading import DIRECT_LIMIT_BYTES, SentFile, Way, files_of


def ended(status: str, reason: str | None = None, chunks: int = 0) -> SentFile:
    file = SentFile(Path(status), status, Way.BUCKET, chunks=chunks)
    file.end(status, reason, None)
    return file


def test_half_of_the_files_go_straight_into_the_bucket(tmp_path: Path) -> None:
    for number in range(8):
        (tmp_path / f"{number}.txt").write_text("x")

    ways = [file.way for file in files_of(tmp_path)]

    assert ways == [Way.BUCKET, Way.DIRECT, Way.BUCKET, Way.PRESIGNED] * 2


def test_a_file_too_large_for_one_request_gets_a_form(tmp_path: Path) -> None:
    (tmp_path / "0").touch()
    with (tmp_path / "1").open("wb") as large:
        large.truncate(DIRECT_LIMIT_BYTES + 1)

    assert files_of(tmp_path)[1].way is Way.PRESIGNED


def test_hidden_files_and_metadata_of_others_are_no_documents(tmp_path: Path) -> None:
    for name in ("a/.hidden/b.txt", ".c.txt", "d.txt", "d.txt.metadata.json", "e/d.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    assert [file.name for file in files_of(tmp_path)] == ["d.txt", "e/d.txt"]


def test_an_honest_failure_is_no_problem() -> None:
    assert (
        problems_of([ended("ready", chunks=1), ended("failed", "no_text"), ended("refused", "invalid_request")]) == []
    )


@pytest.mark.parametrize("status", ["sent", "waiting", "queued", "embedding"])
def test_a_stuck_document_is_a_problem(status: str) -> None:
    (problem,) = problems_of([ended("ready"), SentFile(Path("x"), "x", Way.BUCKET, status=status)])

    assert "stuck" in problem
    assert status in problem


def test_a_failure_without_a_reason_is_a_problem() -> None:
    assert problems_of([ended("ready"), ended("failed")]) == ["failed: failed without a reason"]


def test_nothing_searchable_is_a_problem() -> None:
    assert problems_of([ended("failed", "no_text")]) == ["not one file became searchable"]


def test_the_report_has_an_entry_for_each_file(tmp_path: Path) -> None:
    report = Report([ended("ready", chunks=3), ended("failed", "no_text")], [Search("q", 0.1, [])], 1.5, ["p"])

    report.write(tmp_path / "new" / "report.json")

    written = json.loads((tmp_path / "new" / "report.json").read_text())
    assert written["totals"] == {
        "files": 2,
        "statuses": {"ready": 1, "failed": 1},
        "chunks": 3,
        "seconds": 1.5,
        "chunks_per_second": 2.0,
    }
    assert [(file["status"], file["reason"], file["chunks"]) for file in written["files"]] == [
        ("ready", None, 3),
        ("failed", "no_text", 0),
    ]
    assert written["problems"] == ["p"]


@pytest.mark.parametrize("body", [b"", b"[]", b"<html>", b'{"message": "Internal Server Error"}'])
def test_an_answer_that_is_no_problem_document_is_still_an_error(body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = httpx.Response(502, content=body, request=httpx.Request("GET", "http://api"))
    monkeypatch.setattr(httpx.Client, "get", lambda *_, **__: answer)

    with EddaClient("http://api", "key") as api, pytest.raises(ApiError, match="502"):
        list(api.documents())


def test_the_documents_that_ship_are_of_many_kinds() -> None:
    kinds = {file.path.suffix for file in files_of(DOCUMENTS)}

    assert {".md", ".txt", ".html", ".csv", ".json", ".docx", ".pdf", ".xlsx", ".eml"} <= kinds


def test_an_answer_is_shown_with_the_place_of_each_quote() -> None:
    citation = {
        "marker": 1, "name": "a.pdf", "page": 2, "heading_path": ["[Leave]"], "char_start": 7, "char_end": 19,
    }  # fmt: skip
    body = {"kind": "extractive", "answer": "25 days [1]", "citations": [citation]}
    console = Console(record=True, width=100)
    show(console, Report([ended("ready", chunks=3)], [], 1.0, [], [Answered("How [many]?", 0.1, body)]))
    shown = console.export_text()
    assert "“How [many]?”  (extractive, 100 ms)\n25 days [1]\n" in shown
    assert "[1] a.pdf, page 2, [Leave], characters 7–19" in shown
