"""Quoted phrases as regular expressions, for Postgres and for Python: whatever case, white space and typography."""

import re
import unicodedata

from edda.terms import UNSPACED

# What Python takes for white space: to Postgres some of it is none.
_SPACE = "[\\s\x1c-\x1f\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+"
# As a keyboard has them, and as books and word processors do.
_SAME = {one: f"[{kinds}]" for kinds in ("'’‘`´", "-‐‑‒–—−", '"“”„«»') for one in kinds}
_LIGATURES = {"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "…": "..."}
_LIGATURE = re.compile("[" + "".join(_LIGATURES) + "]")
_LETTERS_OF_ONE = re.compile(r"ff[il]|f[fil]|\.\.\.", re.IGNORECASE)
_IS_UNSPACED = re.compile(f"[{UNSPACED}]")
# Where a word is not within a longer one. Characters of scripts without spaces may stand beside it.
_LETTER = rf"[^\W_{UNSPACED}]"


def in_postgres(phrase: str) -> str:
    """The phrase as whole words in any case, whatever the database's locale is, with accents written either way."""
    begins = f"(?:(?<=[{UNSPACED}])|(?<![[:alnum:]]))"
    return _whole(phrase, begins, f"(?:(?=[{UNSPACED}])|(?![[:alnum:]]))")


def in_python(phrase: str) -> re.Pattern[str]:
    """The same."""
    return re.compile(_whole(phrase, f"(?<!{_LETTER})", f"(?!{_LETTER})"))


def _whole(phrase: str, begins: str, ends: str) -> str:
    words = unicodedata.normalize("NFC", _LIGATURE.sub(lambda found: _LIGATURES[found[0]], phrase)).split()
    pattern = _SPACE.join(map(_word, words))
    before = begins if _ends_a_word(words[0][0]) else ""
    return before + pattern + (ends if _ends_a_word(words[-1][-1]) else "")


def _ends_a_word(character: str) -> bool:
    return character.isalnum() and not _IS_UNSPACED.match(character)


def _word(word: str) -> str:
    found, end = "", 0
    for letters in _LETTERS_OF_ONE.finditer(word):
        found += "".join(map(_either_way, word[end : letters.start()])) + _or_as_one(letters[0])
        end = letters.end()
    return found + "".join(map(_either_way, word[end:]))


def _or_as_one(letters: str) -> str:
    """Letters, or the ligatures that they may be printed as."""
    ways = ["".join(map(_either_way, letters))]
    ways += [one for one, of in _LIGATURES.items() if of == letters.lower()]
    if len(letters) > 2 and letters[0] != ".":
        ways += [f"ﬀ{_either_way(letters[2])}", _either_way(letters[0]) + {"i": "ﬁ", "l": "ﬂ"}[letters[2].lower()]]
    return f"(?:{'|'.join(ways)})"


def _either_way(character: str) -> str:
    if character in _SAME:
        return _SAME[character]
    cases = {one for one in (character, character.lower(), character.upper()) if len(one) == 1}
    ways = sorted(cases | {unicodedata.normalize("NFD", one) for one in cases})
    if len(ways) > 1:
        return f"(?:{'|'.join(ways)})" if max(map(len, ways)) > 1 else f"[{''.join(ways)}]"
    return character if character.isalnum() else re.sub(r"([^\w\s])", r"\\\1", character)
