"""One stack for all tests of real processes: its workers stay from test to test."""

from collections.abc import Iterator

import pytest

from tests.postgres import Cluster
from tests.processes.stack import Stack, running_stack


@pytest.fixture(scope="session")
def running(cluster: Cluster) -> Iterator[Stack]:
    with running_stack(cluster) as stack:
        yield stack


@pytest.fixture
def stack(running: Stack) -> Stack:
    """An empty world with two tenants, and one worker of each function."""
    running.begin()
    return running
