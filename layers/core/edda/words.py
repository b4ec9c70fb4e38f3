"""The words of a text, near enough to compare a question, a sentence and an answer by, whatever their language.

A word is its first letters (`employee` and `employees` are one), unless it has digits; where a script puts no spaces
between words, it is each pair of neighbouring characters.
"""

import re
import unicodedata

from edda.terms import MARKS, UNSPACED

STEM_CHARACTERS = 6  # 4 to 6 find the right sentence equally often, whole words in 4 of 100 questions less
# With its vowel signs, which `re` takes for no part of a word.
_RUN = re.compile(rf"[{UNSPACED}]+|[^\W_{UNSPACED}](?:[^\W_{UNSPACED}]|[{MARKS}])*")
# Accents, and points of Hebrew and Arabic: as often left out.
_POINTS = re.compile("[\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u0640\u064b-\u065f\u0670]")
_DIGIT = re.compile(r"\d")
_ENDING = re.compile(r"(?<=\w{3})(?:ie[sd]?|i)\Z")  # carries, carried, policies: carry, policy
_IS_UNSPACED = re.compile(rf"[{UNSPACED}]")


def words(text: str) -> set[str]:
    """Each word of `text` once."""
    return {stem(run) for run in runs(text)}


def runs(text: str) -> set[str]:
    """The words as they are, in lower case; pairs of characters, where a script has no spaces."""
    found: set[str] = set()
    for run in _RUN.findall(_POINTS.sub("", unicodedata.normalize("NFKC", text).casefold())):
        if _IS_UNSPACED.match(run):
            found.update(run[index : index + 2] for index in range(max(1, len(run) - 1)))
        else:
            found.add(run)
    return found


def stem(run: str) -> str:
    """What stands for a word and those that are made of it; what has digits is itself."""
    if _DIGIT.search(run):
        return run
    return _ENDING.sub("y", run[:STEM_CHARACTERS])
