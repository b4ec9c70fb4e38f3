"""The directory of an OLE2 container (legacy Office, encrypted Office, Outlook): which streams its root has."""

import struct

MAGIC = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_END = 0xFFFFFFFA  # sector numbers from here on are markers
_NONE = 0xFFFFFFFF
_ENTRY_BYTES = 128


class BrokenContainer(ValueError):
    """The directory cannot be followed."""


def root_streams(data: bytes) -> frozenset[str]:
    """Names of the streams and storages directly under the root. Raises BrokenContainer."""
    try:
        directory = _directory(data)
        return frozenset(_siblings(directory, struct.unpack_from("<I", directory, 76)[0]))
    except (struct.error, IndexError) as error:
        raise BrokenContainer from error


def _directory(data: bytes) -> bytes:
    """The bytes of the directory stream, followed through the sector allocation table."""
    sector_bytes = 1 << min(struct.unpack_from("<H", data, 30)[0], 16)
    (sector,) = struct.unpack_from("<I", data, 48)
    table_sectors = struct.unpack_from("<109I", data, 76)
    per_sector = sector_bytes // 4
    parts: list[bytes] = []
    seen: set[int] = set()
    while sector < _END and sector not in seen:
        seen.add(sector)
        at = (sector + 1) * sector_bytes
        parts.append(data[at : at + sector_bytes])
        table = table_sectors[sector // per_sector] if sector // per_sector < 109 else _NONE
        if table >= _END:
            break
        (sector,) = struct.unpack_from("<I", data, (table + 1) * sector_bytes + sector % per_sector * 4)
    return b"".join(parts)


def _siblings(directory: bytes, child: int) -> list[str]:
    """Names in the tree of siblings that starts at entry `child`."""
    names: list[str] = []
    waiting, seen = [child], set[int]()
    while waiting:
        entry = waiting.pop()
        if entry == _NONE or entry in seen:
            continue
        seen.add(entry)
        at = entry * _ENTRY_BYTES
        (name_bytes,) = struct.unpack_from("<H", directory, at + 64)
        names.append(directory[at : at + max(0, min(name_bytes, 64) - 2)].decode("utf-16-le", "replace"))
        waiting += struct.unpack_from("<II", directory, at + 68)
    return names
