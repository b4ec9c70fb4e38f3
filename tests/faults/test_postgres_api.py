"""While Postgres cannot be used, both HTTP functions say so in a problem, and work as soon as it can be used."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import psycopg
import pytest
from edda.models import EmbeddingModel
from edda.runtime import run
from edda.store.migrations import migrate, register_model

from tests.faults.conftest import DATABASE, all_connections
from tests.handlers.stage import Answer, Stage, build_stage
from tests.postgres import MODEL_DIMENSIONS, MODEL_NAME, Cluster, DatabaseUrls, as_owner

NOWHERE = "00000000-0000-7000-8000-000000000000"
Trouble = Callable[[Cluster, DatabaseUrls, Stage], AbstractContextManager[None]]


@pytest.fixture(scope="module")
def stage(urls: DatabaseUrls) -> Iterator[Stage]:
    async def build() -> EmbeddingModel:
        await migrate(urls.owner)
        return await register_model(urls.owner, MODEL_NAME, MODEL_DIMENSIONS)

    built = build_stage(urls, asyncio.run(build()), 1)
    yield built
    run(built.world.database.aclose())


@contextmanager
def crashed(server: Cluster, urls: DatabaseUrls, stage: Stage) -> Iterator[None]:
    server.crash()
    try:
        yield
    finally:
        server.start()


@contextmanager
def without_connections(server: Cluster, urls: DatabaseUrls, stage: Stage) -> Iterator[None]:
    """53300: others hold them all."""
    run(stage.world.database.aclose())
    with all_connections(urls):
        yield


@contextmanager
def failed_over(server: Cluster, urls: DatabaseUrls, stage: Stage) -> Iterator[None]:
    """The writer became a reader."""
    as_owner(urls, f"ALTER DATABASE {DATABASE} SET default_transaction_read_only = on")
    run(stage.world.database.aclose())
    try:
        yield
    finally:
        with psycopg.connect(urls.owner, autocommit=True) as owner:
            owner.execute("SET default_transaction_read_only = off")
            owner.execute(f"ALTER DATABASE {DATABASE} RESET default_transaction_read_only".encode())


def reads(stage: Stage) -> list[Answer]:
    client = stage.client
    paths = ("/v1/health", "/v1/documents", f"/v1/documents/{NOWHERE}", "/v1/usage")
    return [client.search(), *(client.send("GET", path) for path in paths)]


def writes(stage: Stage) -> list[Answer]:
    client = stage.client
    return [client.upload(b"never"), client.send("POST", "/v1/uploads", json={"name": "never.txt"})]


@pytest.mark.parametrize("trouble", [crashed, without_connections])
def test_every_route_says_503_and_when_to_come_again(
    server: Cluster, urls: DatabaseUrls, stage: Stage, trouble: Trouble
) -> None:
    stage.ready(b"Some text.", "kept.txt")
    with trouble(server, urls, stage):
        for answer in reads(stage) + writes(stage):
            assert_come_again(answer)
    found = stage.client.search("Some text.").json["hits"]
    assert [hit["name"] for hit in found] == ["kept.txt"]
    assert [document["name"] for document in listed(stage)] == ["kept.txt"]
    assert stage.client.send("DELETE", f"/v1/documents/{listed(stage)[0]['document_id']}").status == 204


def test_on_a_reader_reading_goes_on_and_writing_says_503(server: Cluster, urls: DatabaseUrls, stage: Stage) -> None:
    with failed_over(server, urls, stage):
        for answer in writes(stage):
            assert_come_again(answer)
        assert stage.client.search().status == 200
    assert_come_again(stage.client.upload(b"now"))  # so it is found out that this connection was to a reader
    assert stage.client.upload(b"now").status == 202


def assert_come_again(answer: Answer) -> None:
    assert (answer.status, answer.json["code"]) == (503, "database_unavailable"), answer.body
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json["type"] == "urn:edda:problem:database_unavailable"
    assert int(answer.headers["retry-after"]) > 0
    assert not [name for name in ("edda_app", DATABASE, "PGSQL") if name in answer.body.decode()]


def listed(stage: Stage) -> list[dict[str, str]]:
    documents: list[dict[str, str]] = stage.client.send("GET", "/v1/documents").json["documents"]
    return documents
