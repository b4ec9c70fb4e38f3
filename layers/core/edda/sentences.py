"""Where sentences and lines end, in any script."""

import re
from collections.abc import Iterator

Span = tuple[int, int]

# The end of a sentence: closing punctuation and white space before something that is not lower case, or the full
# stops of scripts that write no spaces. Initials and a few abbreviations end no sentence. It starts with a class of
# characters, which is what lets the search skip through the text; it starts at the first of several stops only, and
# repeats are possessive, so that a line of a million dots takes linear time.
SENTENCE_END = re.compile(
    r"[.!?…。！？｡︒।॥؟۔៕་།](?:"
    r"(?<=[.!?…])(?<![.!?…][.!?…])(?<!\b[A-Z]\.)(?<!\b(?:Mr|Ms|Dr|St|No)\.)(?<!\b(?:Mrs|Fig|e\.g|i\.e)\.)"
    r"[.!?…]*+[\"'”’»)\]]*+\s++(?![a-zà-ÿα-ωа-я])"
    r"|(?<![.!?…])[。！？｡︒।॥؟۔៕་།]*+[」』”’）】\"')\]]*+\s*+)"
)
LINE_END = re.compile(r"\n\s*+")


def parts(text: str, start: int, end: int, separator: re.Pattern[str] | None) -> Iterator[Span]:
    """The parts of a span that a separator divides, without white space around them; no blank ones.

    A separator belongs to the part before it, so its punctuation does too.
    """
    ends = [match.end() for match in separator.finditer(text, start, end)] if separator else []
    for part_end in (*ends, end):
        left, right = start, part_end
        while right > left and text[right - 1].isspace():
            right -= 1
        while left < right and text[left].isspace():
            left += 1
        if left < right:
            yield left, right
        start = part_end
