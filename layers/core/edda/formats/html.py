"""HTML to plain text with its structure: a stream of tags, no tree, so that no depth of nesting can hurt."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser

from edda.formats.draft import Draft

_BLOCKS_WORDS = """
    address article aside blockquote body caption center dd details dialog dir div dl dt fieldset figcaption figure
    footer form frameset header hgroup hr html isindex legend main menu nav ol optgroup option p section select summary
    ul tbody thead tfoot noscript noframes iframe object search title
"""
_BLOCKS = frozenset(_BLOCKS_WORDS.split())
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
# What is inside is not for reading. rt and rp hold the pronunciation of the word before them.
_SKIPPED = frozenset(
    ("script", "style", "template", "rt", "rp", "ix:header", "annotation", "annotation-xml", "datalist")
)
_RUBY = frozenset(("rt", "rp"))
_CELLS = frozenset(("td", "th"))
# Cells with a large heading, and larger cells than this, are the columns of a page's layout, not of a table.
_LAYOUT_HEADING = 3
_LAYOUT_CELL_CHARACTERS = 1_500
_SPACES = re.compile(r"[ \t\n\r\f]+")
_UNREAD_MARKUP = re.compile(r"<!--|<(script|style)\b(?=[^<>]{0,10000}>)(?![^<>]{0,10000}/>)", re.IGNORECASE)
_UNREAD_ENDS = {
    "": re.compile(r"--!?>"),
    "script": re.compile(r"</script\b[^>]{0,1000}>", re.IGNORECASE),
    "style": re.compile(r"</style\b[^>]{0,1000}>", re.IGNORECASE),
}


def read_html(markup: str, draft: Draft) -> None:
    """Add the document's headings, paragraphs, lists, tables and preformatted text to the draft, and its title."""
    reader = _Reader(draft)
    for piece in _without_comments_and_scripts(markup):
        reader.feed(piece)
    reader.close()
    reader.finish()


def _without_comments_and_scripts(markup: str) -> Iterator[str]:
    """The markup between comments, scripts and styles. One that is not closed reaches to the end, as in browsers.

    html.parser looks for the end of an unclosed comment again at every one that follows, which takes quadratic time.
    """
    start = 0
    while opening := _UNREAD_MARKUP.search(markup, start):
        yield markup[start : opening.start()]
        closing = _UNREAD_ENDS[(opening[1] or "").lower()].search(markup, opening.start() + (0 if opening[1] else 2))
        if closing is None:
            return
        start = closing.end()
    yield markup[start:]


class _Table:
    """A table that is open. As a `layout` its cells are paragraphs."""

    def __init__(self) -> None:
        self.rows: list[list[str]] = []
        self.layout = False
        self.in_cell = False


