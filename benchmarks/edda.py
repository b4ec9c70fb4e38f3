"""Edda's turn: the real embed handler on SQS events, in processes that are each one of Lambda's environments.

`python -m benchmarks.edda task.json`. The chunk function's work is done before the start: chunks are in the database,
and messages name them. Lambda is played as the template has it: so many messages an event, failed messages again when
their visibility timeout has passed, and events to several environments at once, here as many as there are processors.

Variants: `deployed` is that; `one-environment` gives one event after another to a single one; `one-event` hands over
all messages at once; `with-chunks` is `deployed`, and also writes the chunks between start and end, through the chunk
function's own store: that is what peers do, which store text and vector together.
"""

import asyncio
import json
import os
import re
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from subprocess import PIPE, Popen
from threading import Condition
from typing import Any, NamedTuple
from uuid import uuid4

import psycopg
from edda.identity import content_hash
from edda.messages import EmbedBatch
from edda.models import Chunk, ParseOutcome
from edda.store.database import Database
from edda.store.ingest import IngestStore
from edda.tokens import count_tokens

from benchmarks.peers.turn import Task, done, read_task, wait_for_go
from benchmarks.postgres import EDDA_MODEL, TENANT

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT_CHUNKS = 1000  # some hundred pages
ALL = 1_000_000
GIVE_UP_AFTER_S = 1800


Record = dict[str, Any]


