"""Functions that fail in each way that Lambda knows."""

import time
from typing import Any


def raises(event: Any, context: Any) -> None:
    """An error of its own."""
    raise ValueError("as asked")


def sleeps(event: Any, context: Any) -> None:
    """Longer than its timeout."""
    time.sleep(60)


def allocates(event: Any, context: Any) -> None:
    """More than its memory."""
    kept = [bytearray(10_000_000) for _ in range(50)]
    raise AssertionError(f"{len(kept)} x 10 MB fit into 128 MB")
