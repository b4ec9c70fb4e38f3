"""MiniStack: S3, SQS, Lambda, API Gateway, EventBridge and CloudFormation in one process on loopback."""

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from local.errors import LocalError
from local.ports import refuse_taken
from local.processes import Child, serving, stop_leftover
from local.settings import REGION, ROOT, LocalSettings

START_WITHIN_S = 60
STOP_SIGNAL = signal.SIGTERM
STOP_WITHIN_S = 30  # it writes its state
ACCOUNT = "000000000000"


def aws_environment(settings: LocalSettings) -> dict[str, str]:
    """What points an AWS tool at the emulator, and at nothing of the user's own."""
    return {
        **_plain_environment(),
        "AWS_ENDPOINT_URL": settings.endpoint,
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "SAM_CLI_TELEMETRY": "0",
    }


@contextlib.contextmanager
def emulator(settings: LocalSettings) -> Iterator[subprocess.Popen[bytes]]:
    """Run it for as long as the block lasts; what it knows stays. Raises LocalError, StepFailed."""
    python = ROOT / ".venv-emulator" / "bin" / "python"
    if not python.exists():
        raise LocalError("the emulator is not installed: run make setup")
    refuse_taken_port(settings)
    home = settings.state / "emulator"
    scratch = home / "tmp"
    binds = [word for address in settings.bind_addresses for word in ("--bind", f"{address}:{settings.port}")]
    child = Child(
        name="the emulator",
        # As `ministack` itself starts its server, but on more than one address.
        command=[str(python), "-m", "hypercorn", "ministack.app:app", *binds, "--workers", "0", "--keep-alive", "75"],
        environment=_environment(settings, home, scratch),
        log=settings.logs / "emulator.log",
        pid_file=_pid_file(settings),
        stop_signal=STOP_SIGNAL,
        stop_within_s=STOP_WITHIN_S,
        folder=home,
    )
    _empty(scratch)
    try:
        with serving(child, lambda: _healthy(settings), START_WITHIN_S) as server:
            yield server
    finally:
        _empty(scratch)  # killed workers leave their folders


def refuse_taken_port(settings: LocalSettings) -> None:
    """Raises LocalError if something listens there."""
    refuse_taken(settings.bind_addresses, settings.port, "the API and the emulated AWS", "EDDA_PORT")


def stop_leftover_server(settings: LocalSettings) -> None:
    """End the one of a killed run."""
    stop_leftover(_pid_file(settings), STOP_SIGNAL, STOP_WITHIN_S)


def forget(settings: LocalSettings) -> None:
    """Drop all that the emulator knows."""
    shutil.rmtree(settings.state / "emulator", ignore_errors=True)


def _environment(settings: LocalSettings, home: Path, scratch: Path) -> dict[str, str]:
    """The emulator's, and with it the functions': nothing of the user's that could reach a real account."""
    return {
        **_plain_environment(),
        "TMPDIR": str(scratch),
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(settings.port),
        "MINISTACK_REGION": REGION,
        "MINISTACK_ACCOUNT_ID": ACCOUNT,
        "PERSIST_STATE": "1",
        "STATE_DIR": str(home / "state"),
        "S3_PERSIST": "1",
        "S3_DATA_DIR": str(home / "s3"),
        "IOT_MTLS_ENABLED": "0",  # these two would listen on ports of their own
        "SFTP_ENABLED": "0",
        # Without containers it has no business with an engine, where it would look for some to reap.
        **(_in_containers(settings) if settings.containers else {"DOCKER_HOST": "unix:///nonexistent"}),
    }


def container_label(settings: LocalSettings) -> str:
    """What the emulator labels its containers with, as `ministack.instance`, before the port: this stack's own."""
    return f"edda-{hashlib.sha256(str(settings.state).encode()).hexdigest()[:12]}"


def _in_containers(settings: LocalSettings) -> dict[str, str]:
    """Functions run in Lambda's images, and fail if they cannot: no falling back to processes."""
    engine = {name: os.environ[name] for name in os.environ if name.startswith("DOCKER_")}
    return {
        **engine,
        "MINISTACK_HOSTNAME": container_label(settings),  # another MiniStack on this port has containers as well
        "LAMBDA_EXECUTOR": "docker",
        "LAMBDA_STRICT": "1",
        # The custom resource sends its answer to that name.
        "LAMBDA_DOCKER_FLAGS": "--add-host host.docker.internal:host-gateway",
        "AWS_ENDPOINT_URL": endpoint_for_functions(settings),
    }


def endpoint_for_functions(settings: LocalSettings) -> str:
    """The emulated AWS, as functions see it."""
    return f"http://{settings.host_for_functions}:{settings.port}"


def _pid_file(settings: LocalSettings) -> Path:
    return settings.state / "run" / "emulator.pid"


def _plain_environment() -> dict[str, str]:
    names = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "SSL_CERT_FILE", "OMP_NUM_THREADS")
    return {name: os.environ[name] for name in names if name in os.environ}


def _healthy(settings: LocalSettings) -> bool:
    try:
        with urllib.request.urlopen(f"{settings.endpoint}/_ministack/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
