"""The mock provider's vectors: they follow from the text, cost next to nothing, and can be checked afterwards.

A pool of random unit vectors is made once, each written twice in a row. A text's hash picks one and where in it to
begin: a rotation of a unit vector is a unit vector too, and in base64 as in JSON it is a slice of a string that is
there already. Three floats are sixteen characters of base64, so rotations go by three. With 1,536 dimensions there are
131,072 vectors: two texts that were swapped, or a vector written to another's row, show.
"""

import base64
import math
import random
import struct
from hashlib import blake2b

POOL = 256
STEP = 3  # floats: 12 bytes, 16 characters of base64
JSON_WIDTH = 15  # " 0.0123456789," and "-0.0123456789,", padded: JSON allows blanks


class Vectors:
    """Of one size, which three and four divide."""

    def __init__(self, dimensions: int) -> None:
        if dimensions % STEP:
            raise ValueError("dimensions must be a multiple of 3")
        self.dimensions = dimensions
        numbers = random.Random(dimensions)
        self._pool = [_unit_vector(numbers, dimensions) for _ in range(POOL)]
        self._base64 = [base64.b64encode(struct.pack(f"<{2 * dimensions}f", *one, *one)) for one in self._pool]
        self._json = [b"".join(b"%14.10f," % value for value in one) * 2 for one in self._pool]

    def floats(self, text: str) -> list[float]:
        """As JSON gives them; base64 gives the same as float32."""
        number, start = self._place(text)
        return self._pool[number][start:] + self._pool[number][:start]

    def in_base64(self, text: str) -> bytes:
        """Little-endian float32, as the real API sends it."""
        number, start = self._place(text)
        first = start // STEP * 16
        return self._base64[number][first : first + self.dimensions // STEP * 16]

    def in_json(self, text: str) -> bytes:
        """The inside of a list of numbers."""
        number, start = self._place(text)
        return self._json[number][start * JSON_WIDTH : (start + self.dimensions) * JSON_WIDTH - 1]

    def _place(self, text: str) -> tuple[int, int]:
        """By the text's words: some clients replace line breaks before they send it."""
        digest = int.from_bytes(blake2b(" ".join(text.split()).encode(), digest_size=8).digest())
        rotation, number = divmod(digest, POOL)
        return number, rotation % (self.dimensions // STEP) * STEP


def _unit_vector(numbers: random.Random, dimensions: int) -> list[float]:
    values = struct.unpack(f"<{dimensions}h", numbers.randbytes(2 * dimensions))
    length = math.hypot(*values)
    return [round(value / length, 10) for value in values]
