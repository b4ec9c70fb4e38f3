"""A judged collection: documents, questions, and which documents (or which passages of them) answer which question.

BEIR's layout: `corpus.jsonl` ({"_id" or "id", "title", "text"}), or a folder `docs` of files of any kind instead;
`queries.jsonl` ({"_id" or "id", "text"}); judgements as `qrels.tsv`, `qrels/test.tsv` or the only `qrels/*.tsv`: query,
document, relevance, or TREC's four columns (query, iteration, document, relevance), with or without a header line.
Judged passages: `spans.tsv` (query, document, start, end), in characters of the document's parsed text, which for text
and Markdown is the file's own. Judgements call a file by its path below `docs`, or by that without its ending.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from edda.search_models import MAX_QUERY_CHARACTERS

from local.errors import LocalError

DEFAULT_QRELS = "test.tsv"
Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Item:
    """A document to be uploaded: a file, or a title and a text."""

    item_id: str
    title: str | None = None
    text: str = ""
    path: Path | None = None

    @property
    def digest(self) -> str:
        """Of all that is uploaded."""
        said = json.dumps([self.item_id, self.title, self.name]).encode()
        return hashlib.sha256(said + self.body()).hexdigest()

    @property
    def name(self) -> str:
        """The name it is uploaded under."""
        return self.path.name if self.path else "document.txt"

    def body(self) -> bytes:
        """What is uploaded. The title is a paragraph of the text, too, for no vector knows of another."""
        if self.path is not None:
            return self.path.read_bytes()
        return "\n\n".join(part for part in (self.title, self.text) if part).encode("utf-8", "replace")


@dataclass(frozen=True)
class Collection:
    """`qrels` is query → document → relevance, `spans` query → document → spans; one of them may be empty."""

    name: str
    items: list[Item]
    queries: dict[str, str]
    qrels: dict[str, dict[str, int]]
    spans: dict[str, dict[str, list[Span]]]

    @cached_property
    def fingerprint(self) -> str:
        """Changes with any document."""
        digest = hashlib.sha256()
        for item in self.items:
            digest.update(item.digest.encode())
        return digest.hexdigest()[:12]

    @property
    def judged(self) -> dict[str, str]:
        """The questions that something is relevant for; the others say nothing."""
        relevant = {query for query, documents in self.qrels.items() if any(one > 0 for one in documents.values())}
        return {query: text for query, text in self.queries.items() if query in relevant or query in self.spans}


def load(folder: Path) -> Collection:
    """Read a collection. Raises LocalError that says what is wrong with which file."""
    if not folder.is_dir():
        raise LocalError(f"{folder} is no folder")
    queries: dict[str, str] = {}
    for place, line in _lines(folder / "queries.jsonl"):
        if _id(line, place) in queries:
            raise LocalError(f"{place}: a question with this id was there before")
        text = _text(line, place)
        if not text.strip() or len(text) > MAX_QUERY_CHARACTERS:
            raise LocalError(f"{place}: a question has 1 to {MAX_QUERY_CHARACTERS} characters")
        queries[_id(line, place)] = text
    spans = _spans(folder / "spans.tsv")
    qrels = _qrels(folder, needed=not spans)
    items = _items(folder, set().union(*qrels.values(), *spans.values()))
    if spans and any(item.path is None for item in items):
        raise LocalError(f"{folder}: passages are judged in files (a folder docs), not in corpus.jsonl")
    collection = Collection(folder.resolve().name, items, queries, qrels, spans)
    if not collection.judged:
        raise LocalError(f"{folder}: no question of queries.jsonl is judged: do the ids of the files agree?")
    return collection


def unasked(collection: Collection) -> int:
    """How many questions are judged that queries.jsonl does not have."""
    return len((collection.qrels.keys() | collection.spans.keys()) - collection.queries.keys())


def sample(collection: Collection, questions: int) -> Collection:
    """Only so many of the judged questions, always the same: those whose hashes are the lowest."""
    kept = sorted(collection.judged, key=lambda query: hashlib.sha256(query.encode()).digest())[:questions]
    return replace(
        collection,
        queries={query: collection.queries[query] for query in kept},
        qrels={query: collection.qrels[query] for query in kept if query in collection.qrels},
        spans={query: collection.spans[query] for query in kept if query in collection.spans},
    )


def missing_documents(collection: Collection) -> list[str]:
    """Judged relevant, and not in the corpus: nothing can find them."""
    known = {item.item_id for item in collection.items}
    judged = {one for documents in collection.qrels.values() for one, relevance in documents.items() if relevance > 0}
    judged |= {one for places in collection.spans.values() for one in places}
    return sorted(judged - known)


def _items(folder: Path, judged: set[str]) -> list[Item]:
    corpus, documents = folder / "corpus.jsonl", folder / "docs"
    if corpus.exists():
        items = [
            Item(_id(line, place), line.get("title") or None, str(line.get("text") or ""))
            for place, line in _lines(corpus)
        ]
    elif documents.is_dir():
        paths = sorted(path for path in documents.rglob("*") if path.is_file() and not path.name.startswith("."))
        items = [Item(_called(path, documents, judged), path=path) for path in paths]
    else:
        raise LocalError(f"{folder} has neither corpus.jsonl nor a folder docs")
    if not items:
        raise LocalError(f"{folder} holds no documents")
    if len({item.item_id for item in items}) < len(items):
        raise LocalError(f"{folder}: two documents have the same id")
    return items


def _called(path: Path, documents: Path, judged: set[str]) -> str:
    name = path.relative_to(documents).as_posix()
    without_ending = name.removesuffix(path.suffix)
    return without_ending if name not in judged and without_ending in judged else name


def _lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(_read(path), start=1):
        if line.strip():
            place = f"{path}, line {number}"
            try:
                found = json.loads(line)
            except ValueError:
                found = None
            if not isinstance(found, dict):
                raise LocalError(f"{place}: is no JSON object")
            yield place, found


def _id(line: dict[str, Any], place: str) -> str:
    found = line.get("_id", line.get("id"))
    if not isinstance(found, str | int) or not str(found).strip():
        raise LocalError(f'{place}: has no "_id" (or "id")')
    return str(found)


def _text(line: dict[str, Any], place: str) -> str:
    if not isinstance(line.get("text"), str):
        raise LocalError(f'{place}: has no "text"')
    return str(line["text"])


def _qrels(folder: Path, *, needed: bool) -> dict[str, dict[str, int]]:
    some = sorted((folder / "qrels").glob("*.tsv"))
    candidates = [folder / "qrels.tsv", folder / "qrels" / DEFAULT_QRELS, *(some if len(some) == 1 else [])]
    path = next((one for one in candidates if one.exists()), None)
    if path is None:
        if needed:
            raise LocalError(f"{folder} has no qrels.tsv, no qrels/{DEFAULT_QRELS} and no spans.tsv")
        return {}
    qrels: dict[str, dict[str, int]] = {}
    for place, number, columns in _columns(path):
        if len(columns) == 4:
            del columns[1]
        try:
            query, document, relevance = columns[0], columns[1], _whole(columns[2])
        except (ValueError, IndexError):
            if number == 1 and _is_header(columns):
                continue
            raise LocalError(f"{place}: is not query, document, relevance (a whole number)") from None
        if qrels.setdefault(query, {}).get(document, relevance) != relevance:
            raise LocalError(f"{place}: this document was judged otherwise for this question before")
        qrels[query][document] = relevance
    return qrels


def _spans(path: Path) -> dict[str, dict[str, list[Span]]]:
    spans: dict[str, dict[str, list[Span]]] = {}
    for place, number, columns in _columns(path) if path.exists() else ():
        try:
            query, document, start, end = columns[0], columns[1], int(columns[2]), int(columns[3])
        except (ValueError, IndexError):
            if number == 1 and _is_header(columns):
                continue
            raise LocalError(f"{place}: is not query, document, start, end") from None
        if not 0 <= start < end:
            raise LocalError(f"{place}: start is 0 or more, and end is behind it")
        spans.setdefault(query, {}).setdefault(document, []).append((start, end))
    return spans


def _is_header(columns: list[str]) -> bool:
    """`query-id`, `query_id`, `qid`, `query`, `topic`."""
    return columns[0].lower().startswith(("query", "qid", "topic"))


def _whole(text: str) -> int:
    number = float(text)
    if not number.is_integer():
        raise ValueError
    return int(number)


def _columns(path: Path) -> Iterator[tuple[str, int, list[str]]]:
    for number, line in enumerate(_read(path), start=1):
        if line.strip():
            yield f"{path}, line {number}", number, line.split("\t") if "\t" in line else line.split()


def _read(path: Path) -> list[str]:
    """Its lines, which end at line feeds only: other separators of lines may stand within a text."""
    try:
        return [line.rstrip("\r") for line in path.read_text(encoding="utf-8-sig").split("\n")]
    except OSError as error:
        raise LocalError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise LocalError(f"{path} is not UTF-8") from None
