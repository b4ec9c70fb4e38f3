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
from edda.formats.opc import main_part_kind

PDF, RTF, EPUB, ZIP = "application/pdf", "application/rtf", "application/epub+zip", "application/zip"
DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
PPTX = "application/vnd.openxmlformats-officedocument.presentationml.presentation"
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
ODT = "application/vnd.oasis.opendocument.text"
ODS = "application/vnd.oasis.opendocument.spreadsheet"
ODP = "application/vnd.oasis.opendocument.presentation"
DOC, XLS, PPT, MSG = (
    "application/msword", "application/vnd.ms-excel", "application/vnd.ms-powerpoint", "application/vnd.ms-outlook",
)  # fmt: skip
TEXT, MARKDOWN, RST, CSV, TSV = "text/plain", "text/markdown", "text/x-rst", "text/csv", "text/tab-separated-values"
HTML, XML, JSON, NDJSON, YAML = "text/html", "application/xml", "application/json", "application/x-ndjson", "text/yaml"
CODE, EMAIL, MBOX = "text/x-source", "message/rfc822", "application/mbox"

_PACKAGES = {"word": DOCX, "ppt": PPTX, "xl": XLSX}
_MIMETYPE_ENTRIES = {
    EPUB: EPUB,
    ODT: ODT,
    ODT + "-template": ODT,
    ODT + "-master": ODT,
    ODS: ODS,
    ODS + "-template": ODS,
    ODP: ODP,
    ODP + "-template": ODP,
}
_BINARY_EXTENSIONS = {
    **dict.fromkeys(("docx", "docm", "dotx", "dotm"), DOCX),
    **dict.fromkeys(("pptx", "pptm", "ppsx", "ppsm", "potx", "potm"), PPTX),
    **dict.fromkeys(("xlsx", "xlsm", "xltx", "xltm"), XLSX),
    **{"pdf": PDF, "epub": EPUB, "odt": ODT, "ott": ODT, "ods": ODS, "odp": ODP, "rtf": RTF},
    **{"doc": DOC, "dot": DOC, "xls": XLS, "xlt": XLS, "ppt": PPT, "pps": PPT, "msg": MSG},
}
_CODE_EXTENSIONS = frozenset(
    "py pyi js mjs cjs jsx ts tsx java kt kts scala c h cc cpp cxx hpp hh cs go rs rb php pl pm lua r jl swift m mm dart "
    "sh bash zsh fish ps1 bat cmd sql css scss less vue svelte hs ml clj ex exs erl groovy gradle tf hcl proto graphql "
    "asm s f f90 vb pas nim zig cmake mk dockerfile makefile ini cfg conf toml properties env diff patch tex bib".split()
)
_TEXT_EXTENSIONS = {
    **dict.fromkeys(("txt", "text", "log", "asc", "srt", "vtt", "adoc", "org", "textile", "robots"), TEXT),
    **dict.fromkeys(("md", "markdown", "mdown", "mkd", "mdx", "qmd", "rmd"), MARKDOWN),
    **dict.fromkeys(("rst", "rest"), RST),
    **{"csv": CSV, "tsv": TSV, "tab": TSV, "json": JSON, "ipynb": JSON, "geojson": JSON, "jsonld": JSON},
    **dict.fromkeys(("ndjson", "jsonl"), NDJSON),
    **dict.fromkeys(("yaml", "yml"), YAML),
    **dict.fromkeys(("html", "htm", "xhtml", "shtml", "xht"), HTML),
    **dict.fromkeys(("xml", "xsl", "xslt", "xsd", "rss", "atom", "svg", "kml", "gpx", "dbk", "dita", "fb2"), XML),
    **{"eml": EMAIL, "mbox": MBOX, "mbx": MBOX},
    **dict.fromkeys(_CODE_EXTENSIONS, CODE),
}
_TEXT_CONTENT_TYPES = {
    **{kind: kind for kind in (TEXT, MARKDOWN, RST, CSV, TSV, HTML, XML, JSON, NDJSON, YAML, EMAIL, MBOX)},
    **dict.fromkeys(("application/xhtml+xml",), HTML),
    **dict.fromkeys(("text/xml", "application/rss+xml", "application/atom+xml", "image/svg+xml"), XML),
    **dict.fromkeys(("application/jsonl", "application/jsonlines", "application/x-jsonlines"), NDJSON),
    **dict.fromkeys(("application/yaml", "application/x-yaml", "text/x-yaml"), YAML),
    **dict.fromkeys(("text/x-markdown",), MARKDOWN),
    **dict.fromkeys(("text/prs.fallenstein.rst",), RST),
}
# Bytes that begin files without text for us: archives, pictures, sound, programs, certificates, fonts, databases.
_UNSUPPORTED_MAGIC = (
    b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf\x27\x1c", b"Rar!", b"\x28\xb5\x2f\xfd", b"ITSF", b"MSCF", b"!<arch>",
    b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"II*\x00", b"MM\x00*", b"RIFF", b"OggS", b"fLaC", b"ID3", b"\xff\xfb",
    b"\x7fELF", b"MZ\x90", b"\xca\xfe\xba\xbe", b"\xcf\xfa\xed\xfe", b"\x00asm", b"SQLite format 3\x00", b"wOFF", b"OTTO",
    b"\x00\x01\x00\x00\x00", b"!BDN", b"AC10", b"%!PS", b"8BPS", b"PAR1", b"Obj\x01", b"\x89HDF", b"\x30\x80\x06",
)  # fmt: skip
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
    """The media type to read `data` as, one of this module's constants.

    Raises UnsupportedType, Encrypted, and Corrupt for a file that is not what its extension needs it to be.
    """
    extension = _extension(name)
    claimed = _BINARY_EXTENSIONS.get(extension)
    if data.lstrip(b"\xef\xbb\xbf \t\r\n\x00").startswith(b"%PDF-"):
        return PDF
    if data.startswith(b"{\\rtf"):
        return RTF
    if data.startswith(b"PK\x03\x04") or data.startswith(b"PK\x05\x06"):
        return _detect_zip(data, claimed)
    if data.startswith(ole.MAGIC):
        return _detect_ole(data)
    if data.startswith(_UNSUPPORTED_MAGIC) or data[4:8] == b"ftyp" or data[257:262] == b"ustar":
        raise UnsupportedType
    if b"%PDF-" in data[:1024] and (claimed == PDF or is_binary(data)):
        return PDF  # with rubbish before it, which readers of PDF put up with
    if not data.strip(b"\x00\t\n\r\x0c ") or len(data) <= 4:
        return TEXT  # nothing in it: whatever it claims to be, the answer is NoText
    return _detect_text(data, extension, claimed, _bare_type(content_type))


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
    return _TEXT_EXTENSIONS.get(extension) or _TEXT_CONTENT_TYPES.get(content_type) or TEXT


def _sniff(data: bytes, extension: str) -> str | None:
    """What kind of text this certainly is, whatever it is called; None if the bytes leave it open."""
    named = _TEXT_EXTENSIONS.get(extension)
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
                if entry in _MIMETYPE_ENTRIES:
                    return _MIMETYPE_ENTRIES[entry]
            kind = main_part_kind(archive)
    except (zipfile.BadZipFile, EOFError, OSError, ValueError, NotImplementedError) as error:
        if claimed or b"[Content_Types].xml" in data[:4096] or data[30:38] == b"mimetype":
            raise Corrupt from error
        raise UnsupportedType from error
    except RuntimeError as error:  # a password is needed
        raise (Encrypted if claimed else UnsupportedType) from error
    if kind in _PACKAGES:
        return _PACKAGES[kind]
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
    return suffix or (path.name if path.name in _CODE_EXTENSIONS else "")


def _bare_type(content_type: str | None) -> str:
    return (content_type or "").partition(";")[0].strip().lower()


def declared_charset(content_type: str | None) -> str | None:
    """The charset parameter of a content type."""
    match = re.search(r"charset\s*=\s*[\"']?([\w.:-]+)", content_type or "", re.IGNORECASE)
    return match[1] if match else None