class _Reader(HTMLParser):
    def __init__(self, draft: Draft) -> None:
        super().__init__(convert_charrefs=True)
        self._draft = draft
        self._inline: list[str] = []  # text since the last flush
        self._skipping: list[str] = []
        self._heading = 0
        self._preformatted = 0
        self._lists = 0
        self._items: list[str] = []
        self._tables: list[_Table] = []
        self._in_title = False
        self._titles: list[str] = []

    # --- what html.parser calls ------------------------------------------------------------------------------

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _RUBY and self._skipping and self._skipping[-1] in _RUBY:
            self._skipping.pop()  # its end tag may be left out
        if tag in _SKIPPED:
            self._skipping.append(tag)
        if self._skipping:
            return
        if tag == "br":
            self._inline.append("\n")
        elif tag == "title":
            self._flush()
            self._in_title = not self._titles
        elif tag in _HEADINGS:
            if _HEADINGS[tag] <= _LAYOUT_HEADING and self._tables and self._tables[-1].in_cell:
                self._become_layout(self._tables[-1])
            self._flush()
            self._heading = _HEADINGS[tag]
        elif tag in ("pre", "listing", "xmp", "plaintext"):
            self._flush()
            self._preformatted += 1
        elif tag in ("table", "tr", *_CELLS):
            self._open_table_part(tag)
        elif tag == "li":
            self._flush()
        elif tag in _BLOCKS:
            self._flush()
            self._lists += tag in ("ul", "ol", "dir", "menu")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _SKIPPED:  # <script/> does not open one in XHTML
            self.handle_starttag(tag, attrs)
            if tag not in ("br", "hr", "p", "li", "td", "th", "tr"):
                self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag == "ruby":
            self._skipping = [open_tag for open_tag in self._skipping if open_tag not in _RUBY]
        if tag in _SKIPPED and tag in self._skipping:
            while self._skipping.pop() != tag:
                pass
            return
        if self._skipping:
            return
        if tag == "title":
            self._end_title()
        elif tag in _HEADINGS:
            self._flush()
            self._heading = 0
        elif tag in ("pre", "listing", "xmp"):
            self._flush()
            self._preformatted = max(0, self._preformatted - 1)
        elif tag in ("table", "tr", *_CELLS):
            self._close_table_part(tag)
        elif tag == "li" or tag in _BLOCKS:
            self._flush()
            if tag in ("ul", "ol", "dir", "menu"):
                self._lists = max(0, self._lists - 1)
                if not self._lists:
                    self._flush_list()

    def handle_data(self, data: str) -> None:
        if not self._skipping:
            self._inline.append(data if self._preformatted else _SPACES.sub(" ", data))

    def unknown_decl(self, data: str) -> None:
        """A CDATA section of XHTML is text."""
        if data.startswith("CDATA[") and not self._skipping:
            self.handle_data(data[6:])

    def parse_html_declaration(self, i: int) -> int:
        """html.parser fails on a `<![` that is no marked section it knows; browsers take it for a comment."""
        try:
            return super().parse_html_declaration(i)
        except AssertionError:
            return self.parse_bogus_comment(i)

    # --- what it means ---------------------------------------------------------------------------------------

    def finish(self) -> None:
        """The end of the document closes what is open."""
        if self._in_title:
            self._end_title()
        while self._tables:
            self._close_table_part("table")
        self._flush()
        self._flush_list()

    def _end_title(self) -> None:
        title = " ".join(self._take().split())
        self._in_title = False
        if title:
            self._titles.append(title)
            self._draft.title = self._draft.title or title
            self._draft.heading(title, 1)

    def _take(self) -> str:
        text = "".join(self._inline)
        self._inline.clear()
        if self._preformatted:
            return text
        return re.sub(r" *\n *", "\n", _SPACES_BUT_NEWLINES.sub(" ", text)).strip(" \n")

    def _flush(self) -> None:
        """The inline text so far becomes a block, a list item, or part of a table cell."""
        if self._tables and self._tables[-1].in_cell and not self._tables[-1].layout:
            if self._inline and self._inline[-1] != "\n":
                self._inline.append("\n")
            return
        text = self._take() if self._inline else ""
        if not text.strip():
            return
        if self._heading:
            self._flush_list()
            self._draft.heading(text, self._heading)
        elif self._preformatted:
            self._flush_list()
            self._draft.code(text)
        elif self._lists:
            self._items.append(text.replace("\n", " "))
        else:
            self._draft.paragraph(text)

    def _flush_list(self) -> None:
        items, self._items = self._items, []
        self._draft.bullets(items)

    def _open_table_part(self, tag: str) -> None:
        if tag == "table":
            if self._tables and self._tables[-1].in_cell:
                self._become_layout(self._tables[-1])
            self._flush()
            self._flush_list()
            self._tables.append(_Table())
        elif self._tables:
            table = self._tables[-1]
            self._end_cell(table)
            if tag == "tr":
                table.rows.append([])
            else:
                table.in_cell = True
        else:
            self._flush()

    def _close_table_part(self, tag: str) -> None:
        if not self._tables:
            self._flush()
            return
        table = self._tables[-1]
        self._end_cell(table)
        if tag == "table":
            self._tables.pop()
            self._emit(table)

    def _end_cell(self, table: _Table) -> None:
        if table.layout:
            self._flush()
            self._flush_list()
        elif table.in_cell:
            cell = self._take()
            if not table.rows:
                table.rows.append([])
            table.rows[-1].append(cell)
            if len(cell) > _LAYOUT_CELL_CHARACTERS:
                table.in_cell = False
                self._become_layout(table)
        else:
            self._flush()  # a caption, or text between the parts of a table
        table.in_cell = False

    def _become_layout(self, table: _Table) -> None:
        """What was read of the table so far was not a table: its cells become paragraphs."""
        if table.layout:
            return
        table.layout = True
        pending, self._inline = self._inline, []
        for row in table.rows:
            for cell in row:
                self._draft.paragraph(cell)
        table.rows = []
        self._inline = pending
        self._flush()

    def _emit(self, table: _Table) -> None:
        if not table.layout:
            self._draft.table(table.rows)


_SPACES_BUT_NEWLINES = re.compile(r"[ \t\r\f]+")
