"""What the contract suites share."""

from pathlib import Path

import pytest

from local.model import minilm_folder
from tests.fakes.leaks import no_leaked_tasks  # noqa: F401 - a fixture


@pytest.fixture(scope="session")
def model_folder() -> Path:
    """The in-process model."""
    return minilm_folder()
