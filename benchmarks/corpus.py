"""The same texts for all: chunks of about 200 tokens, cut from real text that every machine has.

Without `--texts`, that is Python's own help topics, the documents of this repository and the source of Python's
standard library, comments and all. Equal texts are left out, since Edda would embed them once. When the text is used
up it begins again, with a number in front that keeps the texts apart.
"""

import json
import sys
import sysconfig
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from pydoc_data.topics import topics

from edda.chunking import chunk
from edda.models import Block, BlockKind, ParsedDocument

ROOT = Path(__file__).resolve().parent.parent
TOKENS = 320  # at most, which makes 200 on average


def corpus(folder: Path, chunks: int, texts: Path | None = None) -> Path:
    """A file of JSON strings, one a line; made if it is not there."""
    mark = sha256(f"{sys.version} {texts} {TOKENS}".encode()).hexdigest()[:8]
    path = folder / f"corpus-{chunks}-{mark}.jsonl"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        with partial.open("w", encoding="utf-8") as file:
            for text, _ in zip(_passages(texts), range(chunks), strict=False):
                file.write(json.dumps(text) + "\n")
        partial.rename(path)
    return path


def read(path: Path) -> list[str]:
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def _passages(texts: Path | None) -> Iterator[str]:
    seen: set[str] = set()
    for document in _documents(texts):
        for text in _cut(document):
            words = " ".join(text.split())
            if len(words) >= 200 and words not in seen:
                seen.add(words)
                yield text
    first_round = sorted(seen)
    number = 2
    while first_round:
        yield from (f"({number}) {text}" for text in first_round)
        number += 1


def _documents(texts: Path | None) -> Iterator[str]:
    if texts is None:
        yield "\n\n".join(topics.values())
        library = Path(sysconfig.get_path("stdlib"))
        files = sorted(ROOT.glob("*.md")) + sorted((ROOT / "docs").glob("*.md"))
        sources = {path.relative_to(library) for path in library.rglob("*.py")}
        files += [library / path for path in sorted(sources) if not {"site-packages", "test"} & set(path.parts)]
    else:
        files = sorted(path for path in texts.rglob("*") if path.suffix in {".txt", ".md", ".rst", ".html"})
    for file in files:
        yield file.read_text(encoding="utf-8", errors="replace")


def _cut(text: str) -> list[str]:
    text = text.replace("\0", " ")
    document = ParsedDocument(text=text, blocks=(Block(BlockKind.PARAGRAPH, 0, len(text)),), media_type="text/plain")
    return [one.text for one in chunk(document, max_tokens=TOKENS, overlap_tokens=0)]
