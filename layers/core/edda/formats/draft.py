"""A parsed document in the making: readers add pieces, the draft cleans them and keeps their offsets."""

from collections.abc import Iterable, Sequence

from edda.decoding import clean
from edda.models import Block, BlockKind

GAP = "\n\n"  # between two pieces


class Draft:
    """Text and blocks, growing from the start. Blank pieces leave no trace; pieces are one blank line apart."""

    def __init__(self) -> None:
        self.title: str | None = None
        self.page: int | None = None  # of what is added next, from 1
        self._parts: list[str] = []
        self._blocks: list[Block] = []
        self._length = 0

    @property
    def text(self) -> str:
        return "".join(self._parts)

    @property
    def blocks(self) -> tuple[Block, ...]:
        return tuple(self._blocks)

    @property
    def length(self) -> int:
        """Characters so far."""
        return self._length

    def heading(self, text: str, level: int) -> None:
        """A heading of level 1-6, in one line."""
        self.add(BlockKind.HEADING, " ".join(text.split()), max(1, min(level, 6)))

    def paragraph(self, text: str) -> None:
        self.add(BlockKind.PARAGRAPH, text)

    def bullets(self, items: Iterable[str]) -> None:
        """A list, one item a line."""
        self.add(BlockKind.LIST, "\n".join(item for item in items if item.strip()))

    def code(self, text: str) -> None:
        self.add(BlockKind.CODE, text.strip("\n"))

    def table(self, rows: Iterable[Sequence[str]]) -> None:
        """One row a line, a tab between cells; white space within a cell becomes one space. Columns on the left that
        are empty in every row are left out."""
        lines = ["\t".join(" ".join(cell.split()) for cell in row).rstrip("\t") for row in rows]
        lines = [line for line in lines if line]
        empty = min((len(line) - len(line.lstrip("\t")) for line in lines), default=0)
        self.add(BlockKind.TABLE, "\n".join(line[empty:] for line in lines))

    def add(self, kind: BlockKind, text: str, level: int = 0) -> None:
        text = clean(text).rstrip()
        if not text.strip():
            return
        if kind is not BlockKind.CODE:
            text = text.lstrip("\n ")
        if self._parts:
            self._parts.append(GAP)
            self._length += len(GAP)
        self._parts.append(text)
        self._blocks.append(Block(kind, self._length, self._length + len(text), level, self.page))
        self._length += len(text)
