"""A local stack of the tests' own: its folder keeps the build from run to run, its data begins empty."""

import shutil
import socket
from collections.abc import Iterator

import pytest

from local import emulator, postgres, stack
from local.settings import ROOT, LocalSettings


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def free_ports() -> tuple[int, int]:
    """Two of them."""
    return free_port(), free_port()


@pytest.fixture(scope="session")
def running_stack() -> Iterator[stack.Stack]:
    """Postgres, the emulator, the real template with the real functions."""
    settings = LocalSettings(
        state=ROOT / ".edda" / "tests", port=free_port(), database_port=free_port(), zipped_layers=False
    )
    settings.state.mkdir(parents=True, exist_ok=True)
    (settings.state / "deployed.json").unlink(missing_ok=True)
    (settings.state / "api-key").unlink(missing_ok=True)
    emulator.forget(settings)
    shutil.rmtree(postgres.data_home(settings), ignore_errors=True)
    with stack.stack(settings) as running:
        yield running
