"""The disk of an environment outlives its processes; what they leave there does not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from edda.scratch import remove_leftovers, scratch_folder


@pytest.fixture(autouse=True)
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


LEAVE_A_FILE = """
import os, pathlib, sys, tempfile
from edda.scratch import scratch_folder
tempfile.tempdir = sys.argv[1]
folder = scratch_folder()
pathlib.Path(folder.name, "document").write_text("long")
print("there", flush=True)
sys.stdin.read()
os._exit(9)
"""


def test_the_folder_of_a_killed_process_is_removed_and_that_of_a_living_one_stays(disk: Path) -> None:
    (disk / "edda-document-of-somebody-else").mkdir()
    command = [sys.executable, "-c", LEAVE_A_FILE, str(disk)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"there\n"
        remove_leftovers()
        assert len(list(disk.iterdir())) == 2
        process.communicate()
    assert process.returncode == 9
    remove_leftovers()
    assert [path.name for path in disk.iterdir()] == ["edda-document-of-somebody-else"]


def test_a_process_that_begins_with_the_number_of_a_killed_one_removes_its_folder(disk: Path) -> None:
    (disk / f"edda-document-{os.getpid()}-abc").mkdir()
    remove_leftovers()
    assert list(disk.iterdir()) == []


def test_a_folder_is_gone_when_its_block_ends(disk: Path) -> None:
    with scratch_folder() as folder:
        assert Path(folder).parent == disk
    assert list(disk.iterdir()) == []
