"""A real Postgres for every test that asks: one server a session, one migrated template, a fresh copy per test.

Ask for `database_urls` and get the URLs of an empty, migrated database of your own: as its owner, who sees
everything, and as the application's role, which is under row-level security.
"""

import asyncio
from collections.abc import Iterator
from itertools import count

import pytest
from edda.models import EmbeddingModel
from edda.store.migrations import migrate, register_model

from tests.postgres import MODEL_DIMENSIONS, MODEL_NAME, Cluster, DatabaseUrls, running_cluster

pytest_plugins = ["tests.aws"]

TEMPLATE = "edda_template"


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Async tests and fixtures run on asyncio, as everything does in Lambda."""
    return "asyncio"


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A Postgres with pgvector in a folder of its own, gone when the session ends."""
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def template(cluster: Cluster) -> EmbeddingModel:
    """The migrated database that every test copies, with one embedding model registered in it."""
    cluster.administer(f"CREATE DATABASE {TEMPLATE}")
    owner = cluster.urls(TEMPLATE).owner

    async def build() -> EmbeddingModel:
        await migrate(owner)
        return await register_model(owner, MODEL_NAME, MODEL_DIMENSIONS)

    return asyncio.run(build())


@pytest.fixture
def embedding_model(template: EmbeddingModel) -> EmbeddingModel:
    """The model registered in every test's database."""
    return template


_numbers = count(1)


@pytest.fixture
def database_urls(cluster: Cluster, template: EmbeddingModel) -> Iterator[DatabaseUrls]:
    """A database of the test's own."""
    name = f"edda_test_{next(_numbers)}"
    cluster.administer(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
    yield cluster.urls(name)
    cluster.administer(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def empty_database_url(cluster: Cluster) -> Iterator[str]:
    """The owner's URL of a database without a schema, for tests of the migrations themselves."""
    name = f"edda_empty_{next(_numbers)}"
    cluster.administer(f"CREATE DATABASE {name}")
    yield cluster.urls(name).owner
    cluster.administer(f"DROP DATABASE {name} WITH (FORCE)")
