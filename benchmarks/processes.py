"""Children of the harness: the mock provider, and a contestant from its start until it has said what it did."""

import contextlib
import json
import os
import resource
import selectors
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.provider import Behaviour

READY_WITHIN_S = 900  # Edda stores its chunks before the start
STOP_WITHIN_S = 10
ROOT = Path(__file__).resolve().parent.parent
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


class Failed(Exception):
    """A contestant did not get to its end; the message says how."""


@dataclass(frozen=True, slots=True)
class Effort:
    """What one turn took, from go to done."""

    seconds: float
    cpu_s: float
    peak_megabytes: float
    said: dict[str, Any]


@dataclass(frozen=True, slots=True)
class RunningProvider:
    pid: int
    url: str

    @property
    def cpu_s(self) -> float:
        return cpu_s(self.pid)

    def stats(self) -> dict[str, int]:
        with urllib.request.urlopen(f"{self.url}/stats", timeout=10) as answer:
            found: dict[str, int] = json.load(answer)
            return found


@contextlib.contextmanager
def provider(behaviour: Behaviour) -> Iterator[RunningProvider]:
    """The mock in a process of its own, for one turn."""
    command = [sys.executable, "-m", "benchmarks.provider", json.dumps(asdict(behaviour))]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        if not port:
            raise Failed("the mock provider did not start")
        yield RunningProvider(process.pid, f"http://127.0.0.1:{port}")
    finally:
        _end(process)


def turn(
    command: Sequence[str], environment: Mapping[str, str], log: Path, within_s: float, at_go: Callable[[], None]
) -> Effort:
    """Start a contestant, wait until it is warm, say go, and measure until it says done. Raises Failed."""
    with log.open("w") as complaints:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
            env=dict(environment),
            preexec_fn=_many_files,  # noqa: PLW1509 - it sets a limit and no more
        )
        try:
            return _measured(process, within_s, at_go)
        except Failed as error:
            complaints.flush()
            raise Failed(f"{error}; it said: {_last_words(log)}") from None
        finally:
            _end(process)


def _measured(process: subprocess.Popen[str], within_s: float, at_go: Callable[[], None]) -> Effort:
    assert process.stdin is not None
    if _line(process, READY_WITHIN_S) != "ready":
        raise Failed("it was not ready when it said something")
    at_go()
    Path(f"/proc/{process.pid}/clear_refs").write_text("5")  # the peak of memory counts from here
    cpu_before, before = cpu_s(process.pid), time.perf_counter()
    process.stdin.write("go\n")
    process.stdin.flush()
    answer = _line(process, within_s)
    seconds = time.perf_counter() - before
    said = json.loads(answer)
    # Who plays several machines says what the largest of them took.
    peak = said.pop("peak_megabytes", None) or peak_megabytes(process.pid)
    effort = Effort(seconds, cpu_s(process.pid) - cpu_before, peak, said)
    process.stdin.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_WITHIN_S)
    return effort


def cpu_s(pid: int) -> float:
    """What this process and its living children have used, to the microsecond: Linux keeps such a clock for each."""
    try:
        own = time.clock_gettime((~pid << 3) | 2)
    except OSError:  # it has ended just now
        return 0.0
    return own + sum(cpu_s(child) for child in _children(pid))


def cpu_with_children_s(pid: int) -> float:
    """Also what its children and theirs used that have ended, to a hundredth of a second."""
    try:
        ended = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[13:15]
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    own = cpu_s(pid) - sum(map(cpu_s, _children(pid)))
    return own + sum(map(int, ended)) / TICKS_A_SECOND + sum(map(cpu_with_children_s, _children(pid)))


def peak_megabytes(pid: int) -> float:
    """Of it and its living children, since the start or since `clear_refs` was written."""
    status = Path(f"/proc/{pid}/status").read_text()
    own = int(status.partition("VmHWM:")[2].split()[0]) / 1024
    return own + sum(peak_megabytes(child) for child in _children(pid))


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended, or a thread of it
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found


def _line(process: subprocess.Popen[str], within_s: float) -> str:
    """The next line it prints. Raises Failed when it ends instead, or does not print in time."""
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        if not selector.select(within_s):
            raise Failed(f"it was not done after {within_s:.0f} s")
    line = process.stdout.readline().strip()
    if not line:
        raise Failed("it ended")
    return line


def _last_words(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return " | ".join(line.strip()[:300] for line in lines[-2:]) or "nothing"


def _many_files() -> None:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(BrokenPipeError):
                stream.close()
