"""What Office's three programs draw alike: text in shapes, tables, SmartArt, charts."""

from collections.abc import Iterator

from edda.errors import Corrupt
from edda.formats.draft import Draft
from edda.formats.opc import Package
from edda.formats.xml import Element, attribute, local


def text_of(node: Element) -> str:
    """The text of a DrawingML text body: paragraphs as lines."""
    return "\n".join(line for paragraph in _named(node, "p") if (line := _paragraph(paragraph)).strip())


def _paragraph(paragraph: Element) -> str:
    parts: list[str] = []
    for node in paragraph.iter():
        name = local(node)
        if name == "t":
            parts.append(node.text or "")
        elif name == "br":
            parts.append("\n")
        elif name == "tab":
            parts.append("\t")
    return "".join(parts)


def table_rows(table: Element) -> list[list[str]]:
    """Cells of a DrawingML table."""
    return [[text_of(cell) for cell in row if local(cell) == "tc"] for row in table if local(row) == "tr"]


def read_linked(package: Package, part: str, node: Element, draft: Draft) -> None:
    """Add the SmartArt and the charts that a graphic frame or drawing points at."""
    links = package.relationships(part)
    for element in node.iter():
        name = local(element)
        if name == "relIds" and (link := links.get(attribute(element, "dm") or "")):
            _read_diagram(package, link.target, draft)
        elif name == "chart" and (link := links.get(attribute(element, "id") or "")):
            _read_chart(package, link.target, draft)


def _read_diagram(package: Package, part: str, draft: Draft) -> None:
    root = _part(package, part)
    if root is not None:
        draft.bullets(text_of(point).replace("\n", " ") for point in _named(root, "pt"))


def _read_chart(package: Package, part: str, draft: Draft) -> None:
    """The title and labels, and the data as a table: one row for each category, one column for each series."""
    root = _part(package, part)
    if root is None:
        return
    draft.paragraph(text_of(root))
    series = [
        (_cached(one, "tx"), _cached(one, "cat", "xVal"), _cached(one, "val", "yVal")) for one in _named(root, "ser")
    ]
    if not series:
        return
    categories = max((categories for _, categories, _ in series), key=len)
    rows = [["", *(" ".join(name) for name, _, _ in series)]]
    for index in range(max(len(categories), *(len(values) for _, _, values in series))):
        row = [categories[index] if index < len(categories) else ""]
        rows.append(row + [values[index] if index < len(values) else "" for _, _, values in series])
    draft.table(rows)


def _cached(series: Element, *roles: str) -> list[str]:
    """The values that a chart keeps of the sheet it was made from."""
    for child in series:
        if local(child) in roles:
            return [_shown(node.text or "") for node in child.iter() if local(node) == "v"]
    return []


def _shown(value: str) -> str:
    """A cached value without the noise of binary fractions: 4.4, not 4.4000000000000004."""
    try:
        return f"{float(value):.15g}"
    except ValueError:
        return value


def _part(package: Package, name: str) -> Element | None:
    """A part that the document can do without: None when it is missing or broken."""
    try:
        return package.xml(name)
    except Corrupt:
        return None


def _named(node: Element, name: str) -> Iterator[Element]:
    return (element for element in node.iter() if local(element) == name)
