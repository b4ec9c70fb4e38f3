"""S3 and SQS on loopback, for tests of adapters and of whole functions. The root's conftest.py loads the fixtures."""

import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

REGION = "eu-central-1"


@pytest.fixture(scope="session")
def aws_endpoint() -> Iterator[str]:
    """An emulator's address, in this process, on a port nobody has."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def aws(aws_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The environment of a function in a region, with the emulator for all of AWS."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", aws_endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return aws_endpoint


def client(service: str) -> Any:
    """A plain client, for what a test does and Edda does not."""
    import boto3

    return boto3.client(service)


@pytest.fixture
def bucket(aws: str) -> str:
    """A versioned bucket of the test's own."""
    name = f"uploads-{uuid4().hex}"
    s3 = client("s3")
    s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
    s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    return name


def make_queue() -> str:
    """A new queue's URL."""
    url: str = client("sqs").create_queue(QueueName=f"queue-{uuid4().hex}")["QueueUrl"]
    return url


def take(url: str) -> list[dict[str, Any]]:
    """Receive and delete everything: the messages as Lambda hands them over."""
    sqs, records = client("sqs"), []
    while messages := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", []):
        for message in messages:
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
            records.append({"messageId": message["MessageId"], "eventSource": "aws:sqs", "body": message["Body"]})
    return records


def sqs_event(*bodies: Any) -> dict[str, Any]:
    """What Lambda makes of these messages."""
    return {
        "Records": [
            {
                "messageId": str(uuid4()),
                "eventSource": "aws:sqs",
                "body": body if isinstance(body, str) else json.dumps(body),
            }
            for body in bodies
        ]
    }