def main() -> None:
    task = read_task()
    template = as_deployed()
    provider = task.base_url.removesuffix("/v1")
    variables = template.variables | {
        "EDDA_DATABASE_URL": task.database_url,
        "EDDA_EMBEDDING_PROVIDER": "openai",
        "EDDA_EMBEDDING_MODEL": EDDA_MODEL.partition("/")[2],
        "EDDA_EMBEDDING_DIMENSIONS": str(task.dimensions),
        "EDDA_PROVIDER_BASE_URL": task.base_url,
        "EDDA_PROVIDER_API_KEY": "benchmark",
        "EDDA_EMBED_QUEUE_URL": f"{provider}/queue",
        "POWERTOOLS_SERVICE_NAME": "benchmark",
        "AWS_ENDPOINT_URL": provider,  # the mock takes visibility timeouts, and nothing else of AWS is used
        "AWS_ACCESS_KEY_ID": "benchmark",
        "AWS_SECRET_ACCESS_KEY": "benchmark",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    documents = asyncio.run(register_documents(task))
    late_chunks = task.variant == "with-chunks"
    batches = [] if late_chunks else asyncio.run(store_chunks(task, documents))
    alone = task.variant in {"one-environment", "one-event"}
    count = 1 if alone else min(template.environments, os.cpu_count() or 1)
    profile = Path(sys.argv[1]).with_suffix(".profile") if task.rest["profile"] else None
    with ExitStack() as stack:
        environments = [stack.enter_context(started(variables, template.timeout_s, profile)) for _ in range(count)]
        for environment in environments:
            nothing = EmbedBatch(tenant_id=uuid4(), version_id=uuid4(), first_ordinal=0, last_ordinal=0)
            invoke(environment, [record(nothing)])
        wait_for_go()
        if late_chunks:
            batches = asyncio.run(store_chunks(task, documents))
        size = ALL if task.variant == "one-event" else template.batch_size
        messages = Messages([record(batch) for batch in batches], provider)
        with ThreadPoolExecutor(count) as pool:
            peaks = list(chain.from_iterable(pool.map(partial(deliver, messages=messages, size=size), environments)))
        done(
            invocations=len(peaks),
            records_an_event=min(size, len(batches)),
            environments=count,
            peak_megabytes=max(peaks, default=None),
        )


@dataclass(frozen=True, slots=True)
class Deployed:
    """What the template says of the embed function."""

    batch_size: int
    timeout_s: int
    environments: int
    variables: dict[str, str]


def as_deployed() -> Deployed:
    text = (ROOT / "template.yaml").read_text()
    function = text.partition("\n  EmbedFunction:")[2].partition("\n  EmbedLogGroup:")[0]
    batch_size = re.search(r"BatchSize: !If \[UseInProcessModel, \d+, (\d+)\]", function)
    timeout = re.search(r"\n      Timeout: (\d+)", function)
    environments = re.search(r"\n  EmbedConcurrency:\n(?:    .*\n)*?    Default: (\d+)", text)
    if batch_size is None or timeout is None or environments is None:
        raise LookupError("template.yaml says it otherwise now")
    variables = dict(re.findall(r"\n +(\w+): \"(\d+)\"", function))
    return Deployed(int(batch_size[1]), int(timeout[1]), int(environments[1]), variables)


@contextmanager
def started(variables: dict[str, str], timeout_s: int, profile: Path | None) -> Iterator[Popen[str]]:
    """An environment: a process with the function loaded."""
    command = [sys.executable, "-m", "benchmarks.environment", str(timeout_s), *([str(profile)] if profile else [])]
    process = Popen(command, stdin=PIPE, stdout=PIPE, text=True, env=os.environ | variables)
    try:
        yield process
    finally:
        process.communicate()  # the end of its input ends it


class Outcome(NamedTuple):
    """Of an invocation: the ids of the messages that failed, and the most memory that its environment has had."""

    failed: set[str]
    peak_megabytes: float


def invoke(environment: Popen[str], records: list[Record]) -> Outcome:
    """One event to an environment."""
    assert environment.stdin is not None
    assert environment.stdout is not None
    environment.stdin.write(json.dumps({"Records": records}) + "\n")
    environment.stdin.flush()
    answer = environment.stdout.readline()
    if not answer:
        raise RuntimeError("the environment has ended")
    response, peak_megabytes = json.loads(answer)
    return Outcome({failed["itemIdentifier"] for failed in response["batchItemFailures"]}, peak_megabytes)


def record(batch: EmbedBatch) -> Record:
    """A message as Lambda hands it over."""
    return {
        "messageId": str(uuid4()),
        "receiptHandle": uuid4().hex * 6,
        "body": batch.model_dump_json(),
        "attributes": {"ApproximateReceiveCount": "1", "SentTimestamp": "1763712000000"},
        "messageAttributes": {},
        "eventSource": "aws:sqs",
        "eventSourceARN": "arn:aws:sqs:us-east-1:000000000000:embed",
        "awsRegion": "us-east-1",
    }


class Messages:
    """The embed queue, for several who take from it."""

    def __init__(self, records: list[Record], provider: str) -> None:
        self._waiting = [(0.0, one) for one in records]
        self._in_hand = 0
        self._provider = provider
        self._changed = Condition()
        self._give_up_at = time.monotonic() + GIVE_UP_AFTER_S

    def take(self, most: int) -> list[Record]:
        """Some that are due, as soon as there are any; none when all have been deleted."""
        with self._changed:
            while self._waiting or self._in_hand:
                now = time.monotonic()
                if now > self._give_up_at:
                    raise TimeoutError(f"{len(self._waiting)} messages are still waiting")
                due = [one for at, one in self._waiting if at <= now][:most]
                if due:
                    taken = {one["messageId"] for one in due}
                    self._waiting = [(at, one) for at, one in self._waiting if one["messageId"] not in taken]
                    self._in_hand += len(due)
                    return due
                self._changed.wait(min((at for at, _ in self._waiting), default=now + 60) - now)
            return []

    def settle(self, records: list[Record], failed: set[str]) -> None:
        """Those that failed are shown again when the handler has asked for."""
        again = [one for one in records if one["messageId"] in failed]
        waiting: list[tuple[float, Record]] = []
        if again:
            with urllib.request.urlopen(f"{self._provider}/visibility", timeout=10) as answer:
                visibility: dict[str, int] = json.load(answer)
            for one in again:
                one["attributes"]["ApproximateReceiveCount"] = str(
                    int(one["attributes"]["ApproximateReceiveCount"]) + 1
                )
                waiting.append((time.monotonic() + visibility[one["receiptHandle"]], one))
        with self._changed:
            self._waiting += waiting
            self._in_hand -= len(records)
            self._changed.notify_all()


def deliver(environment: Popen[str], messages: Messages, size: int) -> list[float]:
    """Hand over events until no message is left: after each, the most memory that the environment has had."""
    peaks = []
    while records := messages.take(size):
        failed = {one["messageId"] for one in records}
        try:
            outcome = invoke(environment, records)
            failed = outcome.failed
        finally:  # also of an environment that has died: others wait for the end
            messages.settle(records, failed)
        peaks.append(outcome.peak_megabytes)
    return peaks


Document = tuple[Any, Any, list[str]]  # tenant, version, texts


async def register_documents(task: Task) -> list[Document]:
    """Versions that wait to be chunked, as the chunk function leaves them when it hears of an object."""
    documents: list[Document] = []
    async with await psycopg.AsyncConnection.connect(task.rest["owner_url"]) as connection:
        cursor = await connection.execute("SELECT tenant_id FROM tenant_of_slug(%s)", [TENANT])
        tenant_id = (await cursor.fetchall())[0][0]
        await connection.execute("SELECT set_config('app.tenant_id', %s, true)", [str(tenant_id)])
        for start in range(0, len(task.texts), DOCUMENT_CHUNKS):
            document_id, version_id = uuid4(), uuid4()
            texts = task.texts[start : start + DOCUMENT_CHUNKS]
            key = f"{TENANT}/document-{start}.txt"
            await connection.execute(
                "INSERT INTO documents (document_id, tenant_id, object_key, name) VALUES (%s, %s, %s, %s)",
                [document_id, tenant_id, key, key],
            )
            await connection.execute(
                "INSERT INTO document_versions (version_id, tenant_id, document_id, s3_version_id, sequencer, "
                "modified_at, size_bytes) VALUES (%s, %s, %s, '', %s, now(), %s)",
                [version_id, tenant_id, document_id, f"{start:020}", sum(map(len, texts))],
            )
            documents.append((tenant_id, version_id, texts))
    return documents


async def store_chunks(task: Task, documents: list[Document]) -> list[EmbedBatch]:
    """What the chunk function does once it has parsed; the messages it would send."""

    async def conninfo() -> str:
        return task.database_url

    database = Database(conninfo)
    try:
        async with database.transaction(None) as cursor:
            await cursor.execute("SELECT model_id FROM embedding_models WHERE name = %s", [EDDA_MODEL])
            model_id = (await cursor.fetchall())[0]["model_id"]
        store = IngestStore(database, model_id)
        batches: list[EmbedBatch] = []
        for tenant_id, version_id, texts in documents:
            lease = await store.claim_version(tenant_id, version_id, 600)
            if lease is None or not await store.save_chunks(lease, parsed(texts), b"\0" * 32):
                raise LookupError("a version could not be claimed")
            unsent = await store.unsent_batches(tenant_id, version_id)
            await store.mark_sent(tenant_id, version_id, [batch.first_ordinal for batch in unsent])
            batches += unsent
        return batches
    finally:
        await database.aclose()


def parsed(texts: list[str]) -> ParseOutcome:
    chunks, start = [], 0
    for ordinal, text in enumerate(texts):
        end = start + len(text)
        chunks.append(Chunk(ordinal, text, start, end, count_tokens(text), None, (), "en", content_hash(text)))
        start = end
    return ParseOutcome(chunks, "text/plain", start, title=None, language="en")


if __name__ == "__main__":
    main()
