"""Folders for files while they are parsed, and what killed processes leave of them.

Lambda ends a process that needs too much memory and begins another in the same environment, on the same disk.
"""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

_PREFIX = "edda-document-"


def scratch_folder() -> "tempfile.TemporaryDirectory[str]":
    """Gone when its block ends; named after this process, so that others can tell whether it is still in use."""
    return tempfile.TemporaryDirectory(prefix=f"{_PREFIX}{os.getpid()}-")


def remove_leftovers() -> None:
    """Remove the folders of processes that are no more. For a process that has none of its own yet: another may have
    had its number."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        owner = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if owner.isdecimal() and (int(owner) == os.getpid() or not _is_alive(int(owner))):
            shutil.rmtree(folder, ignore_errors=True)


def _is_alive(process_id: int) -> bool:
    with contextlib.suppress(PermissionError):  # somebody else's
        try:
            os.kill(process_id, 0)
        except ProcessLookupError:
            return False
    return True
