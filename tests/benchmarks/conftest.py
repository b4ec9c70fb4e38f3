"""A folder for a benchmark's state."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.folders import state_folder


@pytest.fixture
def state() -> Iterator[Path]:
    """Where the stack under test keeps its data."""
    with state_folder("benchmark") as folder:
        yield folder
