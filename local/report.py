"""What a demo has to say: tables for people, JSON for programs."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from local.uploading import SentFile

PASSAGE_CHARACTERS = 160


@dataclass(frozen=True, slots=True)
class Search:
    """One question and its hits."""

    question: str
    seconds: float
    hits: Sequence[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Answered:
    """One question and its answer, as the API gave it."""

    question: str
    seconds: float
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Report:
    """One demo."""

    files: Sequence[SentFile]
    searches: Sequence[Search]
    seconds: float
    problems: Sequence[str]
    answers: Sequence[Answered] = ()

    @property
    def chunks(self) -> int:
        """Searchable ones."""
        return sum(file.chunks for file in self.files)

    def to_json(self) -> dict[str, Any]:
        """For REPORT=."""
        return {
            "totals": {
                "files": len(self.files),
                "statuses": dict(Counter(file.status for file in self.files)),
                "chunks": self.chunks,
                "seconds": round(self.seconds, 2),
                "chunks_per_second": round(self.chunks / self.seconds, 2),
            },
            "problems": list(self.problems),
            "files": [
                {
                    "name": file.name,
                    "way": file.way.value,
                    "document_id": file.document_id,
                    "status": file.status,
                    "reason": file.reason,
                    "chunks": file.chunks,
                    "seconds": None if file.seconds is None else round(file.seconds, 2),
                }
                for file in self.files
            ],
            "searches": [
                {"query": search.question, "seconds": round(search.seconds, 3), "hits": list(search.hits)}
                for search in self.searches
            ],
            "answers": [
                {"question": one.question, "seconds": round(one.seconds, 3), "answer": one.body} for one in self.answers
            ],
        }

    def write(self, path: Path) -> None:
        """As JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.to_json(), indent=2, ensure_ascii=False) + "\n")


def show(console: Console, report: Report) -> None:
    """Hits, then one line a file, then the totals."""
    for search in report.searches:
        console.print(_hits(search))
    for answered in report.answers:
        _show_answer(console, answered)
    console.print(_files(report))
    console.print(_totals(report))
    for problem in report.problems:
        console.print(f"[red]problem:[/] {escape(problem)}", soft_wrap=True)


def _hits(search: Search) -> Table:
    table = Table(
        title=f"“{escape(search.question)}”  ({search.seconds * 1000:.0f} ms)", title_justify="left", expand=True
    )
    table.add_column("score", justify="right", width=5)
    table.add_column("document", ratio=2)
    table.add_column("page or heading", ratio=2)
    table.add_column("passage", ratio=5)
    for hit in search.hits:
        text = " ".join(hit["text"].split())
        passage = text if len(text) <= PASSAGE_CHARACTERS else text[:PASSAGE_CHARACTERS] + " …"
        table.add_row(f"{hit['score']:.2f}", escape(hit["name"]), escape(_place(hit)), escape(passage))
    return table


def _show_answer(console: Console, answered: Answered) -> None:
    body = answered.body
    console.print(f"[bold]“{escape(answered.question)}”[/]  ({body['kind']}, {answered.seconds * 1000:.0f} ms)")
    console.print(escape(body["answer"]))
    for one in body["citations"]:
        place = ", ".join(part for part in (one["name"], _place(one)) if part)
        span = f"characters {one['char_start']}–{one['char_end']}"
        console.print(f"  \\[{one['marker']}] {escape(place)}, {span}", style="dim")
    console.print()


def _place(hit: dict[str, Any]) -> str:
    """Where in the document a hit stands."""
    page = [f"page {hit['page']}"] if hit.get("page") else []
    return ", ".join(page + [" › ".join(hit["heading_path"])] * bool(hit.get("heading_path")))


def _files(report: Report) -> Table:
    table = Table(title="Files", title_justify="left", expand=True)
    for heading, ratio in (("file", 5), ("way", 2), ("status", 2), ("reason", 4)):
        table.add_column(heading, ratio=ratio)
    table.add_column("chunks", justify="right")
    table.add_column("seconds", justify="right")
    for file in report.files:
        colour = {"ready": "green", "partial": "yellow"}.get(file.status, "red")
        seconds = "" if file.seconds is None else f"{file.seconds:.1f}"
        status = f"[{colour}]{escape(file.status)}[/]"
        table.add_row(escape(file.name), file.way, status, escape(file.reason or ""), str(file.chunks), seconds)
    return table


def _totals(report: Report) -> Table:
    table = Table(title="Summary", title_justify="left", show_header=False)
    statuses = Counter(file.status for file in report.files)
    table.add_row(
        "files", f"{len(report.files)} ({', '.join(f'{n} {status}' for status, n in statuses.most_common())})"
    )
    table.add_row("chunks", str(report.chunks))
    table.add_row("seconds", f"{report.seconds:.1f}")
    table.add_row("chunks per second", f"{report.chunks / report.seconds:.1f}")
    return table
