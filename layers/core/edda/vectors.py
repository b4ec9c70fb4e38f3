"""Vectors as bytes: checked, brought to unit length, and in pgvector's binary format. Needs no numpy.

A vector is little-endian float32, 4 bytes a dimension, from the provider's answer until it is written.
"""

import math
import struct
from collections.abc import Sequence
from functools import lru_cache

from edda.errors import EmbeddingRejected, ProviderMisconfigured, ProviderUnavailable

FLOAT32_BYTES = 4
UNIT_LENGTH_TOLERANCE = 1e-5  # float32 itself errs by about 1e-7; halfvec keeps three digits


class InvalidVector(EmbeddingRejected):
    """The provider answered, but not with a vector: null, NaN, infinite or all zeros. May pass when asked again."""

    default_message = "The embedding provider returned no usable vector for this text."


def validate(raw: bytes | memoryview, dimensions: int) -> bytes:
    """The vector at unit length, as float32 bytes.

    Raises InvalidVector (not finite, or zero), ProviderMisconfigured (other dimensions), ProviderUnavailable (cut off).
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


def wrong_dimensions(got: int, wanted: int) -> ProviderMisconfigured:
    return ProviderMisconfigured(f"The embedding model returns {got} dimensions, not {wanted}: is it another model?")


@lru_cache(maxsize=16)
def _float32(dimensions: int) -> struct.Struct:
    return struct.Struct(f"<{dimensions}f")


@lru_cache(maxsize=16)
def _halfvec(dimensions: int) -> struct.Struct:
    return struct.Struct(f">HH{dimensions}e")
