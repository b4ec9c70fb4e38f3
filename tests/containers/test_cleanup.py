"""Nothing of a run in containers outlives it, however it ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import docker
import httpx
import pytest

from local.processes import wait_until
from local.settings import ROOT, LocalSettings
from tests.containers.conftest import HOME, forget, ours
from tests.local.conftest import free_port

pytestmark = [pytest.mark.containers, pytest.mark.timeout(600)]


@pytest.fixture
def settings() -> LocalSettings:
    """A second stack beside the tests' own."""
    second = LocalSettings(state=HOME / "second", port=free_port(), database_port=free_port(), zipped_layers=False)
    forget(second)
    return second


def start(settings: LocalSettings, built: Path, api_port: int) -> subprocess.Popen[str]:
    """`make sam-local`."""
    command = [sys.executable, "-m", "local.containers", "run", "--build", str(built), "--state", str(settings.state)]
    command += ["--port", str(settings.port), "--database-port", str(settings.database_port)]
    return subprocess.Popen(
        [*command, "--api-port", str(api_port)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0,
    )


def until_up(process: subprocess.Popen[str], api_port: int) -> str:
    """What it said until it was ready; its API has answered, so that there is a container."""
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if "Ctrl-C stops" in line:
            break
    else:
        pytest.fail(said)
    assert httpx.get(f"http://127.0.0.1:{api_port}/v1/health", timeout=120).status_code == 200
    return said


def processes(settings: LocalSettings) -> list[str]:
    """Command lines of processes that work in the state's folder."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            if str(settings.state) in command + str((folder / "cwd").readlink()):
                found.append(command)
        except (OSError, UnicodeDecodeError):
            continue
    return found


def test_ctrl_c_leaves_nothing_and_a_kill_leaves_nothing_after_the_next_start(
    client: docker.DockerClient, built: Path, settings: LocalSettings
) -> None:
    networks = {network.name for network in client.networks.list()}
    api_port = free_port()

    first = start(settings, built, api_port)
    until_up(first, api_port)
    assert ours(client, settings)
    os.kill(first.pid, signal.SIGINT)  # as Ctrl-C
    first.communicate(timeout=90)

    assert first.returncode == 0
    assert ours(client, settings) == []
    assert processes(settings) == []

    second = start(settings, built, api_port)
    until_up(second, api_port)
    for child in (settings.state / "run").glob("*.pid"):  # all at once, as a machine's end would
        os.kill(int(child.read_text().split()[0]), signal.SIGKILL)
    os.killpg(second.pid, signal.SIGKILL)
    second.communicate(timeout=90)
    assert ours(client, settings)  # nobody was there to take them away

    third = start(settings, built, api_port)
    said = until_up(third, api_port)
    left = ours(client, settings)
    os.kill(third.pid, signal.SIGTERM)
    third.communicate(timeout=90)

    assert "error" not in said
    assert len(left) <= 3  # its own: the API's, the search's and the migration's
    assert ours(client, settings) == []
    assert wait_until(lambda: processes(settings) == [], within_s=10)
    assert {network.name for network in client.networks.list()} == networks
