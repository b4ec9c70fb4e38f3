"""`make evaluate-answers MORE=--follow-ups`: with what a follow-up is best searched for, and whether it is answered.

A follow-up is made of a question by taking its names and numbers away; the question before it is another one about the
same document. After a change of subject the question is whole, and the one before it is about another document; or it
is another collection's question, which nothing should answer.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edda.answering import THRESHOLD
from rich.console import Console

from evaluation.api import CORPUS_ID, Route
from evaluation.judged import Collection
from local.client import json_of

FIRST = 5  # hits that are looked at


@dataclass(frozen=True, slots=True)
class Case:
    """A question, its documents, another question about one of them, and one about something else."""

    documents: frozenset[str]
    question: str
    same: str
    other: str


def measure(
    console: Console, route: Route, collection: Collection, strangers: Sequence[Collection], number: int
) -> None:
    """Print how often a relevant document is among the first, by what was searched for, and how often extractive
    answers are given, and cite one. Raises ApiError."""
    cases = _cases(collection, number)
    console.print(f"{collection.name}: {len(cases)} questions, a relevant document among the first {FIRST}")
    for name in ("follow-up", "after a change of subject"):
        is_follow_up = name == "follow-up"
        found = {"alone": 0, "with the one before": 0, "as answers do": 0, "answered": 0, "and cited": 0}
        for case in cases:
            text = _without_names(case.question) if is_follow_up else case.question
            before = case.same if is_follow_up else case.other
            found["alone"] += _is_found(case, _search(route, text))
            found["with the one before"] += _is_found(case, _search(route, f"{before}\n{text}"))
            answer = _answer(route, text, before)
            found["as answers do"] += _is_found(case, answer["hits"])
            if _is_answered(answer):
                cited = {one["chunk_id"] for one in answer["citations"]}
                found["answered"] += 1
                found["and cited"] += _is_found(case, [hit for hit in answer["hits"] if hit["chunk_id"] in cited])
        console.print(f"{name:28}" + "  ".join(f"{way} {count / len(cases):.3f}" for way, count in found.items()))
    for stranger in strangers:
        asked = list(zip(stranger.judged.values(), cases, strict=False))
        count = sum(_is_answered(_answer(route, text, case.question)) for text, case in asked)
        console.print(f"{'questions of ' + stranger.name:28}answered {count / len(asked):.3f}")


def _cases(collection: Collection, number: int) -> list[Case]:
    """Evenly from all questions that another one shares a document with."""
    about: dict[str, list[str]] = {}
    for query in collection.judged:
        for document in _relevant(collection, query):
            about.setdefault(document, []).append(query)
    cases = []
    for query, text in collection.judged.items():
        documents = _relevant(collection, query)
        same = [one for document in sorted(documents) for one in about[document] if one != query]
        others = [one for one in collection.judged if documents.isdisjoint(_relevant(collection, one))]
        if same and others:
            chance = random.Random(query)  # noqa: S311 - the same choice in each run
            cases.append(
                Case(
                    documents, text, collection.queries[chance.choice(same)], collection.queries[chance.choice(others)]
                )
            )
    return cases[:: max(1, len(cases) // number)][:number]


def _relevant(collection: Collection, query: str) -> frozenset[str]:
    return frozenset(one for one, relevance in collection.qrels.get(query, {}).items() if relevance > 0)


def _search(route: Route, text: str) -> Any:
    return json_of(route.http.post("search", json={"query": text}))["hits"]


def _answer(route: Route, question: str, before: str) -> Any:
    history = [{"role": "user", "content": before}, {"role": "assistant", "content": "…"}]
    asked = {"question": question, "history": history, "generate": False}
    return json_of(route.http.post("answers", json=asked))


def _is_answered(answer: Any) -> bool:
    return bool(answer["status"] == "answered" and answer["relevance"] >= THRESHOLD)


def _is_found(case: Case, hits: Sequence[dict[str, Any]]) -> bool:
    return not case.documents.isdisjoint(str(hit["metadata"].get(CORPUS_ID)) for hit in hits[:FIRST])


def _without_names(question: str) -> str:
    """As it is asked when everybody knows what it is about."""
    first, *others = question.split()
    return " ".join([first, *(word for word in others if not (word[0].isupper() or word[0].isdigit()))])
