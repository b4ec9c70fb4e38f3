"""Messages that name chunks without vectors: embed them all together, write, and finish what is whole."""

from typing import Any

from edda import services
from edda.concurrency import Deadline
from edda.errors import EddaError
from edda.leasing import held
from edda.messages import EmbedBatch
from edda.observability import function_logger
from edda.runtime import LambdaContext, cut_off, deadline, run
from edda.sqs_events import PartialBatchResponse, back_off, partial_response
from pydantic import ValidationError

logger = function_logger()


def lambda_handler(event: dict[str, Any], context: LambdaContext) -> PartialBatchResponse:
    """From the embed queue, with a partial batch response."""
    return run(handle_messages(event["Records"], deadline(context)))


async def handle_messages(records: list[dict[str, Any]], until: Deadline) -> PartialBatchResponse:
    """A message that fails goes back to its queue, alone; those that succeeded are deleted."""
    queue = await services.embed_queue()
    try:
        async with held(queue, records):
            failed = await cut_off(embed(records, until), until)
    except TimeoutError:
        logger.exception("the function's time was up")
        failed = [record["messageId"] for record in records]
    if failed:
        await queue.delay(back_off(records, failed))
    return partial_response(failed)


async def embed(records: list[dict[str, Any]], until: Deadline) -> list[str]:
    """The ids of the messages that failed."""
    failed: list[str] = []
    batches: list[EmbedBatch] = []
    message_ids: list[str] = []
    for record in records:
        try:
            batches.append(EmbedBatch.model_validate_json(record["body"]))
            message_ids.append(record["messageId"])
        except ValidationError:
            logger.exception("message is not an embed batch", message_id=record["messageId"])
            failed.append(record["messageId"])
    if not batches:
        return failed
    try:
        embedding = await services.embedding()
    except EddaError as error:
        logger.exception("nothing can be embedded now", code=error.code)
        return [*failed, *message_ids]
    for position, reason in (await embedding.embed_batches(batches, until)).items():
        logger.error("batch failed", message_id=message_ids[position], code=reason.code, reason=reason.message)
        failed.append(message_ids[position])
    return failed
