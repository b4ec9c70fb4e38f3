"""`make demo`: files in, passages out, through the real template on this machine."""

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import httpx
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from local import deploy, report
from local.client import ApiError, EddaClient
from local.errors import LocalError
from local.report import Answered, Report, Search
from local.settings import ROOT, LocalSettings, add_arguments, from_arguments
from local.stack import Stack, create_api_key, run, stack
from local.uploading import Sender, SentFile, files_of, sending
from local.watching import FINAL, watch

DOCUMENTS = ROOT / "local" / "documents"
QUESTIONS = (  # about the documents that ship with the project
    "How many days of holiday do I get?",
    "Who do I call when the cold store is too warm?",
    "Wie lange ist die Kündigungsfrist in der Probezeit?",
    "What does the courier charge for a parcel of 12 kg?",
)
DERIVED_QUESTIONS = 3
DERIVED_WORDS = 12
TOP_K = 3


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="make demo", description="Upload a folder to a local stack, wait for its documents, search them."
    )
    parser.add_argument("--documents", type=Path, default=DOCUMENTS, help="folder to upload (make demo DOCS=folder)")
    parser.add_argument("--report", type=Path, help="write the outcome there as JSON (make demo REPORT=file)")
    parser.add_argument("--query", action="append", default=[], help="a question to search for; may be repeated")
    parser.add_argument("--deadline-s", type=float, default=900, help="longest wait for all documents (default: 900)")
    add_arguments(parser)
    options = parser.parse_args()
    return run(lambda: demo(from_arguments(options), options))


def demo(settings: LocalSettings, options: argparse.Namespace) -> int:
    """The exit code: 0 if every file came to an end that it should. Raises LocalError."""
    folder = options.documents.expanduser().resolve()
    files = files_of(folder) if folder.is_dir() else []
    if not files:
        raise LocalError(f"{folder} holds no files")
    console = Console()
    console.print(f"Edda demo: {len(files)} files of {os.path.relpath(folder)}")
    with stack(settings) as running:
        outcome = _ingest_and_search(running, console, files, folder, options)
        report.show(console, outcome)
        if options.report:
            outcome.write(options.report)
        if outcome.problems:
            console.print(f"logs: {settings.logs}")
    return 1 if outcome.problems else 0


def _ingest_and_search(
    running: Stack, console: Console, files: Sequence[SentFile], folder: Path, options: argparse.Namespace
) -> Report:
    """Each run is a tenant of its own: nothing is there before, and nothing was embedded before."""
    tenant = f"demo-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    key = create_api_key(running.database, tenant)
    with EddaClient(running.deployment.api_url, key) as api:
        sender = Sender(api, deploy.client(running.settings, "s3"), running.deployment.uploads_bucket, tenant)
        began = time.monotonic()
        with _progress(console, files) as show, sending(sender, files):
            problems = watch(api, files, options.deadline_s, show)
        seconds = time.monotonic() - began
        problems += problems_of(files)
        searches: list[Search] = []
        for question in options.query or _questions(api, files, folder):
            try:
                searches.append(_search(api, question))
            except (ApiError, httpx.HTTPError) as error:
                problems.append(f"search for {question!r}: {error}")
        answers: list[Answered] = []
        if searches:
            try:
                answers.append(_answer(api, searches[0].question))
            except (ApiError, httpx.HTTPError) as error:
                problems.append(f"answer to {searches[0].question!r}: {error}")
    if not any(search.hits for search in searches):
        problems.append("no search found anything")
    return Report(files, searches, seconds, problems, answers)


class _Bars:
    """A bar for the files and one for the chunks."""

    def __init__(self, progress: Progress, files: int) -> None:
        self._progress = progress
        self._files = progress.add_task("files", total=files)
        self._chunks = progress.add_task("chunks", total=None)

    def __call__(self, files: Sequence[SentFile]) -> None:
        """Show how far they are."""
        self._progress.update(self._files, completed=sum(file.seconds is not None for file in files))
        planned = sum(file.planned for file in files)
        self._progress.update(self._chunks, completed=sum(file.chunks for file in files), total=planned or None)


def _search(api: EddaClient, question: str) -> Search:
    began = time.monotonic()
    hits = api.search(question, TOP_K)
    return Search(question, time.monotonic() - began, hits)


def _answer(api: EddaClient, question: str) -> Answered:
    began = time.monotonic()
    body = api.answer(question)
    return Answered(question, time.monotonic() - began, body)


def _questions(api: EddaClient, files: Sequence[SentFile], folder: Path) -> Iterator[str]:
    """Ours about our documents; about others, the beginning of a passage from the middle of some."""
    if folder == DOCUMENTS:
        yield from QUESTIONS
        return
    searchable = sorted((file for file in files if file.chunks), key=lambda file: -file.chunks)
    for file in searchable[:DERIVED_QUESTIONS]:
        chunks = api.chunks(file.document_id or "")
        yield " ".join(chunks[len(chunks) // 2]["text"].split()[:DERIVED_WORDS])


def problems_of(files: Sequence[SentFile]) -> list[str]:
    """Ends that should not be. A document that failed for a reason of its own is none, unless all did."""
    problems = [f"{file.name}: upload failed: {file.upload_error}" for file in files if file.upload_error]
    problems += [f"{file.name}: stuck, last seen {file.status}" for file in files if file.seconds is None]
    problems += [
        f"{file.name}: failed without a reason" for file in files if file.status == "failed" and not file.reason
    ]
    if not any(file.status in FINAL - {"failed"} for file in files):
        problems.append("not one file became searchable")
    return problems


@contextlib.contextmanager
def _progress(console: Console, files: Sequence[SentFile]) -> Iterator[_Bars]:
    columns = (TextColumn("{task.description:>8}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        bars = _Bars(progress, len(files))
        yield bars
        bars(files)


if __name__ == "__main__":
    sys.exit(main())
