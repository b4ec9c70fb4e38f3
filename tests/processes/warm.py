"""What the server that workers are forked from has loaded: then a worker begins within a tenth of a second."""

import asyncio
import functools
from typing import Any

import aioboto3
import aws_lambda_powertools.metrics  # noqa: F401 - functions do
import boto3
from botocore.loaders import JSONFileLoader

import tests.processes.worker  # noqa: F401 - with all that it needs
from tests.processes.labels import labelled_classes

# botocore reads the model of a service anew for each of our clients: a tenth of a second each time.
_read = JSONFileLoader._load_file


@functools.cache
def _read_once(path: str, open_method: Any) -> Any:
    return _read(JSONFileLoader(), path, open_method)


JSONFileLoader._load_file = lambda _, path, open_method: _read_once(path, open_method)

for _ in labelled_classes():
    pass


async def _make_clients() -> None:
    keys = {"aws_access_key_id": "none", "aws_secret_access_key": "none"}
    session = aioboto3.Session(region_name="eu-central-1", **keys)
    for service in ("s3", "sqs", "events", "secretsmanager"):
        async with session.client(service):
            boto3.client(service, region_name="eu-central-1", **keys)


asyncio.run(_make_clients())
