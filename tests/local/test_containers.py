"""What `make sam-local` and `make sam-build` say when something is in the way: one line, what to do, exit code 2."""

import contextlib
import json
import os
import re
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import boto3
import pytest

from local import build, containers, deploy, engine
from local.errors import LocalError, StepFailed
from local.settings import ARCHITECTURE, OWN_RUNTIME, ROOT, LocalSettings

MACHINE = {"arm64": "aarch64", "x86_64": "x86_64"}[ARCHITECTURE]
TEMPLATE = (ROOT / "template.yaml").read_text()
VERSION = OWN_RUNTIME.removeprefix("python").replace(".", "")


@pytest.fixture
def fake_build(tmp_path: Path) -> Path:
    """What looks like a finished build for this machine."""
    folder = tmp_path / "build"
    for name in (*build.LAYERS, *containers.FUNCTIONS):
        (folder / name).mkdir(parents=True)
    compiled(folder, f"cpython-{VERSION}-{MACHINE}-linux-gnu")
    (folder / "template.yaml").touch()
    return folder


def compiled(folder: Path, tag: str) -> None:
    packages = folder / "DependenciesLayer" / "python" / "psycopg_binary"
    packages.mkdir(parents=True, exist_ok=True)
    for old in packages.glob("*.so"):
        old.unlink()
    (packages / f"_psycopg.{tag}.so").touch()


