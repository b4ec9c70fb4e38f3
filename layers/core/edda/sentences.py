"""Where sentences and lines end, in any script.

A sentence that is cut too early loses what it says ("due on 31." of "due on 31. März"); two that are taken for one are
only longer. So what may be an abbreviation or an ordinal ends none.
"""

import re
from collections.abc import Callable, Iterator

Span = tuple[int, int]
Separator = Callable[[str, int, int], Iterator[int]]  # where parts of text[start:end] end

# Closing punctuation and white space, or the full stops of scripts that write no spaces. It starts with a class of
# characters, which is what lets the search skip through the text; it starts at the first of several stops only, and
# repeats are possessive, so that a line of a million dots takes linear time.
_STOP = re.compile(
    r"[.!?…。！？｡︒।॥؟۔៕་།](?:"
    r"(?<=[.!?…])(?<![.!?…][.!?…])[.!?…]*+[\"'”’»)\]]*+\s++"
    r"|(?<![.!?…])[。！？｡︒।॥؟۔៕་།]*+[」』”’）】\"')\]]*+\s*+)"
)
_LINE_END = re.compile(r"\n\s*+")
_PARAGRAPH_END = re.compile(r"\n[ \t]*\n\s*")


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_LONGEST = 16  # characters of what stands before a full stop, and before a number
_JOINING = ("-", "–", "/")
_OPENING = "([{<\"'„“”‚‘«»*_`/–-"
# Titles: written with a capital, for in lower case some are words.
_TITLES = _set(
    "Mr Mrs Ms Dr Prof St Mt Gen Col Lt Sgt Capt Cpl Maj Cmdr Adm Rev Hon Gov Sen Rep Supt Messrs Pres Fig Figs "
    "Hr Fr Frl Mag Ing Dipl Bgm Hl Sr Sra Srta Dra Lic Dott Avv Sig Dhr Mevr Проф Акад"
)
# Something follows these, whatever it is.
_GOING_ON = _set(
    "approx cf vs viz incl excl esp "
    "abzgl allg bspw bzgl bzw ca dgl ehem einschl evtl geb gem ggf inkl insb lt mind mio mrd nr rd sog stellv stv tsd "
    "tägl vgl vorm zzgl zw "
    "aprox env núm bijv f.eks bl.a tzv např tzn т.д т.п тыс млн млрд им ул"
)
# A number follows these, or they end the sentence.
_BEFORE_NUMBER = _set(
    "jan feb mar mär apr jun jul aug sep sept oct okt nov dec dez "
    "no nos p pp pg ch sec para art eq ex ext vol ver est tab max min al tel "
    "abb abs abschn anh anl anm aufl bd hs kap rn rz ziff pos plz "
    "pág cap págs blz kl godz ok стр рис гл табл"
)
_HALVES_OF_THE_DAY = frozenset({"a.m", "p.m"})
_ABBREVIATED = re.compile(r"[^\W\d_](?:\.[^\W\d_])*")  # an initial, e.g, z.B
_LETTERS = frozenset("vг")  # Brown v. Board, г. Москва
_AFTER_LETTER = re.compile(r"\d|[^\W\d_]\.|Chr\.")  # p. 5, z. B., v. Chr.
_BEFORE_LETTER = re.compile(r"(?<!\w)[^\W\d_]\.\s\Z")  # d. h.
_NUMBER = re.compile(r"\d{1,3}")
# German writes ordinals so, and nouns with a capital.
_MONTH = re.compile(
    r"(?:Januar|Jänner|Februar|Feber|März|April|Mai|Juni|Juli|August|September|Oktober|November|Dezember"
    r"|Jan|Feb|Mrz|Mär|Apr|Jun|Jul|Aug|Sept?|Okt|Nov|Dez)\b"
)
_BEFORE_ORDINAL = re.compile(
    r"(?:\b(?:(?<!I )am|[Dd](?:er|ie|as|en|em|es)|[Ii]m|[Vv]om|[Zz]u[mr]|[Bb]eim|ab|als|jede[rnms]?|eine[rnms]?)"
    r"|\d\.\s?[/–-])\s*\Z"
)
_BEFORE_ITEM = re.compile(r"(?:\A|\n)[\s#>*+|(-]*\Z")


def line_ends(text: str, start: int, end: int) -> Iterator[int]:
    """Each with the blank lines and indents behind it."""
    return (match.end() for match in _LINE_END.finditer(text, start, end))


def paragraph_ends(text: str, start: int, end: int) -> Iterator[int]:
    """Blank lines."""
    return (match.end() for match in _PARAGRAPH_END.finditer(text, start, end))


def sentence_ends(text: str, start: int, end: int) -> Iterator[int]:
    """Each with its punctuation and the white space behind it."""
    begin = start
    for match in _STOP.finditer(text, start, end):
        stop, after = match.start(), match.end()
        following = text[after : min(after + 1, end)]
        if text[stop] in ".!?…" and _goes_on(text, begin, stop, following, after):
            continue
        yield after
        begin = after


def _goes_on(text: str, begin: int, stop: int, following: str, after: int) -> bool:
    """Whether the sentence from `begin` on does, after the mark at `stop`; `following` is the character at `after`."""
    if following.islower() and not "\u10a0" <= following <= "\u10ff":  # Georgian has one case
        return True
    if text[stop] != "." or not text[stop + 1].isspace():
        return False
    first = stop
    while first > max(begin, stop - _LONGEST) and not (text[first - 1].isspace() or text[first - 1] in _OPENING):
        first -= 1
    word, lower = text[first:stop], text[first:stop].lower()
    before = text[max(begin, first - _LONGEST) : first]
    if _NUMBER.fullmatch(word):
        return (
            not before.strip()
            or following.isdecimal()
            or _MONTH.match(text, after) is not None
            or _BEFORE_ORDINAL.search(before) is not None
            or _BEFORE_ITEM.search(text, max(0, first - _LONGEST), first) is not None
        )
    if _ABBREVIATED.fullmatch(word) and max(word) < "\u0590" and before[-1:] not in _JOINING:  # scripts with two cases
        if len(word) > 1 or word.isupper():
            return lower not in _HALVES_OF_THE_DAY
        # One letter: as likely a unit (5 m.) or a variable.
        is_alone = before[-2:-1].isdecimal() or not (_AFTER_LETTER.match(text, after) or _BEFORE_LETTER.search(before))
        return word in _LETTERS or not is_alone
    if word in _TITLES or lower in _GOING_ON:
        return True
    return (lower in _BEFORE_NUMBER or lower.endswith("str")) and (following.isdecimal() or following in "([")


def parts(text: str, start: int, end: int, separator: Separator | None) -> Iterator[Span]:
    """The parts of a span that a separator divides, without white space around them; no blank ones.

    A separator belongs to the part before it, so its punctuation does too.
    """
    ends = list(separator(text, start, end)) if separator else []
    for part_end in (*ends, end):
        left, right = start, part_end
        while right > left and text[right - 1].isspace():
            right -= 1
        while left < right and text[left].isspace():
            left += 1
        if left < right:
            yield left, right
        start = part_end
