"""What must be true when nothing moves any more. Mostly the simulator's own checks: what follows from the bucket is the
same whoever did the work."""

from collections import Counter
from datetime import datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from edda.s3_events import METADATA_SUFFIX

from tests.simulation import invariants as simulation
from tests.simulation.schedules import POISON
from tests.simulation.violations import Violation

if TYPE_CHECKING:
    from tests.processes.stack import Stack
    from tests.simulation.world import World

NOT_AT_AN_END = """
    SELECT 'version', version_id::text, status FROM document_versions
    WHERE finished_at IS NULL OR superseded_at IS NOT NULL
    UNION ALL SELECT 'terms', version_id::text, status FROM document_versions
    WHERE terms_from IS NOT NULL AND status IN ('ready', 'partial')
    UNION ALL SELECT 'event', event_id::text, channel FROM event_deliveries
    WHERE delivered_at IS NULL AND abandoned_at IS NULL
    UNION ALL SELECT 'object', document_id::text, object_key FROM documents WHERE object_to_delete"""

NEWEST = """
    SELECT d.object_key, d.deleted_at IS NOT NULL OR d.hold IS NOT NULL, d.metadata_version,
           (SELECT s3_version_id FROM document_versions v WHERE v.document_id = d.document_id
            ORDER BY sequencer DESC LIMIT 1)
    FROM documents d"""

UNREADABLE = {POISON, '{"v": 99}'}

# Paid is never less than what is booked, nor more than that and what workers took with them.
BOOKED = """
    SELECT t.slug, COALESCE(sum(u.tokens), 0), COALESCE(sum(u.tokens + u.tokens_unsettled), 0)
    FROM tenants t LEFT JOIN tenant_usage u USING (tenant_id) GROUP BY 1"""


def unfinished(stack: "Stack") -> list[Any]:
    """What has not come to an end: in the database, or in the bucket unseen."""
    left: list[Any] = stack.rows(NOT_AT_AN_END)
    known = {key: (gone, metadata, version) for key, gone, metadata, version in stack.rows(NEWEST)}
    for key, history in stack.history.items():
        newest = history[-1]
        gone, metadata, version = known.get(key.removesuffix(METADATA_SUFFIX), (True, "", None))
        if key.endswith(METADATA_SUFFIX):
            if not gone and metadata != (newest.version_id if newest.body is not None else ""):
                left.append(("metadata", key))
        elif gone != (newest.body is None) or (not gone and version != newest.version_id):
            left.append(("unseen", key))
    return left


def check(stack: "Stack") -> None:
    """Raises Violation."""
    simulation.check_rows(_as_simulated(stack))
    _check_ledger(stack)
    _check_events(stack)
    _check_dead_letters(stack)


def state(stack: "Stack") -> list[tuple[Any, ...]]:
    """What a replay, or a zombie, may not change. Without times: those are moved."""
    rows = simulation.state(_as_simulated(stack).database)
    return [tuple(value for value in row if not isinstance(value, datetime)) for row in rows]


def _as_simulated(stack: "Stack") -> "World":
    """As much of a simulated world as those checks look at."""
    world = SimpleNamespace(
        database=SimpleNamespace(rows=stack.rows),
        bucket=SimpleNamespace(history=stack.history, undone=frozenset(), versioned=True),
        provider=SimpleNamespace(spoilt=stack.provider.spoilt),
        deaths=len(stack.deaths),
        tokens_per_day=None,
    )
    return cast("World", world)


def _check_ledger(stack: "Stack") -> None:
    """A request that failed is noted by its worker, who may die before the note is written."""
    for slug, least, most in stack.rows(BOOKED):
        paid = _tokens(stack.provider.paid, slug)
        forgotten = _tokens(stack.provider.paid_badly, slug) if stack.deaths else 0
        if not least <= paid <= most + forgotten:
            raise Violation("N10 accounting", f"{slug} paid {paid} tokens, booked are {least} to {most}")


def _tokens(texts: Counter[str], tenant: str) -> int:
    """The stand-in for the parser counts a token a letter."""
    return sum(times * len(text) for text, times in texts.items() if text.startswith(f"{tenant} "))


def _check_events(stack: "Stack") -> None:
    """Every event that is written for the webhook has come, at least once."""
    written = {str(row[0]) for row in stack.rows("SELECT event_id FROM event_deliveries WHERE channel = 'webhook'")}
    if lost := written - stack.receiver.ids.keys():
        raise Violation("N1 no loss", f"events that the webhook never got: {lost}")
    if strange := stack.receiver.ids.keys() - written:
        raise Violation("N10 accounting", f"events that nobody wrote: {strange}")


def _check_dead_letters(stack: "Stack") -> None:
    """A message is given up after five workers, or because nobody can read it."""
    for queue in (stack.ingest_queue, stack.embed_queue):
        assert queue.dead_letters is not None
        strange = [body for body in queue.dead_letters.bodies if body not in UNREADABLE]
        if strange and len(stack.deaths) < 5:
            raise Violation("N11 conservation", f"dead letters: {strange}")
