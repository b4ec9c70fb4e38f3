"""XLSX: the cells of each sheet as a table, dates in ISO 8601, comments, text in drawings, charts."""

import re
from collections.abc import Iterator
from datetime import datetime, timedelta

from edda.errors import Corrupt
from edda.formats.draft import Draft
from edda.formats.drawing import read_linked, text_of
from edda.formats.opc import Package, core_title, main_part, open_package
from edda.formats.xml import Element, attribute, local, stream_xml

_BUILT_IN_DATES = frozenset((*range(14, 23), *range(27, 37), *range(45, 48), *range(50, 59)))
# Colours, conditions and locales in brackets, quoted and escaped characters: no part of what is shown of a date.
_FORMAT_NOISE = re.compile(r"\[(?!h+\]|m+\]|s+\])[^\]]*\]|\"[^\"]*\"|\\.|_.|\*.", re.IGNORECASE)
_CELL_REFERENCE = re.compile(r"([A-Z]{1,3})\d+")
# Empty cells between two full ones keep columns apart; more than these are one gap.
_MAX_GAP = 20
_LAST_DATE_SERIAL = 2_958_466  # 9999-12-31
_NOTE_KINDS = ("comments", "threadedComment")


def read_xlsx(data: bytes, draft: Draft) -> None:
    """Add every sheet that has something in it, hidden ones too; its number is the page. Raises Corrupt, Encrypted."""
    with open_package(data) as package:
        part = main_part(package, "xl/workbook.xml")
        workbook, links = package.xml(part), package.relationships(part)
        if workbook is None:
            raise Corrupt
        targets = {link.kind: link.target for link in links.values()}
        strings = _SharedStrings(package, targets.get("sharedStrings", "xl/sharedStrings.xml")).read()
        formats = _date_formats(package, targets.get("styles", "xl/styles.xml"))
        since_1904 = any(attribute(node, "date1904") in ("1", "true") for node in workbook.iter())
        draft.title = core_title(package)
        number = 0
        for node in workbook.iter():
            if local(node) == "sheet":
                number += 1
                draft.page = number
                link = links.get(next((value for key, value in node.attrib.items() if key.endswith("}id")), ""))
                if link is not None and link.target in package:
                    reader = _SheetReader(strings, formats, since_1904)
                    _read_sheet(package, link.target, node.get("name", ""), reader, draft)


def _read_sheet(package: Package, part: str, name: str, reader: "_SheetReader", draft: Draft) -> None:
    with package.stream(part) as sheet:
        stream_xml(sheet, reader.start, reader.end, reader.text)
    beside = Draft()
    for link in package.relationships(part).values():
        if link.target not in package or link.external:
            continue
        root = package.xml(link.target) if link.kind in (*_NOTE_KINDS, "drawing") else None
        if root is not None and link.kind == "drawing":
            _read_drawing(package, link.target, root, beside)
        elif root is not None:
            for note in root.iter():
                if local(note) in ("comment", "threadedComment"):
                    beside.paragraph("".join(node.text or "" for node in note.iter() if local(node) in ("t", "text")))
    if reader.rows or beside.blocks:
        draft.heading(name, 1)
        draft.table(reader.rows)
        for block in beside.blocks:
            draft.add(block.kind, beside.text[block.start : block.end], block.level)


def _read_drawing(package: Package, part: str, root: Element, draft: Draft) -> None:
    for node in root.iter():
        if local(node) == "txBody":
            draft.paragraph(text_of(node))
    read_linked(package, part, root, draft)


