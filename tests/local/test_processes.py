"""Nothing that a local run starts outlives it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from local.processes import Child, running, stop_leftover, wait_until
from local.settings import ROOT

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, subprocess, sys, time\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    "print('up', flush=True)\n"
    "time.sleep(600)",
]


def child(folder: Path, command: list[str]) -> Child:
    return Child(
        name="child",
        command=command,
        environment=dict(os.environ),
        log=folder / "child.log",
        pid_file=folder / "child.pid",
        stop_signal=signal.SIGTERM,
        stop_within_s=1,
    )


def members(group: int) -> list[int]:
    """Living processes of a process group."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, of_group = stat.read_text().rpartition(")")[2].split()[:3]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(of_group) == group and state != "Z":
            found.append(int(stat.parent.name))
    return found


def test_a_server_ends_with_its_block(tmp_path: Path) -> None:
    with running(child(tmp_path, SLEEP)) as server:
        assert server.poll() is None

    assert server.returncode == -signal.SIGTERM
    assert not (tmp_path / "child.pid").exists()


def test_a_server_that_will_not_listen_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    with running(child(tmp_path, STUBBORN)) as server:
        assert wait_until(lambda: "up" in (tmp_path / "child.log").read_text(), within_s=10)
        assert len(members(server.pid)) == 2

    assert wait_until(lambda: members(server.pid) == [], within_s=5)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
def test_a_server_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    program = f"""
import os, signal, sys, time
from pathlib import Path
from local.processes import Child, running
folder = Path({str(tmp_path)!r})
with running(Child("child", {SLEEP!r}, dict(os.environ), folder / "log", folder / "pid", signal.SIGTERM, 1)) as server:
    print(server.pid, flush=True)
    time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=ROOT) as parent:
        assert parent.stdout is not None
        server = int(parent.stdout.readline())
        assert members(server) == [server]
        parent.kill()

    assert wait_until(lambda: members(server) == [], within_s=5)


def test_what_a_killed_run_left_is_ended(tmp_path: Path) -> None:
    with subprocess.Popen(SLEEP, process_group=0) as leftover:
        birth = Path(f"/proc/{leftover.pid}/stat").read_text().rpartition(")")[2].split()[19]
        (tmp_path / "child.pid").write_text(f"{leftover.pid} {birth}")

        stop_leftover(tmp_path / "child.pid", signal.SIGTERM, within_s=1)

        assert leftover.wait(5) == -signal.SIGTERM
    assert not (tmp_path / "child.pid").exists()


@pytest.mark.parametrize("content", ["{pid} 1", "{pid} ", "{pid}", "", "nonsense"])
def test_a_stale_pid_file_harms_no_other_program(tmp_path: Path, content: str) -> None:
    with subprocess.Popen(SLEEP) as other:
        (tmp_path / "child.pid").write_text(content.format(pid=other.pid))

        stop_leftover(tmp_path / "child.pid", signal.SIGTERM, within_s=1)

        assert other.poll() is None
        other.kill()


def test_waiting_ends_when_time_is_up() -> None:
    began = time.monotonic()

    assert wait_until(lambda: False, within_s=0.2) is False
    assert time.monotonic() - began < 2
