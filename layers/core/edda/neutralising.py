"""Text that was made from documents, as plain text that no reader's program turns into a link, an image or HTML.

An answer is shown as Markdown or HTML as often as not. An image there is fetched when it is looked at, and its address
can carry what the model has read; so can a link that is clicked or previewed. Nothing of that kind is left in: not as
Markdown or HTML, not bare, not behind look-alikes of `:` and `/`, entities or characters that cannot be seen.
"""

import html
import re
import unicodedata
from dataclasses import dataclass

from edda.quoting import fold
from edda.terms import UNSPACED

REMOVED = "(link removed)"

# The last part of a host's name, in any script that has spaces or as it is sent; in others only behind a letter, for
# "1.员工" is an item of a list.
_SPACED = rf"[^\W\d_{UNSPACED}]"
_TOP = rf"(?:xn--[a-z0-9-]{{2,59}}|{_SPACED}{{2,24}}|(?<=[^\W\d_]\.)[{UNSPACED}]{{2,24}})"
# What a link starts with, in text whose compatibility forms, entities and backslashes are resolved.
_LINK = re.compile(
    r"(?<![a-z])(?:"
    r"[a-z][a-z0-9+.-]{1,30}:[/\\]+(?=[^\s/\\])"  # any scheme with slashes: also https:/, which browsers take
    r"|(?:https?|wss?|ftp|mailto|tel|sms|file|blob|javascript|vbscript|intent|magnet|xmpp|cid"
    r"|sips?|skype|facetime|whatsapp|tg|slack|geo|market|vscode|bitcoin|view-source|ms-[a-z-]{2,20}):(?=\S)"
    r"|data:(?=[^\s,]*,)"
    r"|www\.(?=\w)"
    r"|(?<![/\\:\w])(?://|\\\\)(?=[\w.-]{1,200}[./\\])"  # of the same scheme as the page; a Windows share
    rf"|(?:[\w-]{{1,63}}\.){{1,9}}{_TOP}(?::\d+)?[/?#](?=\S)"  # without a scheme, but with a path
    r"|\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?[/?#](?=\S)"
    r")",
    re.I,
)
# A name that some programs make a link of: it may stay if the documents have it.
_NAME = re.compile(
    rf"[\w.+-]{{1,64}}@(?:[\w-]{{1,63}}\.){{1,9}}[\w-]{{2,63}}"
    rf"|(?<![\w.@-])(?:[\w-]{{1,63}}\.){{1,9}}{_TOP}(?!{_SPACED}|[\d_-])",
    re.I,
)
_UNSPACED_BEFORE = re.compile(rf"[{UNSPACED}]+(?=[a-z0-9])")
_END = re.compile(
    rf"(?:[^\s<>\"'`\[\]{{}}|^()*（）。，、！？；：「」『』【】《》{UNSPACED}]|。(?=[a-zA-Z0-9]))*"
)  # a browser takes an ideographic full stop for a dot
_BESIDE_ASCII = re.compile(r"[a-zA-Z0-9-][。｡][a-zA-Z0-9]")
_TRAILING = ".,;:!?"
_TAG = re.compile(r"<(?=[a-zA-Z/!?$%])")
# One of HTML, whole: of what else stands between such brackets (List<String>) the words must stay.
_HTML = re.compile(
    r"</?(a|abbr|b|big|blockquote|body|br|button|center|cite|code|dd|del|details|div|dl|dt|em|embed|font|footer|form|h[1-6]"
    r"|head|header|hr|html|i|iframe|img|input|ins|kbd|label|li|link|main|mark|meta|nav|object|ol|p|picture|pre|s|script"
    r"|section|small|source|span|strike|strong|style|sub|summary|sup|svg|table|tbody|td|template|textarea|tfoot|th|thead"
    r"|title|tr|tt|u|ul|video)(?:\s[^<>=]*+=[^<>]*+|\s*+/?)>|<!--[^<>]*+>",
    re.I,
)
_DIVIDING = frozenset({"br", "div", "hr", "li", "p", "td", "th", "tr"})  # what is beside it is not one word
_SEPARATORS = str.maketrans(dict.fromkeys("\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029", "\n") | {"\r": "\n"})
_VISIBLE_SELECTORS = "\ufe0e\ufe0f"  # text or emoji
_JOINERS = "\u200c\u200d"  # inside words of Persian and of India's scripts, and inside emoji


@dataclass(frozen=True, slots=True)
class Inert:
    """The plain text. `removed` counts links; `foreign` those of them, and names, that the sources do not have.
    `has_html`: tags were taken out, too."""

    text: str
    removed: int
    foreign: int
    has_html: bool


