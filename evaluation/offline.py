"""Ways to chunk, compared without a database: `python -m evaluation.offline --corpus F structure:200/30 fixed:300/0`.

Each is STRATEGY:TOKENS/OVERLAP. What chunks, embeds, finds terms and fuses is the product's own code; every chunk is
compared with every question, as search does up to 20,000 chunks. Scores come in the files and by the scorer that
`make evaluate` has, each way beside the first.
"""

import argparse
import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from edda.adapters.minilm_embedder import DIMENSIONS, MiniLMEmbedder
from edda.chunking import Strategy, chunk
from edda.concurrency import Deadline
from edda.errors import DocumentError
from edda.fusing import Fusion, Scores, fuse, languages_of_model
from edda.models import Chunk
from edda.parsing import parse
from edda.ports import Embedder
from edda.searching import CHUNKS_EACH
from edda.terms import document_weights, query_terms

from evaluation import judged, runs
from evaluation.__main__ import DEPTH, EXAMPLE, MODES, PASSAGES, SCORER
from evaluation.api import Hit
from evaluation.in_process import VECTORS
from evaluation.judged import Collection
from evaluation.vectors import RememberingEmbedder, model_file
from local.errors import LocalError
from local.model import minilm_folder
from local.settings import ROOT
from local.stack import run

Cut = tuple[str, str | None, Chunk]  # with id and title of the document
LEG = DEPTH * CHUNKS_EACH  # candidates of each
EMBEDDED_AT_ONCE = 256
EMBEDDED_WITHIN_S = 600
WAY = re.compile(r"(structure|fixed|sentence):(\d+)/(\d+)")


@dataclass(frozen=True, slots=True)
class Way:
    """How documents are cut."""

    strategy: Strategy
    tokens: int
    overlap: int

    def __str__(self) -> str:
        return f"{self.strategy}-{self.tokens}-{self.overlap}"


class Postings:
    """Which chunks have a term, and its weight there."""

    def __init__(self, chunks: Sequence[Chunk], titles: Sequence[str | None]) -> None:
        self.chunks = len(chunks)
        self._weights: dict[str, dict[int, float]] = {}
        for index, (one, title) in enumerate(zip(chunks, titles, strict=True)):
            headings = (*([title] if title else []), *one.heading_path)
            for term, weight in document_weights(one.text, one.language, headings).items():
                self._weights.setdefault(term, {})[index] = weight

    def scores(self, query: str) -> Any:
        """BM25 of each chunk."""
        asked, scores = query_terms(query), np.zeros(self.chunks)
        frequencies = {term: len(self._weights.get(term, ())) for term in asked.terms}
        for term, weight in asked.weights(self.chunks, frequencies).items():
            found = self._weights.get(term, {})
            scores[list(found.keys())] += weight * np.array(list(found.values()))
        return scores


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m evaluation.offline", description=__doc__, allow_abbrev=False)
    parser.add_argument("--corpus", type=Path, default=EXAMPLE)
    parser.add_argument("--state", type=Path, default=ROOT / ".edda" / "evaluate", help="folder of vectors and results")
    parser.add_argument("ways", nargs="+", type=_way, metavar="STRATEGY:TOKENS/OVERLAP")
    options = parser.parse_args()
    return run(lambda: compare(judged.load(options.corpus), options.ways, options.state))


def _way(text: str) -> Way:
    match = WAY.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text} is not like structure:300/0")
    strategy: Any = match[1]
    return Way(strategy, int(match[2]), int(match[3]))


def compare(collection: Collection, ways: Sequence[Way], state: Path) -> int:
    """One after the other. Raises LocalError."""
    state.mkdir(parents=True, exist_ok=True)
    embedder = RememberingEmbedder(MiniLMEmbedder(minilm_folder()), state / VECTORS, model_file())
    baseline: Path | None = None
    for way in ways:
        folder = state / "results" / f"{collection.name}-{way}"
        folder.mkdir(parents=True, exist_ok=True)
        chunks = search(collection, way, embedder, folder)
        command = [str(SCORER), "-m", "evaluation.scoring", str(folder)]
        command += ["--baseline", str(baseline)] if baseline else []
        done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
        if done.returncode:
            raise LocalError(f"the runs in {folder} were not scored: {done.stderr}")
        scores = json.loads((folder / "scores.json").read_text())
        for mode, measures in scores["scores"].items():
            means = "  ".join(f"{name} {one['mean']:.4f}" for name, one in measures.items())
            p = scores["differences"].get(mode, {})
            against = "  ".join(f"p({name}) {one['p']:.3f}" for name, one in list(p.items())[:1])
            print(f"{collection.name} {way} {chunks} chunks {mode}: {means}  {against}", flush=True)
        baseline = baseline or folder / "scores.json"
    return 0


