"""On every deployment: bring the schema up to date, register the embedding model, make the first tenant.

Every minute: build HNSW indexes, which only the schema's owner may. By hand it does what `python -m edda.admin` does,
for it reaches a database in a VPC.
"""

import json
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.request import Request, urlopen
from uuid import UUID

from edda import owner, services
from edda.errors import InvalidRequest
from edda.observability import function_logger
from edda.runtime import LambdaContext, deadline, run

logger = function_logger()

# What an operator asks for by hand, where this function alone reaches the database.
COMMANDS: dict[str, Callable[..., Coroutine[Any, Any, dict[str, Any]]]] = {
    "CreateKey": owner.create_key,
    "RevokeKey": owner.revoke_key,
    "SetCaps": owner.set_caps,
    "SetWebhook": owner.set_webhook,
    "RemoveWebhook": owner.remove_webhook,
}
OPERATIONS = {"Redrive", "ConfirmDeletes", "DiscardDeletes"}


def lambda_handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """A CloudFormation custom resource, and a schedule's target.

    Invoked by hand (`{"DryRun": true}` is known) it only returns its answer.
    """
    if event.get("source") == "aws.events":
        done = run(owner.index(deadline(context)))
        logger.info("indexed", extra={"done": done})
        return done
    for name, command in COMMANDS.items():
        if name in event:
            return run(command(**event[name]))
    if known := OPERATIONS & event.keys():
        return run(operate(known.pop(), event))
    if "ResponseURL" not in event:
        return run(owner.migrate(dry_run=bool(event.get("DryRun"))))
    try:
        # Deleting the stack deletes no data: that is the database's own deletion policy.
        answer = {} if event["RequestType"] == "Delete" else run(owner.migrate())
    except Exception as error:
        logger.exception("migration failed")
        respond(event, "FAILED", f"{type(error).__name__}: {error}", {})
        return {}
    respond(event, "SUCCESS", "", answer)
    return answer


async def operate(what: str, event: dict[str, Any]) -> dict[str, int]:
    """{"ConfirmDeletes": {"tenant": SLUG}}, {"DiscardDeletes": {"tenant": SLUG}}, {"Redrive": {"document": ID}} or
    {"tenant": SLUG} or {"queue": "ingest" or "embed"}. What was done."""
    operating = await services.operating()
    match what, event[what]:
        case "Redrive", {"queue": str(name), **rest} if not rest:
            return await services.redrive_queue(name)
        case "Redrive", {"document": str(document_id), **rest} if not rest:
            return await operating.redrive_document(UUID(document_id))
        case "Redrive", {"tenant": str(slug), **rest} if not rest:
            return await operating.redrive_tenant(slug)
        case "ConfirmDeletes", {"tenant": str(slug), **rest} if not rest:
            return await operating.confirm_deletes(slug)
        case "DiscardDeletes", {"tenant": str(slug), **rest} if not rest:
            return await operating.discard_deletes(slug)
    raise InvalidRequest(f"{what} needs one of: tenant, document, queue. See docs/operations.md.")


def respond(event: dict[str, Any], status: str, reason: str, data: dict[str, Any]) -> None:
    """Tell CloudFormation. It waits for an hour otherwise."""
    body = {
        "Status": status,
        "Reason": reason[:1000],
        "PhysicalResourceId": event.get("PhysicalResourceId", "edda-schema"),
        "StackId": event["StackId"],
        "RequestId": event["RequestId"],
        "LogicalResourceId": event["LogicalResourceId"],
        "Data": data,
    }
    url = event["ResponseURL"]
    request = Request(url, json.dumps(body).encode(), {"Content-Type": ""}, method="PUT")  # noqa: S310 - CloudFormation's
    with urlopen(request, timeout=30) as answer:  # noqa: S310 - as above
        logger.info("told CloudFormation", status=answer.status, outcome=status)
