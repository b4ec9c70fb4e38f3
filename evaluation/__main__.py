"""`make evaluate`: how well search finds what is judged relevant.

Takes a collection in BEIR's layout (corpus.jsonl or a folder docs of files; queries.jsonl; qrels.tsv, qrels/test.tsv or
spans.tsv), ingests it, asks its questions in each mode over the API, and prints nDCG@10, Recall@100, MRR@10 and MAP
with confidence intervals, next to a baseline. Without an API's address, Edda's functions run in this process on a
Postgres of their own (evaluation/in_process.py says what that leaves out). Its data stays: the next run only searches.
"""

import argparse
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
from edda.settings import Settings
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from evaluation import judged, runs
from evaluation.api import Api, Hit, Route
from evaluation.ingesting import ingest
from evaluation.judged import Collection
from local.build import files, hash_of
from local.client import ApiError
from local.errors import LocalError, StepFailed
from local.settings import ROOT
from local.stack import run

EXAMPLE = ROOT / "evaluation" / "example"
SCORER = ROOT / "evaluation" / ".venv" / "bin" / "python"
MODES = ("hybrid", "vector", "text")
DEPTH = 100
PASSAGES = 10
SIDE_BY_SIDE = 8  # requests to a deployment
TIMEOUT_S = 60
SETTINGS = {  # what may be tried out, by functions in this process
    "chunk_strategy": "EDDA_CHUNK_STRATEGY",
    "chunk_tokens": "EDDA_CHUNK_TOKENS",
    "chunk_overlap_tokens": "EDDA_CHUNK_OVERLAP_TOKENS",
}
TAKING_IN = ("chunk_", "embedding_", "provider_")  # settings: other chunks or vectors
MATTERS = (*TAKING_IN, "rerank_")
SECRETS = ("_key", "_secret_arn")
# What decides which chunks, terms and vectors a document has, and how they are stored.
TAKEN_IN_BY = (
    "parts.py", "parsing.py", "formats", "detecting.py", "media_types.py", "ole.py", "decoding.py", "charsets.py",
    "languages.py", "chunking.py", "segments.py", "sentences.py", "tokens.py", "identity.py", "models.py", "errors.py",
    "terms.py", "stop_words.txt", "vectors.py", "ingesting.py", "adapters/minilm_embedder.py",
    "adapters/parser_process.py", "store/ingest.py", "store/lexical.py", "sql",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Deployment:
    """A `Route` to an API that runs elsewhere, on this machine or on AWS."""

    http: httpx.Client
    side_by_side: int = SIDE_BY_SIDE

    def work(self, *, last: bool) -> None:
        """Others do."""


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="make evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # --k is not --key
    )
    parser.add_argument("--corpus", type=Path, default=EXAMPLE, help="the collection's folder (default: ours)")
    parser.add_argument("--modes", default=",".join(MODES), help="of search, with commas (default: all)")
    parser.add_argument("--questions", type=int, help="only so many of the judged ones, always the same by chance")
    parser.add_argument("--depth", type=int, default=DEPTH, help="documents asked for (default: 100)")
    parser.add_argument("--context", type=int, default=0, help="passages around each hit, where passages are judged")
    parser.add_argument("--results", type=Path, help="folder for runs and scores (default: below the state)")
    parser.add_argument("--baseline", type=Path, help="scores.json of an earlier run, to be compared with")
    parser.add_argument("--within-s", type=float, default=3600, help="longest wait for the documents (default: 3600)")
    api = parser.add_argument_group("an API that runs already (make local, or a deployment)")
    api.add_argument("--api", default=os.environ.get("EDDA_API", ""), help="its address (EDDA_API)")
    api.add_argument("--key", default=os.environ.get("EDDA_API_KEY", ""), help="of a tenant of its own (EDDA_API_KEY)")
    own = parser.add_argument_group("functions in this process")
    own.add_argument("--state", type=Path, default=ROOT / ".edda" / "evaluate", help="folder of the data")
    own.add_argument("--chunk-strategy", help="as the template's ChunkStrategy")
    own.add_argument("--chunk-tokens", type=int, help="as the template's ChunkTokens")
    own.add_argument("--chunk-overlap-tokens", type=int, help="as the template's ChunkOverlapTokens")
    options = parser.parse_args()
    return run(lambda: evaluate(options, Console(highlight=False)))


