"""Killed (-9) before and after every labelled point, a worker leaves nothing undone, doubled or half done."""

import os
import signal
import time
from pathlib import Path

import edda.adapters
import edda.store
import pytest

from tests.processes.crashes import Passages, plain_passages, run_crash
from tests.processes.labels import (
    ADAPTERS,
    LEFT_OUT,
    NOT_FOR_WORKERS,
    STORES,
    Strike,
    When,
    all_labels,
    classes_of,
    coroutine_methods,
)
from tests.processes.stack import Stack

LABELS = [label for label in all_labels() if label not in NOT_FOR_WORKERS]


@pytest.fixture(scope="session")
def passages(running: Stack) -> Passages:
    return plain_passages(running)


def test_the_scenarios_pass_every_labelled_point(passages: Passages) -> None:
    assert {label for _, label in passages} == set(LABELS)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("label", LABELS)
def test_what_a_killed_worker_left_is_finished_by_another(
    running: Stack, passages: Passages, label: str, when: When
) -> None:
    """In the function that passes it first; `make chaos CRASHES=1` has the others too."""
    function, scenarios = next((key[0], names) for key, names in passages.items() if key[1] == label)
    run_crash(running, scenarios, function, Strike(label, when))


def test_every_class_of_the_store_and_the_adapters_is_labelled_or_left_out_for_a_reason() -> None:
    package = Path(edda.store.__path__[0]), Path(edda.adapters.__path__[0])
    modules = {f"edda.{folder.name}.{file.stem}" for folder in package for file in folder.glob("[!_]*.py")}
    labelled = {f"edda.store.{name}" for name in STORES} | {f"edda.adapters.{name}" for name in ADAPTERS}
    for module in modules - labelled - LEFT_OUT.keys():
        assert not [cls for cls in classes_of(module) if list(coroutine_methods(cls))], f"{module} has no labels"
    assert not labelled & LEFT_OUT.keys()


def test_the_real_parser_ends_with_its_worker_and_another_parses_the_file(running: Stack) -> None:
    running.end()
    running.real_parser = True
    try:
        running.begin()
        running.strike("chunk", Strike("ParserProcess.parse", "after", action="stop"))
        running.put("acme/a.md", b"# Leave\n\nThirty days a year.\n")
        running.wait_until_quiet()
        (worker,) = [worker for worker in running.workers if worker.stopped]
        (child,) = children(worker.pid)
        os.kill(worker.pid, signal.SIGKILL)
        give_up = time.monotonic() + 20
        while Path(f"/proc/{child}").exists():
            assert time.monotonic() < give_up, "the parser outlives its worker"
            time.sleep(0.01)
        running.settle()
    finally:
        running.end()
        running.real_parser = False
    ((text, status),) = running.rows("SELECT text, status FROM chunks JOIN document_versions USING (version_id)")
    assert ("Thirty days a year." in text, status) == (True, "ready")


def children(pid: int) -> list[int]:
    """Of any of its threads."""
    return [int(child) for file in Path(f"/proc/{pid}/task").glob("*/children") for child in file.read_text().split()]
