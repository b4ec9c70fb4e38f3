"""A file to chunks in parts, each of which needs little memory: text by byte ranges, PDF by page ranges.

Where a part ends follows from the file alone, never from how much time there is: a document has the same chunks whether
one process reads it or ten do, one after another. What the next part needs to know is a `State`, plain JSON, which goes
through the database. Formats that cannot be read from the middle (zip containers, HTML, XML, mail) are one part.

Pure but for the file, which it only reads. Under the same guard as `parsing`.
"""

import codecs
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from edda import media_types as kinds
from edda import ole
from edda.chunking import Before, Strategy, chunk_part
from edda.decoding import byte_order_mark, clean, encoding_of, scrub
from edda.detecting import declared_charset, detect, is_blank
from edda.errors import Corrupt, DocumentTooLarge, NoText
from edda.formats.draft import GAP, Draft
from edda.languages import language_of
from edda.models import Block, Chunk, ParsedDocument
from edda.parsing import STREAMED, first_heading, parse, source_blocks

State = dict[str, Any]

_HEAD_BYTES = 64 * 1024  # enough to tell what kind of file it is, if not all blank
_WHOLE_FILES = (b"PK\x03\x04", b"PK\x05\x06", ole.MAGIC)  # whose kind stands at their end
# A part ends in the last eighth of what was read, but not so near to its end that the best place may lie behind it.
_ENDS_FROM = 7 / 8
_LOOK_AHEAD = 4_000  # characters


class Limits(NamedTuple):
    """`part_bytes` of text and `part_pages` of PDF are read at once; `whole_bytes` is the most of other formats."""

    max_tokens: int
    overlap_tokens: int
    max_chunks: int
    part_bytes: int
    part_pages: int
    whole_bytes: int
    strategy: Strategy = "structure"


class ReadPart(NamedTuple):
    """`state` is None after the last part; `characters` counts all parts so far."""

    chunks: list[Chunk]
    state: State | None
    media_type: str
    title: str | None
    language: str | None
    characters: int


@dataclass(frozen=True, slots=True)
class _Piece:
    """A part of a document and some text behind it. `ends`: where it may end, None for the rest of the document.

    `go_on` is where the next begins if this one ends at an offset: one of `ends`, or the end of the text.
    """

    document: ParsedDocument
    ends: Sequence[int] | None = None
    go_on: Callable[[int], State] = lambda _: {}


def read_part(path: Path, name: str, content_type: str | None, state: State | None, limits: Limits) -> ReadPart:
    """The first part of a file, or the one that follows `state`.

    Raises a DocumentError: NoText, Encrypted, Corrupt, UnsupportedType, DecompressionLimit, DocumentTooLarge,
    TooManyChunks.
    """
    try:
        if state is None:
            piece, before = _first_piece(path, name, content_type, limits), Before()
        else:
            piece, before = _next_piece(path, state, limits), _before(state)
    except RecursionError as error:
        raise Corrupt("The file is nested too deeply.") from error
    document = piece.document
    part = chunk_part(
        document,
        before,
        piece.ends,
        max_tokens=limits.max_tokens,
        overlap_tokens=limits.overlap_tokens,
        max_chunks=limits.max_chunks,
        strategy=limits.strategy,
    )
    facts = document.media_type, document.title, document.language
    if state is None and piece.ends is None and not document.text.strip():
        raise NoText
    if piece.ends is None:
        return ReadPart(part.chunks, None, *facts, before.characters + len(document.text))
    after = part.after
    following = {
        "media_type": document.media_type,
        "title": document.title,
        "language": document.language,
        "characters": after.characters,
        "tail": after.tail,
        "stops": after.stops,
        "headings": after.headings,
    }
    return ReadPart(part.chunks, following | piece.go_on(part.end), *facts, after.characters)


def _before(state: State) -> Before:
    headings = tuple((int(level), str(title)) for level, title in state["headings"])
    return Before(int(state["characters"]), str(state["tail"]), tuple(state["stops"]), headings)


def _first_piece(path: Path, name: str, content_type: str | None, limits: Limits) -> _Piece:
    size = path.stat().st_size
    with path.open("rb") as file:
        head = telling = file.read(_HEAD_BYTES)
        while is_blank(telling) and (block := file.read(_HEAD_BYTES)):
            telling = block
    if not head.startswith(_WHOLE_FILES):
        media_type = detect(telling, name, content_type)
        if media_type == kinds.PDF:
            return _with_facts(_pages(path, 0, 0, limits))
        if media_type in STREAMED and size > limits.part_bytes:
            with path.open("rb") as file:
                encoding = encoding_of(file, declared_charset(content_type))
            if encoding is not None:
                at = len(byte_order_mark(encoding)) if head.startswith(byte_order_mark(encoding)) else 0
                return _with_facts(_text(path, at, encoding, media_type, limits, is_start=True))
    if size > limits.whole_bytes:
        raise DocumentTooLarge("The file is larger than this deployment accepts of its type.")
    return _Piece(parse(path.read_bytes(), name, content_type))


