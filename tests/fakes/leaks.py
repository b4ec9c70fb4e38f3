"""A fixture for tests that start tasks: import it, and ask for it by name."""

import asyncio
from collections.abc import AsyncIterator

import pytest


@pytest.fixture
async def no_leaked_tasks() -> AsyncIterator[None]:
    """Whatever a test starts has ended when it ends."""
    before = asyncio.all_tasks()
    yield
    leaked = [task for task in asyncio.all_tasks() - before if "TestRunner" not in repr(task.get_coro())]
    assert leaked == []
