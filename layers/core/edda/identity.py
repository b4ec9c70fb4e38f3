"""Names that follow from content, so that doing a thing twice names it once."""

from collections import Counter
from collections.abc import Iterable, Mapping
from hashlib import sha256
from types import MappingProxyType
from uuid import UUID

_NOTHING: Mapping[UUID, int] = MappingProxyType({})


def content_hash(text: str) -> UUID:
    """First 128 bits of SHA-256 over the embedded text: the same text in a tenant is embedded once."""
    return UUID(bytes=sha256(text.encode()).digest()[:16])


def chunk_ids(tenant_id: UUID, content_hashes: Iterable[UUID], before: Mapping[UUID, int] = _NOTHING) -> list[UUID]:
    """One id per chunk of a document, in order: from its tenant, its content, and how often that content came before.

    `before` is how often it came in the document's earlier parts. The same file gives the same ids wherever it is
    stored, and an edit changes the ids of the edited chunks only.
    """
    seen = Counter(before)
    ids = []
    for content in content_hashes:
        occurrence = seen[content]
        seen[content] += 1
        digest = sha256(tenant_id.bytes + content.bytes + occurrence.to_bytes(4, "big")).digest()
        ids.append(_uuid8(digest))
    return ids


def _uuid8(digest: bytes) -> UUID:
    """RFC 9562 version 8, the one for contents of one's own (Python 3.11's UUID() cannot set it)."""
    value = int.from_bytes(digest[:16], "big")
    value = value & ~(0xF << 76) | 8 << 76
    return UUID(int=value & ~(0x3 << 62) | 0x2 << 62)
