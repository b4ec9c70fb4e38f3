"""SQL is a file with names: `-- name: claim_version` starts a query, the comment below it says why it is there."""

from functools import cache
from importlib.resources import files
from typing import LiteralString


@cache
def queries(file: str) -> dict[str, LiteralString]:
    """Every query of `edda/sql/<file>.sql` by its name."""
    text = files("edda").joinpath(f"sql/{file}.sql").read_text(encoding="utf-8")
    sections = text.split("-- name: ")[1:]
    found = {}
    for section in sections:
        name, _, body = section.partition("\n")
        found[name.strip()] = body.strip().rstrip(";")
    return found
