"""Vectors as bytes: checked, brought to unit length, and in pgvector's binary format.

A vector is little-endian float32, 4 bytes a dimension, from the provider's answer until it is written. Many at once go
through numpy, which is loaded by who has many: no Python float is made of them, and 3 µs a vector of 1,536 dimensions
are spent where `struct` takes 34. One alone, a question's, needs none of it.
"""

import math
import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from edda.errors import EmbeddingRejected, ProviderMisconfigured, ProviderUnavailable

if TYPE_CHECKING:
    import numpy as np

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
    """Like `validate` for each vector of one answer, with InvalidVector in the place of those that are not usable."""
    if len(raws) > 1 and _all_of_unit_length(raws, dimensions):
        return list(raws)
    return [_validated(raw, dimensions) for raw in raws]


def _all_of_unit_length(raws: Sequence[bytes], dimensions: int) -> bool:
    import numpy as np

    if any(len(raw) != dimensions * FLOAT32_BYTES for raw in raws):
        return False
    rows = _rows(raws, dimensions)
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.einsum("ij,ij->i", rows, rows)  # NaN where a value is, infinite where one is or is huge
    return bool((abs(squares - 1.0) <= UNIT_LENGTH_TOLERANCE).all())


def _validated(raw: bytes, dimensions: int) -> bytes | InvalidVector:
    try:
        return validate(raw, dimensions)
    except InvalidVector as invalid:
        return invalid


def from_floats(values: Sequence[float], dimensions: int) -> bytes:
    """Like `validate`, for a vector that came as JSON numbers; InvalidVector for anything that is not a number."""
    if values and len(values) != dimensions:
        raise wrong_dimensions(len(values), dimensions)
    return validate(pack(values), dimensions)


def pack(values: Sequence[float]) -> bytes:
    """JSON numbers as float32. Raises InvalidVector for anything that is not a number."""
    try:
        return _float32(len(values)).pack(*values)
    except (struct.error, OverflowError):
        raise InvalidVector from None


def to_halfvec_binary(vector: bytes) -> bytes:
    """pgvector's wire format of `halfvec`: uint16 dimensions, uint16 unused, big-endian float16 values."""
    dimensions = len(vector) // FLOAT32_BYTES
    return _halfvec(dimensions).pack(dimensions, 0, *_float32(dimensions).unpack(vector))


def to_halfvec_array_binary(vectors: Sequence[bytes], element_oid: int) -> bytes:
    """Postgres' wire format of `halfvec[]`: int32 dimensions, flags, type, elements, lower bound; then for each element
    int32 bytes, and the vector as in `to_halfvec_binary`. One vector or more, all of one size."""
    import numpy as np

    dimensions = len(vectors[0]) // FLOAT32_BYTES
    head = struct.pack(">5i", 1, 0, element_oid, len(vectors), 1)
    before_each = struct.pack(">iHH", 4 + 2 * dimensions, dimensions, 0)
    body = np.empty((len(vectors), len(before_each) + 2 * dimensions), dtype="u1")
    body[:, : len(before_each)] = list(before_each)
    body[:, len(before_each) :] = _rows(vectors, dimensions).astype(">f2").view("u1")
    return b"".join((head, body.data))


def _rows(vectors: Sequence[bytes], dimensions: int) -> "np.ndarray":
    import numpy as np

    return np.frombuffer(b"".join(vectors), dtype="<f4").reshape(len(vectors), dimensions)


def wrong_dimensions(got: int, wanted: int) -> WrongDimensions:
    return WrongDimensions(f"The embedding model returns {got} dimensions, not {wanted}: is it another model?")


@lru_cache(maxsize=16)
def _float32(dimensions: int) -> struct.Struct:
    return struct.Struct(f"<{dimensions}f")


@lru_cache(maxsize=16)
def _halfvec(dimensions: int) -> struct.Struct:
    return struct.Struct(f">HH{dimensions}e")
