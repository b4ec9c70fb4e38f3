"""Folders of a local stack's state, for tests."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from local.postgres import data_home
from local.settings import LocalSettings


@contextmanager
def state_folder(of: str) -> Iterator[Path]:
    """One that is deleted at the end, with its data. Postgres runs as another user if root starts it, and pytest closes
    its own folders to others."""
    folder = Path(tempfile.mkdtemp(prefix=f"edda-{of}-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        for left in {folder, data_home(LocalSettings(folder, 0, 0, zipped_layers=False))}:
            shutil.rmtree(left, ignore_errors=True)
