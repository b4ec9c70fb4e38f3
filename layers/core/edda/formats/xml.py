"""XML without traps: no external entities, no network, no local files, no entity that expands without end."""

from collections.abc import Callable
from html.entities import name2codepoint
from io import BytesIO
from typing import IO, Any
from xml.etree import ElementTree
from xml.parsers import expat

from edda.decoding import decode
from edda.errors import Corrupt, DecompressionLimit
from edda.formats.draft import Draft

Element = ElementTree.Element
# Deeper than any real document, shallower than what would break the C stack when the tree is freed.
MAX_DEPTH = 2_000
_CHUNK = 1 << 20


def parse_xml(data: bytes) -> Element:
    """The root element of a part of a document. Raises Corrupt, DecompressionLimit."""
    builder = ElementTree.TreeBuilder()
    depth = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > MAX_DEPTH:
            raise Corrupt("The file nests elements too deeply.")
        builder.start(_named(tag), {_named(key): value for key, value in attributes.items()})

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(_named(tag))

    stream_xml(BytesIO(data), start, end, builder.data)
    return builder.close()


def stream_xml(
    source: IO[bytes],
    start: Callable[[str, dict[str, str]], object],
    end: Callable[[str], object],
    text: Callable[[str], object],
) -> None:
    """Call back for each tag (namespace}name) and each run of text of a part of a document.

    A part that declares entities is refused: no office suite writes them. Raises Corrupt, DecompressionLimit.
    """
    parser: Any = expat.ParserCreate(namespace_separator="}")
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, text
    parser.EntityDeclHandler = _refuse_entity
    try:
        while piece := source.read(_CHUNK):
            parser.Parse(piece, False)
        parser.Parse(b"", True)
    except (expat.ExpatError, AssertionError, ValueError) as error:
        raise Corrupt from error


def _refuse_entity(*_: object) -> None:
    raise DecompressionLimit("The file declares XML entities, as decompression bombs do.")


def _named(name: str) -> str:
    return "{" + name if "}" in name else name


def local(element: Element) -> str:
    """An element's name without its namespace."""
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def attribute(element: Element, name: str) -> str | None:
    """An attribute's value by its name without the namespace: Office writes the same ones in several."""
    for key, value in element.attrib.items():
        if key.rpartition("}")[2] == name:
            return value
    return None


def read_xml(data: bytes, declared: str | None, draft: Draft) -> None:
    """The text of an XML document, one line for each element that has text; element names are left out.

    Text that is not well-formed XML is taken as it stands: it can be read, and it may be a template or a fragment.
    """
    source = decode(data, declared)
    try:
        text = _XmlText().text_of(source) or _XmlText(attributes=True).text_of(source)
    except expat.ExpatError as error:
        if error.code == expat.errors.codes.get("limit on input amplification factor (from DTD and entities) breached"):
            raise DecompressionLimit from error
        text = source
    draft.paragraph(text)


class _XmlText:
    """Collects character data. An element with text of its own is a line; elements within that text are part of it.

    With `attributes` the values of attributes are lines too: some vocabularies have their text there.
    """

    def __init__(self, *, attributes: bool = False) -> None:
        self._with_attributes = attributes
        self._parts: list[str] = []
        self._mixed = [False]  # for each open element: whether it has text beside its children

    def text_of(self, source: str) -> str:
        """Raises ExpatError."""
        parser: Any = expat.ParserCreate("utf-8")
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._data
        parser.SkippedEntityHandler = self._skipped
        parser.UseForeignDTD(True)  # undeclared entities (&nbsp;) are then reported, not errors; nothing is loaded
        encoded = source.lstrip("\ufeff \n\r\t").encode("utf-8", "replace")
        for at in range(0, max(1, len(encoded)), _CHUNK):
            parser.Parse(encoded[at : at + _CHUNK], at + _CHUNK >= len(encoded))
        return "\n".join(line for line in (" ".join(raw.split()) for raw in "".join(self._parts).split("\0")) if line)

    def _start(self, _tag: str, attributes: dict[str, str]) -> None:
        if not self._mixed[-1]:
            self._parts.append("\0")
        if self._with_attributes:
            self._parts += [part for value in attributes.values() for part in (value, "\0")]
        self._mixed.append(False)

    def _end(self, _tag: str) -> None:
        self._mixed.pop()
        if not self._mixed[-1]:
            self._parts.append("\0")

    def _data(self, text: str) -> None:
        if not text.isspace():
            self._mixed[-1] = True
        self._parts.append(text)

    def _skipped(self, name: str, is_parameter: bool) -> None:
        if not is_parameter and name in name2codepoint:
            self._data(chr(name2codepoint[name]))
