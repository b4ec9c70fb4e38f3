"""A parsed document as the small pieces that chunks are made of: sentences, lines, list items, table rows.

A segment is never divided by a chunk boundary. Each carries how good a boundary the place before it is (its rank),
so that the chunker can prefer the start of a chapter to the start of a paragraph to the start of a sentence.
"""

import math
import re
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from zlib import crc32

import regex

from edda.errors import TooManyChunks
from edda.models import Block, BlockKind, ParsedDocument
from edda.sentences import Separator, Span, line_ends, parts, sentence_ends
from edda.tokens import count_tokens

# Ranks of the boundary before a segment. FORBIDDEN: what follows a heading stays with it. WRAP: a new line within
# prose, which may be there because the column was full.
FORBIDDEN, WORD, WRAP, SENTENCE, LINE, BLOCK = range(6)
HEADING = 12  # minus the heading's level: 11 for a chapter, 6 for the smallest

# A grapheme cluster longer than this is an attack, not a character, and may be cut.
MAX_GRAPHEME_CHARACTERS = 1_000
# More characters than this for each token are never one sentence: they are not even counted in one go.
_MOST_CHARACTERS_PER_TOKEN = 16

_WORD = re.compile(r"\S++\s*+")
# A few words up to one that starts with a common letter: places that are found again wherever one starts to look.
_WORDS = re.compile(r"(?:\S++\s*+){3,11}?(?=[aehinorstаеинострلان])|(?:\S++\s*+){1,11}")
_GRAPHEME = regex.compile(r"\X")

_Division = tuple[int, Separator]  # the rank of what such a separator divides, and the separator


class Segments:
    """The segments of a document as parallel columns, in order: segment i is `text[start[i]:end[i]]`."""

    def __init__(self, document: ParsedDocument, target_tokens: int, max_tokens: int | None = None) -> None:
        """Raises TooManyChunks as soon as there are more than `max_tokens` tokens in all."""
        self.text = document.text
        self.start = array("q")
        self.end = array("q")
        self.rank = array("b")
        self.tokens = array("q")
        self.block = array("q")  # index into document.blocks
        self._target_tokens = max(1, target_tokens)
        self._tokens_left = math.inf if max_tokens is None else max_tokens
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
        if end - start <= _MOST_CHARACTERS_PER_TOKEN * self._target_tokens:
            tokens = count_tokens(self.text[start:end])
            if tokens <= self._target_tokens:
                self._append_one(rank, start, end, tokens, block)
                return
        for piece_start, piece_end in self._oversize(start, end):
            tokens = count_tokens(self.text[piece_start:piece_end])
            self._append_one(rank, piece_start, piece_end, tokens, block)
            rank = WORD

    def _append_one(self, rank: int, start: int, end: int, tokens: int, block: int) -> None:
        self._tokens_left -= tokens
        if self._tokens_left < 0:
            raise TooManyChunks
        self.start.append(start)
        self.end.append(end)
        self.rank.append(rank)
        self.tokens.append(tokens)
        self.block.append(block)

    def _pieces(self, block: Block) -> Iterator[tuple[int, int, int]]:
        """(rank, start, end) of each line of code, table or list, and of each sentence of prose. No blank ones."""
        text, start, end = self.text, block.start, block.end
        if block.kind is BlockKind.HEADING:
            for piece in parts(text, start, end, None):
                yield BLOCK, *piece
        elif block.kind is BlockKind.PARAGRAPH:
            yield from self._divided(start, end, (SENTENCE, sentence_ends), (WRAP, line_ends))
        elif block.kind is BlockKind.LIST:
            yield from self._divided(start, end, (LINE, line_ends), (SENTENCE, sentence_ends))
        else:
            for piece_start, piece_end in parts(text, start, end, line_ends):
                yield LINE, piece_start, piece_end

    def _divided(self, start: int, end: int, outer: _Division, inner: _Division) -> Iterator[tuple[int, int, int]]:
        """Divided by `outer`, and each part by `inner`. The first piece of a part has the rank of the outer one."""
        for part_start, part_end in parts(self.text, start, end, outer[1]):
            rank = outer[0]
            for piece_start, piece_end in parts(self.text, part_start, part_end, inner[1]):
                yield rank, piece_start, piece_end
                rank = inner[0]

    def _oversize(self, start: int, end: int) -> Iterator[Span]:
        """Pieces of a sentence or line that is too long: a few words each, single words, or parts of a word."""
        most = max(1, self._target_tokens // 2)
        for words in _WORDS.finditer(self.text, start, end):
            if self._is_small(words.start(), words.end(), most):
                yield from parts(self.text, words.start(), words.end(), None)
                continue
            for word in _WORD.finditer(self.text, words.start(), words.end()):
                if self._is_small(word.start(), word.end(), most):
                    yield from parts(self.text, word.start(), word.end(), None)
                else:
                    yield from self._unspaced(word.start(), word.end())

    def _is_small(self, start: int, end: int, tokens: int) -> bool:
        return end - start <= _MOST_CHARACTERS_PER_TOKEN * tokens and count_tokens(self.text[start:end]) <= tokens

    def _unspaced(self, start: int, end: int) -> Iterator[Span]:
        """Pieces of text without spaces, none of which divides a grapheme cluster."""
        step = max(1, self._target_tokens // 6)
        while start < end:
            cut = start + step
            cut = end if cut >= end else start + _boundary(self.text[start : cut + MAX_GRAPHEME_CHARACTERS], step)
            yield from parts(self.text, start, cut, None)
            start = cut


def grapheme_boundary(text: str, position: int) -> int:
    """The first place at or after `position` between two grapheme clusters, seen from a few characters before it."""
    if position >= len(text) or (text[position].isascii() and text[position - 1].isascii()):
        return position  # cleaned text has no \r\n
    start = max(0, position - 32)
    return start + _boundary(text[start : position + MAX_GRAPHEME_CHARACTERS], position - start)


def _boundary(text: str, position: int) -> int:
    """The first boundary of a grapheme cluster at or after `position`; one is at the start of `text`."""
    if text[:position].isascii() and text[position : position + 1].isascii():
        return position
    for match in _GRAPHEME.finditer(text):
        if match.end() >= position:
            return int(match.end())
    return len(text)


def _rank_of(block: Block) -> int:
    return HEADING - block.level if block.kind is BlockKind.HEADING else BLOCK


def first_at_or_after(column: "array[int]", position: int) -> int:
    """Index of the first entry of a sorted column that is not below `position`."""
    return bisect_left(column, position)
