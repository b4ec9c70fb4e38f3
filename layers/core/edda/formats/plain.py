"""Text that is its own source: the draft's offsets are offsets into the user's file, decoded and cleaned."""

import re
from collections.abc import Callable, Iterator

from edda.models import Block, BlockKind

_BLANK_LINES = re.compile(r"\n[ \t]*+\n\s*+")
_LINE = re.compile(r"[^\n]*\n?")
_CLOSING = (")", "]", "}", "")

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_ATX = re.compile(r" {0,3}(#{1,6})(?:[ \t]+|$)")
_SETEXT = re.compile(r" {0,3}(=+|-+)[ \t]*$")
_MARKDOWN_ITEM = re.compile(r"\s{0,12}(?:[-*+]|\d{1,9}[.)])[ \t]+\S")
_TABLE_RULE = re.compile(r"[ \t]*\|?[ \t]*:?-{2,}:?[ \t]*(?:\|[ \t]*:?-{2,}:?[ \t]*)*\|?[ \t]*$")

_RST_ADORNMENT = re.compile(r"([!-/:-@\[-`{-~])\1{1,}[ \t]*$")
_RST_ITEM = re.compile(r"\s{0,12}(?:[-*+•]|\d{1,9}[.)]|#\.)[ \t]+\S")
_RST_TABLE = re.compile(r"[ \t]*(?:\+[-=+]+\+|={2,}(?:[ \t]+={2,})+)[ \t]*$")
_MAX_HEADING_CHARACTERS = 200

Line = tuple[int, int, str]  # start, end without the newline, text


def plain_blocks(text: str) -> Iterator[Block]:
    """A paragraph for each run of lines without a blank line between them."""
    start = 0
    for gap in _BLANK_LINES.finditer(text):
        yield from _block(text, BlockKind.PARAGRAPH, start, gap.start())
        start = gap.end()
    yield from _block(text, BlockKind.PARAGRAPH, start, len(text))


def table_blocks(text: str) -> Iterator[Block]:
    """One table."""
    yield from _block(text, BlockKind.TABLE, 0, len(text))


def code_blocks(text: str) -> Iterator[Block]:
    """Code divided at blank lines before an unindented line, where functions and classes begin."""
    start = 0
    for gap in _BLANK_LINES.finditer(text):
        unindented = gap[0].endswith("\n") and text[gap.end() : gap.end() + 1] not in _CLOSING
        if unindented:
            yield from _block(text, BlockKind.CODE, start, gap.start())
            start = gap.end()
    yield from _block(text, BlockKind.CODE, start, len(text))


def markdown_blocks(text: str, *, is_start: bool = True) -> Iterator[Block]:
    """Headings (# and underlined), fenced code, tables, lists and paragraphs of Markdown.

    `is_start`: of the file, where there may be front matter.
    """
    lines = list(_lines(text))
    index = _after_front_matter(lines) if is_start else 0
    if index:
        yield from _block(text, BlockKind.CODE, 0, lines[index - 1][1])
    while index < len(lines):
        end, kind, level = _markdown_block(lines, index)
        yield from _block(text, kind, lines[index][0], lines[end - 1][1], level)
        index = end


def _markdown_block(lines: list[Line], index: int) -> tuple[int, BlockKind, int]:
    """(index after it, kind, level) of the block that starts at line `index`."""
    line = lines[index][2]
    if not line.strip():
        return index + 1, BlockKind.PARAGRAPH, 0
    if fence := _FENCE.match(line):
        return _after_fence(lines, index, fence[1]), BlockKind.CODE, 0
    if heading := _ATX.match(line):
        return index + 1, BlockKind.HEADING, len(heading[1])
    if "|" in line and index + 1 < len(lines) and _is_table_rule(lines[index + 1][2]):
        return _while(lines, index + 2, lambda text: "|" in text), BlockKind.TABLE, 0
    is_list = _MARKDOWN_ITEM.match(line) is not None
    end = index + 1
    while end < len(lines) and lines[end][2].strip():
        text = lines[end][2]
        if not is_list and (underline := _SETEXT.match(text)):
            return end + 1, BlockKind.HEADING, 1 if underline[1][0] == "=" else 2
        if _ATX.match(text) or _FENCE.match(text) or (not is_list and _MARKDOWN_ITEM.match(text)):
            break
        if "|" in text and end + 1 < len(lines) and _is_table_rule(lines[end + 1][2]):
            break
        end += 1
    return end, BlockKind.LIST if is_list else BlockKind.PARAGRAPH, 0


def _is_table_rule(line: str) -> bool:
    return "|" in line and _TABLE_RULE.match(line) is not None


def _after_fence(lines: list[Line], index: int, fence: str) -> int:
    for end in range(index + 1, len(lines)):
        closing = lines[end][2].strip()
        if closing.startswith(fence) and not closing.strip(fence[0]):
            return end + 1
    return len(lines)


