"""What kind of file this is. Bytes are believed before the name, the name before the content type.

Only where bytes say no more than "text" does the extension decide which kind of text, and only where there is no
extension does the content type.
"""

import re
import zipfile
from io import BytesIO
from pathlib import PurePosixPath

from edda import ole
from edda.decoding import decode, is_binary
from edda.errors import Corrupt, Encrypted, UnsupportedType
from edda.formats.opc import DAMAGE, main_part_kind
from edda.media_types import (
    BINARY_EXTENSIONS,
    CODE,
    CODE_EXTENSIONS,
    CSV,
    DOC,
    EMAIL,
    EPUB,
    HTML,
    JSON,
    MARKDOWN,
    MBOX,
    MIMETYPE_ENTRIES,
    MSG,
    NDJSON,
    PACKAGES,
    PDF,
    PPT,
    RST,
    RTF,
    TEXT,
    TEXT_CONTENT_TYPES,
    TEXT_EXTENSIONS,
    TSV,
    UNSUPPORTED_MAGIC,
    XLS,
    XML,
    YAML,
)

_HTML_START = re.compile(r"<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE)
_XML_START = re.compile(r"\s*<\?xml\s", re.IGNORECASE)
_XHTML_ROOT = re.compile(r"<(?!\?|!)(?:\w+:)?html\b", re.IGNORECASE)
_MAIL_HEADER = re.compile(
    r"^(received|return-path|delivered-to|from|to|cc|subject|date|message-id|mime-version|content-type|reply-to|sender|"
    r"dkim-signature|x-[a-z-]+|in-reply-to|references|list-[a-z]+|content-transfer-encoding):",
    re.IGNORECASE,
)
_MBOX_START = re.compile(r"From \S+ +(?:\w{3} ){1,2}")
_MHTML = re.compile(r"^content-type:\s*multipart/related", re.IGNORECASE | re.MULTILINE)


def detect(data: bytes, name: str, content_type: str | None) -> str:
    """The media type to read `data` as, one of `media_types`.

    Raises UnsupportedType, Encrypted, and Corrupt for a file that is not what its extension needs it to be.
    """
    extension = _extension(name)
    claimed = BINARY_EXTENSIONS.get(extension)
    if data.lstrip(b"\xef\xbb\xbf \t\r\n\x00").startswith(b"%PDF-"):
        return PDF
    if data.startswith(b"{\\rtf"):
        return RTF
    if data.startswith(b"PK\x03\x04") or data.startswith(b"PK\x05\x06"):
        return _detect_zip(data, claimed)
    if data.startswith(ole.MAGIC):
        return _detect_ole(data)
    if data.startswith(UNSUPPORTED_MAGIC) or data[4:8] == b"ftyp" or data[257:262] == b"ustar":
        raise UnsupportedType
    if b"%PDF-" in data[:1024] and (claimed == PDF or is_binary(data)):
        return PDF  # with rubbish before it, which readers of PDF put up with
    if is_blank(data) or len(data) <= 4:
        return TEXT  # nothing in it: whatever it claims to be, the answer is NoText
    return _detect_text(data, extension, claimed, _bare_type(content_type))


def is_blank(data: bytes) -> bool:
    """Whether there is nothing in it that could be text."""
    return not data.strip(b"\x00\t\n\r\x0c ")


def _detect_text(data: bytes, extension: str, claimed: str | None, content_type: str) -> str:
    if is_binary(data):
        if claimed:
            raise Corrupt
        raise UnsupportedType
    kind = _sniff(data, extension)
    if kind is None and claimed and not content_type.startswith("text/"):
        raise Corrupt  # plain text under the name of a binary format
    if kind is not None:
        return kind
    return TEXT_EXTENSIONS.get(extension) or TEXT_CONTENT_TYPES.get(content_type) or TEXT


def _sniff(data: bytes, extension: str) -> str | None:
    """What kind of text this certainly is, whatever it is called; None if the bytes leave it open."""
    named = TEXT_EXTENSIONS.get(extension)
    if named in (MARKDOWN, RST, CODE, CSV, TSV, JSON, NDJSON, YAML):
        return named
    head = decode(data[:8192]).lstrip("\ufeff \t\r\n")
    if _XML_START.match(head):
        return HTML if _XHTML_ROOT.search(head) and named != XML else XML
    if (match := _HTML_START.search(head[:2048])) and (match.start() == 0 or head[0] == "<"):
        return named if named == XML else HTML
    if _MBOX_START.match(head) and head.count("\nFrom ") + 1 and _looks_like_mail(head.partition("\n")[2]):
        return MBOX if named == MBOX or named is None or b"\n\nFrom " in data else EMAIL
    if named in (None, EMAIL) and _looks_like_mail(head):
        if _MHTML.search(head.partition("\n\n")[0]) and extension in ("mht", "mhtml"):
            raise UnsupportedType
        return EMAIL
    return None


def _looks_like_mail(head: str) -> bool:
    """Whether a text starts with mail headers, two well-known ones at least."""
    lines = head.replace("\r\n", "\n").partition("\n\n")[0].split("\n")
    known = sum(bool(_MAIL_HEADER.match(line)) for line in lines[:60])
    strange = sum(not re.match(r"[!-9;-~]+:|[ \t]|>?From ", line) for line in lines[:60] if line)
    return known >= 2 and strange == 0


def _detect_zip(data: bytes, claimed: str | None) -> str:
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            names = archive.namelist()
            if "mimetype" in names and archive.getinfo("mimetype").file_size < 200:
                entry = archive.read("mimetype").decode("ascii", "replace").strip()
                if entry in MIMETYPE_ENTRIES:
                    return MIMETYPE_ENTRIES[entry]
            kind = main_part_kind(archive)
    except DAMAGE as error:
        if claimed or b"[Content_Types].xml" in data[:4096] or data[30:38] == b"mimetype":
            raise Corrupt from error
        raise UnsupportedType from error
    except RuntimeError as error:  # a password is needed
        raise (Encrypted if claimed else UnsupportedType) from error
    if kind in PACKAGES:
        return PACKAGES[kind]
    if "META-INF/container.xml" in names:
        return EPUB
    raise UnsupportedType


def _detect_ole(data: bytes) -> str:
    try:
        streams = ole.root_streams(data)
    except ole.BrokenContainer as error:
        raise Corrupt from error
    if "EncryptedPackage" in streams or "EncryptionInfo" in streams:
        raise Encrypted
    for stream, kind in (("PowerPoint Document", PPT), ("Workbook", XLS), ("Book", XLS), ("WordDocument", DOC)):
        if stream in streams:
            return kind
    if "__properties_version1.0" in streams:
        return MSG
    raise UnsupportedType


def _extension(name: str) -> str:
    path = PurePosixPath(name.strip().lower())
    suffix = path.suffix[1:]
    return suffix or (path.name if path.name in CODE_EXTENSIONS else "")


def _bare_type(content_type: str | None) -> str:
    return (content_type or "").partition(";")[0].strip().lower()


def declared_charset(content_type: str | None) -> str | None:
    """The charset parameter of a content type."""
    match = re.search(r"charset\s*=\s*[\"']?([\w.:-]+)", content_type or "", re.IGNORECASE)
    return match[1] if match else None
