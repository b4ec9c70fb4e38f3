"""The chunk function's turn: the real handler on S3 events out of SQS, one document an event as deployed.

`python -m benchmarks.chunk task.json`, where the task names a bucket with documents on an emulator, and a database.
What the emulator takes counts as waiting, not as the function's CPU. benchmarks.memory_sizes runs it.
"""

import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus
from uuid import uuid4

from edda import services
from edda.runtime import run

from benchmarks.environment import FakeContext
from benchmarks.peers.turn import done, wait_for_go
from benchmarks.postgres import EDDA_MODEL

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT_S = 300


def main() -> None:
    task = json.loads(Path(sys.argv[1]).read_text())
    os.environ |= {
        "EDDA_DATABASE_URL": task["database_url"],
        "EDDA_EMBEDDING_PROVIDER": "openai",
        "EDDA_EMBEDDING_MODEL": EDDA_MODEL.partition("/")[2],
        "EDDA_EMBEDDING_DIMENSIONS": str(task["dimensions"]),
        "EDDA_UPLOADS_BUCKET": task["bucket"],
        "EDDA_INGEST_QUEUE_URL": task["ingest_queue_url"],
        "EDDA_EMBED_QUEUE_URL": task["embed_queue_url"],
        "POWERTOOLS_SERVICE_NAME": "benchmark",
        "POWERTOOLS_LOG_LEVEL": "ERROR",
        "AWS_ENDPOINT_URL": task["aws_endpoint_url"],
        "AWS_ACCESS_KEY_ID": "benchmark",
        "AWS_SECRET_ACCESS_KEY": "benchmark",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    spec = importlib.util.spec_from_file_location("chunk_app", ROOT / "functions" / "chunk" / "app.py")
    if spec is None or spec.loader is None:
        raise LookupError("functions/chunk/app.py is not there")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    warm_up, *objects = task["objects"]
    deliver(module.lambda_handler, task["bucket"], [warm_up])
    wait_for_go()
    deliver(module.lambda_handler, task["bucket"], objects)
    done(events=len(objects))
    run(services.aclose())


def deliver(handler: Any, bucket: str, objects: list[dict[str, Any]]) -> None:
    """One event after another. Raises RuntimeError when a message would come again."""
    for number, one in enumerate(objects):
        event = {"Records": [message(bucket, one, number)]}
        if handler(event, FakeContext(TIMEOUT_S))["batchItemFailures"]:
            raise RuntimeError(f"{one['key']} was not chunked")


def message(bucket: str, one: dict[str, Any], number: int) -> dict[str, Any]:
    """What S3 tells of a new object, as Lambda hands it over."""
    told = {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": "us-east-1",
        "eventTime": "2026-11-21T12:00:00.000Z",
        "eventName": "ObjectCreated:Put",
        "s3": {
            "bucket": {"name": bucket},
            "object": {
                "key": quote_plus(one["key"]),
                "size": one["size"],
                "versionId": one["version_id"],
                "sequencer": f"{number:016X}",
            },
        },
    }
    return {
        "messageId": str(uuid4()),
        "body": json.dumps({"Records": [told]}),
        "attributes": {"ApproximateReceiveCount": "1"},
        "eventSource": "aws:sqs",
    }


if __name__ == "__main__":
    main()
