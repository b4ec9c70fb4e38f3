"""Worker processes, as their harness sees them."""

import contextlib
import multiprocessing
import os
import signal
from collections import Counter
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

from tests.processes import worker
from tests.processes.labels import Strike

START_S = 30


def fork_server() -> ForkServerContext:
    """Whose processes have everything loaded."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.processes.warm"])
    return context


class Worker:
    """One process. What it says is heard when somebody asks (`hear`)."""

    def __init__(
        self, context: ForkServerContext, function: str, environment: dict[str, str], log: Path, *, real_parser: bool
    ) -> None:
        self.function = function
        self.busy = True
        self.alive = True
        self.answer: Any = None  # of the last invocation
        self.passages: Counter[str] = Counter()  # since it was armed
        self.received: set[tuple[str, int]] = set()  # messages: id, and how often they had been received
        self.struck: list[Strike] = []  # what killed or stopped it
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=worker.main,
            args=(function, theirs, environment, log),
            kwargs={"real_parser": real_parser},
            daemon=True,
        )
        self._process.start()
        theirs.close()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def killed(self) -> bool:
        """And not ended in some other way. Waits for the end of one that is gone."""
        self._process.join(10)
        return self._process.exitcode == -signal.SIGKILL

    @property
    def stopped(self) -> bool:
        """By SIGSTOP."""
        try:
            stat = Path(f"/proc/{self.pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return False
        return stat.rpartition(")")[2].split()[0] == "T"

    def hear(self) -> None:
        try:
            while self.pipe.poll():
                kind, said = self.pipe.recv()
                self._note(kind, said)
        except (EOFError, ConnectionResetError):
            self.busy = self.alive = False

    def _note(self, kind: str, said: Any) -> None:
        if kind == "struck":
            self.struck.append(said)
            return
        self.busy = kind == "got"
        if kind == "got":
            received, passages = said
            self.received.update(received)
            self.passages = Counter(passages)
        elif kind == "idle":
            self.answer, passages = said
            self.passages = Counter(passages)

    def arm(self, *strikes: Strike) -> None:
        """Counted from now on; without any, passages are just counted."""
        self.passages = Counter()
        self._send("arm", strikes)

    def invoke(self, event: dict[str, Any]) -> None:
        """Only where there is no queue."""
        self.busy = True
        self._send("invoke", event)

    def _send(self, command: str, argument: Any) -> None:
        with contextlib.suppress(BrokenPipeError):  # it has just died, which is heard of in a moment
            self.pipe.send((command, argument))

    def resume(self) -> None:
        self.busy = True  # it stopped in the middle of something
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        self._process.kill()
        self._process.join()
        self.pipe.close()
