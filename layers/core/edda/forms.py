"""multipart/form-data, read into memory: what a browser or `curl -F` sends."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote

from edda.errors import MalformedBody

if TYPE_CHECKING:
    from multipart import MultipartSegment

MAX_PARTS = 100
MAX_FIELD_BYTES = 64 * 1024
MAX_HEADER_BYTES = 16 * 1024  # a name of 1,000 characters, percent-encoded
EXTENDED_FILENAME = re.compile(r"filename\*\s*=\s*([\w-]+)'[^']*'([^;\s]+)", re.IGNORECASE)  # RFC 5987


@dataclass(frozen=True, slots=True)
class FormFile:
    """An uploaded file. `content_type` is what the client says it is."""

    name: str
    content_type: str | None
    body: bytes


@dataclass(frozen=True, slots=True)
class Form:
    """The one file of a form, and its other fields, each as often as it came."""

    file: FormFile | None
    fields: Mapping[str, Sequence[str]]


def parse_form(body: bytes, content_type: str) -> Form:
    """Read a form. Raises MalformedBody: no boundary, cut off, not UTF-8, too many parts, more than one file."""
    from multipart import MultipartError, parse_options_header

    boundary = parse_options_header(content_type)[1].get("boundary", "")
    files: list[FormFile] = []
    fields: dict[str, list[str]] = {}
    try:
        for part, content in _parts(body, boundary):
            file_name = _file_name(part)
            if file_name is None:
                fields.setdefault(part.name or "", []).append(_text(content))
            elif file_name or content:  # a browser sends an empty part where no file was chosen
                files.append(FormFile(file_name, part.content_type, content))
    except (MultipartError, ValueError, LookupError):
        raise MalformedBody("The form could not be read: it is cut off, or not multipart/form-data.") from None
    if len(files) > 1:
        raise MalformedBody("The form has more than one file; send a request for each.")
    return Form(files[0] if files else None, fields)


def _parts(body: bytes, boundary: str) -> Iterator[tuple["MultipartSegment", bytes]]:
    from multipart import MultipartSegment, PushMultipartParser

    part: MultipartSegment | None = None
    content: list[bytes] = []
    with PushMultipartParser(boundary, max_header_size=MAX_HEADER_BYTES, max_segment_count=MAX_PARTS) as parser:
        for event in parser.parse(body):
            if isinstance(event, MultipartSegment):
                part, content = event, []
            elif event:
                content.append(bytes(event))
            elif part is not None:
                yield part, b"".join(content)


def _file_name(part: "MultipartSegment") -> str | None:
    """None for a plain field. Clients from before HTML5 send other characters as `filename*`."""
    extended = EXTENDED_FILENAME.search(part.header("Content-Disposition", ""))
    if extended is not None:
        return unquote(extended[2], encoding=extended[1], errors="strict")
    name: str | None = part.filename
    return name


def _text(content: bytes) -> str:
    if len(content) > MAX_FIELD_BYTES:
        raise MalformedBody(f"A field of the form is larger than {MAX_FIELD_BYTES} bytes.")
    return content.decode()
