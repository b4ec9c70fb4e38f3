"""The Docker engine: whether it works, how its containers reach this machine, and what of ours is in it."""

import hashlib
import ipaddress
import os
import socket
import tempfile
from pathlib import Path
from typing import Any

import docker
from docker.errors import APIError, DockerException, ImageNotFound, NotFound

from local import base_image
from local.errors import LocalError
from local.settings import ARCHITECTURE, OWN_RUNTIME

REPOSITORY = "public.ecr.aws/lambda/python"
ANSWER_WITHIN_S = 60
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
        raise LocalError(
            f"no Docker engine answers at {where} ({_reason(error)}): start Docker or set DOCKER_HOST; "
            "make local needs none"
        ) from None
    return client


def address_of_this_machine(client: docker.DockerClient) -> tuple[str, bool]:
    """Under which address containers reach this machine, and whether this machine has it to listen on."""
    configuration = client.networks.get("bridge").attrs["IPAM"]["Config"][0]
    gateway = configuration.get("Gateway") or str(next(ipaddress.ip_network(configuration["Subnet"]).hosts()))
    with socket.socket() as probe:
        try:
            probe.bind((gateway, 0))
        except OSError:
            return "host.docker.internal", False  # Docker Desktop: the engine is in a machine of its own
    return gateway, True


def ensure_image(client: docker.DockerClient, runtime: str) -> None:
    """Have the base image of a runtime: it is there, or is pulled, or is made here. Raises LocalError."""
    version = runtime.removeprefix("python")
    for_sam, for_emulator = f"{version}-{ARCHITECTURE}", version
    try:
        image = _local_image(client, for_sam) or client.images.pull(REPOSITORY, for_sam)
    except (DockerException, OSError) as error:
        if runtime != OWN_RUNTIME:
            raise LocalError(
                f"the image {REPOSITORY}:{for_sam} is not there and cannot be pulled ({_reason(error)}); "
                f"offline, one of this machine's Python can be made: make sam-build RUNTIME={OWN_RUNTIME}"
            ) from None
        print(f"  no registry answers: making {REPOSITORY}:{for_sam} of this machine's Python", flush=True)
        image = _make_image(client, for_sam)
    if _local_image(client, for_emulator) is None:
        image.tag(REPOSITORY, for_emulator)


def has_image(client: docker.DockerClient, runtime: str) -> bool:
    """Whether a base image can be had without making one."""
    tag = f"{runtime.removeprefix('python')}-{ARCHITECTURE}"
    if _local_image(client, tag) is not None:
        return True
    try:
        client.images.pull(REPOSITORY, tag)
    except (DockerException, OSError):
        return False
    return True


def check_containers(client: docker.DockerClient, runtime: str, address: str, listens: bool) -> None:
    """Start a container and have it call this machine. Raises LocalError if either cannot be done."""
    with socket.create_server((address if listens else "127.0.0.1", 0)) as server:
        call = f"import socket; socket.create_connection(({address!r}, {server.getsockname()[1]}), 5)"
        try:
            client.containers.run(
                f"{REPOSITORY}:{runtime.removeprefix('python')}-{ARCHITECTURE}",
                entrypoint=["/var/lang/bin/python3", "-c", call],
                labels=[PROBE],
                extra_hosts={"host.docker.internal": "host-gateway"},
                remove=True,
            )
        except docker.errors.ContainerError as error:
            raise LocalError(
                f"containers cannot reach this machine at {address} ({_reason(error)}): is there a firewall?"
            ) from None
        except (DockerException, OSError) as error:
            raise LocalError(
                f"the Docker engine answers but cannot start a container ({_reason(error)}): "
                "does docker run hello-world work?"
            ) from None


def remove_containers(client: docker.DockerClient, built: Path, emulator: str) -> None:
    """Remove ours: SAM's of this build, and those of the emulator of this name."""
    for container in _containers(client, "sam.cli.container.type=lambda"):
        if any(Path(mount.get("Source", "")).is_relative_to(built) for mount in container.attrs["Mounts"]):
            _remove(container)
    for label in (f"ministack.instance={emulator}", PROBE):
        for container in _containers(client, label):
            _remove(container)


def remove_images(client: docker.DockerClient) -> None:
    """Remove the images that SAM made of our layers, and base images that were made here."""
    tags = [f"samcli/lambda-python:{tag}" for tag in _tags_of_sam(client)]
    made_here = [image.id for image in client.images.list(filters={"label": MADE_HERE})]
    for image in (*tags, *made_here):
        try:
            client.images.remove(image, force=True)
        except (ImageNotFound, APIError):
            continue  # another of its names is in use: not ours to take away


def _tags_of_sam(client: docker.DockerClient) -> list[str]:
    """SAM names its images after runtime, architecture and the layers' names."""
    ours = {hashlib.sha256("-".join(layers).encode()).hexdigest()[:25] for layers in LAYER_LISTS}
    tags = (tag.rpartition(":")[2] for image in client.images.list("samcli/lambda-python") for tag in image.tags)
    return [tag for tag in tags if tag.rpartition("-")[2] in ours]


def _local_image(client: docker.DockerClient, tag: str) -> Any:
    try:
        return client.images.get(f"{REPOSITORY}:{tag}")
    except ImageNotFound:
        return None


def _make_image(client: docker.DockerClient, tag: str) -> Any:
    changes = [*base_image.CHANGES, f"LABEL {MADE_HERE}=1"]
    with tempfile.TemporaryDirectory() as scratch:
        client.api.import_image(
            src=str(base_image.archive(Path(scratch))), repository=REPOSITORY, tag=tag, changes=changes
        )
    return client.images.get(f"{REPOSITORY}:{tag}")


def _containers(client: docker.DockerClient, label: str) -> list[Any]:
    return list(client.containers.list(all=True, filters={"label": label}, ignore_removed=True))


def _remove(container: Any) -> None:
    try:
        container.remove(force=True, v=True)
    except (NotFound, APIError):
        return  # it is on its way out already


def _reason(error: BaseException) -> str:
    """The last line says what; what is before it repeats the address."""
    text = getattr(error, "explanation", None) or (
        error.stderr.decode(errors="replace") if getattr(error, "stderr", None) else str(error)  # type: ignore[attr-defined]
    )
    return str(text).strip().splitlines()[-1] if str(text).strip() else type(error).__name__
