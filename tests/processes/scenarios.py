"""Plain stories of a user, an operator and a little bad luck: together they pass every labelled point.

Each may be interrupted anywhere by a worker's death. Whoever asked for something that a worker died over asks again, as
users and operators do.
"""

import json
from collections.abc import Callable
from typing import Any

from edda.messages import EmbedBatch, IngestVersion
from edda.s3_events import METADATA_SUFFIX

from tests.fakes.provider_server import dripping, status
from tests.processes.labels import Strike
from tests.processes.stack import Stack
from tests.processes.worker import BUSY, RENEWAL_S, SLOW
from tests.simulation.schedules import CORRUPT, DEADLY, POISON, REFUSED

Scenario = Callable[[Stack], None]
HIDDEN_S = 900  # edda.adapters.sqs: a dead letter that was looked at


def lines(tenant: str, first: int, last: int) -> list[str]:
    return [f"{tenant} line {number}" for number in range(first, last)]


def insist(stack: Stack, event: dict[str, Any]) -> Any:
    """An operator asks until there is an answer."""
    for _ in range(4):
        answer = stack.operate(event)
        if answer is not None:
            return answer
        stack.skip(HIDDEN_S)
    raise AssertionError(f"no answer to {event}: {stack.log()}")


def files_are_put(stack: Stack) -> None:
    """Of several messages, and of two tenants."""
    stack.put("acme/a.txt", lines("acme", 0, 9))
    stack.put("globex/a.txt", lines("globex", 0, 2))


def a_file_is_overwritten_and_deleted(stack: Stack) -> None:
    stack.put("acme/a.txt", lines("acme", 0, 5))
    stack.put("acme/b.txt", lines("acme", 3, 6))
    stack.settle()
    stack.put("acme/a.txt", lines("acme", 4, 8))
    stack.settle()
    stack.delete("acme/a.txt")
    stack.put("acme/b.txt", lines("acme", 0, 1))


def files_are_no_good(stack: Stack) -> None:
    """Partial, refused, corrupt, empty."""
    stack.put("acme/partial.txt", ["acme line 1", f"acme line 2 {REFUSED}", "acme line 3"])
    stack.put("acme/refused.txt", [f"acme line 4 {REFUSED}"])
    stack.put("acme/corrupt.txt", [f"acme {CORRUPT}"])
    stack.put("globex/empty.txt", [])


def metadata_comes_and_goes(stack: Stack) -> None:
    stack.put_metadata("acme/a.txt", {"year": 2026})
    stack.put("acme/a.txt", lines("acme", 0, 2))
    stack.settle()
    stack.put("acme/a.txt" + METADATA_SUFFIX, b"{")
    stack.settle()
    stack.delete("acme/a.txt" + METADATA_SUFFIX)


def events_are_lost(stack: Stack) -> None:
    stack.put("acme/old.txt", lines("acme", 0, 2))
    stack.settle()
    stack.put("acme/new.txt", lines("acme", 1, 5), tell=False)
    stack.delete("acme/old.txt", tell=False)
    stack.settle()
    stack.put_metadata("acme/new.txt", {"year": 2026}, tell=False)


def work_is_given_back(stack: Stack) -> None:
    """For want of a parser, and by the provider."""
    stack.provider.script = [status(401, {"error": {"code": "invalid_api_key"}})]
    stack.put("acme/a.txt", [*lines("acme", 0, 4), f"acme line 5 {BUSY}"])
    stack.put("globex/a.txt", lines("globex", 0, 4))


def work_takes_its_time(stack: Stack) -> None:
    """Leases are renewed meanwhile."""
    stack.provider.script = [dripping(RENEWAL_S / 50)]
    stack.put("acme/a.txt", [f"acme line 1 {SLOW}", "acme line 2"])


def a_tenant_has_its_share_of_the_workers(stack: Stack) -> None:
    """One worker hangs over its file, so its other file is sent to the lane."""
    stack.strike("chunk", Strike("ParserProcess.parse", "before", action="stop"))
    stack.put("acme/slow.txt", lines("acme", 0, 3))
    stack.wait_until_quiet()
    stack.put("acme/a.txt", lines("acme", 1, 4))
    stack.wait_until_quiet()
    stack.resume_all()


