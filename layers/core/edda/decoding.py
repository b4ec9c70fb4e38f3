"""Bytes to clean text: which charset it is, and what never gets past this edge.

The order of evidence: a byte-order mark, the zeros of UTF-16 and UTF-32, an escape-coded Japanese text, valid UTF-8,
what the document declares, and last a guess by statistics. Valid UTF-8 beats a declaration, because other charsets
almost never look like it by accident, while declarations are often wrong.

Policy for bytes that fit nothing: they become U+FFFD, and the rest of the text is kept.
"""

import codecs
import re
from typing import BinaryIO

from edda.charsets import east_asian_utf16, guess, looks_like_ebcdic

_BOMS = (  # the longer first: UTF-32-LE starts like UTF-16-LE
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# What browsers read under these names: supersets that occur in the wild (WHATWG Encoding Standard).
_WHATWG = {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "iso8859-11": "cp874",
    "tis-620": "cp874",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
}
_ALIASES = {"x-sjis": "cp932", "windows-31j": "cp932", "iso-8859-8-i": "iso8859-8", "iso-8859-8-e": "iso8859-8",
            "ks_c_5601-1987": "cp949", "x-euc-jp": "euc_jp", "x-gbk": "gb18030", "x-mac-cyrillic": "mac_cyrillic",
            "macintosh": "mac_roman", "x-mac-roman": "mac_roman", "dos-874": "cp874"}  # fmt: skip
_SAMPLE_BYTES = 64 * 1024
_BLOCK_BYTES = 1024 * 1024  # read at once of a long file
_TEXT_CONTROLS = b"\t\n\r\x0c\x1b\x0b"
_CONTROL_BYTES = bytes(b for b in range(32) if b not in _TEXT_CONTROLS) + b"\x7f"

_META_CHARSET = re.compile(rb"<meta\b[^>]{0,400}?charset\s*=\s*[\"']?\s*([A-Za-z0-9_.:-]{2,40})", re.IGNORECASE)
_XML_ENCODING = re.compile(rb"^\s*<\?xml[^>]{0,200}?encoding\s*=\s*[\"']([A-Za-z0-9_.:-]{2,40})", re.IGNORECASE)

# C0 and C1 controls but tab and newline, the deleted character, halves of a surrogate pair, a carriage return.
_UNCLEAN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_BEYOND_ASCII = re.compile("[\x80-\ud7ff\ue000-\ufffc\U00010000-\U0010ffff]")
_DAMAGE = "\udcff"  # stands for bytes that are no UTF-8: a U+FFFD may have been written by the author
_NEWLINES = re.compile("\r\n?|[\x0b\x0c\x85]")


def _mark_damage(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return _DAMAGE, error.end


codecs.register_error("edda.damage", _mark_damage)


def clean(text: str) -> str:
    """The only text that may enter a document: newlines are `\\n`, controls are gone, surrogates are U+FFFD."""
    return scrub(text.lstrip("\ufeff") if text.startswith("\ufeff") else text)


def scrub(text: str) -> str:
    """`clean` for a part of a text that begins after the end of a line: byte-order marks in it stay."""
    if not _UNCLEAN.search(text):
        return text
    text = _NEWLINES.sub("\n", text)
    return _UNCLEAN.sub(lambda match: "\ufffd" if match[0] >= "\ud800" else "", text)


def decode(data: bytes, declared: str | None = None) -> str:
    """The text of `data`. `declared` is the charset someone claims, if any. Not yet cleaned."""
    for bom, encoding in _BOMS:
        if data.startswith(bom):
            return data[len(bom) :].decode(encoding, "replace")
    if (wide := wide_encoding(data)) is not None:
        return data.decode(wide, "replace")
    if b"\x1b$)C" in data and (text := _strictly(data, "iso2022_kr")) is not None:
        return text
    if b"\x1b$" in data and (text := _strictly(data, "iso2022_jp")) is not None:
        return text
    if (text := _strictly(data, "utf-8")) is not None:
        return text
    if (named := lookup(declared)) is not None and (text := _as_declared(data, named)) is not None:
        return text
    if _is_mostly_utf8(data):
        return data.decode("utf-8", "replace")
    return data.decode(guess(_telling_sample(data)), "replace")


def encoding_of(file: BinaryIO, declared: str | None = None) -> str | None:
    """What `decode` would read a long file as, found a block at a time; None for those that depend on all before them.

    A legacy charset is told from the first block that has letters beyond ASCII.
    """
    head = file.read(_BLOCK_BYTES)
    for bom, encoding in _BOMS:
        if head.startswith(bom):
            return encoding
    if (wide := wide_encoding(head)) is not None:
        return wide
    decoder = codecs.getincrementaldecoder("utf-8")("edda.damage")
    good = bad = 0
    telling = b""
    block = head
    while block:
        if b"\x1b$" in block:
            return None
        telling = telling or (b"" if block.isascii() else block)
        text = decoder.decode(block)
        bad += text.count(_DAMAGE)
        good += 0 if text.isascii() else sum(1 for _ in _BEYOND_ASCII.finditer(text))
        block = file.read(_BLOCK_BYTES)
    if not bad:
        return "utf-8"
    named = lookup(declared)
    if named is not None and named not in _WIDE and _as_declared(telling, named) is not None:
        return named
    encoding = "utf-8" if good >= 3 * bad else guess(_telling_sample(telling))
    return encoding if "\n".encode(encoding) == b"\n" else None


def byte_order_mark(encoding: str) -> bytes:
    """What a file in this encoding may begin with, which is no text."""
    return next((bom for bom, named in _BOMS if named == encoding), b"")


def decode_html(data: bytes, declared: str | None = None) -> str:
    """Like `decode`, and believes the document's own `<meta charset>` or XML declaration, wherever it stands.

    A page may name several charsets, some of them nonsense: the first that Python knows is taken.
    """
    names = [match[1] for match in _META_CHARSET.finditer(data)] + [m[1] for m in [_XML_ENCODING.match(data)] if m]
    known = (name for name in (raw.decode("ascii") for raw in names) if lookup(name) not in (None, *_WIDE))
    return decode(data, declared if lookup(declared) else next(known, None))


def lookup(name: str | None) -> str | None:
    """Python's name for a charset, or None if there is no such text encoding."""
    if not name:
        return None
    name = name.strip().strip("\"'").lower()
    try:
        info = codecs.lookup(_ALIASES.get(name, name))
        "".encode(info.name)  # codecs such as rot13 and base64 are no text encodings
    except (LookupError, ValueError, UnicodeError):
        return None
    return _WHATWG.get(info.name, info.name)


_WIDE = ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be")


def wide_encoding(data: bytes) -> str | None:
    """UTF-16 or UTF-32 without a mark, seen by where its zeros stand: no other text is full of zeros."""
    sample = data[: _SAMPLE_BYTES - _SAMPLE_BYTES % 4]
    zeros = [sample[lane::4].count(0) for lane in range(4)]
    lane_size = max(1, len(sample) // 4)
    if len(sample) >= 8 and len(data) % 4 == 0:
        if zeros[2] + zeros[3] >= 1.9 * lane_size and zeros[0] < lane_size * 0.5:
            return _if_readable(sample, "utf-32-le")
        if zeros[0] + zeros[1] >= 1.9 * lane_size and zeros[3] < lane_size * 0.5:
            return _if_readable(sample, "utf-32-be")
    even, odd = zeros[0] + zeros[2], zeros[1] + zeros[3]
    if max(even, odd) < max(1, len(sample) * 0.01) or min(even, odd) * 10 > max(even, odd):
        return east_asian_utf16(sample[:4096]) if len(data) % 2 == 0 else None
    return _if_readable(sample, "utf-16-le" if odd > even else "utf-16-be")


def _if_readable(sample: bytes, encoding: str) -> str | None:
    """`encoding`, if most of `sample` is then letters, marks, digits, punctuation and white space."""
    text = sample.decode(encoding, "replace")
    readable = sum(character.isprintable() or character in "\t\n\r\ufeff" for character in text)
    return encoding if readable >= 0.95 * len(text) else None


def is_binary(data: bytes) -> bool:
    """Whether this is no text in any charset: too many control bytes, and not the zeros of UTF-16 or UTF-32.

    A few stray NULs in a text do not make it binary: they are cleaned away.
    """
    if data.startswith(tuple(bom for bom, _ in _BOMS)) or wide_encoding(data) is not None:
        return False
    sample = data[:_SAMPLE_BYTES]
    if looks_like_ebcdic(sample):
        return False
    controls = len(sample) - len(sample.translate(None, _CONTROL_BYTES))
    return controls > max(8, len(sample) * 0.05) or (controls * 5 > len(sample))


def _telling_sample(data: bytes, size: int = 4 * 1024) -> bytes:
    """Lines with bytes above 127, up to `size` bytes of them: ASCII says nothing about a charset."""
    if len(data) <= size:
        return data
    lines: list[bytes] = []
    taken = 0
    for match in re.finditer(rb"[^\r\n]{0,500}[\x80-\xff][^\r\n]{0,500}", data):
        lines.append(match[0])
        taken += len(match[0]) + 1
        if taken >= size:
            break
    return b"\n".join(lines)


def _strictly(data: bytes, encoding: str) -> str | None:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        # A file cut off within its last character is still that encoding.
        if error.start >= len(data) - 4 and error.start > 64 and error.reason.startswith(("unexpected end", "incompl")):
            return data[: error.start].decode(encoding) + "\ufffd"
        return None


def _as_declared(data: bytes, encoding: str) -> str | None:
    """`data` read as declared, unless that is plainly wrong: undefined bytes, or C1 controls in the result."""
    text = data.decode(encoding, "replace")
    wrong = text.count("\ufffd") + len(re.findall("[\x80-\x9f]", text))
    return text if wrong <= len(text) * 0.005 else None


def _is_mostly_utf8(data: bytes) -> bool:
    """Whether good multi-byte sequences outnumber the bad bytes: damaged UTF-8, not another charset."""
    text = data.decode("utf-8", "edda.damage")
    bad = text.count(_DAMAGE)
    good = sum(1 for _ in _BEYOND_ASCII.finditer(text))
    return good >= 3 * bad