def neutralise(text: str, sources: str) -> Inert:
    """`text` without links, images, HTML and invisible characters. `sources` is what it was made from."""
    text = _visible(_unescaped(text)).translate(_SEPARATORS)
    known = fold(sources).text
    text, removed, foreign = _without_links(text, known)
    text, strange = _without_names(text, known)
    has_html = _HTML.search(text) is not None
    if has_html:  # what was parted by a tag may be a link now
        text, more, more_foreign = _without_links(_HTML.sub(_instead_of_tag, text), known)
        text, more_strange = _without_names(text, known)
        removed, foreign, strange = removed + more, foreign + more_foreign, strange + more_strange
    text = _TAG.sub("‹", text)
    text = re.sub(r"!(?=\[)", "! ", text)  # no image
    text = re.sub(r"\](?=\()", "] ", text)  # no link
    text = re.sub(r"\](?=:)", "] ", text)  # no address of a link by reference
    # No link by reference, no wiki link; but an index may be: ["limits"][0].
    text = re.sub(r"(?<=[\[\]])(?<![\"']\])(?=\[)", " ", text)
    if html.unescape(text) != text:  # too deep, or put together just now
        text = text.replace("&", "＆")
    return Inert(text.strip(), removed + strange, foreign + strange, has_html)


def _unescaped(text: str) -> str:
    """Entities resolved, also those that others would make."""
    for _ in range(5):
        if (resolved := html.unescape(text)) == text:
            return text
        text = resolved
    return text


def _visible(text: str) -> str:
    """Without what is there but not seen: zero widths, marks of direction, tags and selectors that can spell a text."""
    if text.isascii():
        return "".join(character for character in text if character >= " " or character in "\n\t\r\x0b\x0c\x1c\x1d\x1e")
    kept: list[str] = []
    for index, character in enumerate(text):
        before, after = text[index - 1 : index], text[index + 1 : index + 2]
        if character in _JOINERS:
            if before.isascii() or after.isascii() or before in _JOINERS:
                continue
        elif _is_selector(character):
            if character not in _VISIBLE_SELECTORS or before.isascii() or _is_selector(before):
                continue
        elif unicodedata.category(character) in {"Cf", "Co", "Cn", "Cs"} or (
            unicodedata.category(character) == "Cc" and character not in "\n\t\r\x0b\x0c\x1c\x1d\x1e\x85"
        ):
            continue
        kept.append(character)
    return "".join(kept)


def _instead_of_tag(tag: re.Match[str]) -> str:
    return " " if (tag[1] or "").lower() in _DIVIDING else ""


def _is_selector(character: str) -> bool:
    return "\ufe00" <= character <= "\ufe0f" or "\U000e0100" <= character <= "\U000e01ef"


def _without_links(text: str, known: str) -> tuple[str, int, int]:
    skeleton, origin = _skeleton(text)
    pieces: list[str] = []
    done = removed = foreign = 0
    for match in _LINK.finditer(skeleton):
        start = origin[match.start()]
        if start < done:
            continue
        end = origin[match.end() - 1] + 1
        if more := _END.match(text, end):
            end = more.end()
        while end > start + 1 and text[end - 1] in _TRAILING:
            end -= 1
        pieces += [text[done:start], REMOVED]
        removed += 1
        foreign += fold(text[start:end]).text not in known
        done = end
    return "".join([*pieces, text[done:]]), removed, foreign


def _without_names(text: str, known: str) -> tuple[str, int]:
    skeleton, origin = _skeleton(text)
    pieces: list[str] = []
    done = count = 0
    judged: dict[str, bool] = {}
    for match in _NAME.finditer(skeleton):
        start, end = origin[match.start()], origin[match.end() - 1] + 1
        name = text[start:end]
        if name not in judged:  # Chinese may stand right before it
            forms = [fold(name).text, fold(match[0]).text]
            judged[name] = any(_is_named(_UNSPACED_BEFORE.sub("", form, count=1), known) for form in forms)
        if start >= done and not judged[name]:
            pieces += [text[done:start], REMOVED]
            count += 1
            done = end
    return "".join([*pieces, text[done:]]), count


def _is_named(name: str, known: str) -> bool:
    return (
        name in known
        and re.search(rf"(?<!{_SPACED})(?<![\d_@-]){re.escape(name)}(?!{_SPACED}|[\d_-])", known) is not None
    )


def _skeleton(text: str) -> tuple[str, list[int]]:
    """The text as the most obliging program would read it, and where each of its characters is in the text."""
    characters: list[str] = []
    origin: list[int] = []
    for index, character in enumerate(text):
        if character == "\\" and text[index + 1 : index + 2] in {":", "/", ".", "&", "@"}:
            continue
        is_dot = character in "。｡" and _BESIDE_ASCII.match(text, max(0, index - 1))  # to browsers
        for one in "." if is_dot else unicodedata.normalize("NFKC", character):
            if unicodedata.category(one)[0] != "M":  # for `re` they are no part of a word
                characters.append(one)
                origin.append(index)
    return "".join(characters), origin
