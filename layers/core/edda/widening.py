"""Short passages with those around them: a sentence by itself does not say what it is about.

Documents that are cut into single sentences (docs/chunking.md) are answered from passages like those of other ones.
"""

from collections.abc import Sequence
from dataclasses import replace

from edda.highlighting import Span
from edda.models import Hit, Passage
from edda.searching import Found
from edda.tokens import count_tokens

SHORT_TOKENS = 60  # a passage of fewer is widened
AROUND = 3  # chunks before and behind it, at most
MOST_TOKENS = 200  # as long as that
MOST_BLANK = 20  # characters between two chunks that belong together


def is_short(hit: Hit) -> bool:
    return count_tokens(hit.text) < SHORT_TOKENS


def widened(found: Sequence[Found], around: Sequence[Sequence[Passage]]) -> list[Found]:
    """Each hit with its neighbours in `around`, nearest first, as one passage. What another one has by then is left
    out, hits too."""
    kept: list[Found] = []
    for one, beside in zip(found, around, strict=True):
        others = [other.hit for other in kept if other.hit.version_id == one.hit.version_id]
        if any(other.char_start <= one.hit.char_start and one.hit.char_end <= other.char_end for other in others):
            continue
        free = [
            passage
            for passage in beside
            if not any(passage.char_start < other.char_end and other.char_start < passage.char_end for other in others)
        ]
        kept.append(_with(one, free))
    return kept


def _with(found: Found, beside: Sequence[Passage]) -> Found:
    hit = found.hit
    text, start, end, page = hit.text, hit.char_start, hit.char_end, hit.page
    before = sorted((one for one in beside if one.ordinal < hit.ordinal), key=lambda one: -one.ordinal)
    after = sorted((one for one in beside if one.ordinal > hit.ordinal), key=lambda one: one.ordinal)
    first = last = hit.ordinal
    tokens = count_tokens(text)
    while before or after:
        for side in (before, after):
            if not side:
                continue
            one = side.pop(0)
            tokens += count_tokens(one.text)
            is_before = side is before
            gap = start - one.char_end if is_before else one.char_start - end
            is_next = one.ordinal == (first - 1 if is_before else last + 1)
            if tokens > MOST_TOKENS or not is_next or gap > MOST_BLANK:
                side.clear()
            elif is_before and one.char_start < start:
                text = one.text[: start - one.char_start] + _blank(gap) + text
                first, start, page = one.ordinal, one.char_start, one.page
            elif not is_before and one.char_end > end:
                text += _blank(gap) + one.text[max(0, -gap) :]
                last, end = one.ordinal, one.char_end
    shift = hit.char_start - start
    return replace(
        found,
        hit=replace(hit, text=text, char_start=start, char_end=end, page=page),
        highlights=[Span(one.start + shift, one.end + shift) for one in found.highlights],
    )


def _blank(gap: int) -> str:
    """Between two chunks there is white space alone, of which only the length is known: in prose new lines do no harm,
    and rows of a table stay apart."""
    return "\n" * gap
