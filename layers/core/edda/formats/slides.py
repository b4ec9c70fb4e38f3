"""PPTX: the text of each slide in its order, with tables, charts, SmartArt, speaker's notes and comments."""

from collections.abc import Iterator

from edda.errors import Corrupt
from edda.formats.draft import Draft
from edda.formats.drawing import read_linked, table_rows, text_of
from edda.formats.opc import Package, core_title, main_part, open_package
from edda.formats.xml import Element, attribute, local

# Placeholders that show a number or a date on every slide, if they show no more than that.
_NUMBERS = frozenset(("sldNum", "dt"))
_UNTITLED = frozenset(("PowerPoint Presentation", "Slide 1", "PowerPoint-Präsentation"))
_TITLES = frozenset(("title", "ctrTitle"))


def read_pptx(data: bytes, draft: Draft) -> None:
    """Add every slide, hidden ones too; the slide's number is the page. Raises Corrupt, Encrypted."""
    with open_package(data) as package:
        title = core_title(package)
        draft.title = None if title in _UNTITLED else title
        for number, part in enumerate(_slides(package), start=1):
            draft.page = number
            _read_slide(package, part, draft)


def _slides(package: Package) -> list[str]:
    """Names of the slides' parts, in the order of the presentation."""
    part = main_part(package, "ppt/presentation.xml")
    root = package.xml(part)
    links = package.relationships(part)
    if root is None:
        raise Corrupt
    ordered = []
    for node in root.iter():
        link = links.get(_relationship_id(node)) if local(node) == "sldId" else None
        if link is not None and link.target in package and link.target not in ordered:
            ordered.append(link.target)
    return ordered or package.names(r"ppt/slides/slide\d+\.xml$")


def _relationship_id(node: Element) -> str:
    return next((value for key, value in node.attrib.items() if key.endswith("}id")), "")


def _read_slide(package: Package, part: str, draft: Draft) -> None:
    try:
        root = package.xml(part)
    except Corrupt:
        return
    if root is not None:
        _read_shapes(package, part, root, draft)
    for link in package.relationships(part).values():
        if link.kind == "notesSlide":
            _read_notes(package, link.target, draft)
        elif link.kind == "comments":
            _read_comments(package, link.target, draft)


def _read_shapes(package: Package, part: str, node: Element, draft: Draft) -> None:
    for child in node:
        name = local(child)
        if name == "sp":
            _read_shape(child, draft)
        elif name == "graphicFrame":
            for table in child.iter():
                if local(table) == "tbl":
                    draft.table(table_rows(table))
            read_linked(package, part, child, draft)
        elif name == "AlternateContent":
            if len(child):
                _read_shapes(package, part, child[0], draft)
        else:
            _read_shapes(package, part, child, draft)


def _read_shape(shape: Element, draft: Draft) -> None:
    role = _placeholder(shape)
    text = "\n".join(text_of(body) for body in _bodies(shape))
    if role in _NUMBERS and not any(character.isalpha() for character in text):
        return
    if role in _TITLES:
        draft.heading(text, 1)
    else:
        draft.paragraph(text)


def _placeholder(shape: Element) -> str:
    """What a shape is for ("title", "body", ...), "" for one that was drawn freely."""
    for node in shape.iter():
        if local(node) == "ph":
            return attribute(node, "type") or "body"
    return ""


def _bodies(shape: Element) -> Iterator[Element]:
    return (node for node in shape if local(node) in ("txBody", "txbxContent"))


def _read_notes(package: Package, part: str, draft: Draft) -> None:
    """The speaker's notes. Header, footer, date and number of the notes page are not for reading."""
    try:
        root = package.xml(part)
    except Corrupt:
        return
    for shape in root.iter() if root is not None else ():
        if local(shape) == "sp" and _placeholder(shape) in ("body", ""):
            for body in _bodies(shape):
                draft.paragraph(text_of(body))


def _read_comments(package: Package, part: str, draft: Draft) -> None:
    try:
        root = package.xml(part)
    except Corrupt:
        return
    for comment in root if root is not None else ():
        texts = [node.text or "" for node in comment.iter() if local(node) in ("text", "t")]
        draft.paragraph("".join(texts))
