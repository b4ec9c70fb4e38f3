"""Nothing of a run in containers outlives it, however it ends."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import docker
import httpx
import pytest

from local import containers, engine
from local.processes import wait_until
from local.settings import ARCHITECTURE, ROOT, LocalSettings
from tests.containers.conftest import HOME, forget, ours
from tests.local.conftest import free_port

pytestmark = [pytest.mark.containers, pytest.mark.timeout(600)]


@pytest.fixture
def settings() -> LocalSettings:
    """A second stack beside the tests' own."""
    second = LocalSettings(
        state=HOME / "second" / "sam-local", port=free_port(), database_port=free_port(), zipped_layers=False
    )
    forget(second)
    return second


@contextlib.contextmanager
def started(settings: LocalSettings, built: Path, api_port: int) -> Iterator[subprocess.Popen[str]]:
    """`make sam-local`; ended with the block if it is not yet."""
    command = [
        sys.executable,
        "-m",
        "local.containers",
        "run",
        "--build",
        str(built),
        "--state",
        str(settings.state.parent),
    ]
    command += ["--port", str(settings.port), "--database-port", str(settings.database_port)]
    with subprocess.Popen(
        [*command, "--api-port", str(api_port)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0,
    ) as process:
        try:
            yield process
        finally:
            process.terminate()
            process.wait(90)


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

    with started(settings, built, api_port) as first:
        until_up(first, api_port)
        assert ours(client, settings)
        os.kill(first.pid, signal.SIGINT)  # as Ctrl-C
        first.communicate(timeout=90)

    assert first.returncode == 0
    assert ours(client, settings) == set()
    assert processes(settings) == []

    with started(settings, built, api_port) as second:
        until_up(second, api_port)
        for child in (settings.state / "run").glob("*.pid"):  # all at once, as a machine's end would
            os.kill(int(child.read_text().split()[0]), signal.SIGKILL)
        os.killpg(second.pid, signal.SIGKILL)
    killed = ours(client, settings)
    assert killed  # nobody was there to take them away

    with started(settings, built, api_port) as third:
        said = until_up(third, api_port)
        left = ours(client, settings)
        os.kill(third.pid, signal.SIGKILL)  # it alone: its children are told, and the next start waits for them
    with started(settings, built, api_port) as fourth:
        said += until_up(fourth, api_port)

    assert "error" not in said
    assert left
    assert not left & killed
    assert ours(client, settings) == set()
    assert wait_until(lambda: processes(settings) == [], within_s=10)
    assert {network.name for network in client.networks.list()} == networks


def test_a_taken_port_of_the_api(built: Path, settings: LocalSettings) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        with started(settings, built, taken) as run:
            said, _ = run.communicate(timeout=90)

    assert run.returncode == 2
    assert said.splitlines()[-1].startswith(f"error: port {taken} for sam local start-api is taken")
    assert "EDDA_API_PORT" in said


def test_what_is_not_this_stacks_stays(client: docker.DockerClient, built: Path, settings: LocalSettings) -> None:
    """Another project's `sam local`, another MiniStack on the same port, images of others."""
    image = f"{engine.REPOSITORY}:{containers.runtime_of(built).removeprefix('python')}-{ARCHITECTURE}"
    call = ["/var/lang/bin/python3", "-c", "import time; time.sleep(600)"]
    address = engine.host_for_containers(client)[0]
    others = [
        client.containers.run(image, entrypoint=call, detach=True, labels=labels, environment=environment)
        for labels, environment in (
            ({"sam.cli.container.type": "lambda"}, {}),
            ({"sam.cli.container.type": "lambda"}, {"AWS_ENDPOINT_URL": f"http://{address}:{settings.port + 1}"}),
            ({"ministack": "rds", "ministack.instance": f"{socket.gethostname()}:{settings.port}"}, {}),
        )
    ]
    own = client.containers.run(
        image,
        entrypoint=call,
        detach=True,
        labels={"sam.cli.container.type": "lambda"},
        environment={"AWS_ENDPOINT_URL": f"http://{address}:{settings.port}"},
    )
    client.images.get(image).tag("somebody/elses", "1")
    client.images.get(image).tag("samcli/lambda-python", "3.11-x86_64-0123456789")
    try:
        engine.remove_containers(client, settings)
        engine.remove_images(client)

        assert own.id not in {one.id for one in client.containers.list(all=True)}
        assert {one.id for one in others} <= {one.id for one in client.containers.list()}
        assert (
            client.images.get("somebody/elses:1").id
            == client.images.get("samcli/lambda-python:3.11-x86_64-0123456789").id
        )
    finally:
        for one in others:
            one.remove(force=True)
        client.images.get("somebody/elses:1").tag(*image.rsplit(":", 1))  # it was taken if it was made here
        for tag in ("somebody/elses:1", "samcli/lambda-python:3.11-x86_64-0123456789"):
            client.images.remove(tag)
