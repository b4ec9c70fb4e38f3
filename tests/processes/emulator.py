"""moto in this process: S3, SQS, EventBridge and Secrets Manager over HTTP, and a clock that can be moved on.

What moto lacks and tests need is done here: it sends no events of versioned deletes and none with a sequencer, so the
events of S3 are written by whoever changes the bucket.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import uuid4

import boto3
from moto.backends import get_backend
from moto.server import ThreadedMotoServer

ACCOUNT = "123456789012"
REGION = "eu-central-1"


@dataclass(frozen=True, slots=True)
class Emulator:
    """Where it is, and clients for what users and AWS do."""

    endpoint: str

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": REGION,
            "NO_PROXY": "127.0.0.1",
        }

    def client(self, service: str) -> Any:
        return boto3.client(
            service,
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
        )

    def make_bucket(self) -> str:
        name, s3 = f"uploads-{uuid4().hex}", self.client("s3")
        s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
        s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
        return name

    def move_objects(self, bucket: str, seconds: float) -> None:
        """They are so much older now."""
        for _, versions in get_backend("s3")[ACCOUNT]["aws"].buckets[bucket].keys.iterlists():
            for version in versions:
                version.last_modified -= timedelta(seconds=seconds)

    def empty_bucket(self, bucket: str) -> None:
        get_backend("s3")[ACCOUNT]["aws"].buckets[bucket].keys.clear()


class MotoQueue:
    """A queue and, unless it is one, its dead-letter queue; seen from the inside."""

    def __init__(self, emulator: Emulator, visibility_s: int, dead_letters: "MotoQueue | None" = None) -> None:
        self._sqs = emulator.client("sqs")
        self._name = f"queue-{uuid4().hex}"
        attributes = {"VisibilityTimeout": str(visibility_s)}
        if dead_letters is not None:
            arn = f"arn:aws:sqs:{REGION}:{ACCOUNT}:{dead_letters._name}"
            attributes["RedrivePolicy"] = f'{{"deadLetterTargetArn": "{arn}", "maxReceiveCount": 5}}'
        self.url: str = self._sqs.create_queue(QueueName=self._name, Attributes=attributes)["QueueUrl"]
        self.dead_letters = dead_letters

    def send(self, body: str) -> None:
        self._sqs.send_message(QueueUrl=self.url, MessageBody=body)

    @property
    def _queue(self) -> Any:
        return get_backend("sqs")[ACCOUNT][REGION].queues[self._name]

    @property
    def bodies(self) -> list[str]:
        """Of everything that has not been deleted."""
        return [message.body for message in list(self._queue._messages)]

    @property
    def has_visible(self) -> bool:
        return any(message.visible and not message.delayed for message in list(self._queue._messages))

    @property
    def in_flight(self) -> set[tuple[str, int]]:
        """Received and not deleted: id, and how often it was received."""
        messages = list(self._queue._messages)
        return {(one.id, one.approximate_receive_count) for one in messages if not one.visible}

    def move(self, seconds: float) -> None:
        """Every wait is so much shorter now."""
        queue = self._queue
        with queue._messages_lock:
            for message in queue._messages:
                message.visible_at -= seconds * 1000
                message.delayed_until -= seconds * 1000
            queue._messages_lock.notify_all()

    def clear(self) -> None:
        """At once and as often as one likes, which PurgeQueue is not."""
        queue = self._queue
        with queue._messages_lock:
            queue._messages.clear()
            queue._pending_messages.clear()


@contextmanager
def running_emulator() -> Iterator[Emulator]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line a request otherwise
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield Emulator(f"http://{host}:{port}")
    finally:
        server.stop()
