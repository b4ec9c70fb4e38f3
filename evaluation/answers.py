"""`make evaluate-answers`: how often questions are answered that should not be, and the other way round.

Takes a judged collection as `make evaluate` does, ingests it into Edda's functions in this process, and asks for
extractive answers to three kinds of questions: its own; its own, while the documents that answer them are filtered out
(what is left is often about the same things); and other collections', which have nothing to do with it. Prints the
share that was answered at several thresholds of relevance (AnswerThreshold), and how often the quotes meet what is
judged: a relevant document or, where passages are judged, the passage; of those that are answered as it comes.
"""

import argparse
import os
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from edda.answering import THRESHOLD
from rich.console import Console

from evaluation import faithful, follow_ups, judged
from evaluation.__main__ import settings_of, tenant_of
from evaluation.api import CORPUS_ID, Route
from evaluation.in_process import in_process
from evaluation.ingesting import ingest
from evaluation.judged import Collection
from local.client import ApiError, json_of
from local.errors import StepFailed
from local.settings import ROOT
from local.stack import run

THRESHOLDS = (0.2, 0.25, 0.3, 0.33, 0.36, 0.4, 0.45, 0.5)


@dataclass(frozen=True, slots=True)
class Asked:
    """One question's answer; `meets`: a quote is of what is judged relevant, and the first quote is."""

    status: str
    relevance: float
    meets: bool
    first_meets: bool


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="make evaluate-answers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", type=Path, required=True, help="the collection's folder")
    parser.add_argument("--strange", type=Path, action="append", default=[], help="another's; may be repeated")
    parser.add_argument("--questions", type=int, default=200, help="of each kind, at most (default: 200)")
    parser.add_argument("--follow-ups", action="store_true", help="instead: how follow-ups are best searched for")
    parser.add_argument("--faithful", action="store_true", help="instead: how often what is faithful is rejected")
    parser.add_argument("--mode", default="hybrid", help="of search (default: hybrid)")
    parser.add_argument("--state", type=Path, default=ROOT / ".edda" / "evaluate", help="folder of the data")
    options = parser.parse_args()
    return run(lambda: evaluate(options, Console(highlight=False, width=120)))


def evaluate(options: argparse.Namespace, console: Console) -> int:
    """The exit code. Raises LocalError, StepFailed."""
    collection = judged.load(options.corpus)
    if options.faithful:
        faithful.measure(console, collection, _some(collection.judged, options.questions))
        return 0
    strangers = [judged.load(folder) for folder in options.strange]
    state, tenant = options.state.expanduser().resolve(), tenant_of(collection, settings_of(os.environ))
    try:
        # Nothing is left out by the threshold: it is applied here.
        with in_process(state, tenant, {"EDDA_ANSWER_THRESHOLD": "0"}) as route:
            ingest(route, collection, 3600, lambda done: None)
            if options.follow_ups:
                follow_ups.measure(console, route, collection, strangers, options.questions)
                return 0
            kinds = _ask_each(route, collection, strangers, options)
    except (ApiError, httpx.HTTPError) as error:
        raise StepFailed(f"Edda's API: {error or repr(error)}") from error
    _print(console, collection, {name: asked for name, asked in kinds.items() if asked})
    return 0


def _ask_each(
    route: Route, collection: Collection, strangers: Sequence[Collection], options: argparse.Namespace
) -> dict[str, list[Asked]]:
    own = _some(collection.judged, options.questions)
    kinds = {"own": _ask_all(route, own, options.mode, lambda query: _Judged(collection, query))}
    if collection.qrels:
        kinds["own, answers filtered out"] = _ask_all(
            route, own, options.mode, lambda query: _Judged(collection, query, hidden=True)
        )
    for stranger in strangers:
        questions = _some(stranger.judged, options.questions)
        kinds[f"of {stranger.name}"] = _ask_all(route, questions, options.mode, lambda query: None)
    return kinds


@dataclass(frozen=True, slots=True)
class _Judged:
    """What is judged of one question; `hidden`: its documents are filtered out."""

    collection: Collection
    query: str
    hidden: bool = False

    @property
    def documents(self) -> list[str]:
        return [one for one, relevance in self.collection.qrels.get(self.query, {}).items() if relevance > 0]

    def is_met(self, citation: dict[str, Any], item_id: str) -> bool:
        if spans := self.collection.spans.get(self.query):
            return any(
                start < citation["char_end"] and citation["char_start"] < end for start, end in spans.get(item_id, [])
            )
        return item_id in self.documents


def _some(questions: dict[str, str], number: int) -> dict[str, str]:
    """Evenly from all."""
    step = max(1, len(questions) // number)
    return dict(list(questions.items())[::step][:number])


def _ask_all(
    route: Route, questions: dict[str, str], mode: str, judgement: Callable[[str], _Judged | None]
) -> list[Asked]:
    return [_ask(route, text, mode, judgement(query)) for query, text in questions.items()]


def _ask(route: Route, question: str, mode: str, judgement: _Judged | None) -> Asked:
    body: dict[str, Any] = {"question": question, "mode": mode, "generate": False}
    if judgement is not None and judgement.hidden:
        body["filter"] = {"not": {"field": CORPUS_ID, "op": "in", "value": judgement.documents}}
    answer = json_of(route.http.post("answers", json=body))
    for one in answer["degraded"]:
        if one["part"] != "links":
            raise StepFailed(f"an answer without its {one['part']} measures something else: {one['message']}")
    meets = []
    if judgement is not None:
        items = {hit["chunk_id"]: str(hit["metadata"].get(CORPUS_ID, hit["name"])) for hit in answer["hits"]}
        meets = [judgement.is_met(one, items[one["chunk_id"]]) for one in answer["citations"]]
    return Asked(answer["status"], answer["relevance"], any(meets), bool(meets and meets[0]))


def _print(console: Console, collection: Collection, kinds: dict[str, Sequence[Asked]]) -> None:
    console.print(f"{collection.name}: questions that are answered, by the threshold")
    console.print(f"{'':34}{'':>9}{'median':>8}{''.join(f'{one:>7}' for one in THRESHOLDS)}")
    for name, asked in kinds.items():
        relevances = [one.relevance if one.status == "answered" else 0.0 for one in asked]
        shares = (f"{statistics.mean(one >= threshold for one in relevances):7.3f}" for threshold in THRESHOLDS)
        console.print(f"{name:34}{len(asked):9}{statistics.median(relevances):8.2f}{''.join(shares)}")
    own = [one for one in kinds["own"] if one.status == "answered" and one.relevance >= THRESHOLD]
    if own:
        met, first = statistics.mean(one.meets for one in own), statistics.mean(one.first_meets for one in own)
        console.print(
            f"{len(own)} answered at {THRESHOLD}: a quote meets what is judged {met:.3f}, the first {first:.3f}"
        )


if __name__ == "__main__":
    sys.exit(main())
