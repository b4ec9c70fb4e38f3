"""What may be set about a local run, by flag or by environment."""

import argparse
import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TENANT = "demo"
STACK_NAME = "edda"
REGION = "us-east-1"


@dataclass(frozen=True, slots=True)
class LocalSettings:
    """One local stack: its folder and its two ports."""

    state: Path
    port: int
    database_port: int
    zipped_layers: bool

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
        """The emulator runs functions on its own interpreter, so the stack is built for that."""
        return f"python{sys.version_info.major}.{sys.version_info.minor}"

    @property
    def architecture(self) -> str:
        """Lambda's name for this machine's processor."""
        return "arm64" if platform.machine().lower() in {"arm64", "aarch64"} else "x86_64"


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
        type=_port,
        default=os.environ.get("EDDA_PORT", "4566"),
        help="port of the API and of the emulated AWS (EDDA_PORT; default: 4566)",
    )
    parser.add_argument(
        "--database-port",
        type=_port,
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


def from_arguments(arguments: argparse.Namespace) -> LocalSettings:
    """Settings of a parsed command line."""
    return LocalSettings(
        state=arguments.state.expanduser().resolve(),
        port=arguments.port,
        database_port=arguments.database_port,
        zipped_layers=arguments.layers == "zipped",
    )


def _port(text: str) -> int:
    """An unprivileged TCP port."""
    port = int(text)
    if not 1024 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"{port} is no port between 1024 and 65535")
    return port
