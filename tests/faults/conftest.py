"""A Postgres that may be hurt: of these tests alone, as careful with its data as a real one."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from itertools import count

import psycopg
import pytest
from edda.models import EmbeddingModel
from edda.store.migrations import migrate, register_model

from tests.database.world import World, check
from tests.postgres import MODEL_DIMENSIONS, MODEL_NAME, Cluster, DatabaseUrls, running_cluster

CAREFUL = """
fsync = on
synchronous_commit = on
full_page_writes = on
max_connections = 14
superuser_reserved_connections = 4
track_commit_timestamp = on
"""
DATABASE = "fragile"

_numbers = count(1)


@pytest.fixture(scope="module")
def server() -> Iterator[Cluster]:
    with running_cluster(CAREFUL) as server:
        server.administer(f"CREATE DATABASE {DATABASE}")
        yield server


@pytest.fixture(scope="module")
def urls(server: Cluster) -> DatabaseUrls:
    return server.urls(DATABASE)


@pytest.fixture(scope="module")
async def model(urls: DatabaseUrls) -> EmbeddingModel:
    await migrate(urls.owner)
    return await register_model(urls.owner, MODEL_NAME, MODEL_DIMENSIONS)


@pytest.fixture
async def world(urls: DatabaseUrls, model: EmbeddingModel) -> AsyncIterator[World]:
    """A tenant of the test's own. What must be true after every schedule is checked when the test is over."""
    built = await World.build(urls, model, f"acme-{next(_numbers)}")
    yield built
    await built.database.aclose()
    check(urls)


@contextmanager
def all_connections(urls: DatabaseUrls) -> Iterator[list[psycopg.Connection]]:
    """Idle connections of the application's role, as many as there are."""
    held: list[psycopg.Connection] = []
    try:
        while True:
            try:
                held.append(psycopg.connect(urls.app))
            except psycopg.OperationalError:
                break
        assert held
        yield held
    finally:
        for connection in held:
            connection.close()
