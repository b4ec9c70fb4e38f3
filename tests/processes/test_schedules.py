"""A few random schedules (`make chaos` runs as many as one likes), and that the checks bite."""

import pytest

from tests.processes.labels import all_labels
from tests.processes.schedules import PROVIDER_FAULTS, USUAL, Schedule, run
from tests.processes.stack import Stack
from tests.simulation.violations import Violation


@pytest.mark.parametrize("seed", range(10))
def test_no_schedule_loses_doubles_or_blocks_anything(running: Stack, seed: int) -> None:
    run(Schedule.drawn(seed), running)


def test_the_same_seed_is_the_same_schedule() -> None:
    assert Schedule.drawn(17) == Schedule.drawn(17)
    assert len({str(Schedule.drawn(seed)) for seed in range(100)}) == 100


def test_many_schedules_have_every_kind_of_fault() -> None:
    drawn = [Schedule.drawn(seed) for seed in range(500)]
    assert {name for schedule in drawn for name in schedule.provider_faults} == PROVIDER_FAULTS.keys()
    struck = {(function, strike.label) for schedule in drawn for function, strike in schedule.strikes}
    assert struck == {(function, label) for function, labels in USUAL.items() for label in labels}
    assert {label for labels in USUAL.values() for label in labels} <= set(all_labels())
    assert {strike.action for schedule in drawn for _, strike in schedule.strikes} == {"kill", "stop"}


@pytest.mark.parametrize(
    ("damage", "invariant"),
    [
        ("DELETE FROM chunks WHERE ordinal = 1", "N10"),
        ("UPDATE chunks SET text = 'acme line 7' WHERE ordinal = 1", "N1 "),
        ("UPDATE embeddings SET vector = (SELECT vector FROM embeddings ORDER BY content_hash LIMIT 1)", "N12"),
        ("UPDATE documents SET current_version_id = NULL", "N10"),
        ("UPDATE tenant_usage SET tokens = tokens + 1; UPDATE document_usage SET tokens = tokens + 1", "N10"),
    ],
)
def test_what_is_lost_or_wrong_is_seen(stack: Stack, damage: str, invariant: str) -> None:
    stack.put("acme/a.txt", ["acme line 1", "acme line 2", "acme line 3"])
    stack.settle()
    stack.check()
    stack.rows(damage)
    with pytest.raises(Violation, match=invariant):
        stack.check()


def test_work_that_nobody_does_is_seen_as_stuck(stack: Stack) -> None:
    stack.put("acme/a.txt", ["acme line 1"])
    stack.settle()
    stack.rows(
        "UPDATE document_versions SET status = 'embedding', finished_at = NULL, chunked_at = now() + interval '1 year'"
    )
    with pytest.raises(Violation, match="N3 liveness"):
        stack.settle(limit_s=600)


def test_an_event_that_did_not_reach_the_webhook_is_seen(stack: Stack) -> None:
    stack.put("acme/a.txt", ["acme line 1"])
    stack.settle()
    stack.check()
    stack.receiver.ids.clear()
    with pytest.raises(Violation, match="webhook never got"):
        stack.check()