def a_text_is_wanted_twice(stack: Stack) -> None:
    """One worker hangs over it: who comes second waits for a while, and has the message delivered again."""
    stack.strike("embed", Strike("OpenAIEmbedder.embed", "before", action="stop"))
    stack.put("acme/a.txt", lines("acme", 0, 2))
    stack.wait_until_quiet()
    stack.put("acme/b.txt", lines("acme", 1, 3))
    stack.wait_until_quiet()
    stack.resume_all()


def a_file_kills_its_workers(stack: Stack) -> None:
    stack.put("acme/deadly.txt", [f"acme {DEADLY}"])
    stack.put("globex/a.txt", lines("globex", 0, 2))


def a_document_is_deleted_over_https(stack: Stack) -> None:
    """And its object stays behind, for the function died."""
    stack.put("acme/a.txt", lines("acme", 0, 2))
    stack.settle()
    stack.delete_over_https("acme/a.txt")


def an_earlier_release_stored_a_file(stack: Stack) -> None:
    """Its terms are made anew, and a killed sweep's by another."""
    stack.put("acme/a.txt", lines("acme", 0, 3))
    stack.settle()
    stack.rows("UPDATE document_versions SET terms_from = -1")


def an_operator_redrives(stack: Stack) -> None:
    """What has failed, and what became a dead letter: some of it is stale by now."""
    assert stack.ingest_queue.dead_letters is not None
    assert stack.embed_queue.dead_letters is not None
    stale = stack.put("acme/a.txt", lines("acme", 0, 2))
    stack.put("acme/corrupt.txt", [f"acme {CORRUPT}"])
    stack.settle()
    (ids,) = stack.rows(
        "SELECT tenant_id, version_id FROM document_versions JOIN documents USING (tenant_id, document_id) "
        "WHERE object_key = 'acme/a.txt'"
    )
    for body in (
        stale,
        stack.put("acme/b.txt", lines("acme", 1, 4), tell=False),
        IngestVersion(tenant_id=ids[0], version_id=ids[1]).model_dump_json(),
    ):
        stack.ingest_queue.dead_letters.send(body)
    done = EmbedBatch(tenant_id=ids[0], version_id=ids[1], first_ordinal=0, last_ordinal=1)
    stack.embed_queue.dead_letters.send(done.model_dump_json())
    insist(stack, {"Redrive": {"tenant": "acme"}})
    for queue in ("ingest", "embed"):
        insist(stack, {"Redrive": {"queue": queue}})


def the_brake_is_on(stack: Stack) -> None:
    """One tenant's operator confirms, the other's does not, and the file comes back."""
    for tenant in ("acme", "globex"):
        stack.put(f"{tenant}/a.txt", lines(tenant, 0, 3))
    stack.settle()
    stack.rows(
        "INSERT INTO delete_brakes (tenant_id, began_at, documents, deleted, tripped_at) "
        "SELECT tenant_id, now(), 1, 0, now() FROM tenants"
    )
    for tenant in ("acme", "globex"):
        stack.delete(f"{tenant}/a.txt")
    stack.settle()
    insist(stack, {"ConfirmDeletes": {"tenant": "acme"}})
    insist(stack, {"DiscardDeletes": {"tenant": "globex"}})
    stack.put("globex/a.txt", lines("globex", 2, 4))


def nobody_can_read_a_message(stack: Stack) -> None:
    stack.ingest_queue.send(POISON)
    stack.embed_queue.send(json.dumps({"v": 99}))
    stack.put("acme/a.txt", lines("acme", 0, 1))


SCENARIOS: dict[str, Scenario] = {
    scenario.__name__: scenario
    for scenario in (
        files_are_put,
        a_file_is_overwritten_and_deleted,
        files_are_no_good,
        metadata_comes_and_goes,
        a_document_is_deleted_over_https,
        work_is_given_back,
        nobody_can_read_a_message,
        work_takes_its_time,
        a_tenant_has_its_share_of_the_workers,
        a_text_is_wanted_twice,
        the_brake_is_on,
        an_earlier_release_stored_a_file,
        an_operator_redrives,
        events_are_lost,
        a_file_kills_its_workers,
    )
}
