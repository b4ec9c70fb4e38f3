"""What tests of the evaluation share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.folders import state_folder


@pytest.fixture(scope="module")
def state() -> Iterator[Path]:
    """Where the stack under test keeps its data."""
    with state_folder("evaluation") as folder:
        yield folder
