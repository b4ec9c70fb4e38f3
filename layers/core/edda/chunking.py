"""A parsed document to chunks: passages small enough to embed, cut where the text itself is cut.

Where a boundary is depends on content alone, not on what came before: of all places where a too long stretch of text
may be divided, the best one is taken (a chapter before a section before a paragraph before a line before a sentence;
among equals a hash of the text there), and both halves are divided again until they fit. This is how a treap is
built, and it has a treap's virtue: an inserted sentence changes the chunk it falls into and perhaps a neighbour, and
all others keep their text, their hash and their embedding.

Each chunk but the first starts with the end of the one before, so that a phrase across a boundary is whole in one.
"""

import re
from bisect import bisect_left
from itertools import accumulate

from edda.errors import TooManyChunks
from edda.formats.plain import heading_title
from edda.identity import content_hash
from edda.models import BlockKind, Chunk, ParsedDocument
from edda.segments import FORBIDDEN, SENTENCE, Segments, first_at_or_after, grapheme_boundary
from edda.tokens import count_tokens

# No half of a division is smaller than this share of the most that a chunk may hold, if that can be had.
_SMALLEST_SHARE = 0.3
_CRUMB_SHARE = 0.1
# An overlap of whole sentences must hold a phrase; below this many words it starts within a sentence.
_PHRASE_WORDS = 6
# ... and how much more than asked for may be repeated for a phrase of long words.
_MOST_OVERLAP = 3
_MAX_OVERLAP_CHARACTERS = 800
# Words, and the single characters of scripts that put no spaces between words.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\uff66-\uff9d\U00020000-\U0003ffff"
)
_WORD = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")


def chunk(
    document: ParsedDocument, *, max_tokens: int = 200, overlap_tokens: int = 30, max_chunks: int | None = None
) -> list[Chunk]:
    """The chunks of a document, in order. Deterministic, and linear but for a logarithm.

    No chunk has more than `max_tokens` tokens (by `count_tokens`), the overlap of up to `overlap_tokens` included,
    unless a single grapheme cluster has. Every character that is not white space is in a chunk.

    Raises TooManyChunks when there would be more than `max_chunks`.
    """
    if not 0 <= overlap_tokens <= max_tokens // 2:
        raise ValueError("overlap_tokens may be half of max_tokens at most")
    fresh_tokens = max_tokens - overlap_tokens
    segments = Segments(document, fresh_tokens, None if max_chunks is None else fresh_tokens * max_chunks)
    spans = _divide(segments, fresh_tokens)
    if max_chunks is not None and len(spans) > max_chunks:
        raise TooManyChunks
    headings = _HeadingPaths(document)
    chunks: list[Chunk] = []
    for first, last in spans:
        start, end = segments.start[first], segments.end[last - 1]
        if chunks and overlap_tokens:
            earliest = chunks[-2].char_start + 1 if len(chunks) > 1 else 0
            room = min(max_tokens - count_tokens(document.text[start:end]), _MOST_OVERLAP * overlap_tokens)
            start = _overlap_start(segments, first, earliest, overlap_tokens, room)
            if start <= chunks[-1].char_start:
                chunks.pop()  # a crumb that is repeated as a whole
        block_index = segments.block[first]
        text = document.text[start:end]
        chunks.append(
            Chunk(
                ordinal=len(chunks),
                text=text,
                char_start=start,
                char_end=end,
                tokens=count_tokens(text),
                page=document.blocks[block_index].page,
                heading_path=headings.at(block_index),
                language=document.language,
                content_hash=content_hash(text),
            )
        )
    return chunks


def _divide(segments: Segments, most: int) -> list[tuple[int, int]]:
    """Spans [first, last) of segments, each of at most `most` tokens: divided at the best place until they fit."""
    priorities = segments.priorities()
    before = [0, *accumulate(segments.tokens)]  # tokens before segment i
    spans: list[tuple[int, int]] = []
    waiting = [(0, len(segments))] if len(segments) else []
    while waiting:
        first, last = waiting.pop()
        if before[last] - before[first] <= most or last - first == 1:
            spans.append((first, last))
        else:
            cut = _cut(priorities, before, first, last, most)
            waiting += [(cut, last), (first, cut)]  # the left half is taken next
    return spans


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


def _overlap_start(segments: Segments, first: int, earliest: int, tokens: int, room: int) -> int:
    """Where a chunk that begins with segment `first` starts when it repeats about `tokens` tokens before it.

    The start of a sentence or line if that repeats enough words to hold a phrase, the start of a word otherwise.
    Long words may take more than `tokens`, up to `room`. Nothing before `earliest` is repeated.
    """
    text, boundary = segments.text, segments.start[first]
    words: list[int] = []
    for look_back in (8 * tokens, _MAX_OVERLAP_CHARACTERS):  # the second only for long words: it costs more
        words = words or _last_words(text, max(earliest, boundary - look_back), boundary, tokens, room)
    if not words:
        return boundary
    for index in range(first_at_or_after(segments.start, words[-1]), first):
        if segments.rank[index] == FORBIDDEN or segments.rank[index] >= SENTENCE:
            start = segments.start[index]
            repeated = sum(word >= start for word in words)
            if repeated >= min(len(words), _PHRASE_WORDS):
                return start
            break
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


class _HeadingPaths:
    """For each block of a document the titles of the headings it stands under, outermost first; a heading stands
    under itself."""

    def __init__(self, document: ParsedDocument) -> None:
        self._paths: list[tuple[str, ...]] = []
        open_headings: list[tuple[int, str]] = []
        path: tuple[str, ...] = ()
        for block in document.blocks:
            if block.kind is BlockKind.HEADING:
                while open_headings and open_headings[-1][0] >= block.level:
                    open_headings.pop()
                open_headings.append((block.level, heading_title(document.text, block)))
                path = tuple(title for _, title in open_headings if title)
            self._paths.append(path)

    def at(self, block_index: int) -> tuple[str, ...]:
        return self._paths[block_index]
