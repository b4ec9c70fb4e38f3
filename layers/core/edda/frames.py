"""Messages between the parser process and its child: a length (4 bytes, big-endian), then JSON in UTF-8.

JSON, not pickle: the child reads hostile files with native code, so what it says is data and never instructions.

parent → child   {"path", "name", "content_type", "state", "limits": {...}, "cpu_s"}
child → parent   {"ready": true} once, then for each request
                 {"chunks": [[text, char_start, char_end, tokens, page, heading_path], ...]}  any number of times
                 {"done": {"media_type", "title", "language", "characters", "state"}} or
                 {"error": code, "message", "detail", "leaving"}: when it leaves, it takes no further request
"""

import json
import os
from typing import Any
from uuid import UUID

from edda.identity import content_hash
from edda.models import Chunk

MAX_FRAME_BYTES = 64 * 1024**2
CHUNKS_PER_FRAME = 256

Frame = dict[str, Any]


class BrokenFrame(ValueError):
    """What came is not of this protocol."""


def encode(frame: Frame) -> bytes:
    body = json.dumps(frame, ensure_ascii=False, separators=(",", ":")).encode()
    return len(body).to_bytes(4, "big") + body


def take(buffer: bytearray) -> Frame | None:
    """Remove the first frame from `buffer`, None while it is not complete. Raises BrokenFrame."""
    if len(buffer) < 4:
        return None
    size = int.from_bytes(buffer[:4], "big")
    if size > MAX_FRAME_BYTES:
        raise BrokenFrame
    if len(buffer) < 4 + size:
        return None
    body = bytes(buffer[4 : 4 + size])
    del buffer[: 4 + size]
    try:
        frame = json.loads(body)
    except ValueError as error:
        raise BrokenFrame from error
    if not isinstance(frame, dict):
        raise BrokenFrame
    return frame


def read(descriptor: int, buffer: bytearray) -> Frame | None:
    """Wait for the next frame; None when the other end is gone."""
    while (frame := take(buffer)) is None:
        piece = os.read(descriptor, 1 << 16)
        if not piece:
            return None
        buffer += piece
    return frame


def write(descriptor: int, frame: Frame) -> None:
    rest = memoryview(encode(frame))
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def pack_chunk(chunk: Chunk) -> list[Any]:
    return [chunk.text, chunk.char_start, chunk.char_end, chunk.tokens, chunk.page, chunk.heading_path]


def unpack_chunk(packed: list[Any], ordinal: int, language: str | None) -> Chunk:
    """The hash is made anew: an identity is not left to the child."""
    text, start, end, tokens, page, heading_path = packed
    identity: UUID = content_hash(text)
    return Chunk(
        ordinal=ordinal,
        text=text,
        char_start=int(start),
        char_end=int(end),
        tokens=int(tokens),
        page=page if page is None else int(page),
        heading_path=tuple(str(title) for title in heading_path),
        language=language,
        content_hash=identity,
    )
