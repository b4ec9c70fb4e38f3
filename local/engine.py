"""The Docker engine: whether it works, how its containers reach this machine, and what of ours is in it."""

import contextlib
import hashlib
import ipaddress
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
from docker.errors import APIError, ContainerError, DockerException, ImageNotFound
from requests.exceptions import RequestException

from local import base_image, emulator
from local.errors import LocalError
from local.settings import ARCHITECTURE, OWN_RUNTIME, LocalSettings

REPOSITORY = "public.ecr.aws/lambda/python"
ANSWER_WITHIN_S = 60
BY_NAME = "host.docker.internal"
MADE_HERE = "edda.base-image"  # label
PROBE = "edda.probe"  # label
# The layers of the template's functions, in their order: SAM makes an image of each such list.
LAYER_LISTS = (
    ("DependenciesLayer", "CoreLayer"),
    ("DependenciesLayer", "CoreLayer", "ParsingLayer"),
    ("DependenciesLayer", "CoreLayer", "ModelLayer"),
)


def connect() -> docker.DockerClient:
    """The engine that DOCKER_HOST names, or the machine's. Raises LocalError if none answers."""
    where = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    try:
        client = docker.from_env(timeout=ANSWER_WITHIN_S)
        client.ping()
    except (DockerException, OSError) as error:
        remedy = "start Docker or set DOCKER_HOST"
        if "permission denied" in str(error).lower():
            remedy = "you may not use it; on Linux its users are in the group docker"
        raise LocalError(
            f"no Docker engine answers at {where} ({_reason(error)}): {remedy}; make local needs none"
        ) from None
    return client


@contextlib.contextmanager
def trouble() -> Iterator[None]:
    """An engine that fails in the middle is a LocalError."""
    try:
        yield
    except (DockerException, RequestException) as error:
        raise LocalError(f"the Docker engine failed ({_reason(error)})") from None


def host_for_containers(client: docker.DockerClient) -> tuple[str, bool]:
    """How containers call this machine, and whether that is an address of its own to listen on."""
    bridge = client.networks.list(names=["bridge"])
    configurations = bridge[0].attrs["IPAM"]["Config"] if bridge else None
    if not configurations:
        raise LocalError("the Docker engine has no bridge network, by which containers reach this machine")
    gateway = configurations[0].get("Gateway") or str(next(ipaddress.ip_network(configurations[0]["Subnet"]).hosts()))
    with socket.socket() as probe:
        try:
            probe.bind((gateway, 0))
        except OSError:
            return BY_NAME, False  # Docker Desktop: the engine is in a machine of its own
    return gateway, True


def base_image_for(client: docker.DockerClient, runtime: str) -> str:
    """Have a base image, of this runtime or, where it cannot be had, of this machine's Python. Which one it is."""
    refused = _pull_unless_there(client, runtime)
    if refused is None:
        return runtime
    if runtime != OWN_RUNTIME:
        print(f"  the image of {runtime} cannot be pulled ({refused}): taking {OWN_RUNTIME}", flush=True)
    ensure_base_image(client, OWN_RUNTIME)
    return OWN_RUNTIME


def ensure_base_image(client: docker.DockerClient, runtime: str) -> None:
    """Have the base image of a runtime: it is there, or is pulled, or is made here. Raises LocalError."""
    refused = _pull_unless_there(client, runtime)
    if refused is not None:
        if runtime != OWN_RUNTIME:
            raise LocalError(
                f"the image of {runtime} is not there and cannot be pulled ({refused}); "
                f"one of this machine's Python can be made: make sam-build RUNTIME={OWN_RUNTIME}"
            )
        print(f"  its image cannot be pulled ({refused}): making one of this machine's Python", flush=True)
        _make_image(client)
    version = runtime.removeprefix("python")
    if _image(client, version) is None:  # the emulator's name for the same
        _image(client, f"{version}-{ARCHITECTURE}").tag(REPOSITORY, version)


def check_base_image(client: docker.DockerClient, runtime: str) -> None:
    """Raises LocalError if what functions start from is gone, or the engine is."""
    with trouble():
        if _image(client, runtime.removeprefix("python")) is None:
            raise LocalError(f"the image of {runtime} was removed: run make sam-build")


