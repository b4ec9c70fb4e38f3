"""A worker stopped (SIGSTOP) past its lease that wakes up when another has done its work: it changes nothing."""

import pytest

from tests.processes.invariants import state
from tests.processes.labels import Strike, When
from tests.processes.schedules import USUAL
from tests.processes.stack import Stack

POINTS = [
    (function, label)
    for function in ("chunk", "embed")
    for label in USUAL[function]
    if label != "BucketStore.object_is_gone"  # of deletes
]
BEFORE_THE_WRITE = Strike("IngestStore.save_chunks", "before", action="stop")
OLD, NEW = ["acme line 1", "acme line 2"], ["acme line 3"]


def stopped_at(stack: Stack, function: str, strike: Strike) -> None:
    """A worker is stopped there, with a file of its hands."""
    stack.strike(function, strike)
    stack.put("acme/a.txt", OLD)
    stack.wait_until_quiet()
    assert stack.struck == [strike]
    assert stack.any_stopped


def wakes_up(stack: Stack) -> None:
    stack.resume_all()
    stack.wait_until_quiet()
    stack.settle()
    stack.check()


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("function", "label"), POINTS)
def test_a_zombie_changes_nothing_that_another_has_done(stack: Stack, function: str, label: str, when: When) -> None:
    stopped_at(stack, function, Strike(label, when, action="stop"))
    stack.settle()
    stack.check()
    done = state(stack)
    wakes_up(stack)
    assert state(stack) == done


def test_a_zombie_does_not_bring_back_what_was_overwritten(stack: Stack) -> None:
    stopped_at(stack, "chunk", BEFORE_THE_WRITE)
    stack.put("acme/a.txt", NEW)
    stack.settle()
    wakes_up(stack)
    assert stack.rows("SELECT text FROM chunks") == [("acme line 3",)]


def test_a_zombie_does_not_bring_back_what_was_deleted(stack: Stack) -> None:
    stopped_at(stack, "chunk", BEFORE_THE_WRITE)
    stack.delete("acme/a.txt")
    stack.settle()
    wakes_up(stack)
    assert stack.rows("SELECT count(*) FROM chunks") == [(0,)]


def test_a_zombie_that_has_embedded_stores_no_vector_of_a_deleted_text(stack: Stack) -> None:
    stopped_at(stack, "embed", Strike("EmbedStore.save", "before", action="stop"))
    stack.delete("acme/a.txt")
    stack.settle()
    wakes_up(stack)
    assert stack.rows("SELECT count(*) FROM embeddings") == [(0,)]
