"""Mail (RFC 5322, MIME) and mailboxes: subject, people, date, and the text of every part that is for reading."""

import re
from email import message_from_bytes
from email.header import decode_header
from email.message import Message

from edda.decoding import clean, decode, decode_html, lookup
from edda.errors import Encrypted
from edda.formats.draft import Draft
from edda.formats.html import read_html
from edda.formats.plain import plain_blocks

_SHOWN_HEADERS = ("From", "To", "Cc", "Date")
_MAX_DEPTH = 20
_MBOX_SEPARATOR = re.compile(rb"^From \S+.*\d{4}.*\r?\n", re.MULTILINE)


def read_mail(data: bytes, draft: Draft) -> None:
    """Add one message. Raises Encrypted when its body is and nothing else of it can be read."""
    start = _MBOX_SEPARATOR.match(data)
    _add_message(message_from_bytes(data[start.end() if start else 0 :].lstrip(b"\r\n")), draft, depth=0)


def read_mbox(data: bytes, draft: Draft) -> None:
    """Add every message of a mailbox, one after the other."""
    starts = [match for match in _MBOX_SEPARATOR.finditer(data) if _begins_message(data, match.start())]
    ends = [match.start() for match in starts[1:]] + [len(data)]
    for start, end in zip(starts, ends, strict=True):
        body = re.sub(rb"^>(>*From )", rb"\1", data[start.end() : end], flags=re.MULTILINE)
        _add_message(message_from_bytes(body), draft, depth=0)
    if not starts:
        read_mail(data, draft)


def _begins_message(data: bytes, at: int) -> bool:
    """Whether a line "From ..." is a separator: it is the first, or a blank line stands before it."""
    return at == 0 or data[max(0, at - 3) : at].endswith((b"\n\n", b"\n\r\n"))


def _add_message(message: Message, draft: Draft, depth: int) -> None:
    """The subject, the text, and then who wrote it to whom and when. A message within another has its subject last
    too: its text continues that of the outer one."""
    subject = header(message, "Subject")
    names: tuple[str, ...] = _SHOWN_HEADERS
    if depth == 0:
        draft.title = draft.title or subject or None
        draft.heading(subject, 1)
    else:
        names = ("Subject", *_SHOWN_HEADERS)
    _add_part(message, draft, depth)
    lines = [f"{name}: {value}" for name in names if (value := header(message, name))]
    if depth == 0:
        lines += [f"Attachment: {name}" for name in _attachments(message)]
    draft.paragraph("\n".join(lines))


def _attachments(message: Message) -> list[str]:
    """Names of the files that came with a message."""
    names = (part.get_filename() for part in message.walk() if part.get_content_disposition() == "attachment")
    return [_decoded(name) for name in names if name]


def _add_part(part: Message, draft: Draft, depth: int) -> None:
    """Add what is readable in a part, however it is nested. All alternatives are added: they seldom say the same."""
    kind = part.get_content_type()
    if depth > _MAX_DEPTH:
        return
    if kind in ("multipart/encrypted", "application/pkcs7-mime", "application/x-pkcs7-mime"):
        if part.get_param("smime-type") != "signed-data":
            raise Encrypted
        return
    if part.is_multipart():
        for child in part.get_payload():
            if not isinstance(child, Message):
                continue
            if kind.startswith("message/"):
                _add_message(child, draft, depth + 1)
            else:
                _add_part(child, draft, depth + 1)
        return
    _add_leaf(part, kind, draft)


def _add_leaf(part: Message, kind: str, draft: Draft) -> None:
    if kind in ("text/html", "application/xhtml+xml"):
        _add_html(_bytes_of(part), _charset_of(part), draft)
    elif kind.startswith("text/") and kind not in ("text/rtf", "text/css", "text/javascript"):
        _add_plain(decode(_bytes_of(part), _charset_of(part)), draft)
    elif kind.startswith("message/"):
        _add_plain(decode(_bytes_of(part)), draft)


def _add_plain(text: str, draft: Draft) -> None:
    text = clean(text)
    for block in plain_blocks(text):
        draft.paragraph(text[block.start : block.end])


def _add_html(data: bytes, charset: str | None, draft: Draft) -> None:
    title = draft.title
    read_html(decode_html(data, charset), draft)
    draft.title = title or draft.title


def _bytes_of(part: Message) -> bytes:
    payload = part.get_payload(decode=True)
    return payload if isinstance(payload, bytes) else b""


def _charset_of(part: Message) -> str | None:
    try:
        charset = part.get_content_charset()
    except (LookupError, UnicodeError, ValueError):
        return None
    return charset if lookup(charset) else None


def header(message: Message, name: str) -> str:
    """A header in one line, its encoded words decoded; "" if there is none or it is beyond repair."""
    try:
        raw = message.get(name)
    except (LookupError, UnicodeError, ValueError, IndexError):
        return ""
    return " ".join(_decoded(str(raw)).split()) if raw is not None else ""


def _decoded(raw: str) -> str:
    """RFC 2047, and bytes that were sent without it (the email package hides those in surrogates)."""
    if "=?" not in raw:
        return decode(raw.encode("utf-8", "surrogateescape"))
    try:
        words = decode_header(raw.encode("ascii", "replace").decode("ascii"))
    except (ValueError, LookupError):
        return raw
    return "".join(word if isinstance(word, str) else decode(word, charset) for word, charset in words)
