"""Real files of many kinds: each ends as the manifest beside them says, and its phrases are found in its chunks."""

import asyncio
import json
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from edda.adapters.parser_process import ParserProcess
from edda.errors import DocumentError
from edda.models import ParseOutcome
from edda.settings import Settings

DOCUMENTS = Path(__file__).parents[3] / "shared" / "data" / "documents"
MANIFEST = DOCUMENTS / "manifest.json"
ENTRIES: list[dict[str, Any]] = json.loads(MANIFEST.read_text(encoding="utf-8"))["files"] if MANIFEST.exists() else []
# What the manifest's words allow: the code of an error, or "text".
ALLOWED = {
    "text": {"text"},
    "empty": {"no_text"},
    "text-or-empty": {"text", "no_text"},
    "error-encrypted": {"encrypted"},
    "error-corrupt": {"corrupt"},
    "error-unsupported": {"unsupported_type"},
    "text-or-unsupported": {"text", "unsupported_type"},
    "any-clear": {"text", "no_text", "encrypted", "corrupt", "unsupported_type", "decompression_limit"},
}
# Kinds that are known by their bytes, so that names and content types that lie do not matter.
KNOWN_BY_BYTES = ("pdf/", "docx/", "pptx/", "xlsx/", "epub/", "odt-rtf/eng", "odt-rtf/testODF")

pytestmark = [
    pytest.mark.shared_data,
    pytest.mark.skipif(not ENTRIES, reason=f"{MANIFEST} is not here"),
]


@pytest.fixture(scope="module")
def parser() -> Iterator[ParserProcess]:
    parser = ParserProcess(Settings(parse_timeout_s=60))
    yield parser
    parser.close()


def normalised(text: str) -> str:
    """As the manifest compares: NFKC, without soft hyphens, white space collapsed, case folded."""
    text = unicodedata.normalize("NFKC", text).replace("\u00ad", "")
    return re.sub(r"\s+", " ", text).casefold()


def outcome_of(parser: ParserProcess, path: Path, name: str, content_type: str | None) -> ParseOutcome | str:
    """What the parser makes of a file, all parts of it together, or the code of its error."""
    try:
        outcome = asyncio.run(parser.parse(path, name, content_type))
        while outcome.next is not None:
            part = asyncio.run(parser.parse(path, name, content_type, outcome.next))
            outcome = replace(part, chunks=[*outcome.chunks, *part.chunks], first_ordinal=0)
    except DocumentError as error:
        return error.code
    return outcome


def named(entry: dict[str, Any]) -> str:
    return str(entry["file"])


@pytest.mark.parametrize("entry", ENTRIES, ids=named)
def test_a_real_file_ends_as_its_manifest_says(parser: ParserProcess, entry: dict[str, Any]) -> None:
    path = DOCUMENTS / entry["file"]
    outcome = outcome_of(parser, path, path.name, None)
    result = outcome if isinstance(outcome, str) else "text"
    assert result in ALLOWED[entry["expected"]]
    if isinstance(outcome, ParseOutcome):
        assert outcome.chunks, "text without a chunk"
        assert outcome.characters >= (entry.get("min_chars") or 1)
        texts = [normalised(chunk.text) for chunk in outcome.chunks]
        for probe in entry.get("probes") or []:
            assert any(normalised(probe) in text for text in texts), f"not found in any chunk: {probe!r}"


@pytest.mark.parametrize("entry", [e for e in ENTRIES if e["file"].startswith(KNOWN_BY_BYTES)], ids=named)
def test_a_name_and_a_content_type_that_lie_change_nothing(parser: ParserProcess, entry: dict[str, Any]) -> None:
    path = DOCUMENTS / entry["file"]
    assert outcome_of(parser, path, "notes.txt", "image/png") == outcome_of(parser, path, path.name, None)


@pytest.mark.parametrize("folder", sorted({entry["file"].split("/")[0] for entry in ENTRIES}))
def test_the_same_file_gives_the_same_chunks_from_another_process(parser: ParserProcess, folder: str) -> None:
    path = DOCUMENTS / next(entry["file"] for entry in ENTRIES if entry["file"].startswith(f"{folder}/"))
    first = outcome_of(parser, path, path.name, None)
    parser.close()
    assert outcome_of(parser, path, path.name, None) == first
