"""What tests of the evaluation share."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.postgres import data_home
from local.settings import LocalSettings


@pytest.fixture(scope="module")
def state() -> Iterator[Path]:
    """Postgres runs as another user if root starts it, and pytest closes its own folders to others."""
    folder = Path(tempfile.mkdtemp(prefix="edda-evaluation-"))
    folder.chmod(0o755)
    yield folder
    for left in {folder, data_home(LocalSettings(folder, 0, 0, zipped_layers=False))}:
        shutil.rmtree(left, ignore_errors=True)
