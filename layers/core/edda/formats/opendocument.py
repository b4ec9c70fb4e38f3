"""ODT, ODS and ODP: text, tables, notes, comments and the text of shapes."""

from edda.errors import Corrupt, Encrypted
from edda.formats.draft import Draft
from edda.formats.opc import Package, open_package
from edda.formats.xml import Element, attribute, local

_CONTENT = "content.xml"
# Records of changes and of what the program needs, and the pronunciation above a word.
_UNREAD_WORDS = """
    tracked-changes sequence-decls forms ruby-text scripts font-face-decls automatic-styles styles settings note-
    citation creator date date-string initials sender-initials
"""
_UNREAD = frozenset(_UNREAD_WORDS.split())
_SHAPES_WORDS = """
    frame rect line polyline polygon regular-polygon path circle ellipse g custom-shape connector caption measure text-
    box
"""
_SHAPES = frozenset(_SHAPES_WORDS.split())
_MAX_REPEATED_CELLS = 20


def read_opendocument(data: bytes, draft: Draft) -> None:
    """Sheets and slides count as pages. Raises Corrupt, Encrypted, DecompressionLimit."""
    with open_package(data) as package:
        _refuse_encrypted(package)
        root = package.xml(_CONTENT)
        if root is None:
            raise Corrupt
        draft.title = _title(package)
        _Reader(draft).read(root)
        styles = package.xml("styles.xml")
        for node in styles.iter() if styles is not None else ():
            if local(node) in ("header", "footer", "header-left", "footer-left"):
                _Reader(draft).read(node)


def _refuse_encrypted(package: Package) -> None:
    manifest = package.xml("META-INF/manifest.xml")
    if manifest is not None and any(local(node) == "encryption-data" for node in manifest.iter()):
        raise Encrypted


def _title(package: Package) -> str | None:
    root = package.xml("meta.xml")
    title = root.findtext(".//{http://purl.org/dc/elements/1.1/}title") if root is not None else None
    return title.strip() or None if title else None


class _Reader:
    """Walks the body. Notes, comments and shapes come after the paragraph that they are anchored in."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._anchored: list[Element] = []
        self._items: list[str] | None = None
        self._pages = 0

    def read(self, node: Element) -> None:
        for child in node:
            name = local(child)
            if name in ("p", "h"):
                self._read_paragraph(child, name)
            elif name == "list":
                self._read_list(child)
            elif name == "table":
                self._read_table(child)
            elif name == "page":
                self._next_page()
                self.read(child)
            elif name in _SHAPES:
                self._read_shape(child)
            elif name not in _UNREAD:
                self.read(child)

    def _next_page(self) -> None:
        self._pages += 1
        self._draft.page = self._pages

    def _read_paragraph(self, paragraph: Element, name: str) -> None:
        text = self._text(paragraph)
        if name == "h" and text.strip():
            level = attribute(paragraph, "outline-level") or "1"
            self._draft.heading(text, int(level) if level.isdigit() else 1)
        elif self._items is not None:
            self._items.append(text.replace("\n", " "))
            return
        else:
            self._draft.paragraph(text)
        self._read_anchored()

    def _read_anchored(self) -> None:
        while self._anchored:
            anchored, self._anchored = self._anchored, []
            for node in anchored:
                if local(node) in _SHAPES:
                    self._read_shape(node)
                else:
                    self.read(node)

    def _read_list(self, node: Element) -> None:
        if self._items is not None:
            self.read(node)
            return
        self._items = []
        self.read(node)
        items, self._items = self._items, None
        self._draft.bullets(items)
        self._read_anchored()

    def _read_shape(self, shape: Element) -> None:
        """The description of a shape runs on into its text, as a screen reader has it."""
        inner = [child for child in shape if local(child) not in ("title", "desc")]
        described = "".join(child.text or "" for child in shape if local(child) == "desc")
        if described and inner and local(inner[0]) == "p":
            self._draft.paragraph(described + self._text(inner.pop(0)))
        else:
            self._draft.paragraph(described)
        wrapper = Element(shape.tag)
        wrapper.extend(inner)
        self.read(wrapper)
        self._read_anchored()

    def _read_table(self, table: Element) -> None:
        is_sheet = attribute(table, "name") is not None and self._items is None and self._is_spreadsheet(table)
        rows = [self._cells(row) for row in table.iter() if local(row) == "table-row"]
        if is_sheet:
            self._next_page()
            if any(cell.strip() for row in rows for cell in row):
                self._draft.heading(attribute(table, "name") or "", 1)
        self._draft.table(rows)
        self._read_anchored()

    @staticmethod
    def _is_spreadsheet(table: Element) -> bool:
        return any(local(cell) == "table-cell" and attribute(cell, "value-type") for cell in table.iter())

    def _cells(self, row: Element) -> list[str]:
        cells: list[str] = []
        for cell in row:
            if local(cell) not in ("table-cell", "covered-table-cell"):
                continue
            text = attribute(cell, "date-value") or "\n".join(
                self._text(node) for node in cell.iter() if local(node) in ("p", "h")
            )
            repeated = attribute(cell, "number-columns-repeated") or "1"
            cells += [text] * (min(int(repeated), _MAX_REPEATED_CELLS) if repeated.isdigit() else 1)
        return cells

    def _text(self, node: Element) -> str:
        parts: list[str] = []
        self._collect(node, parts)
        return "".join(parts)

    def _collect(self, node: Element, parts: list[str]) -> None:
        parts.append(node.text or "")
        for child in node:
            name = local(child)
            if name == "s":
                count = attribute(child, "c") or "1"
                parts.append(" " * (min(int(count), 100) if count.isdigit() else 1))
            elif name == "tab":
                parts.append("\t")
            elif name == "line-break":
                parts.append("\n")
            elif name in _SHAPES or name in ("note", "annotation"):
                self._anchored.append(child)
            elif name not in _UNREAD:
                self._collect(child, parts)
            parts.append(child.tail or "")
