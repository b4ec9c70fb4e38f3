"""A worker process: one execution environment of one function, and an honest event source mapping before its queue.

It is forked from a server that has imported everything (warm.py), takes commands and tells what it does over a pipe,
and dies when that is closed. Handlers, verbs, adapters and SQL are the real ones; the parser is a stand-in unless the
real one is asked for, because each of its own child processes takes a second to start.
"""

import asyncio
import contextlib
import importlib.util
import json
import logging
import os
import signal
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError
from edda import leasing
from edda.adapters import parser_process
from edda.errors import Corrupt, RetryableError
from edda.models import ParseCursor, ParseOutcome

from tests.database.world import LineParser
from tests.processes.labels import Points
from tests.simulation.schedules import CORRUPT, DEADLY

ROOT = Path(__file__).parents[2]
# As in template.yaml.
TIMEOUT_S = {"chunk": 300.0, "embed": 120.0, "sweep": 55.0, "migrate": 900.0}
BATCH_SIZE = {"chunk": 1, "embed": 10}
QUEUE = {"chunk": "EDDA_INGEST_QUEUE_URL", "embed": "EDDA_EMBED_QUEUE_URL"}
CHUNKS_A_BATCH = 3  # instead of 64: small documents make several messages
PART_LINES = 5  # longer files have several parts
WAIT_S = 1  # a long poll's
RENEWAL_S = 0.2  # instead of 15: a lease is renewed while a slow file is parsed
# Marks of texts: no worker can parse it at first; it takes longer than a lease goes without being renewed.
BUSY, SLOW = "(busy)", "(slow)"


given_back: set[str] = set()


async def parse_lines(
    _: object, path: Path, name: str, content_type: str | None, cursor: ParseCursor | None = None
) -> ParseOutcome:
    """The stand-in for the parser: a chunk a line. What is deadly kills the worker."""
    text = path.read_text()  # noqa: ASYNC240 - a few bytes
    if CORRUPT in text:
        raise Corrupt
    if DEADLY in text:
        os.kill(os.getpid(), signal.SIGKILL)
    if SLOW in text:
        await asyncio.sleep(3 * RENEWAL_S)
    if BUSY in text and text not in given_back:
        given_back.add(text)
        raise RetryableError
    return await LineParser(part_lines=int(os.environ.get("PART_LINES", PART_LINES))).parse(
        path, name, content_type, cursor
    )


@dataclass(frozen=True, slots=True)
class Context:
    """Lambda's context: the function's own timeout, from now on."""

    ends_at: float

    @classmethod
    def of(cls, function: str) -> "Context":
        return cls(time.monotonic() + TIMEOUT_S[function])

    def get_remaining_time_in_millis(self) -> int:
        return max(0, int((self.ends_at - time.monotonic()) * 1000))


def main(function: str, pipe: Connection, environment: dict[str, str], log: Path, *, real_parser: bool) -> None:
    """Work until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the harness' to act on
    os.environ.update(environment)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    points = Points(tell=lambda strike: pipe.send(("struck", strike)))
    handler = _load(function, real_parser=real_parser)
    points.wrap_all()
    try:
        if function in QUEUE:
            _Mapping(function, handler, pipe, points).run()
        else:
            _serve(function, handler, pipe, points)
    except (EOFError, BrokenPipeError):
        os._exit(0)  # nobody is there to work for


def _load(function: str, *, real_parser: bool) -> Any:
    from edda.store.ingest import ordinal_ranges

    ordinal_ranges.__defaults__ = (int(os.environ.get("CHUNKS_A_BATCH", CHUNKS_A_BATCH)),)
    leasing.RENEWAL_S = float(os.environ.get("RENEWAL_S", RENEWAL_S))
    if not real_parser:
        parser_process.ParserProcess.parse = parse_lines  # type: ignore[method-assign, assignment] # takes its place
    spec = importlib.util.spec_from_file_location(f"{function}_app", ROOT / "functions" / function / "app.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.lambda_handler


def _obey(pipe: Connection, points: Points) -> None:
    """Take the commands that have come so far. Raises EOFError when there will be no more."""
    while pipe.poll():
        _, strikes = pipe.recv()
        points.arm(strikes)
        given_back.clear()


def _serve(function: str, handler: Any, pipe: Connection, points: Points) -> None:
    """A function that is invoked: by a schedule, or by an operator."""
    pipe.send(("ready", None))
    while True:
        command, argument = pipe.recv()
        if command == "arm":
            points.arm(argument)
            continue
        try:
            answer = handler(argument, Context.of(function))
            json.dumps(answer)
        except Exception:
            logging.getLogger(__name__).exception("the invocation failed")
            answer = None
        pipe.send(("idle", (answer, dict(points.passages))))


@dataclass(frozen=True, slots=True)
class _Mapping:
    """Long-polls, invokes, and deletes what was handled, as Lambda's event source mapping does."""

    function: str
    handler: Any
    pipe: Connection
    points: Points

    def run(self) -> None:
        import boto3

        sqs, url = boto3.client("sqs"), os.environ[QUEUE[self.function]]
        self.pipe.send(("ready", None))
        while True:
            _obey(self.pipe, self.points)
            answer = sqs.receive_message(
                QueueUrl=url,
                MaxNumberOfMessages=BATCH_SIZE[self.function],
                WaitTimeSeconds=WAIT_S,
                AttributeNames=["ApproximateReceiveCount"],
            )
            messages = answer.get("Messages", [])
            if not messages:
                continue
            _obey(self.pipe, self.points)  # what was sent before the messages counts for them
            received = [(one["MessageId"], int(one["Attributes"]["ApproximateReceiveCount"])) for one in messages]
            self.pipe.send(("got", (received, dict(self.points.passages))))
            for one in self._handled(messages):
                with contextlib.suppress(ClientError):  # it came again meanwhile: then this delete is void
                    sqs.delete_message(QueueUrl=url, ReceiptHandle=one["ReceiptHandle"])
            self.pipe.send(("idle", (None, dict(self.points.passages))))

    def _handled(self, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Those that may be deleted. After an error of the function's, none."""
        records = [
            {
                "messageId": one["MessageId"],
                "receiptHandle": one["ReceiptHandle"],
                "body": one["Body"],
                "attributes": one["Attributes"],
                "eventSource": "aws:sqs",
            }
            for one in messages
        ]
        try:
            answer = self.handler({"Records": records}, Context.of(self.function))
        except Exception:
            logging.getLogger(__name__).exception("the invocation failed")
            return []
        failed = {failure["itemIdentifier"] for failure in answer["batchItemFailures"]}
        return [one for one in messages if one["MessageId"] not in failed]
