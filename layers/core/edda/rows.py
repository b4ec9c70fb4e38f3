"""Rows of tables in text, as Markdown, CSV and TSV write them, and as parsers write tables of other files."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from edda.sentences import Span, line_ends, parts

MOST_HEADER_CHARACTERS = 300
_QUOTED = re.compile(r'"[^"\n]*"')
_LOOSE = re.compile(r"[,;] ")
_RULE = re.compile(r"(?=[^-]*+-)[|:\s-]++")
_DIGIT = re.compile(r"\d")


@dataclass(frozen=True, slots=True)
class Lines:
    """Lines of a text that belong together: rows of a table, with its header if it is seen, or no rows at all."""

    start: int
    end: int
    rows: tuple[Span, ...] = ()
    header: Span | None = None


def lines_of(text: str, start: int, end: int, *, begins: bool) -> Iterator[Lines]:
    """A paragraph's tables, and what is between them. `begins`: a header may be its first line, for nothing is missing
    before it."""
    prose: list[Span] = []
    for shape, group in groupby(parts(text, start, end, line_ends), key=lambda line: _shape(text[slice(*line)])):
        lines = list(group)
        if not _is_table(shape, [text[slice(*line)] for line in lines]):
            prose += lines
            continue
        if prose:
            yield Lines(prose[0][0], prose[-1][1])
        yield _table(text, lines, begins=begins and not prose)
        prose, begins = [], False
    if prose:
        yield Lines(prose[0][0], prose[-1][1])


def _table(text: str, lines: list[Span], *, begins: bool) -> Lines:
    rows = [line for line in lines if not _RULE.fullmatch(text, *line)]
    header = None
    if (
        len(lines) > 1
        and lines[0] in rows
        and (lines[1] not in rows or (begins and _looks_like_header([text[slice(*line)] for line in lines])))
    ):
        header = lines[0]
    if header is not None and header[1] - header[0] > MOST_HEADER_CHARACTERS:
        header = None
    return Lines(lines[0][0], lines[-1][1], tuple(rows), header)


def _looks_like_header(lines: list[str]) -> bool:
    """It has no numbers; of two columns, which may be names and their values, the second has some everywhere else."""
    if _DIGIT.search(lines[0]):
        return False
    separator = _shape(lines[0])[0]
    cells = [line.strip("| ").split(separator) for line in lines]
    return len(cells[0]) != 2 or all(_DIGIT.search(row[-1]) for row in cells[1:])


def _shape(line: str) -> tuple[str, int]:
    """What parts the cells of a row, and how many times where prose has it as well."""
    for separator in "\t|":
        if separator in line:
            return separator, 0
    bare = _QUOTED.sub("", line)
    separator = ";" if ";" in bare else ","
    return separator, bare.count(separator)


def _is_table(shape: tuple[str, int], lines: list[str]) -> bool:
    separator, count = shape
    if separator in "\t|" or not count:
        return separator in "\t|" and len(lines) > 1
    if any(_LOOSE.search(_QUOTED.sub("", line)) for line in lines):  # as in prose, where two lines are alike by chance
        return count > 1 and len(lines) > 2
    return len(lines) > 1
