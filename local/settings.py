"""What may be set about a local run, by flag or by environment."""

import argparse
import os
import platform
import re
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TENANT = "demo"
STACK_NAME = "edda"
REGION = "us-east-1"
OWN_RUNTIME = f"python{sys.version_info.major}.{sys.version_info.minor}"
ARCHITECTURE = "arm64" if platform.machine().lower() in {"arm64", "aarch64"} else "x86_64"


@dataclass(frozen=True, slots=True)
class Containers:
    """How functions run in Lambda's containers: what they are built from, and where they find this machine."""

    build: Path  # SAM's build folder
    runtime: str
    host: str  # this machine, as a container calls it
    host_is_local: bool  # whether this machine has that address itself; Docker Desktop's engine passes calls on
    api_port: int  # of sam local start-api


@dataclass(frozen=True, slots=True)
class LocalSettings:
    """One local stack: its folder, its ports, and whether functions are processes (default) or containers."""

    state: Path
    port: int
    database_port: int
    zipped_layers: bool
    containers: Containers | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)  # of the template, where the local ones are not wanted

    @property
    def logs(self) -> Path:
        """Where the emulator, the functions, Postgres and SAM write."""
        return self.state / "logs"

    @property
    def endpoint(self) -> str:
        """The emulated AWS."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def runtime(self) -> str:
        """Lambda's name for the functions' Python: without containers, the interpreter that runs the emulator."""
        return self.containers.runtime if self.containers else OWN_RUNTIME

    @property
    def host_for_functions(self) -> str:
        """This machine, as its functions call it."""
        return self.containers.host if self.containers else "127.0.0.1"

    @property
    def bind_addresses(self) -> tuple[str, ...]:
        """What the servers listen on: loopback, and the engine's bridge if functions are containers."""
        if self.containers and self.containers.host_is_local:
            return "127.0.0.1", self.containers.host
        return ("127.0.0.1",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags that every local command knows; each has an environment variable that make passes on."""
    parser.add_argument(
        "--state",
        type=Path,
        default=Path(os.environ.get("EDDA_STATE", ROOT / ".edda")),
        help="folder of data, build and logs (EDDA_STATE; default: .edda)",
    )
    parser.add_argument(
        "--port",
        type=port,
        default=os.environ.get("EDDA_PORT", "4566"),
        help="port of the API and of the emulated AWS (EDDA_PORT; default: 4566)",
    )
    parser.add_argument(
        "--database-port",
        type=port,
        default=os.environ.get("EDDA_DATABASE_PORT", "54329"),
        help="port of PostgreSQL (EDDA_DATABASE_PORT; default: 54329)",
    )
    parser.add_argument(
        "--layers",
        choices=("linked", "zipped"),
        default=os.environ.get("EDDA_LAYERS", "linked"),
        help="linked: functions import the built layers where they lie, which is fast; zipped: each worker unzips "
        "them, as Lambda does (EDDA_LAYERS; default: linked)",
    )
    parser.add_argument(
        "--parameters",
        type=template_parameters,
        default=os.environ.get("EDDA_PARAMETERS", ""),
        help="parameters of template.yaml, for example 'ChatProvider=openai ChatModel=llama3.2 "
        "ChatBaseUrl=http://127.0.0.1:11434/v1' (EDDA_PARAMETERS; default: none)",
    )


def from_arguments(arguments: argparse.Namespace) -> LocalSettings:
    """Settings of a parsed command line."""
    return LocalSettings(
        state=arguments.state.expanduser().resolve(),
        port=arguments.port,
        database_port=arguments.database_port,
        zipped_layers=arguments.layers == "zipped",
        parameters=arguments.parameters,
    )


def template_parameters(text: str) -> dict[str, str]:
    """Of "Name=value Name='another value'"."""
    _, _, below = (ROOT / "template.yaml").read_text(encoding="utf-8").partition("\nParameters:\n")
    known = set(re.findall(r"^  (\w+):$", re.split(r"^\w", below, maxsplit=1, flags=re.MULTILINE)[0], re.MULTILINE))
    try:
        pairs = [word.partition("=") for word in shlex.split(text)]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}: {text}") from None
    if wrong := [name for name, equals, _ in pairs if name not in known or not equals]:
        raise argparse.ArgumentTypeError(f"{wrong[0]} is no Name=value of a parameter of template.yaml")
    return {name: value for name, _, value in pairs}


def port(text: str) -> int:
    """An unprivileged TCP port."""
    number = int(text)
    if not 1024 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"{number} is no port between 1024 and 65535")
    return number