def search(collection: Collection, way: Way, embedder: Embedder, folder: Path) -> int:
    """Write a run of each mode; how many chunks there were."""
    cut = list(_chunks(collection, way))
    chunks = [one for _, _, one in cut]
    embedded = _vectors(embedder, [one.text for one in chunks])
    asked = _vectors(embedder, list(collection.judged.values()))
    postings = Postings(chunks, [title for _, title, _ in cut])
    documents: dict[str, dict[str, list[Hit]]] = {mode: {} for mode in MODES}
    passages: dict[str, dict[str, list[Hit]]] = {mode: {} for mode in MODES}
    for (query, text), vector in zip(collection.judged.items(), asked, strict=True):
        similar, matching = embedded @ vector, postings.scores(text)
        for mode in MODES:
            order = _order(mode, text, cut, similar, matching)
            hits = [
                Hit(cut[at][0], str(at), chunks[at].char_start, chunks[at].char_end, score, None) for at, score in order
            ]
            if query in collection.qrels:
                best = {hit.item_id: hit for hit in reversed(hits)}
                documents[mode][query] = sorted(best.values(), key=lambda hit: -hit.score)[:DEPTH]
            if query in collection.spans:
                passages[mode][query] = hits[:PASSAGES]
    runs.write_judgements(folder, collection)
    for mode in MODES:
        runs.write_documents(folder, mode, documents[mode])
        runs.write_passages(folder, mode, passages[mode])
    now = datetime.now(UTC).isoformat(timespec="seconds")
    facts = {"collection": collection.name, "fingerprint": collection.fingerprint, "modes": MODES, "way": str(way)}
    runs.write_facts(folder, facts | {"depth": DEPTH, "context": 0, "began": now})
    return len(chunks)


def _vectors(embedder: Embedder, texts: Sequence[str]) -> Any:
    """float32, texts x dimensions. What was refused is near to nothing."""
    vectors: list[bytes] = []
    for first in range(0, len(texts), EMBEDDED_AT_ONCE):
        some = texts[first : first + EMBEDDED_AT_ONCE]
        found = asyncio.run(embedder.embed(some, purpose="document", deadline=Deadline.after(EMBEDDED_WITHIN_S)))
        vectors += [one if isinstance(one, bytes) else bytes(4 * DIMENSIONS) for one in found]
    return np.frombuffer(b"".join(vectors), "<f4").reshape(-1, DIMENSIONS)


def _chunks(collection: Collection, way: Way) -> Iterator[Cut]:
    for item in collection.items:
        try:
            parsed = parse(item.body(), item.name, None)
        except DocumentError:
            continue  # no text, for one
        for one in chunk(parsed, max_tokens=way.tokens, overlap_tokens=way.overlap, strategy=way.strategy):
            yield item.item_id, item.title or parsed.title, one


def _order(mode: str, query: str, cut: Sequence[Cut], similar: Any, matching: Any) -> list[tuple[int, float]]:
    """Indices of chunks and their scores, best first."""
    nearest = np.argsort(-similar, kind="stable")[:LEG].tolist()
    found = [at for at in np.argsort(-matching, kind="stable")[:LEG].tolist() if matching[at] > 0]
    if mode == "vector":
        return [(at, float(similar[at])) for at in nearest]
    if mode == "text":
        return [(at, float(matching[at])) for at in found]
    union = sorted({*nearest, *found})
    scores = [
        Scores(float(similar[at]), float(matching[at]), one.language, item_id, one.ordinal)
        for at, (item_id, _, one) in ((at, cut[at]) for at in union)
    ]
    fused = fuse(scores, query_terms(query), Fusion(), languages_of_model(MiniLMEmbedder.name))
    return sorted(zip(union, fused, strict=True), key=lambda one: -one[1])


if __name__ == "__main__":
    sys.exit(main())
