"""Whether a contestant stored what it was given: each text once, each with its own vector."""

from collections import Counter
from collections.abc import Sequence

from benchmarks.postgres import Fresh
from benchmarks.vectors import Vectors

FIRST = 8  # components of every vector that are compared
WHOLE = 100  # vectors of which all are
HALF_PRECISION = 2e-3  # relative; halfvec keeps eleven bits


def check(fresh: Fresh, rows: str, texts: Sequence[str], vectors: Vectors) -> tuple[int, str | None]:
    """How many rows there are, and what is wrong with them if anything is."""
    first = fresh.rows(f"SELECT r.text, subvector(r.vector, 1, {FIRST})::real[] FROM ({rows}) AS r (text, vector)")
    wanted = {_words(text): text for text in texts}
    counted = Counter(_words(text) for text, _ in first)
    if counted.keys() != wanted.keys() or len(first) != len(texts):
        doubled = sum(times - 1 for times in counted.values())
        lost = len(wanted.keys() - counted.keys())
        return len(first), f"{lost} of {len(texts)} chunks are missing, {doubled} rows are double"
    for text, got in first:
        if not _close(got, vectors.floats(wanted[_words(text)])[:FIRST]):
            return len(first), f"the vector of {text[:40]!r} is another's"
    whole = fresh.rows(f"SELECT r.text, r.vector::real[] FROM ({rows}) AS r (text, vector) LIMIT {WHOLE}")
    for text, got in whole:
        if not _close(got, vectors.floats(wanted[_words(text)])):
            return len(first), f"the vector of {text[:40]!r} is damaged"
    return len(first), None


def _words(text: str) -> str:
    return " ".join(text.split())


def _close(got: Sequence[float], wanted: Sequence[float]) -> bool:
    return len(got) == len(wanted) and all(
        abs(one - other) <= HALF_PRECISION * abs(other) + 1e-7 for one, other in zip(got, wanted, strict=True)
    )
