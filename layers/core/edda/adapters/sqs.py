"""SQS over aioboto3."""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

from edda.adapters.aws import AwsClients
from edda.concurrency import Deadline, bounded
from edda.errors import QueueUnavailable
from edda.ports import QueuedMessage

logger = logging.getLogger(__name__)

MAX_ENTRIES = 10  # SQS: messages in one batch request
CONCURRENT_REQUESTS = 8
ATTEMPTS = 3
WAIT_S = 0.2
TIMEOUT_S = 60
HIDDEN_S = 900  # longer than a redrive: what it leaves in the queue does not come twice
WAIT_FOR_MESSAGES_S = 2  # long polling asks all of SQS' servers; a short poll may miss messages


class SqsQueue:
    """One queue. Receiving is Lambda's business, but for dead letters."""

    def __init__(self, clients: AwsClients, url: str) -> None:
        self._clients = clients
        self._url = url

    async def send(self, bodies: Sequence[str], group: str = "") -> list[int]:
        """Every message is accounted for: SQS may take some of a batch and refuse, or forget, others."""
        unsent = list(range(len(bodies)))
        for attempt in range(ATTEMPTS):
            if attempt:
                await asyncio.sleep(WAIT_S * 2**attempt * (1 + random.random()) / 2)  # noqa: S311 - jitter, no secret
            requests = [unsent[start : start + MAX_ENTRIES] for start in range(0, len(unsent), MAX_ENTRIES)]
            jobs = [partial(self._send_request, indices, bodies, group) for indices in requests]
            outcomes = await bounded(CONCURRENT_REQUESTS, jobs, Deadline.after(TIMEOUT_S))
            sent: set[int] = set()
            for outcome in outcomes:
                if isinstance(outcome, BotoCoreError | ClientError | HTTPClientError | TimeoutError):
                    continue
                if isinstance(outcome, Exception):
                    raise outcome
                sent |= outcome
            unsent = [index for index in unsent if index not in sent]
            if not unsent:
                break
        return unsent

    async def delay(self, delays_s: Mapping[str, int]) -> None:
        handles = list(delays_s)
        try:
            client = await self._clients.get("sqs")
            for start in range(0, len(handles), MAX_ENTRIES):
                entries = [
                    {"Id": str(index), "ReceiptHandle": handle, "VisibilityTimeout": delays_s[handle]}
                    for index, handle in enumerate(handles[start : start + MAX_ENTRIES])
                ]
                await client.change_message_visibility_batch(QueueUrl=self._url, Entries=entries)
        except (BotoCoreError, ClientError, HTTPClientError) as error:
            logger.warning("messages keep their visibility timeout", extra={"error": type(error).__name__})

    async def receive(self) -> list[QueuedMessage]:
        async with self._client() as client:
            answer = await client.receive_message(
                QueueUrl=self._url,
                MaxNumberOfMessages=MAX_ENTRIES,
                VisibilityTimeout=HIDDEN_S,
                WaitTimeSeconds=WAIT_FOR_MESSAGES_S,
            )
        return [QueuedMessage(one["Body"], one["ReceiptHandle"]) for one in answer.get("Messages", [])]

    async def remove(self, receipt_handles: Sequence[str]) -> None:
        async with self._client() as client:
            for start in range(0, len(receipt_handles), MAX_ENTRIES):
                group = receipt_handles[start : start + MAX_ENTRIES]
                entries = [{"Id": str(index), "ReceiptHandle": handle} for index, handle in enumerate(group)]
                answer = await client.delete_message_batch(QueueUrl=self._url, Entries=entries)
                if len(answer.get("Successful", [])) < len(group):
                    raise QueueUnavailable("Messages could not be deleted; they will come again.")

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[Any]:
        """The client, with its errors as ours."""
        try:
            yield await self._clients.get("sqs")
        except (BotoCoreError, ClientError, HTTPClientError) as error:
            raise QueueUnavailable from error

    async def _send_request(self, indices: Sequence[int], bodies: Sequence[str], group: str) -> set[int]:
        """The indices that SQS says it has taken."""
        client = await self._clients.get("sqs")
        grouped = {"MessageGroupId": group} if group else {}  # on a standard queue: fair delivery, no order
        entries = [{"Id": str(index), "MessageBody": bodies[index], **grouped} for index in indices]
        answer = await client.send_message_batch(QueueUrl=self._url, Entries=entries)
        return {int(entry["Id"]) for entry in answer.get("Successful", [])}