def check_containers(client: docker.DockerClient, runtime: str, settings: LocalSettings) -> None:
    """Start a container and have it call this machine. Raises LocalError if either cannot be done."""
    host, host_is_local = host_for_containers(client)
    with socket.create_server((host if host_is_local else "127.0.0.1", 0)) as server:
        call = f"import socket; socket.create_connection(({host!r}, {server.getsockname()[1]}), 5)"
        try:
            client.containers.run(
                f"{REPOSITORY}:{runtime.removeprefix('python')}-{ARCHITECTURE}",
                entrypoint=["/var/lang/bin/python3", "-c", call],
                labels={PROBE: emulator.container_label(settings)},
                extra_hosts={BY_NAME: "host-gateway"},
                remove=True,
            )
        except ContainerError as error:
            raise LocalError(
                f"a container cannot reach this machine at {host} ({_reason(error)}): "
                "is there a firewall, or a rootless engine?"
            ) from None
        except (DockerException, RequestException) as error:
            raise LocalError(
                f"the Docker engine answers but cannot start a container ({_reason(error)}): "
                "does docker run hello-world work?"
            ) from None


def containers(client: docker.DockerClient, settings: LocalSettings) -> list[Any]:
    """All of a stack, wherever they come from: its emulator, `sam local`, and our own probe."""
    label = emulator.container_label(settings)
    calls_the_emulator = f"AWS_ENDPOINT_URL=http://{host_for_containers(client)[0]}:{settings.port}"
    return [
        *_labelled(client, f"{PROBE}={label}"),
        *(
            one
            for one in _labelled(client, "ministack.instance")
            if one.labels["ministack.instance"].startswith(f"{label}:")
        ),
        *(
            one
            for one in _labelled(client, "sam.cli.container.type=lambda")
            if calls_the_emulator in (one.attrs["Config"]["Env"] or [])
        ),
    ]


def remove_containers(client: docker.DockerClient, settings: LocalSettings) -> None:
    """Remove all of a stack."""
    for container in containers(client, settings):
        with contextlib.suppress(APIError):  # it is on its way out already
            container.remove(force=True, v=True)


def remove_images(client: docker.DockerClient) -> None:
    """Take away the names of the images that SAM made of our layers, and of base images that were made here."""
    for tag in (*images_of_sam(client), *_tags(client, REPOSITORY, {"label": MADE_HERE})):
        if not client.containers.list(all=True, filters={"ancestor": tag}):  # in use: by another checkout
            with contextlib.suppress(APIError):
                client.images.remove(tag)


def images_of_sam(client: docker.DockerClient) -> list[str]:
    """SAM names them after runtime, architecture and the layers' names."""
    ours = {hashlib.sha256("-".join(layers).encode()).hexdigest()[:25] for layers in LAYER_LISTS}
    return [tag for tag in _tags(client, "samcli/lambda-python", {}) if tag.rpartition("-")[2] in ours]


def _tags(client: docker.DockerClient, repository: str, filters: dict[str, str]) -> list[str]:
    found = (tag for image in client.images.list(repository, filters=filters) for tag in image.tags)
    return [tag for tag in found if tag.startswith(f"{repository}:")]


def _pull_unless_there(client: docker.DockerClient, runtime: str) -> str | None:
    """None if the image is there now; else why it is not."""
    tag = f"{runtime.removeprefix('python')}-{ARCHITECTURE}"
    if _image(client, tag) is not None:
        return None
    try:
        client.images.pull(REPOSITORY, tag)
    except (DockerException, RequestException) as error:
        return _reason(error)
    return None


def _image(client: docker.DockerClient, tag: str) -> Any:
    try:
        return client.images.get(f"{REPOSITORY}:{tag}")
    except ImageNotFound:
        return None


def _make_image(client: docker.DockerClient) -> None:
    tag = f"{OWN_RUNTIME.removeprefix('python')}-{ARCHITECTURE}"
    changes = [*base_image.CHANGES, f"LABEL {MADE_HERE}=1"]
    with tempfile.TemporaryDirectory() as scratch:
        archive = base_image.archive(Path(scratch))
        client.api.import_image(src=str(archive), repository=REPOSITORY, tag=tag, changes=changes)


def _labelled(client: docker.DockerClient, label: str) -> list[Any]:
    return list(client.containers.list(all=True, filters={"label": label}, ignore_removed=True))


def _reason(error: BaseException) -> str:
    """What went wrong, in a line: the last one says it, those before repeat where."""
    said = getattr(error, "explanation", None) or getattr(error, "stderr", None) or error
    text = said.decode(errors="replace") if isinstance(said, bytes) else str(said)
    return (text.strip().splitlines() or [type(error).__name__])[-1]
