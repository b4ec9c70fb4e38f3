"""Vectors as bytes: checked, brought to unit length, and in pgvector's binary format. Needs no numpy.

A vector is little-endian float32, 4 bytes a dimension, from the provider's answer until it is written. Many at once are
handled without a Python float for each of their numbers: that alone would cost more than all else that is done to them.
"""

import math
import struct
from array import array
from collections.abc import Sequence
from functools import lru_cache

from edda.errors import EmbeddingRejected, ProviderMisconfigured, ProviderUnavailable

FLOAT32_BYTES = 4
UNIT_LENGTH_TOLERANCE = 1e-5  # float32 itself errs by about 1e-7; halfvec keeps three digits


class InvalidVector(EmbeddingRejected):
    """The provider answered, but not with a vector: null, NaN, infinite or all zeros. May pass when asked again."""

    default_message = "The embedding provider returned no usable vector for this text."


class WrongDimensions(ProviderMisconfigured):
    """The provider answered with vectors of another model: they were paid for, unlike what it refuses."""


def validate(raw: bytes | memoryview, dimensions: int) -> bytes:
    """The vector at unit length, as float32 bytes.

    Raises InvalidVector (not finite, or zero), WrongDimensions, ProviderUnavailable (cut off).
    """
    if len(raw) % FLOAT32_BYTES:
        raise ProviderUnavailable("The embedding provider returned a vector that is cut off.")
    if not raw:
        raise InvalidVector
    if len(raw) != dimensions * FLOAT32_BYTES:
        raise wrong_dimensions(len(raw) // FLOAT32_BYTES, dimensions)
    layout = _float32(dimensions)
    values = layout.unpack(raw)
    length = math.hypot(*values)  # infinite or NaN as soon as one value is
    if not math.isfinite(length) or length == 0.0:
        raise InvalidVector
    if abs(length - 1.0) <= UNIT_LENGTH_TOLERANCE:
        return bytes(raw)
    return layout.pack(*(value / length for value in values))


def validate_all(raws: Sequence[bytes], dimensions: int) -> list[bytes | EmbeddingRejected]:
    """Like `validate` for each vector of one answer, with InvalidVector in the place of those that are not usable.

    A model's vectors all have unit length or none: the first is measured. Of the others it is enough to see that they
    are finite, not zero, and of a magnitude that half precision holds well; any doubt, and each is measured.
    """
    if not raws:
        return []
    first = _validated(raws[0], dimensions)
    size = dimensions * FLOAT32_BYTES
    if first == raws[0] and all(len(raw) == size and _looks_sound(raw) for raw in raws):
        return list(raws)
    return [first, *(_validated(raw, dimensions) for raw in raws[1:])]


def from_floats(values: Sequence[float], dimensions: int) -> bytes:
    """Like `validate`, for a vector that came as JSON numbers; InvalidVector for anything that is not a number."""
    if values and len(values) != dimensions:
        raise wrong_dimensions(len(values), dimensions)
    try:
        raw = _float32(len(values)).pack(*values)
    except (struct.error, OverflowError):
        raise InvalidVector from None
    return validate(raw, dimensions)


def to_halfvec_binary(vector: bytes) -> bytes:
    """pgvector's wire format of `halfvec`: uint16 dimensions, uint16 unused, big-endian float16 values."""
    dimensions = len(vector) // FLOAT32_BYTES
    return _halfvec(dimensions).pack(dimensions, 0, *_float32(dimensions).unpack(vector))


def to_float32_array_binary(vectors: Sequence[bytes], element_oid: int) -> bytes:
    """Postgres' wire format of `vector[]`, one or more, all of one size.

    Each element is int32 bytes, uint16 dimensions, uint16 unused, and the numbers as big-endian words. They are turned
    one by one, while they are in the processor's cache.
    """
    size = len(vectors[0])
    before_each = struct.pack(">iHH", FLOAT32_BYTES + size, size // FLOAT32_BYTES, 0)
    before_all = struct.pack(">5i", 1, 0, element_oid, len(vectors), 1)
    parts = [_big_endian(vector) for vector in vectors]
    parts[0] = before_all + before_each + parts[0]
    return before_each.join(parts)


def _big_endian(vector: bytes) -> bytes:
    words = array("I", vector)
    words.byteswap()
    return words.tobytes()


def wrong_dimensions(got: int, wanted: int) -> WrongDimensions:
    return WrongDimensions(f"The embedding model returns {got} dimensions, not {wanted}: is it another model?")


@lru_cache(maxsize=16)
def _float32(dimensions: int) -> struct.Struct:
    return struct.Struct(f"<{dimensions}f")


@lru_cache(maxsize=16)
def _halfvec(dimensions: int) -> struct.Struct:
    return struct.Struct(f">HH{dimensions}e")


# The upper byte of a float32, without its sign, says how large it is: up to 2 ** -7, from there up to 2, or beyond.
# A vector of unit length has at least one number of the middle kind (up to 4,096 dimensions: 2 ** -6), and none beyond.
_SMALL, _MIDDLE, _LARGE = b"s", b"m", b"l"
_MAGNITUDES = bytes(
    ord(_LARGE if (byte & 0x7F) >= 0x40 else _MIDDLE if (byte & 0x7F) >= 0x3C else _SMALL) for byte in range(256)
)


def _looks_sound(raw: bytes) -> bool:
    magnitudes = raw[3::FLOAT32_BYTES].translate(_MAGNITUDES)
    return _MIDDLE in magnitudes and _LARGE not in magnitudes


def _validated(raw: bytes, dimensions: int) -> bytes | InvalidVector:
    try:
        return validate(raw, dimensions)
    except InvalidVector as invalid:
        return invalid
