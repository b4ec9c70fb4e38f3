"""DOCX: everything that a reader of the printed document would see, and the notes and comments."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from edda.decoding import decode, decode_html
from edda.errors import Corrupt, DocumentError
from edda.formats.draft import Draft
from edda.formats.drawing import read_linked
from edda.formats.html import read_html
from edda.formats.opc import Package, core_title, main_part, open_package
from edda.formats.xml import Element, attribute, local

# Deleted and moved text, field codes, formatting, and the pronunciation above a word.
_UNREAD_WORDS = """
    del moveFrom delText instrText delInstrText rPr pPr tblPr trPr tcPr sectPr rt rubyPr
"""
_UNREAD = frozenset(_UNREAD_WORDS.split())
_INLINE_TEXT = {"tab": "\t", "ptab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "-"}
_HEADING_STYLE = re.compile(r"heading (\d)$", re.IGNORECASE)
_NOTE_KINDS = ("footnotes", "endnotes", "comments", "header", "footer")
_MAX_NESTED_DOCUMENTS = 20


@dataclass(frozen=True, slots=True)
class _Style:
    level: int  # of the heading, 0 for no heading
    is_list: bool


_BODY = _Style(0, False)


def read_docx(data: bytes, draft: Draft) -> None:
    """Raises Corrupt, Encrypted, DecompressionLimit."""
    with open_package(data) as package:
        part = main_part(package, "word/document.xml")
        root = package.xml(part)
        if root is None:
            raise Corrupt
        draft.title = core_title(package)
        reader = _Reader(package, part, draft)
        reader.read(root)
        for kind in _NOTE_KINDS:
            reader.read_notes(kind)


class _Reader:
    """Walks one part. Text boxes come after the paragraph that they are anchored in."""

    def __init__(self, package: Package, part: str, draft: Draft) -> None:
        self._package, self._part, self._draft = package, part, draft
        self._links = package.relationships(part)
        self._styles = _read_styles(package, self._links_of("styles"))
        self._boxes: list[Element] = []
        self._drawings: list[Element] = []
        self._items: list[str] = []
        self._nested = 0

    def read(self, node: Element) -> None:
        self._read_blocks(node)
        self._end_list()

    def read_notes(self, kind: str) -> None:
        """Add the notes, comments, headers or footers; the same header for each section once."""
        seen: set[str] = set()
        for part in self._links_of(kind):
            try:
                root = self._package.xml(part)
            except Corrupt:
                continue
            if root is None:
                continue
            notes = [root] if kind in ("header", "footer") else _written(root)
            key = "".join(root.itertext())
            if key not in seen:
                seen.add(key)
                for note in notes:
                    self.read(note)

    def _links_of(self, kind: str) -> list[str]:
        return [link.target for link in self._links.values() if link.kind == kind and not link.external]

    def _read_blocks(self, node: Element) -> None:
        for child in node:
            name = local(child)
            if name == "p":
                self._read_paragraph(child)
            elif name == "tbl":
                self._end_list()
                self._draft.table(self._rows(child))
                self._read_floating()
            elif name == "altChunk":
                self._read_foreign(child)
            elif name == "AlternateContent":
                self._read_blocks(_chosen(child))
            elif name not in _UNREAD:
                self._read_blocks(child)

    def _read_paragraph(self, paragraph: Element) -> None:
        text = self._text(paragraph)
        style = self._style(paragraph)
        if style.level and text.strip():
            self._end_list()
            self._draft.heading(text, style.level)
        elif style.is_list:
            self._items.append(text.replace("\n", " "))
        elif text.strip():
            self._end_list()
            self._draft.paragraph(text)
        self._read_floating()

    def _read_floating(self) -> None:
        """Text boxes, charts and SmartArt that were anchored in what was just added."""
        while self._boxes or self._drawings:
            boxes, self._boxes = self._boxes, []
            drawings, self._drawings = self._drawings, []
            if boxes or drawings:
                self._end_list()
            for drawing in drawings:
                read_linked(self._package, self._part, drawing, self._draft)
            for box in boxes:
                self._read_blocks(box)
                self._end_list()

    def _end_list(self) -> None:
        items, self._items = self._items, []
        self._draft.bullets(items)

    def _rows(self, table: Element) -> Iterator[list[str]]:
        for row in _descend(table, "tr"):
            yield [self._cell(cell) for cell in _descend(row, "tc")]

    def _cell(self, cell: Element) -> str:
        parts = []
        for block in _descend(cell, "p", "tbl"):
            if local(block) == "p":
                parts.append(self._text(block))
            else:
                parts += [" ".join(row) for row in self._rows(block)]
        return "\n".join(parts)

    def _text(self, node: Element) -> str:
        parts: list[str] = []
        self._collect(node, parts)
        return "".join(parts)

    def _collect(self, node: Element, parts: list[str]) -> None:
        for child in node:
            name = local(child)
            if name in _UNREAD:
                continue
            if name == "t":
                parts.append(child.text or "")
            elif name in _INLINE_TEXT:
                parts.append(_INLINE_TEXT[name])
            elif name == "txbxContent":
                self._boxes.append(child)
            elif name == "AlternateContent":
                self._collect(_chosen(child), parts)
            elif name in ("chart", "relIds"):
                self._drawings.append(node)
            elif name == "textpath" and (art := child.get("string")):
                parts.append(art)
            else:
                self._collect(child, parts)

    def _style(self, paragraph: Element) -> _Style:
        for properties in paragraph:
            if local(properties) != "pPr":
                continue
            style = _BODY
            for entry in properties:
                value = attribute(entry, "val") or ""
                if local(entry) == "pStyle":
                    style = self._styles.get(value, _BODY)
                elif local(entry) == "outlineLvl" and value.isdigit() and int(value) < 9:
                    style = _Style(min(int(value) + 1, 6), False)
                elif local(entry) == "numPr" and not style.level:
                    style = _Style(0, True)
            return style
        return _BODY

    def _read_foreign(self, chunk: Element) -> None:
        """A part in another format that stands for its text (altChunk)."""
        link = self._links.get(attribute(chunk, "id") or "")
        self._nested += 1
        if link is None or link.external or link.target not in self._package or self._nested > _MAX_NESTED_DOCUMENTS:
            return
        self._end_list()
        data = self._package.read(link.target)
        try:
            if data.startswith(b"PK"):
                read_docx(data, self._draft)
            elif re.search(r"\.(?:x?html?|mht(?:ml)?)$", link.target, re.IGNORECASE) or b"<html" in data[:1000].lower():
                read_html(decode_html(data), self._draft)
            else:
                self._draft.paragraph(decode(data))
        except DocumentError:
            return  # the rest of the document can be read


def _written(notes: Element) -> list[Element]:
    """The notes without the lines that separate them from the text."""
    return [note for note in notes if attribute(note, "type") is None]


def _chosen(alternatives: Element) -> Element:
    """The first alternative that has text: they show the same thing for newer and older programs."""
    for alternative in alternatives:
        if any(local(node) == "t" and node.text for node in alternative.iter()):
            return alternative
    return alternatives[0] if len(alternatives) else alternatives


def _descend(node: Element, *names: str) -> Iterator[Element]:
    """Children of these names, also those wrapped in content controls and insertions; not those within each other."""
    for child in node:
        name = local(child)
        if name in names:
            yield child
        elif name == "AlternateContent":
            yield from _descend(_chosen(child), *names)
        elif name not in _UNREAD and name not in ("p", "tbl", "tr", "tc"):
            yield from _descend(child, *names)


def _read_styles(package: Package, parts: list[str]) -> dict[str, _Style]:
    """What each paragraph style is, by its id; what a style does not say it has from the one it is based on."""
    try:
        root = package.xml(parts[0]) if parts else None
    except Corrupt:
        root = None
    own: dict[str, _Style] = {}
    bases: dict[str, str] = {}
    for style in root if root is not None else ():
        identifier = attribute(style, "styleId")
        if identifier is None:
            continue
        values = {local(entry): attribute(entry, "val") or "" for entry in style.iter()}
        bases[identifier] = values.get("basedOn", "")
        own[identifier] = _Style(_level(values), "numPr" in values)
    return {identifier: _inherited(identifier, own, bases) for identifier in own}


def _level(values: dict[str, str]) -> int:
    if match := _HEADING_STYLE.match(values.get("name", "")):
        return max(1, min(int(match[1]), 6))
    if values.get("name", "").lower() == "title":
        return 1
    outline = values.get("outlineLvl", "")
    return min(int(outline) + 1, 6) if outline.isdigit() and int(outline) < 9 else 0


def _inherited(identifier: str, own: dict[str, _Style], bases: dict[str, str]) -> _Style:
    is_list, seen = False, set[str]()
    while identifier in own and identifier not in seen:
        seen.add(identifier)
        is_list = is_list or own[identifier].is_list
        if own[identifier].level:
            return _Style(own[identifier].level, False)
        identifier = bases[identifier]
    return _Style(0, is_list)
