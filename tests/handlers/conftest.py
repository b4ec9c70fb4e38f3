"""The functions' stage: tenants of its own for each test, one database for all."""

from collections.abc import Iterator
from itertools import count

import pytest
from edda.models import EmbeddingModel
from edda.runtime import run

from tests.conftest import TEMPLATE
from tests.handlers.asking import ask_about  # noqa: F401 - a fixture
from tests.handlers.environment import (  # noqa: F401 - fixtures
    cold_start,
    lambda_database,
    owner_of_acme,
    parser,
    provider,
    surroundings,
)
from tests.handlers.stage import Stage, build_stage
from tests.postgres import Cluster, DatabaseUrls

_numbers = count(1)


@pytest.fixture(scope="session")
def handlers_database_urls(cluster: Cluster, template: EmbeddingModel) -> Iterator[DatabaseUrls]:
    """Row-level security keeps the tests apart, as it does tenants."""
    cluster.administer(f"CREATE DATABASE edda_handlers TEMPLATE {TEMPLATE}")
    yield cluster.urls("edda_handlers")
    cluster.administer("DROP DATABASE edda_handlers WITH (FORCE)")


@pytest.fixture
def stage(handlers_database_urls: DatabaseUrls, embedding_model: EmbeddingModel) -> Iterator[Stage]:
    """Two tenants and both HTTP functions."""
    built = build_stage(handlers_database_urls, embedding_model, next(_numbers))
    yield built
    run(built.world.database.aclose())