def run(command: str, folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    state = ["--state", str(folder.parent / "state")]
    return subprocess.run(
        [sys.executable, "-m", "local.containers", command, "--build", str(folder), *state, *arguments],
        cwd=ROOT,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def one_line(answer: subprocess.CompletedProcess[str]) -> str:
    assert answer.returncode == 2, answer.stderr
    assert answer.stderr.startswith("error: ")
    assert answer.stderr.count("\n") == 1
    return answer.stderr


def ports(free_ports: tuple[int, int], api: int) -> list[str]:
    return ["--port", str(free_ports[0]), "--database-port", str(free_ports[1]), "--api-port", str(api)]


@pytest.fixture
def free_api_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_no_build_yet(tmp_path: Path, free_ports: tuple[int, int], free_api_port: int) -> None:
    said = one_line(run("run", tmp_path / "build", *ports(free_ports, free_api_port)))

    assert "there is no build" in said
    assert "make sam-build" in said


@pytest.mark.parametrize("layer", build.LAYERS)
def test_a_layer_is_missing(layer: str, fake_build: Path) -> None:
    for path in sorted((fake_build / layer).rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (fake_build / layer).rmdir()

    with pytest.raises(LocalError, match=f"lacks {layer}: run make sam-build"):
        containers.runtime_of(fake_build)


def test_an_old_build(fake_build: Path) -> None:
    os.utime(fake_build / "template.yaml", (0, 0))

    with pytest.raises(LocalError, match=r"is older than .*: run make sam-build"):
        containers.runtime_of(fake_build)


def test_a_build_for_another_processor(fake_build: Path) -> None:
    compiled(fake_build, f"cpython-313-{'x86_64' if MACHINE == 'aarch64' else 'aarch64'}-linux-gnu")

    with pytest.raises(LocalError, match=f"this machine is {ARCHITECTURE}: run make sam-build"):
        containers.runtime_of(fake_build)


@pytest.mark.parametrize("minor", [11, 12, 13, 14])
def test_a_build_tells_its_runtime(minor: int, fake_build: Path) -> None:
    compiled(fake_build, f"cpython-3{minor}-{MACHINE}-linux-gnu")

    assert containers.runtime_of(fake_build) == f"python3.{minor}"


@pytest.mark.parametrize("command", ["build", "run"])
def test_no_engine(command: str, fake_build: Path, free_ports: tuple[int, int], free_api_port: int) -> None:
    nowhere = f"unix://{fake_build.parent}/no.sock"

    said = one_line(run(command, fake_build, *ports(free_ports, free_api_port), DOCKER_HOST=nowhere))

    assert f"no Docker engine answers at {nowhere}" in said
    assert "make local" in said


class Engine(BaseHTTPRequestHandler):
    """As much of an engine as answers, and starts nothing."""

    def do_GET(self) -> None:
        if "/networks" in self.path:
            self._answer(
                200,
                [
                    {
                        "Id": "1",
                        "Name": "bridge",
                        "IPAM": {"Config": [{"Subnet": "127.0.0.0/8", "Gateway": "127.0.0.1"}]},
                    }
                ],
            )
        elif "/images/" in self.path:
            self._answer(200, {"Id": "sha256:1"})
        else:
            self._answer(200, {"ApiVersion": "1.41"})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer(500, {"message": "cgroups: cannot find cgroup mount destination"})

    def _answer(self, status: int, body: object) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def address_string(self) -> str:
        return "a client"

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def idle_engine(tmp_path: Path) -> Iterator[str]:
    """An engine that answers but cannot start containers."""
    with socketserver.ThreadingUnixStreamServer(str(tmp_path / "d.sock"), Engine) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"unix://{tmp_path}/d.sock"
        server.shutdown()


def test_an_engine_that_cannot_start_containers(
    idle_engine: str, fake_build: Path, free_ports: tuple[int, int], free_api_port: int
) -> None:
    said = one_line(run("run", fake_build, *ports(free_ports, free_api_port), DOCKER_HOST=idle_engine))

    assert "the Docker engine answers but cannot start a container" in said
    assert "cgroups: cannot find cgroup mount destination" in said


def test_help_tells_what_can_be_set() -> None:
    answer = run("run", ROOT, "--help")

    assert answer.returncode == 0
    assert {"EDDA_API_PORT", "RUNTIME", "EDDA_PORT"} <= set(answer.stdout.replace("(", " ").replace(";", " ").split())


def test_the_images_that_are_removed_are_those_of_the_templates_layers() -> None:
    functions = re.findall(
        r"^  (\w+Function):\n    Type: AWS::Serverless::Function\n(.*?)\n  \w", TEMPLATE, re.S | re.M
    )
    of_all = re.search(r"^Globals:.*?^    Layers:\n((?:      - [^\n]*\n)+)", TEMPLATE, re.S | re.M)
    assert of_all is not None
    lists = set()
    for _, text in functions:
        chosen = re.search(r"Layers: !If.*?- UseInProcessModel\n\s+- \[(.*?)\]", text, re.S)
        own = re.search(r"^      Layers:\n((?:        - [^\n]*\n)+)", text, re.M)
        names = chosen[1] if chosen else of_all[1] + (own[1] if own else "")
        lists.add(tuple(re.findall(r"\w+Layer", names)))

    assert {name for name, _ in functions} == set(containers.FUNCTIONS)
    assert lists == set(engine.LAYER_LISTS)


def test_an_empty_endpoint_is_awss_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each function has AWS_ENDPOINT_URL in its environment; on AWS it is empty."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "")

    client = boto3.client("sqs", region_name="eu-north-1", aws_access_key_id="x", aws_secret_access_key="x")

    assert client.meta.endpoint_url == "https://sqs.eu-north-1.amazonaws.com"


@pytest.mark.parametrize("outcome", ["saved", "not saved", "failed"])
def test_a_deployment_counts_when_it_was_made_and_saved(outcome: str, tmp_path: Path) -> None:
    settings = LocalSettings(state=tmp_path, port=4566, database_port=54329, zipped_layers=False)
    (tmp_path / "build.sha256").write_text("a build")
    saved = tmp_path / "emulator" / "state" / "cloudformation.json"
    saved.parent.mkdir(parents=True)
    saved.write_text("before")
    os.utime(saved, (0, 0))

    def sam_deploy(*_: object) -> None:
        if outcome == "failed":
            raise StepFailed("as asked")

    with contextlib.suppress(StepFailed), deploy.deployment(settings, {}, sam_deploy) as deploy_now:
        try:
            deploy_now()
        finally:  # the emulator stops
            if outcome != "not saved":
                saved.write_text("after")

    assert deploy.is_current(settings, {}) == (outcome == "saved")
    assert saved.read_text() == ("after" if outcome == "saved" else "before")
    assert not (tmp_path / "emulator" / "state-before").exists()
