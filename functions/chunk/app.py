"""An object changed in the bucket: parse it, cut it into chunks, and ring for their embedding."""

import json
from typing import Any

from edda import services
from edda.concurrency import Deadline
from edda.ingesting import Ingestion
from edda.leasing import held
from edda.messages import IngestVersion
from edda.observability import function_logger
from edda.runtime import LambdaContext, cut_off, deadline, run
from edda.s3_events import object_changes
from edda.sqs_events import PartialBatchResponse, back_off, is_sqs_event, partial_response

logger = function_logger()


def lambda_handler(event: dict[str, Any], context: LambdaContext) -> PartialBatchResponse | None:
    """From the ingest queue, or straight from S3 (a hand-wired trigger, `sam local invoke`)."""
    if is_sqs_event(event):
        return run(handle_messages(event["Records"], deadline(context)))
    until = deadline(context)
    run(cut_off(handle_body(event, until), until))
    return None


async def handle_messages(records: list[dict[str, Any]], until: Deadline) -> PartialBatchResponse:
    """A message that fails goes back to its queue, alone."""
    queue = await services.ingest_queue()
    failed = []
    async with held(queue, records):
        for record in records:
            try:
                await cut_off(handle_body(json.loads(record["body"]), until), until)
            except Exception:
                logger.exception("message failed", message_id=record["messageId"])
                failed.append(record["messageId"])
    if failed:
        await queue.delay(back_off(records, failed))
    return partial_response(failed)


async def handle_body(body: dict[str, Any], until: Deadline) -> None:
    """S3's own notification, or a message of ours. Raises ValueError for anything else."""
    if not isinstance(body, dict):
        raise ValueError("the message is no JSON object")  # noqa: TRY004 - the content is wrong
    ingestion: Ingestion = await services.ingestion()
    if body.get("type") == "ingest_version":
        await ingestion.ingest(IngestVersion.model_validate(body), until)
        return
    for change in object_changes(body):
        await ingestion.object_changed(change, until)
