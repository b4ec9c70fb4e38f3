"""What Lambda hands over from a queue, and what it wants to hear about it."""

import random
from collections.abc import Callable, Collection, Iterable
from typing import Any, TypedDict

FIRST_DELAY_S = 5
LONGEST_DELAY_S = 300


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


def back_off(
    records: Iterable[dict[str, Any]], failed: Collection[str], chance: Callable[[], float] = random.random
) -> dict[str, int]:
    """When the failed messages are to come again: seconds by receipt handle, doubling with each delivery, jittered.

    Lambda leaves a message of a partial failure invisible for the rest of its visibility timeout, six times the
    function's own, however short the trouble was.
    """
    delays = {}
    for record in records:
        if record.get("messageId") in failed and "receiptHandle" in record:
            received = int(record.get("attributes", {}).get("ApproximateReceiveCount", 1))
            ceiling = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0 ** min(received, 10))
            delays[record["receiptHandle"]] = int(ceiling / 2 + chance() * ceiling / 2)
    return delays
