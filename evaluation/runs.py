"""What a search found for each question, in the forms that scorers read.

In the folder of results, for each mode:

    run-MODE.trec         documents by their best passage, as trec_eval takes them: query Q0 document rank score MODE
    hits-MODE.jsonl       these passages: query, document, chunk, start, end (characters), rank, score, parts

or where passages are judged

    passages-MODE.jsonl   the first ten: query, document, chunk, start, end (characters), rank, score, parts
    spans-MODE.jsonl      the same for Chroma's kind of scorer: {"query_id", "hits": [{"doc", "start", "end"}, ...]}

and once `qrels.trec`, `spans.tsv` (what was judged) and `run.json` (what was run).
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.api import Hit
from evaluation.judged import Collection
from local.errors import LocalError

Found = Mapping[str, Sequence[Hit]]  # by question, best first


def refuse_other(baseline: Path, facts: Mapping[str, Any]) -> None:
    """Raises LocalError when the baseline is no run on these documents, asked in this way: question 1 of another
    collection is another question."""
    try:
        scores = json.loads(baseline.read_text(encoding="utf-8"))
        before, _ = dict(scores["run"]), dict(scores["per_question"])
    except (OSError, ValueError, KeyError, TypeError):
        raise LocalError(f"{baseline} is no scores.json of an evaluation") from None
    for name in ("fingerprint", "depth", "context"):
        if before.get(name) != facts[name]:
            raise LocalError(f"{baseline} is of another {name}: {before.get(name)}, and not {facts[name]}")


def write_judgements(folder: Path, collection: Collection) -> None:
    """Of the questions that are asked, in one form whatever it came in. What an earlier run left there goes."""
    for pattern in ("run-*.trec", "hits-*.jsonl", "passages-*.jsonl", "spans-*.jsonl"):
        for left in folder.glob(pattern):
            left.unlink()
    judged = collection.judged
    qrels = [(query, items) for query, items in collection.qrels.items() if query in judged]
    lines = [f"{query}\t0\t{item}\t{relevance}\n" for query, items in qrels for item, relevance in items.items()]
    (folder / "qrels.trec").write_text("".join(lines), encoding="utf-8")
    spans = [(query, items) for query, items in collection.spans.items() if query in judged]
    lines = [
        f"{query}\t{item}\t{start}\t{end}\n"
        for query, items in spans
        for item, places in items.items()
        for start, end in places
    ]
    (folder / "spans.tsv").write_text("".join(["query_id\tdoc\tstart\tend\n", *lines]), encoding="utf-8")


def write_documents(folder: Path, mode: str, found: Found) -> None:
    """The run of a mode, if documents are judged."""
    if not found:
        return
    _write_hits(folder / f"hits-{mode}.jsonl", found)
    with (folder / f"run-{mode}.trec").open("w", encoding="utf-8") as file:
        for query, hits in sorted(found.items()):
            for rank, (item, score) in enumerate(ranked_documents(hits), start=1):
                file.write(f"{query}\tQ0\t{item}\t{rank}\t{score!r}\t{mode}\n")


def write_passages(folder: Path, mode: str, found: Found) -> None:
    """The passages of a mode, if they are judged."""
    if not found:
        return
    _write_hits(folder / f"passages-{mode}.jsonl", found)
    with (folder / f"spans-{mode}.jsonl").open("w", encoding="utf-8") as file:
        for query, hits in sorted(found.items()):
            places = [{"doc": hit.item_id, "start": hit.start, "end": hit.end} for hit in hits]
            file.write(json.dumps({"query_id": query, "hits": places}, ensure_ascii=False) + "\n")


def _write_hits(path: Path, found: Found) -> None:
    with path.open("w", encoding="utf-8") as file:
        for query, hits in sorted(found.items()):
            for rank, hit in enumerate(hits, start=1):
                line = {
                    "query": query,
                    "document": hit.item_id,
                    "chunk": hit.chunk_id,
                    "start": hit.start,
                    "end": hit.end,
                    "rank": rank,
                    "score": hit.score,
                    "parts": hit.parts,
                }
                file.write(json.dumps(line, ensure_ascii=False) + "\n")


def ranked_documents(hits: Sequence[Hit]) -> Iterator[tuple[str, float]]:
    """Each document once, where its best passage is, with that one's score.

    trec_eval looks at scores only, in single precision, and orders equal ones by their names: of equal scores the later
    is made a little lower, so that the order is the one that search gave.
    """
    seen: set[str] = set()
    before = np.float32(np.inf)
    for hit in hits:
        if hit.item_id not in seen:
            seen.add(hit.item_id)
            before = min(np.float32(hit.score), np.nextafter(before, np.float32(-np.inf)))
            yield hit.item_id, float(before)


def write_facts(folder: Path, facts: Mapping[str, Any]) -> None:
    """What was run, when and how."""
    (folder / "run.json").write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