class _SheetReader:
    """Collects the rows of one sheet while its XML streams by."""

    def __init__(self, strings: list[str], date_formats: list[str], since_1904: bool) -> None:
        self.rows: list[list[str]] = []
        self._strings, self._date_formats = strings, date_formats
        self._epoch = datetime(1904, 1, 1) if since_1904 else datetime(1899, 12, 30)
        self._row: list[str] = []
        self._column = -1
        self._kind = self._style = ""
        self._value: list[str] = []
        self._collecting = self._phonetic = False

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        name = tag.rpartition("}")[2]
        if name == "c":
            self._column = _column(attributes.get("r", ""), self._column + 1)
            self._kind, self._style = attributes.get("t", ""), attributes.get("s", "")
            self._value = []
        elif name == "row":
            self._row, self._column = [], -1
        elif name == "rPh":
            self._phonetic = True
        elif name in ("v", "t"):
            self._collecting = not self._phonetic

    def text(self, text: str) -> None:
        if self._collecting:
            self._value.append(text)

    def end(self, tag: str) -> None:
        name = tag.rpartition("}")[2]
        if name in ("v", "t"):
            self._collecting = False
        elif name == "rPh":
            self._phonetic = False
        elif name == "c" and self._value:
            shown = self._shown("".join(self._value)).strip()
            if shown:
                gap = max(0, self._column - len(self._row))
                self._row += [""] * min(gap, _MAX_GAP) + [shown]
        elif name == "row" and self._row:
            self.rows.append(self._row)

    def _shown(self, value: str) -> str:
        """A cell's value as a person reads it."""
        if self._kind == "s":
            return self._strings[int(value)] if value.isdigit() and int(value) < len(self._strings) else ""
        if self._kind == "b":
            return "TRUE" if value == "1" else "FALSE"
        if self._kind in ("str", "inlineStr", "e", "d"):
            return value
        try:
            number = float(value)
        except ValueError:
            return value
        style = int(self._style) if self._style.isdigit() else -1
        shape = self._date_formats[style] if 0 <= style < len(self._date_formats) else ""
        return (shape and _date(number, shape, self._epoch)) or f"{number:.15g}"


def _date(serial: float, shape: str, epoch: datetime) -> str:
    """A serial number of days in ISO 8601, "" if it is none. `shape` has the letters of its format."""
    if not 0 <= serial < _LAST_DATE_SERIAL:
        return ""
    if "[" in shape:
        seconds = round(serial * 86_400)
        return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    if serial < 61 and epoch.year == 1899:
        serial += serial >= 1  # Excel believes in 29 February 1900
    moment = epoch + timedelta(seconds=round(serial * 86_400))
    if not set(shape) & set("yd"):
        return moment.strftime("%H:%M:%S") if set(shape) & set("hs") else moment.date().isoformat()
    return moment.isoformat(" ") if serial % 1 else moment.date().isoformat()


def _column(reference: str, default: int) -> int:
    match = _CELL_REFERENCE.match(reference)
    if match is None:
        return default
    column = 0
    for letter in match[1]:
        column = column * 26 + ord(letter) - 64
    return column - 1


class _SharedStrings:
    """The table of texts that cells point into, without the pronunciation that stands above Japanese ones."""

    def __init__(self, package: Package, part: str) -> None:
        self._package, self._part = package, part
        self._strings: list[str] = []
        self._parts: list[str] = []
        self._collecting = self._phonetic = False

    def read(self) -> list[str]:
        if self._part in self._package:
            with self._package.stream(self._part) as source:
                stream_xml(source, self._start, self._end, self._text)
        return self._strings

    def _start(self, tag: str, _attributes: dict[str, str]) -> None:
        name = tag.rpartition("}")[2]
        self._phonetic = self._phonetic or name == "rPh"
        self._collecting = name == "t" and not self._phonetic

    def _text(self, text: str) -> None:
        if self._collecting:
            self._parts.append(text)

    def _end(self, tag: str) -> None:
        name = tag.rpartition("}")[2]
        self._collecting = False
        if name == "rPh":
            self._phonetic = False
        elif name == "si":
            self._strings.append("".join(self._parts))
            self._parts = []


def _date_formats(package: Package, part: str) -> list[str]:
    """For each cell style the letters of its date format, "" for a style that shows no date."""
    try:
        root = package.xml(part)
    except Corrupt:
        root = None
    if root is None:
        return []
    custom = {node.get("numFmtId"): node.get("formatCode", "") for node in root.iter() if local(node) == "numFmt"}
    return [_date_shape(style.get("numFmtId", ""), custom) for style in _cell_styles(root)]


def _cell_styles(root: Element) -> Iterator[Element]:
    for node in root:
        if local(node) == "cellXfs":
            yield from node


def _date_shape(identifier: str, custom: dict[str | None, str]) -> str:
    code = custom.get(identifier)
    if code is None:
        if not identifier.isdigit() or int(identifier) not in _BUILT_IN_DATES:
            return ""
        return {18: "hm", 19: "hms", 20: "hm", 21: "hms", 45: "ms", 46: "[hms", 47: "ms"}.get(int(identifier), "ymd")
    bare = _FORMAT_NOISE.sub("", code.partition(";")[0]).lower()
    if "general" in bare or not set(bare) & set("ymdhs"):
        return ""
    return "".join(sorted(set(bare) & set("ymdhs["), key="[ymdhs".index))
