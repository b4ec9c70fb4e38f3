"""Killed (-9) before and after every labelled point, a worker leaves nothing undone, doubled or half done."""

from tests.processes.labels import Strike
from tests.processes.stack import Stack


def test_a_worker_that_is_killed_after_its_commit_is_followed_by_one_that_goes_on(stack: Stack) -> None:
    stack.arm("chunk", Strike("IngestStore.save_chunks", "after"))
    stack.put("acme/a.txt", ["acme line 1", "acme line 2"])
    stack.settle()
    assert len(stack.deaths) == 1
    stack.check()
