"""What tests of the store start from: the application's connection, and two tenants to keep apart."""

from collections.abc import AsyncIterator, Iterator

import pytest
from edda.models import EmbeddingModel, Tenant
from edda.store.database import Database
from edda.store.keys import create_tenant

from tests.conftest import TEMPLATE
from tests.database.parts import LINES, PARTS
from tests.database.shelf import Shelf
from tests.database.world import World, check
from tests.fakes.leaks import no_leaked_tasks  # noqa: F401 - a fixture
from tests.postgres import Cluster, DatabaseUrls, as_owner


@pytest.fixture
async def database(database_urls: DatabaseUrls) -> AsyncIterator[Database]:
    """The application's connection, under row-level security."""

    async def conninfo() -> str:
        return database_urls.app

    database = Database(conninfo)
    yield database
    await database.aclose()


@pytest.fixture
async def tenant(database_urls: DatabaseUrls) -> Tenant:
    """The tenant whose data a test writes."""
    return await create_tenant(database_urls.owner, "acme")


@pytest.fixture
async def other_tenant(database_urls: DatabaseUrls) -> Tenant:
    """A tenant that must never see it."""
    return await create_tenant(database_urls.owner, "globex")


@pytest.fixture
def shelf(database_urls: DatabaseUrls, embedding_model: EmbeddingModel, tenant: Tenant, database: Database) -> Shelf:
    """The tenant's chunks, none as yet."""
    return Shelf(database_urls, embedding_model, tenant, database)


@pytest.fixture(scope="session")
def pipeline_database_urls(cluster: Cluster, template: EmbeddingModel) -> Iterator[DatabaseUrls]:
    """One database for all tests of the pipeline: making one for each takes longer than the tests themselves."""
    cluster.administer(f"CREATE DATABASE edda_pipeline TEMPLATE {TEMPLATE}")
    yield cluster.urls("edda_pipeline")
    cluster.administer("DROP DATABASE edda_pipeline WITH (FORCE)")


@pytest.fixture
async def world(pipeline_database_urls: DatabaseUrls, embedding_model: EmbeddingModel) -> AsyncIterator[World]:
    """One tenant's whole pipeline; what must be true after every schedule is checked when the test is over."""
    built = await World.build(pipeline_database_urls, embedding_model)
    yield built
    await built.database.aclose()
    try:
        check(pipeline_database_urls)
    finally:
        as_owner(pipeline_database_urls, "DELETE FROM documents")
        as_owner(pipeline_database_urls, "DELETE FROM embeddings")
        as_owner(pipeline_database_urls, "DELETE FROM api_keys")
        as_owner(pipeline_database_urls, "DELETE FROM tenants")


@pytest.fixture
def parts(world: World) -> World:
    world.parser.part_lines = len(LINES) // PARTS
    return world
