"""A parsed document as the small pieces that chunks are made of: sentences, lines, list items, table rows.

A segment is never divided by a chunk boundary. Each carries how good a boundary the place before it is (its rank),
so that the chunker can prefer the start of a chapter to the start of a paragraph to the start of a sentence.
"""

import re
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from zlib import crc32

import regex

from edda.models import Block, BlockKind, ParsedDocument
from edda.tokens import count_tokens

# Ranks of the boundary before a segment. FORBIDDEN: what follows a heading stays with it. WRAP: a new line within
# prose, which may be there because the column was full.
FORBIDDEN, WORD, WRAP, SENTENCE, LINE, BLOCK = range(6)
HEADING = 12  # minus the heading's level: 11 for a chapter, 6 for the smallest

# A grapheme cluster longer than this is an attack, not a character, and may be cut.
MAX_GRAPHEME_CHARACTERS = 1_000
_LOOK_AROUND = MAX_GRAPHEME_CHARACTERS

# The end of a sentence: closing punctuation and white space before something that is not lower case, or the full
# stops of scripts that write no spaces. Each alternative starts at a place that cannot be inside another match of
# itself, and repeats are possessive, so that a line of a million dots takes linear time. Initials and a few
# abbreviations end no sentence.
_SENTENCE_END = re.compile(
    r"(?<![.!?…])(?<!\b[A-Z])(?<!\b(?:Mr|Ms|Dr|St|No))(?<!\b(?:Mrs|Fig|e\.g|i\.e))[.!?…]++[\"'”’»)\]]*+\s++(?![a-zà-ÿα-ωа-я])"
    r"|[。！？｡︒।॥።؟۔။៕་།]++[」』”’）】\"')\]]*+\s*+"
)
_LINE_END = re.compile(r"\n\s*+")
_WORD = re.compile(r"\S++\s*+")
_Division = tuple[int, re.Pattern[str]]  # the rank of what such a separator divides, and the separator
_GRAPHEME = regex.compile(r"\X")


