"""Edda's turn: the real embed handler on SQS events, in one process, as one of Lambda's environments.

`python -m benchmarks.edda task.json`. The chunk function's work is done before the start: chunks are in the database,
and messages name them. Lambda is played as the template has it: so many messages an event, one event after another,
failed messages again when their visibility timeout has passed.

Variants: `deployed` is the template's batch size; `one-event` hands over all messages at once; `with-chunks` also
writes the chunks between start and end, through the chunk function's own store: that is what peers do, which store
text and vector together.
"""

import asyncio
import cProfile
import importlib.util
import json
import os
import re
import sys
import time
import urllib.request
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
from edda import services
from edda.identity import content_hash
from edda.messages import EmbedBatch
from edda.models import Chunk, ParseOutcome
from edda.runtime import run
from edda.store.database import Database
from edda.store.ingest import IngestStore
from edda.tokens import count_tokens

from benchmarks.peers.turn import Task, done, read_task, wait_for_go
from benchmarks.postgres import EDDA_MODEL, TENANT

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT_CHUNKS = 1000  # some hundred pages
ALL = 1_000_000
GIVE_UP_AFTER_S = 1800


@dataclass(frozen=True, slots=True)
class FakeContext:
    """Lambda's context at the beginning of an invocation."""

    timeout_s: int

    def get_remaining_time_in_millis(self) -> int:
        return self.timeout_s * 1000


def main() -> None:
    task = read_task()
    batch_size, timeout_s = template_numbers()
    provider = task.base_url.removesuffix("/v1")
    os.environ |= {
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
    handler, context = load_handler(), FakeContext(timeout_s)
    documents = asyncio.run(register_documents(task))
    warm_up = EmbedBatch(tenant_id=uuid4(), version_id=uuid4(), first_ordinal=0, last_ordinal=0)
    handler({"Records": [record(warm_up)]}, context)
    late_chunks = task.variant == "with-chunks"
    batches = [] if late_chunks else asyncio.run(store_chunks(task, documents))
    wait_for_go()
    if late_chunks:
        batches = asyncio.run(store_chunks(task, documents))
    size = ALL if task.variant == "one-event" else batch_size
    with cProfile.Profile() if task.rest["profile"] else nullcontext() as profile:
        invocations = deliver(handler, context, [record(batch) for batch in batches], size, provider)
    if profile is not None:
        profile.dump_stats(Path(sys.argv[1]).with_suffix(".profile"))
    done(invocations=invocations, records_an_event=min(size, len(batches)))
    run(services.aclose())


def template_numbers() -> tuple[int, int]:
    """The embed function's batch size and timeout, as deployed."""
    function = (
        (ROOT / "template.yaml").read_text().partition("\n  EmbedFunction:")[2].partition("\n  EmbedLogGroup:")[0]
    )
    batch_size = re.search(r"BatchSize: !If \[UseInProcessModel, \d+, (\d+)\]", function)
    timeout = re.search(r"\n      Timeout: (\d+)", function)
    if batch_size is None or timeout is None:
        raise LookupError("template.yaml says it otherwise now")
    return int(batch_size[1]), int(timeout[1])


def load_handler() -> Any:
    spec = importlib.util.spec_from_file_location("embed_app", ROOT / "functions" / "embed" / "app.py")
    if spec is None or spec.loader is None:
        raise LookupError("functions/embed/app.py is not there")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.lambda_handler


def record(batch: EmbedBatch) -> dict[str, Any]:
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


def deliver(handler: Any, context: FakeContext, records: list[dict[str, Any]], size: int, provider: str) -> int:
    """Hand over events until no message is left: how many it took."""
    waiting = [(0.0, one) for one in records]
    invocations, began = 0, time.monotonic()
    while waiting:
        now = time.monotonic()
        if now - began > GIVE_UP_AFTER_S:
            raise TimeoutError(f"{len(waiting)} messages are still waiting")
        due = [one for at, one in waiting if at <= now][:size]
        if not due:
            time.sleep(min(at for at, _ in waiting) - now)
            continue
        taken = {one["messageId"] for one in due}
        waiting = [(at, one) for at, one in waiting if one["messageId"] not in taken]
        failed = {one["itemIdentifier"] for one in handler({"Records": due}, context)["batchItemFailures"]}
        invocations += 1
        if failed:
            waiting += again([one for one in due if one["messageId"] in failed], provider)
    return invocations


def again(failed: list[dict[str, Any]], provider: str) -> list[tuple[float, dict[str, Any]]]:
    """When the queue shows these again: as the handler has asked for."""
    with urllib.request.urlopen(f"{provider}/visibility", timeout=10) as answer:
        visibility: dict[str, int] = json.load(answer)
    for one in failed:
        received = int(one["attributes"]["ApproximateReceiveCount"]) + 1
        one["attributes"]["ApproximateReceiveCount"] = str(received)
    return [(time.monotonic() + visibility[one["receiptHandle"]], one) for one in failed]


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
