"""A parsed document to chunks: passages small enough to embed, cut where the text itself is cut.

Where a boundary is depends on content alone, not on what came before: of all places where a too long stretch of text
may be divided, the best one is taken (a chapter before a section before a paragraph before a line before a sentence;
among equals a hash of the text there), and both halves are divided again until they fit. This is how a treap is
built, and it has a treap's virtue: an inserted sentence changes the chunk it falls into and perhaps a neighbour, and
all others keep their text, their hash and their embedding.

Each chunk but the first starts with the end of the one before, so that a phrase across a boundary is whole in one.

Two other strategies may be chosen. `fixed` fills chunks with whole sentences from the beginning: they are fuller, but
an inserted sentence moves all boundaries behind it. `sentence` makes a chunk of each sentence, line or table row, short
ones with the next: to be searched with neighbours around each hit. docs/chunking.md compares them.
"""

import re
from array import array
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Literal, NamedTuple

from edda.errors import TooManyChunks
from edda.formats.plain import heading_title
from edda.identity import content_hash
from edda.models import Block, BlockKind, Chunk, ParsedDocument
from edda.segments import BLOCK, FORBIDDEN, SENTENCE, Segments, first_at_or_after, grapheme_boundary
from edda.tokens import count_tokens

Strategy = Literal["structure", "fixed", "sentence"]

# No half of a division is smaller than this share of the most that a chunk may hold, if that can be had.
_SMALLEST_SHARE = 0.3
_CRUMB_SHARE = 0.1
_FEW_TOKENS = 16  # a sentence, line or row of fewer says too little to be a chunk of its own
# An overlap of whole sentences must hold a phrase; below this many words it starts within a sentence.
_PHRASE_WORDS = 6
# ... and how much more than asked for may be repeated for a phrase of long words.
_MOST_OVERLAP = 3
_MAX_OVERLAP_CHARACTERS = 800
_NEAR_CHARACTERS = 4_000  # some chunks' worth
_TAIL_CHARACTERS = 1_000  # of a part that the next one knows: more than is ever repeated
# Words, and the single characters of scripts that put no spaces between words.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\uff66-\uff9d\U00020000-\U0003ffff"
)
_WORD = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")


@dataclass(frozen=True, slots=True)
class Before:
    """What the chunks of a document's part depend on of the parts before it."""

    characters: int = 0  # in them: offsets go on from here
    tail: str = ""  # the last chunk up to where the part begins, or its end: what the next chunk may repeat
    stops: tuple[int, ...] = ()  # where in the tail a sentence or a line begins
    headings: tuple[tuple[int, str], ...] = ()  # level and title of those that are open


class Part(NamedTuple):
    """Chunks, in order, counted from 0; the offset at which the part ends; what the next part depends on."""

    chunks: list[Chunk]
    end: int
    after: Before


_START = Before()


def chunk(
    document: ParsedDocument,
    *,
    max_tokens: int = 200,
    overlap_tokens: int = 30,
    max_chunks: int | None = None,
    strategy: Strategy = "structure",
) -> list[Chunk]:
    """The chunks of a document, in order. Deterministic, and linear but for a logarithm.

    No chunk has more than `max_tokens` tokens (by `count_tokens`), the overlap of up to `overlap_tokens` included,
    unless a single grapheme cluster has. Every character that is not white space is in a chunk. Single sentences do not
    overlap.

    Raises TooManyChunks when there would be more than `max_chunks`.
    """
    return chunk_part(
        document,
        _START,
        None,
        max_tokens=max_tokens,
        overlap_tokens=overlap_tokens,
        max_chunks=max_chunks,
        strategy=strategy,
    ).chunks