def evaluate(options: argparse.Namespace, console: Console) -> int:
    """The exit code. Raises LocalError, StepFailed."""
    began = datetime.now(UTC)
    modes = options.modes.split(",")
    if unknown := set(modes) - set(MODES):
        raise LocalError(f"no mode of search: {', '.join(sorted(unknown))}; there are {', '.join(MODES)}")
    if options.depth < 1 or (options.questions is not None and options.questions < 1):
        raise LocalError("--depth and --questions are 1 or more")
    if options.baseline is not None and not options.baseline.is_file():
        raise LocalError(f"{options.baseline} is no file")
    if not SCORER.exists():
        raise LocalError("the scorer is not installed: run make evaluate, or make evaluation/.venv/.ready")
    if options.api and _asked(options):
        raise LocalError("--chunk-… are for functions in this process: a deployment cuts as its template says")
    settings = {} if options.api else settings_of(os.environ | _asked(options))
    collection = judged.load(options.corpus)
    if options.questions is not None:
        collection = judged.sample(collection, options.questions)
    console.print(
        f"{collection.name}: {len(collection.items)} documents, {len(collection.judged)} of {len(collection.queries)} "
        "questions judged"
    )
    if missing := judged.missing_documents(collection):
        console.print(f"{len(missing)} judged documents are not in the corpus, {missing[0]} for one")
    if unasked := judged.unasked(collection):
        console.print(f"{unasked} judged questions are not in queries.jsonl, and count for nothing")
    facts = {
        "collection": collection.name,
        "fingerprint": collection.fingerprint,
        "documents": len(collection.items),
        "questions": len(collection.judged),
        "modes": modes,
        "depth": options.depth,
        "context": options.context,
        "began": began.isoformat(timespec="seconds"),
        "where": options.api or "in process",
        "settings": settings,
        "commit": _commit(),
    }
    if options.baseline is not None:
        runs.refuse_other(options.baseline, facts)
    try:
        with _route(options, collection, settings) as route:
            clock = time.monotonic()
            with _bar(console, "documents", len(collection.items)) as show:
                states = ingest(route, collection, options.within_s, show, console.print)
            facts |= {"states": dict(states), "ingest_s": round(time.monotonic() - clock, 1)}
            if unready := {state: number for state, number in states.items() if state != "ready"}:
                console.print("not found by any search: " + ", ".join(f"{n} {state}" for state, n in unready.items()))
            folder = options.results or options.state / "results" / f"{collection.name}-{began:%Y%m%d-%H%M%S}"
            folder.mkdir(parents=True, exist_ok=True)
            runs.write_judgements(folder, collection)
            seconds: dict[str, float] = {}
            for mode in modes:
                clock = time.monotonic()
                with _bar(console, mode, len(collection.judged)) as show:
                    documents, passages = ask(route, collection, mode, options, show)
                seconds[mode] = round(time.monotonic() - clock, 1)
                runs.write_documents(folder, mode, documents)
                runs.write_passages(folder, mode, passages)
            facts["search_s"] = seconds
    except (ApiError, httpx.HTTPError) as error:
        raise StepFailed(f"Edda's API: {error or repr(error)}") from error
    runs.write_facts(folder, facts)
    command = [str(SCORER), "-m", "evaluation.scoring", str(folder)]
    command += ["--baseline", str(options.baseline)] if options.baseline else []
    if subprocess.run(command, cwd=ROOT, check=False).returncode:
        raise StepFailed(f"the runs are in {folder}, but were not scored")
    console.print(f"results: {folder}")
    return 0


def ask(
    route: Route, collection: Collection, mode: str, options: argparse.Namespace, show: Callable[[int], None]
) -> tuple[dict[str, list[Hit]], dict[str, list[Hit]]]:
    """The documents for each question whose documents are judged, and the passages where these are. Raises ApiError."""
    api, judged = Api(route.http), collection.judged
    documents: dict[str, list[Hit]] = {}
    passages: dict[str, list[Hit]] = {}

    def one(query: str) -> None:
        if query in collection.qrels:
            documents[query] = api.documents_for(judged[query], mode, options.depth)
        if query in collection.spans:
            passages[query] = api.passages_for(judged[query], mode, PASSAGES, options.context)

    with ThreadPoolExecutor(route.side_by_side, thread_name_prefix="search") as pool:
        asked = pool.map(one, judged) if route.side_by_side > 1 else map(one, judged)
        for done, _ in enumerate(asked, start=1):
            show(done)
    return documents, passages


@contextlib.contextmanager
def _route(options: argparse.Namespace, collection: Collection, settings: Mapping[str, Any]) -> Iterator[Route]:
    if options.api:
        if not options.key:
            raise LocalError("an API needs a key: --key, or EDDA_API_KEY")
        headers = {"Authorization": f"Bearer {options.key}"}
        with httpx.Client(base_url=options.api.rstrip("/") + "/v1/", headers=headers, timeout=TIMEOUT_S) as http:
            yield Deployment(http)
        return
    from evaluation.in_process import in_process

    tenant, state = tenant_of(collection, settings), options.state.expanduser().resolve()
    with in_process(state, tenant, _asked(options)) as route:
        yield route


def tenant_of(collection: Collection, settings: Mapping[str, Any]) -> str:
    """The same documents, taken in by the same code with the same settings, are a tenant's from one run to the next."""
    taken_in = {name: value for name, value in sorted(settings.items()) if name.startswith(TAKING_IN)}
    code = hash_of(path for name in TAKEN_IN_BY for path in _source(ROOT / "layers" / "core" / "edda" / name))
    mark = sha256(f"{collection.fingerprint} {taken_in} {code}".encode())
    return f"evaluate-{mark.hexdigest()[:16]}"


def _source(path: Path) -> Iterable[Path]:
    return files(path) if path.is_dir() else (path,)


def _asked(options: argparse.Namespace) -> dict[str, str]:
    """Variables of what is to be tried out."""
    asked = {variable: getattr(options, name) for name, variable in SETTINGS.items()}
    return {variable: str(value) for variable, value in asked.items() if value is not None}


def settings_of(variables: Mapping[str, str]) -> dict[str, Any]:
    """What the figures depend on, of functions with these variables; no keys. Raises LocalError."""
    try:
        settings = Settings.from_environment(variables)
    except ValidationError as error:
        problem = error.errors()[0]
        name = ".".join(map(str, problem["loc"]))
        raise LocalError(f"{name}: {problem['msg']}".removeprefix(": ")) from None
    every = settings.model_dump(mode="json")
    return {name: every[name] for name in every if name.startswith(MATTERS) and not name.endswith(SECRETS)}


def _commit() -> str:
    """Of the code, where it is in a repository."""
    answer = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return answer.stdout.strip()


@contextlib.contextmanager
def _bar(console: Console, name: str, total: int) -> Iterator[Callable[[int], None]]:
    columns = (TextColumn("{task.description:>9}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(name, total=total)
        yield lambda done: progress.update(task, completed=done)


if __name__ == "__main__":
    sys.exit(main())
