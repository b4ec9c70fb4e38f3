"""Child processes that always end: with the stack, with Ctrl-C, and when the parent is killed."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from local.errors import StepFailed

PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass(frozen=True, slots=True)
class Child:
    """How to run one server: it gets a process group of its own, a log and a pid file."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    pid_file: Path
    stop_signal: signal.Signals
    stop_within_s: float
    folder: Path | None = None
    user: int | None = None


@contextlib.contextmanager
def running(child: Child) -> Iterator[subprocess.Popen[bytes]]:
    """Run it for as long as the block lasts. Call this from the main thread: the death signal follows the thread."""
    stop_leftover(child.pid_file, child.stop_signal, child.stop_within_s)
    child.log.parent.mkdir(parents=True, exist_ok=True)
    with child.log.open("ab") as log:
        process = subprocess.Popen(
            child.command,
            env=dict(child.environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=child.folder,
            user=child.user,
            group=child.user,
            extra_groups=None if child.user is None else [],
            process_group=0,
            preexec_fn=_die_with_parent(child.stop_signal),  # noqa: PLW1509 - it calls prctl and no more
        )
    child.pid_file.parent.mkdir(parents=True, exist_ok=True)
    child.pid_file.write_text(f"{process.pid} {_birth(process.pid)}")
    try:
        yield process
    finally:
        _stop(process, child.stop_signal, child.stop_within_s)
        child.pid_file.unlink(missing_ok=True)


@contextlib.contextmanager
def serving(child: Child, answers: Callable[[], bool], within_s: float) -> Iterator[subprocess.Popen[bytes]]:
    """As `running`, from when it answers. Raises StepFailed if it does not within this time, or ends instead."""
    with running(child) as process:
        answered = wait_until(lambda: process.poll() is not None or answers(), within_s)
        if process.poll() is not None:
            raise StepFailed(f"{child.name} did not start\n{tail(child.log)}\nthe whole log: {child.log}")
        if not answered:
            raise StepFailed(f"{child.name} does not answer\n{tail(child.log)}\nthe whole log: {child.log}")
        yield process


def run_step(
    name: str, command: Sequence[str], environment: Mapping[str, str], log: Path, folder: Path, *, within_s: float = 900
) -> None:
    """Run a tool to its end; what it says goes to a log that the error names. Raises StepFailed."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            process_group=0,
            preexec_fn=_die_with_parent(signal.SIGTERM),  # noqa: PLW1509 - it calls prctl and no more
        )
    try:
        code = process.wait(within_s)
        outcome = f"failed (exit code {code})" if code else ""
    except subprocess.TimeoutExpired:
        outcome = f"did not end within {within_s:.0f} s"
    finally:
        _stop(process, signal.SIGTERM, within_s=5)
    if outcome:
        raise StepFailed(f"{name} {outcome}\n{tail(log)}\nthe whole log: {log}")


def stop_leftover(pid_file: Path, stop_signal: signal.Signals, within_s: float) -> None:
    """End what an earlier run, killed hard, may have left. A pid that another program has by now is let be."""
    try:
        pid, birth = pid_file.read_text().split(" ", 1)
    except (FileNotFoundError, ValueError):
        return
    if birth and birth == _birth(int(pid)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), stop_signal)
        wait_until(lambda: _birth(int(pid)) != birth, within_s)
        _kill_group(int(pid))
    pid_file.unlink(missing_ok=True)


def wait_until(condition: Callable[[], bool], within_s: float, every_s: float = 0.05) -> bool:
    """Look until it holds or time is up; whether it held."""
    end = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(every_s)
    return True


def tail(log: Path, lines: int = 15) -> str:
    """The end of a log, indented."""
    text = log.read_text(errors="replace") if log.exists() else ""
    return "\n".join(f"    {line}" for line in text.splitlines()[-lines:])


def _stop(process: subprocess.Popen[bytes], stop_signal: signal.Signals, within_s: float) -> None:
    """Ask it to end, then make it and whatever it started end."""
    if process.poll() is None:
        process.send_signal(stop_signal)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(within_s)
    _kill_group(process.pid)
    process.wait()


def _kill_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def _die_with_parent(stop_signal: signal.Signals) -> Callable[[], None] | None:
    """A hook for the child that has the kernel end it when this process dies in any way. Linux only."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def hook() -> None:
        prctl(PR_SET_PDEATHSIG, int(stop_signal))
        if os.getppid() != parent:  # it died before the call
            os.kill(os.getpid(), stop_signal)

    return hook


def _birth(pid: int) -> str:
    """When a process started, in the system's own words; empty if there is none. Tells it from its pid's next."""
    if sys.platform == "linux":
        try:
            # The 22nd field; the second, the program's name in brackets, may hold blanks.
            state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return ""
        return "" if state == "Z" else fields[18]
    command = ["ps", "-o", "lstart=", "-p", str(pid)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"})
    return answer.stdout.strip()