def _after_front_matter(lines: list[Line]) -> int:
    if not lines or lines[0][2].rstrip() != "---":
        return 0
    for index in range(1, min(len(lines), 200)):
        if lines[index][2].rstrip() in ("---", "..."):
            return index + 1
    return 0


def rst_blocks(text: str) -> Iterator[Block]:
    """Titles, literal blocks, tables, lists and paragraphs of reStructuredText.

    Adornments get their levels in the order in which they first appear, as docutils has it.
    """
    lines = list(_lines(text))
    styles: list[str] = []
    index, after_colons, indent = 0, False, 0
    while index < len(lines):
        end, kind, style = _rst_block(lines, index)
        if style:
            if style not in styles:
                styles.append(style)
            yield from _block(text, kind, lines[index][0], lines[end - 1][1], min(styles.index(style) + 1, 6))
        else:
            if after_colons and _indent(lines[index][2]) > indent:
                kind, end = BlockKind.CODE, _after_indented(lines, index, indent)
            yield from _block(text, kind, lines[index][0], lines[end - 1][1])
        if any(line.strip() for _, _, line in lines[index:end]):
            after_colons = lines[end - 1][2].rstrip().endswith("::") or ".. code" in lines[index][2]
            indent = _indent(lines[index][2])
        index = end


def _rst_block(lines: list[Line], index: int) -> tuple[int, BlockKind, str]:
    """(index after it, kind, adornment of a title or "") of the block that starts at line `index`."""
    line = lines[index][2]
    if not line.strip():
        return index + 1, BlockKind.PARAGRAPH, ""
    following = [lines[at][2] if at < len(lines) else "" for at in (index + 1, index + 2)]
    if _RST_TABLE.match(line):
        return _after_rst_table(lines, index), BlockKind.TABLE, ""
    if _is_adornment(line, following[0]) and following[0].strip() and following[1].rstrip() == line.rstrip():
        return index + 3, BlockKind.HEADING, line[0] * 2
    if _is_adornment(following[0], line) and not line[0].isspace():
        return index + 2, BlockKind.HEADING, following[0][0]
    end = _while(lines, index + 1, lambda text: bool(text.strip()) and not _RST_TABLE.match(text))
    return end, BlockKind.LIST if _RST_ITEM.match(line) else BlockKind.PARAGRAPH, ""


def _is_adornment(line: str, title: str) -> bool:
    """Whether `line` underlines `title`: docutils accepts a shorter one of four characters or more."""
    return bool(_RST_ADORNMENT.match(line)) and len(line.rstrip()) >= min(len(title.rstrip()), 4)


def _after_rst_table(lines: list[Line], index: int) -> int:
    """A grid table ends at a blank line, a simple table at its last rule, after which a blank line stands."""
    simple = lines[index][2].lstrip().startswith("=")
    end = index + 1
    while end < len(lines) and (simple or lines[end][2].strip()):
        at_rule = _RST_TABLE.match(lines[end][2]) is not None
        end += 1
        if simple and at_rule and (end >= len(lines) or not lines[end][2].strip()):
            break
        if end - index > 2_000:
            break
    return end


def _after_indented(lines: list[Line], index: int, indent: int) -> int:
    end = _while(lines, index, lambda text: not text.strip() or _indent(text) > indent)
    while end > index + 1 and not lines[end - 1][2].strip():
        end -= 1
    return end


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _while(lines: list[Line], index: int, keeps: Callable[[str], bool]) -> int:
    while index < len(lines) and keeps(lines[index][2]):
        index += 1
    return index


def _lines(text: str) -> Iterator[Line]:
    for match in _LINE.finditer(text):
        line = match[0].rstrip("\n")
        if match[0]:
            yield match.start(), match.start() + len(line), line


def _block(text: str, kind: BlockKind, start: int, end: int, level: int = 0) -> Iterator[Block]:
    """The block without blank lines around it, if anything is left. The first line keeps its indentation."""
    piece = text[start:end]
    size = len(piece.rstrip())
    if size:
        lead = len(piece) - len(piece.lstrip())
        first_line = piece.rfind("\n", 0, lead) + 1
        yield Block(kind, start + first_line, start + size, level)


_HEADING_MARKUP = re.compile(r"^#{1,6}\s+|\s+#+\s*$|^[=\-~^\"'`*+#:.]{2,}$|\*\*|`", re.MULTILINE)


def heading_title(text: str, block: Block) -> str:
    """A heading in one line, without the marks of Markdown and reStructuredText."""
    return " ".join(_HEADING_MARKUP.sub(" ", text[block.start : block.end]).split())[:_MAX_HEADING_CHARACTERS]
