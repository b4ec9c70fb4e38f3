"""What Lambda hands over from a queue, and what it wants to hear about it."""

from collections.abc import Iterable
from typing import Any, TypedDict


class BatchItemFailure(TypedDict):
    itemIdentifier: str


class PartialBatchResponse(TypedDict):
    """Messages not named here are deleted. A malformed answer would make Lambda deliver them all again."""

    batchItemFailures: list[BatchItemFailure]


def is_sqs_event(event: dict[str, Any]) -> bool:
    """Does this come from a queue, rather than from S3 or by hand?"""
    records = event.get("Records")
    first = records[0] if records and isinstance(records, list) else None
    return isinstance(first, dict) and first.get("eventSource") == "aws:sqs"


def partial_response(failed_message_ids: Iterable[str]) -> PartialBatchResponse:
    """Only these messages are to be delivered again."""
    return {"batchItemFailures": [{"itemIdentifier": message_id} for message_id in failed_message_ids]}
