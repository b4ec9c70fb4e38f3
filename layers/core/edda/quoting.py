"""Finding a quote in the text it claims to be from, however its white space, quotation marks, dashes and case are
written; what counts afterwards is the stored text, character for character."""

import unicodedata
from array import array
from dataclasses import dataclass

from edda.sentences import Span
from edda.words import runs

# A shorter quote is found anywhere: so many words (or pairs of characters, where there are no spaces), or letters.
FEWEST_WORDS = 3
FEWEST_LETTERS = 12
_SAME = str.maketrans(
    dict.fromkeys("‘’‚‛′`´ʼ", "'")
    | dict.fromkeys("“”„‟«»″〝〞", '"')
    | dict.fromkeys("‐‑‒–—―−﹘﹣", "-")
)  # fmt: skip
_DROPPED = {"Cf", "Cc", "Mn"}  # soft hyphens, zero widths; accents that stand apart


@dataclass(frozen=True, slots=True)
class Folded:
    """Text in the form in which it is compared, and where in the original each of its characters was."""

    text: str
    origin: "array[int]"
    end: "array[int]"  # behind it and its marks


def fold(text: str) -> Folded:
    """White space as single spaces, one kind of quotation mark and dash, compatibility forms, lower case. Linear."""
    folded: list[str] = []
    origin, end = array("q"), array("q")
    for index, character in enumerate(text):
        if character.isspace():
            if folded and folded[-1] != " ":
                folded.append(" ")
                origin.append(index)
                end.append(index + 1)
            continue
        for one in unicodedata.normalize("NFKD", character).translate(_SAME).casefold():
            if unicodedata.category(one) not in _DROPPED:
                folded.append(one)
                origin.append(index)
                end.append(index + 1)
            elif end and end[-1] == index and unicodedata.category(character)[0] == "M":
                end[-1] = index + 1
    return Folded("".join(folded), origin, end)


def find_quote(quote: str, passage: Folded) -> Span | None:
    """Where in the passage's own text the quote stands, in whole words; None: nowhere, or it is too short to tell."""
    wanted = fold(quote).text.strip(" '\"")
    letters = sum(character.isalnum() for character in wanted)
    is_short = letters < FEWEST_LETTERS and len(runs(quote)) < FEWEST_WORDS
    if not letters or (is_short and wanted != passage.text.strip(" '\"")):
        return None
    text, start = passage.text, -1
    while (start := text.find(wanted, start + 1)) >= 0:
        end = start + len(wanted)
        if not _inside_word(text, start) and not _inside_word(text, end):
            return passage.origin[start], passage.end[end - 1]
    return None


def _inside_word(text: str, position: int) -> bool:
    """Between two letters or digits of a script that has spaces."""
    around = text[max(0, position - 1) : position + 1]
    return 0 < position < len(text) and around.isalnum() and max(around) < "\u0e00"