class Segments:
    """The segments of a document as parallel columns, in order: segment i is `text[start[i]:end[i]]`."""

    def __init__(self, document: ParsedDocument, target_tokens: int) -> None:
        self.text = document.text
        self.start = array("q")
        self.end = array("q")
        self.rank = array("b")
        self.tokens = array("q")
        self.block = array("q")  # index into document.blocks
        self._target_tokens = max(1, target_tokens)
        after_heading = False
        for index, block in enumerate(document.blocks):
            before = len(self.start)
            for rank, start, end in self._pieces(block):
                self._append(rank, start, end, index)
            if len(self.start) > before:
                self.rank[before] = FORBIDDEN if after_heading else _rank_of(block)
                after_heading = block.kind is BlockKind.HEADING

    def __len__(self) -> int:
        return len(self.start)

    def priorities(self) -> list[int]:
        """How good the boundary before each segment is: first its rank, then a hash of the text around it.

        The hash decides among equals by content alone. So boundaries do not move when text is inserted elsewhere.
        """
        text, hashes = self.text, []
        previous = 0
        for rank, start, end in zip(self.rank, self.start, self.end, strict=True):
            here = crc32(text[start:end].encode("utf-8", "replace"))
            hashes.append(-1 if rank == FORBIDDEN else rank << 32 | (here * 2_654_435_761 + previous) & 0xFFFFFFFF)
            previous = here * 40_503
        return hashes

    def _append(self, rank: int, start: int, end: int, block: int) -> None:
        """One segment, in pieces if it is larger than a chunk may be."""
        text = self.text[start:end]
        tokens = count_tokens(text)
        if tokens <= self._target_tokens and end - start <= 16 * self._target_tokens:
            self._append_one(rank, start, end, tokens, block)
            return
        for piece_start, piece_end in self._oversize(start, end):
            pieces = count_tokens(self.text[piece_start:piece_end])
            self._append_one(rank, piece_start, piece_end, pieces, block)
            rank = WORD

    def _append_one(self, rank: int, start: int, end: int, tokens: int, block: int) -> None:
        self.start.append(start)
        self.end.append(end)
        self.rank.append(rank)
        self.tokens.append(tokens)
        self.block.append(block)

    def _pieces(self, block: Block) -> Iterator[tuple[int, int, int]]:
        """(rank, start, end) of each line of code, table or list, and of each sentence of prose. No blank ones."""
        text, start, end = self.text, block.start, block.end
        if block.kind is BlockKind.HEADING:
            yield from _trimmed(text, BLOCK, start, end)
        elif block.kind is BlockKind.PARAGRAPH:
            yield from self._divided(start, end, (SENTENCE, _SENTENCE_END), (WRAP, _LINE_END))
        elif block.kind is BlockKind.LIST:
            yield from self._divided(start, end, (LINE, _LINE_END), (SENTENCE, _SENTENCE_END))
        else:
            for line_start, line_end in _split(text, start, end, _LINE_END):
                yield from _trimmed(text, LINE, line_start, line_end)

    def _divided(self, start: int, end: int, outer: _Division, inner: _Division) -> Iterator[tuple[int, int, int]]:
        """Divided by `outer`, and each part by `inner`. The first piece of a part has the rank of the outer one."""
        for part_start, part_end in _split(self.text, start, end, outer[1]):
            rank = outer[0]
            for piece_start, piece_end in _split(self.text, part_start, part_end, inner[1]):
                yield from _trimmed(self.text, rank, piece_start, piece_end)
                rank = inner[0]

    def _oversize(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Pieces of a sentence or line that is too long: groups of words, divided where a word's hash says so."""
        most = max(1, self._target_tokens // 6)
        piece_start, piece_end, tokens = start, start, 0
        for match in _WORD.finditer(self.text, start, end):
            word = match[0]
            size = count_tokens(word) if len(word) < 16 * self._target_tokens else self._target_tokens + 1
            if tokens and (tokens + size > most or (tokens * 3 > most and crc32(word.encode()) % 4 == 0)):
                yield from _stripped(self.text, piece_start, piece_end)
                piece_start, tokens = match.start(), 0
            if size > self._target_tokens:
                yield from self._unspaced(match.start(), min(match.end(), end))
                piece_start = match.end()
            else:
                tokens += size
            piece_end = match.end()
        yield from _stripped(self.text, piece_start, min(piece_end, end))

    def _unspaced(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Pieces of text without spaces, none of which divides a grapheme cluster."""
        step = self._target_tokens // 6 or 1
        while start < end:
            cut = min(start + step, end) if end - start > step else end
            cut = grapheme_boundary(self.text, cut) if cut < end else end
            yield from _stripped(self.text, start, cut)
            start = cut


def grapheme_boundary(text: str, position: int) -> int:
    """The first place at or after `position` that is between two grapheme clusters (or a cluster of unreasonable
    length). Looks at the neighbourhood only."""
    if position >= len(text) or (text[position].isascii() and text[position - 1].isascii()):
        return position  # cleaned text has no \r\n
    window_start = _safe_start(text, position)
    for match in _GRAPHEME.finditer(text, window_start, min(len(text), position + _LOOK_AROUND)):
        if match.end() >= position:
            return position if match.start() >= position else match.end()
    return position


def _safe_start(text: str, position: int) -> int:
    """A place before `position` where a cluster certainly starts: after ASCII, or else some way back."""
    earliest = max(0, position - _LOOK_AROUND)
    for start in range(position - 1, earliest, -1):
        if text[start].isascii() and text[start] != "\r":
            return start
    return earliest


def _rank_of(block: Block) -> int:
    return HEADING - block.level if block.kind is BlockKind.HEADING else BLOCK


def _split(text: str, start: int, end: int, separator: re.Pattern[str]) -> Iterator[tuple[int, int]]:
    for match in separator.finditer(text, start, end):
        yield start, match.end()
        start = match.end()
    if start < end:
        yield start, end


def _trimmed(text: str, rank: int, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    for trimmed_start, trimmed_end in _stripped(text, start, end):
        yield rank, trimmed_start, trimmed_end


def _stripped(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The span without white space around it, unless nothing is left."""
    span = text[start:end]
    left = len(span) - len(span.lstrip())
    size = len(span.strip())
    if size:
        yield start + left, start + left + size


def first_at_or_after(column: "array[int]", position: int) -> int:
    """Index of the first entry of a sorted column that is not below `position`."""
    return bisect_left(column, position)
