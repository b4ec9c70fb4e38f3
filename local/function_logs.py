"""Moves what the functions log from the emulated CloudWatch into files, one a function, while they run."""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from local import deploy
from local.settings import STACK_NAME, LocalSettings

FUNCTIONS = ("api", "search", "answer", "chunk", "embed", "sweep", "migrate")
EVERY_S = 1.0


@contextlib.contextmanager
def collected(settings: LocalSettings) -> Iterator[None]:
    """Collect for as long as the block lasts, and once more at its end."""
    logs = deploy.client(settings, "logs")
    ended = threading.Event()

    def collect() -> None:
        while not ended.wait(EVERY_S):
            _collect_quietly(logs, settings)

    collector = threading.Thread(target=collect, name="function-logs", daemon=True)
    collector.start()
    try:
        yield
    finally:
        ended.set()
        collector.join()
        _collect_quietly(logs, settings)


def _collect_quietly(logs: Any, settings: LocalSettings) -> None:
    """Logs are a help: their lack stops nothing."""
    with contextlib.suppress(BotoCoreError, ClientError, OSError):
        for function in FUNCTIONS:
            _move(logs, settings, function)


def _move(logs: Any, settings: LocalSettings, function: str) -> None:
    """The emulator writes one stream an invocation, when that is over, and would keep them all in memory."""
    group = f"/edda/{STACK_NAME}/{function}"
    streams = logs.describe_log_streams(logGroupName=group)["logStreams"]
    if not streams:
        return
    with (settings.logs / f"{function}.log").open("a") as file:
        for stream in streams:
            name = {"logGroupName": group, "logStreamName": stream["logStreamName"]}
            events = logs.get_log_events(**name, startFromHead=True)["events"]
            file.writelines(f"{event['message']}\n" for event in events if not _is_frame(event["message"]))
            logs.delete_log_stream(**name)


def _is_frame(line: str) -> bool:
    """Lambda's own lines about an invocation's beginning and end; in a container also its emulator's."""
    return line.startswith(("START RequestId: ", "END RequestId: ", "REPORT RequestId: ")) or "] (rapid) " in line
