"""A stack whose functions run in containers, and `sam` as a user types it; skipped without a Docker engine."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest

from local import build, containers, engine, postgres
from local.errors import LocalError
from local.settings import ROOT, LocalSettings
from local.stack import Stack, stop_leftovers
from tests.local.conftest import free_port

HOME = ROOT / ".edda" / "tests-containers"
BUILD = HOME / "aws-sam" / "build"


@pytest.fixture(scope="session")
def client() -> docker.DockerClient:
    """The engine."""
    try:
        return engine.connect()
    except LocalError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def new_settings() -> LocalSettings:
    """Of a stack with nothing in it."""
    settings = LocalSettings(
        state=HOME / "state", port=free_port(), database_port=free_port(), zipped_layers=False, containers=None
    )
    forget(settings)
    return settings


@pytest.fixture(scope="session")
def built(client: docker.DockerClient, new_settings: LocalSettings) -> Iterator[Path]:
    """What `make sam-build` makes; kept from run to run, without the images that the runs made."""
    before = tags(client)
    try:
        try:
            runtime = containers.runtime_of(BUILD)
        except LocalError:
            shutil.rmtree(BUILD, ignore_errors=True)
            assert containers.make_build(new_settings, BUILD, runtime="") == 0
            runtime = containers.runtime_of(BUILD)
        engine.ensure_base_image(client, runtime)
        try:
            engine.check_containers(client, runtime, new_settings)
        except LocalError as error:
            pytest.skip(str(error))
        yield BUILD
    finally:
        for tag in tags(client) - before:
            client.images.remove(tag)


def tags(client: docker.DockerClient) -> set[str]:
    """Names of all images."""
    return {tag for image in client.images.list() for tag in image.tags}


def forget(settings: LocalSettings) -> None:
    """Have the stack begin empty."""
    settings.state.mkdir(parents=True, exist_ok=True)
    stop_leftovers(settings)
    shutil.rmtree(postgres.data_home(settings), ignore_errors=True)
    shutil.rmtree(settings.state)


@dataclass(frozen=True)
class Running:
    """A running stack, its API, and a folder that looks like the repository to `sam`."""

    stack: Stack
    api: str
    folder: Path


@pytest.fixture(scope="session")
def running(built: Path, new_settings: LocalSettings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """`make sam-local`."""
    with containers.stack_in_containers(new_settings, built, free_port()) as (stack, api):
        folder = tmp_path_factory.mktemp("repository")
        for name in ("samconfig.toml", "events", "template.yaml"):
            (folder / name).symlink_to(ROOT / name)
        (folder / ".aws-sam").symlink_to(built.parent)
        (folder / ".edda").mkdir()
        (folder / ".edda" / "sam-local").symlink_to(new_settings.state)
        yield Running(stack, api, folder)


def sam(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """A command of SAM's to its end."""
    return subprocess.run(
        [str(build.SAM), *arguments],
        cwd=folder,
        env={**os.environ, "SAM_CLI_TELEMETRY": "0", "AWS_MAX_ATTEMPTS": "1", "TMPDIR": str(folder), **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )


def event_file(name: str, running: Running) -> Path:
    """A file of events/; the address of the emulator in it is the usual one, and becomes this stack's."""
    text = (ROOT / "events" / name).read_text().replace(":4566/", f":{running.stack.settings.port}/")
    file = running.folder / name
    file.write_text(text)
    return file


def last_line(output: str) -> Any:
    """A function's answer; what it logs comes on another stream."""
    return json.loads(output.strip().splitlines()[-1])


def ours(client: docker.DockerClient, settings: LocalSettings) -> set[str]:
    """Ids of the containers that a stack of these settings has left or has now."""
    return {container.id for container in engine.containers(client, settings)}
