"""Where a page of hits ended, as a cursor.

The position is a hit and its score, not a number: hits that were added or deleted since shift nothing. It is sealed
with the tenant and the search it belongs to, so that a cursor of another search, or one that was changed, is noticed.
Who makes up a valid one has gained nothing: it only says where to go on in the caller's own hits.
"""

import base64
import binascii
import hashlib
import struct
from typing import NamedTuple
from uuid import UUID

from edda.errors import InvalidRequest

MAX_DEPTH = 10_000  # candidates of each leg
_LAYOUT = struct.Struct(">Bdd16siI")
_SEAL_BYTES = 12


class Position(NamedTuple):
    """In the order of hits: positions compare as hits stand on the page."""

    section: int  # 0 for hits that a reranker has read, 1 for the others
    minus_score: float
    minus_before: float  # the score before a reranker, which tells apart what it judged alike
    version_id: UUID
    ordinal: int


class Cursor(NamedTuple):
    """Behind which hit the next page begins, and how deep the legs were searched: the order depends on it."""

    position: Position
    depth: int


def encode(cursor: Cursor, search: bytes) -> str:
    """`search` is all that a search is made of, tenant included."""
    section, minus_score, minus_before, version_id, ordinal = cursor.position
    payload = _LAYOUT.pack(section, minus_score, minus_before, version_id.bytes, ordinal, cursor.depth)
    return _text_of(payload + _seal(payload, search))


def decode(text: str, search: bytes) -> Cursor:
    """Raises InvalidRequest for what `encode` did not make of this very search."""
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        raise _invalid() from None
    payload, seal = raw[: _LAYOUT.size], raw[_LAYOUT.size :]
    # The last character has bits to spare: another text could mean the same bytes.
    if len(payload) != _LAYOUT.size or seal != _seal(payload, search) or _text_of(raw) != text:
        raise _invalid()
    section, minus_score, minus_before, version_id, ordinal, depth = _LAYOUT.unpack(payload)
    if not 1 <= depth <= MAX_DEPTH:  # who knows how could have sealed it himself
        raise _invalid()
    return Cursor(Position(section, minus_score, minus_before, UUID(bytes=version_id), ordinal), depth)


def _seal(payload: bytes, search: bytes) -> bytes:
    key = hashlib.sha256(search).digest()
    return hashlib.blake2b(payload, key=key, digest_size=_SEAL_BYTES).digest()


def _text_of(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _invalid() -> InvalidRequest:
    message = "is not one that this search gave as next_cursor: it was changed, or belongs to another search"
    return InvalidRequest("The cursor is not valid.", problems=[{"field": "cursor", "message": message}])
