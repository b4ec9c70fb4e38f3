"""Finding a quote in the text it claims to be from, however its white space, quotation marks, dashes and case are
written; what counts afterwards is the stored text, character for character."""

import unicodedata
from array import array
from dataclasses import dataclass

from edda.sentences import Span

FEWEST_LETTERS = 4  # a shorter quote is found anywhere
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


def fold(text: str) -> Folded:
    """White space as single spaces, one kind of quotation mark and dash, compatibility forms, lower case. Linear."""
    folded: list[str] = []
    origin = array("q")
    for index, character in enumerate(text):
        if character.isspace():
            if folded and folded[-1] != " ":
                folded.append(" ")
                origin.append(index)
            continue
        for one in unicodedata.normalize("NFKD", character).translate(_SAME).casefold():
            if unicodedata.category(one) not in _DROPPED:
                folded.append(one)
                origin.append(index)
    return Folded("".join(folded), origin)


def find_quote(quote: str, passage: Folded) -> Span | None:
    """Where in the passage's own text the quote stands, in whole words; None: nowhere, or it is too short to tell."""
    wanted = fold(quote).text.strip(" '\"")
    if sum(character.isalnum() for character in wanted) < FEWEST_LETTERS:
        return None
    text, start = passage.text, -1
    while (start := text.find(wanted, start + 1)) >= 0:
        end = start + len(wanted)
        if not _inside_word(text, start) and not _inside_word(text, end):
            return passage.origin[start], passage.origin[end - 1] + 1
    return None


def _inside_word(text: str, position: int) -> bool:
    """Between two letters or digits of a script that has spaces."""
    around = text[max(0, position - 1) : position + 1]
    return 0 < position < len(text) and around.isalnum() and max(around) < "\u0e00"
