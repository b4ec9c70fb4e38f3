"""The real documents in ../shared/data/documents: what the manifest there says must come of each."""

import json
import re
import unicodedata
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

DOCUMENTS = Path(__file__).resolve().parents[2] / "shared" / "data" / "documents"
ABSENT = f"{DOCUMENTS} is not there: the real documents were not tested"

# Which reasons count as each of the manifest's outcomes; "text" is one of them, with its probes.
ENDS = {
    "text": {"text"},
    "empty": {"no_text"},
    "text-or-empty": {"text", "no_text"},
    "text-or-unsupported": {"text", "unsupported_type"},
    "error-encrypted": {"encrypted"},
    "error-corrupt": {"corrupt"},
    "error-unsupported": {"unsupported_type", "text"},  # the right text is fine too
}


@dataclass(frozen=True, slots=True)
class RealDocument:
    """A file and what is expected of it. `probes` are phrases, normalised, that must be found again in its text."""

    file: str
    expected: str
    probes: tuple[str, ...]
    min_chars: int

    @property
    def path(self) -> Path:
        return DOCUMENTS / self.file

    def may_end_as(self, end: str) -> bool:
        """Is `end` ("text", or a reason code) what should come of it? "any-clear" is any named outcome."""
        return self.expected == "any-clear" or end in ENDS[self.expected]


@cache
def real_documents() -> list[RealDocument]:
    """Every document of the manifest; none where it is absent."""
    manifest = DOCUMENTS / "manifest.json"
    if not manifest.exists():
        return []
    return [
        RealDocument(entry["file"], entry["expected"], tuple(entry.get("probes") or ()), entry.get("min_chars") or 0)
        for entry in json.loads(manifest.read_text())["files"]
    ]


def normalised(text: str) -> str:
    """As the manifest says: NFKC, no soft hyphens, white space collapsed, casefolded."""
    return re.sub(r"\s+", " ", unicodedata.normalize("NFKC", text).replace("\u00ad", "")).casefold()


def need_documents() -> None:
    """Skip, and say so, where they are absent."""
    if not real_documents():
        pytest.skip(ABSENT)