def _with_facts(piece: _Piece) -> _Piece:
    """Title and language of a document are those of its first part."""
    document = piece.document
    title = document.title or first_heading(document.text, document.blocks)
    language = None if document.media_type == kinds.CODE else language_of(document.text)
    return replace(piece, document=replace(document, title=title, language=language))


def _next_piece(path: Path, state: State, limits: Limits) -> _Piece:
    if "page" in state:
        piece = _pages(path, state["page"], state["skip"], limits)
    else:
        piece = _text(path, state["byte"], state["encoding"], state["media_type"], limits, is_start=False)
    return replace(piece, document=replace(piece.document, title=state["title"], language=state["language"]))


# PDF: whole pages are read; a part may end between two paragraphs ------------------------------------------------


def _pages(path: Path, first: int, skip: int, limits: Limits) -> _Piece:
    """From the page with index `first`, without the characters of it that the part before has taken."""
    from edda.formats.pdf import read_pages  # when it is needed: a child process starts faster

    draft = Draft()
    after = read_pages(path, draft, first, limits.part_pages)
    blocks = [_shifted(block, -skip) for block in draft.blocks if block.start >= skip]
    title = " ".join(clean(draft.title).split()) if draft.title else None
    text = draft.text[skip:]
    if after is None:
        return _Piece(ParsedDocument(text, tuple(blocks), kinds.PDF, title))
    if text:
        text += GAP  # as if the next page's text followed
    begins: dict[int, int] = {}  # where the text of each page begins
    page_of: dict[int, int] = {}
    for block in blocks:
        page = (block.page or 1) - 1
        begins.setdefault(page, block.start)
        page_of[block.start] = page
    begins[first] = -skip

    def go_on(end: int) -> State:
        if end not in page_of:
            return {"page": after, "skip": 0}
        return {"page": page_of[end], "skip": end - begins[page_of[end]]}

    return _Piece(ParsedDocument(text, tuple(blocks), kinds.PDF, title), _ends(page_of, len(text)), go_on)


def _shifted(block: Block, by: int) -> Block:
    return replace(block, start=block.start + by, end=block.end + by)


def _ends(places: Sequence[int] | dict[int, int], characters: int) -> list[int]:
    return [place for place in places if characters * _ENDS_FROM <= place <= characters - _LOOK_AHEAD]


# Text: bytes are read up to the end of a line; a part may end at the end of one ----------------------------------


def _text(path: Path, at: int, encoding: str, media_type: str, limits: Limits, *, is_start: bool) -> _Piece:
    """From byte `at` on."""
    with path.open("rb") as file:
        file.seek(at)
        data = file.read(limits.part_bytes)
        is_last = not file.read(1)
    if is_last:
        text = scrub(data.decode(encoding, "replace"))
        return _Piece(ParsedDocument(text, source_blocks(text, media_type, is_start=is_start), media_type))
    ends = list(_line_ends(data, int(len(data) * _ENDS_FROM), encoding)) or [_last_boundary(data, encoding)]
    texts = [scrub(data[start:end].decode(encoding, "replace")) for start, end in pairwise([0, *ends])]
    byte_at: dict[int, int] = {}
    length = 0
    for text, end in zip(texts, ends, strict=True):
        length += len(text)
        byte_at[length] = at + end
    text = "".join(texts)
    document = ParsedDocument(text, source_blocks(text, media_type, is_start=is_start), media_type)
    return _Piece(document, _ends(byte_at, length), lambda end: {"byte": byte_at[end], "encoding": encoding})


def _line_ends(data: bytes, start: int, encoding: str) -> Iterator[int]:
    """Positions just behind the newlines at or after `start`: `\\n`, or a `\\r` before something else."""
    line_feed, carriage_return = (re.escape(one.encode(encoding)) for one in "\n\r")
    width = len("\n".encode(encoding))
    newline = re.compile(b"%b|%b(?=.{%d})(?!%b)" % (line_feed, carriage_return, width, line_feed), re.DOTALL)
    for match in newline.finditer(data, start):
        if match.start() % width == 0:
            yield match.end()


def _last_boundary(data: bytes, encoding: str) -> int:
    """Where to end a line that is longer than a part: behind its last space; if it has none, between two characters,
    but not within `\\r\\n`."""
    space = " ".encode(encoding)
    at = data.rfind(space, int(len(data) * _ENDS_FROM))
    if at >= 0 and at % len(space) == 0:
        return at + len(space)
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    decoder.decode(data)
    end = len(data) - len(decoder.getstate()[0])
    carriage_return = "\r".encode(encoding)
    return end - len(carriage_return) if data[:end].endswith(carriage_return) else end