def chunk_part(
    document: ParsedDocument,
    before: Before,
    ends: Sequence[int] | None,
    *,
    max_tokens: int,
    overlap_tokens: int,
    max_chunks: int | None,
    strategy: Strategy = "structure",
) -> Part:
    """The chunks of the next part of a document too long to be taken at once, as `chunk` would make them of the whole
    (`fixed`, and short sentences: which begin anew with each part).

    `document` is the part and some more of the text. The part ends at the best boundary among `ends`, ascending
    offsets (at the end of the text where there is none), or is the last when `ends` is None. Where a boundary is better
    than all near it, a division of the whole is there as well; only a text that repeats itself may have no such place.

    Raises TooManyChunks when the whole of `document` makes more than `max_chunks`.
    """
    if not 0 <= overlap_tokens <= max_tokens // 2:
        raise ValueError("overlap_tokens may be half of max_tokens at most")
    if strategy == "sentence":
        overlap_tokens = 0
    shift = len(before.tail)
    document = _behind(before.tail, document)
    fresh_tokens = max_tokens - overlap_tokens
    segments = Segments(document, fresh_tokens, None if max_chunks is None else fresh_tokens * max_chunks)
    priorities = segments.priorities()
    size, end = len(segments), len(document.text)
    if ends is not None:
        size, end = _best_end(segments, priorities, [place + shift for place in ends]) or (size, end)
    if strategy == "structure":
        spans = _divide(segments, priorities, size, fresh_tokens)
    else:
        is_fixed = strategy == "fixed"
        spans = _fill(segments, size, fresh_tokens if is_fixed else 0, 0 if is_fixed else _FEW_TOKENS, fresh_tokens)
    if max_chunks is not None and len(spans) > max_chunks:
        raise TooManyChunks
    _, heading_paths = _open_headings(document, before.headings, len(document.text))
    stops = array("q", before.stops)
    stops.extend(
        start
        for start, rank in zip(segments.start, segments.rank, strict=True)
        if rank == FORBIDDEN or rank >= SENTENCE
    )
    origin = before.characters - shift  # of the whole text, seen from `document`
    starts: list[int] = []  # of the chunks, in `document`
    chunks: list[Chunk] = []
    for first, last in spans:
        start, stop = segments.start[first], segments.end[last - 1]
        if (chunks or before.tail) and overlap_tokens:
            earliest = starts[-2] + 1 if len(starts) > 1 else min(shift, 1)
            room = min(max_tokens - count_tokens(document.text[start:stop]), _MOST_OVERLAP * overlap_tokens)
            start = _overlap_start(document.text, stops, start, earliest, tokens=overlap_tokens, room=room)
            if starts and start <= starts[-1]:
                chunks.pop()  # a crumb that is repeated as a whole
                starts.pop()
        block_index = segments.block[first]
        text = document.text[start:stop]
        starts.append(start)
        chunks.append(
            Chunk(
                ordinal=len(chunks),
                text=text,
                char_start=origin + start,
                char_end=origin + stop,
                tokens=count_tokens(text),
                page=document.blocks[block_index].page,
                heading_path=heading_paths[block_index],
                language=document.language,
                content_hash=content_hash(text),
            )
        )
    begin = end if not starts and not shift else max(starts[-1] if starts else 0, end - _TAIL_CHARACTERS)
    after = Before(
        characters=origin + end,
        tail=document.text[begin:end],
        stops=tuple(stop - begin for stop in stops[bisect_left(stops, begin) : bisect_left(stops, end)]),
        headings=_open_headings(document, before.headings, end)[0],
    )
    return Part(chunks, end - shift, after)


def _behind(tail: str, document: ParsedDocument) -> ParsedDocument:
    """The document with text before it that belongs to no block."""
    if not tail:
        return document
    blocks = tuple(
        Block(block.kind, block.start + len(tail), block.end + len(tail), block.level, block.page)
        for block in document.blocks
    )
    return replace(document, text=tail + document.text, blocks=blocks)


def _best_end(segments: Segments, priorities: list[int], ends: list[int]) -> tuple[int, int] | None:
    """Index of the segment that best begins the next part, and the one of `ends` that is just before it.

    Better than all near it, if there is one: those a division of the whole text cuts at too, whatever else it does.
    """
    found: list[tuple[int, int]] = []
    for end in ends:
        index = first_at_or_after(segments.start, end)
        if 0 < index < len(segments) and segments.end[index - 1] <= end and priorities[index] >= 0:
            found.append((index, end))
    found.sort(key=lambda one: -priorities[one[0]])
    for index, end in found:
        low = first_at_or_after(segments.start, end - _NEAR_CHARACTERS)
        high = first_at_or_after(segments.start, end + _NEAR_CHARACTERS)
        if priorities[index] == max(priorities[low:high]):
            return index, end
    return found[0] if found else None


def _divide(segments: Segments, priorities: list[int], size: int, most: int) -> list[tuple[int, int]]:
    """Spans [first, last) of the first `size` segments, each of at most `most` tokens: divided at the best place until
    they fit."""
    before = [0, *accumulate(segments.tokens)]  # tokens before segment i
    spans: list[tuple[int, int]] = []
    waiting = [(0, size)] if size else []
    while waiting:
        first, last = waiting.pop()
        if before[last] - before[first] <= most or last - first == 1:
            spans.append((first, last))
        else:
            cut = _cut(priorities, before, first, last, most)
            waiting += [(cut, last), (first, cut)]  # the left half is taken next
    return spans


def _fill(segments: Segments, size: int, most: int, few: int, room: int) -> list[tuple[int, int]]:
    """Spans of the first `size` segments, in order as many as `most` tokens hold, at least one. A heading stays with
    what follows it, and fewer than `few` tokens with what follows, or before a heading with what was before, where both
    together are no more than `room`."""
    kept: list[tuple[int, int, int]] = []  # first, last, tokens: headings with what follows
    for index, tokens in enumerate(segments.tokens[:size]):
        if kept and segments.rank[index] == FORBIDDEN and kept[-1][2] + tokens <= room:
            first, _, held = kept.pop()
            kept.append((first, index + 1, held + tokens))
        else:
            kept.append((index, index + 1, tokens))
    spans: list[tuple[int, int, int]] = []
    begins = [segments.rank[first] > BLOCK for first, _, _ in kept] + [True]  # a section, or the end
    for index, (first, last, tokens) in enumerate(kept):
        held = spans[-1][2] if spans else room + 1
        is_crumb = not begins[index] and (held < few or (tokens < few and begins[index + 1]))
        if held + tokens <= (room if is_crumb else most):
            spans[-1] = (spans[-1][0], last, held + tokens)
        else:
            spans.append((first, last, tokens))
    return [(first, last) for first, last, _ in spans]


def _cut(priorities: list[int], before: list[int], first: int, last: int, most: int) -> int:
    """Where segments [first, last) are best divided. Rather between a heading and its text than into a crumb."""
    middle = _first_not_below(before, (before[first] + before[last]) // 2, first + 1, last - 1)
    for share in (_SMALLEST_SHARE, _CRUMB_SHARE):
        low = _first_not_below(before, before[first] + int(most * share), first + 1, last)
        high = _first_not_below(before, before[last] - int(most * share) + 1, first + 1, last)
        if (best := _best(priorities, low, high, middle)) is not None:
            return best
    return middle


def _first_not_below(before: list[int], tokens: int, low: int, high: int) -> int:
    return bisect_left(before, tokens, low, high)


def _best(priorities: list[int], low: int, high: int, middle: int) -> int | None:
    """Index of the highest priority in [low, high), the one nearest to the middle among equals; None if none may be
    taken."""
    candidates = priorities[low:high]
    best = max(candidates, default=-1)
    if best < 0:
        return None
    centre = min(max(middle - low, 0), len(candidates) - 1)
    try:
        return low + candidates.index(best, centre)
    except ValueError:
        return low + len(candidates) - 1 - candidates[::-1].index(best)


def _overlap_start(text: str, stops: "array[int]", boundary: int, earliest: int, *, tokens: int, room: int) -> int:
    """Where a chunk that begins at `boundary` starts when it repeats about `tokens` tokens before it.

    The start of a sentence or line (of `stops`) if that repeats enough words to hold a phrase, the start of a word
    otherwise.
    Long words may take more than `tokens`, up to `room`. Nothing before `earliest` is repeated.
    """
    words: list[int] = []
    for look_back in (8 * tokens, _MAX_OVERLAP_CHARACTERS):  # the second only for long words: it costs more
        words = words or _last_words(text, max(earliest, boundary - look_back), boundary, tokens, room)
    if not words:
        return boundary
    at = first_at_or_after(stops, words[-1])
    if at < len(stops) and stops[at] < boundary:
        repeated = sum(word >= stops[at] for word in words)
        if repeated >= min(len(words), _PHRASE_WORDS):
            return stops[at]
    start = grapheme_boundary(text, words[-1])
    while start < boundary and text[start].isspace():
        start += 1
    return start


def _last_words(text: str, earliest: int, boundary: int, tokens: int, room: int) -> list[int]:
    """Starts of the last words before `boundary`, the last first: of `tokens` tokens together, or as many words as
    a phrase has in up to `room`. None if there may be more before `earliest`."""
    starts: list[int] = []
    used = whole_words = 0
    for match in reversed(list(_WORD.finditer(text, earliest, boundary))):
        used += count_tokens(match[0])
        after_space = match.start() == 0 or text[match.start() - 1].isspace()
        is_enough = whole_words >= _PHRASE_WORDS or len(match[0]) == 1
        if used > room or (used > tokens and is_enough):
            return starts
        if match.start() == earliest and not after_space:
            return starts if boundary - earliest >= _MAX_OVERLAP_CHARACTERS else []
        starts.append(match.start())
        whole_words += after_space
    return starts


def _open_headings(
    document: ParsedDocument, before: tuple[tuple[int, str], ...], end: int
) -> tuple[tuple[tuple[int, str], ...], list[tuple[str, ...]]]:
    """Level and title of the headings that are open at `end`; and for each block before it the titles of the headings
    it stands under, outermost first, a heading under itself."""
    stack, paths = list(before), []
    path = tuple(title for _, title in stack if title)
    for block in document.blocks:
        if block.start >= end:
            break
        if block.kind is BlockKind.HEADING:
            while stack and stack[-1][0] >= block.level:
                stack.pop()
            stack.append((block.level, heading_title(document.text, block)))
            path = tuple(title for _, title in stack if title)
        paths.append(path)
    return tuple(stack), paths
