"""Migrations: once, in order, all or nothing, whoever runs them at the same time."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from uuid import uuid4

import psycopg
import pytest
from edda.models import EmbeddingModel
from edda.store.keys import KeyStore, create_key, create_tenant
from edda.store.migrations import Migration, MigrationError, migrate, register_model, released_migrations
from psycopg.conninfo import make_conninfo

from tests.database.world import World, check
from tests.postgres import Cluster, DatabaseUrls

FIRST = Migration("0001_first.sql", "CREATE TABLE first (id integer); INSERT INTO first VALUES (1)")
SECOND = Migration("0002_second.sql", "ALTER TABLE first ADD name text; UPDATE first SET name = 'one'")
BROKEN = Migration("0003_broken.sql", "CREATE TABLE third (id integer); SELECT 1 / 0")


def query(url: str, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(statement.encode()).fetchall()


def tables(url: str) -> list[str]:
    rows = query(url, "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
    return [str(row[0]) for row in rows]


def test_released_migrations_are_numbered_without_gaps_and_alike() -> None:
    numbers = [int(migration.name.partition("_")[0]) for migration in released_migrations()]
    assert numbers == list(range(1, len(numbers) + 1))


async def test_every_migration_is_applied_once_and_in_order(empty_database_url: str) -> None:
    assert await migrate(empty_database_url, migrations=[FIRST]) == ["0001_first.sql"]
    assert await migrate(empty_database_url, migrations=[FIRST, SECOND]) == ["0002_second.sql"]
    assert await migrate(empty_database_url, migrations=[FIRST, SECOND]) == []
    assert query(empty_database_url, "SELECT * FROM first") == [(1, "one")]


async def test_the_released_migrations_can_be_applied_again_and_again(empty_database_url: str) -> None:
    names = [migration.name for migration in released_migrations()]
    assert await migrate(empty_database_url) == names
    assert await migrate(empty_database_url) == []


async def test_many_that_migrate_at_once_apply_everything_once(empty_database_url: str) -> None:
    outcomes = await asyncio.gather(*(migrate(empty_database_url, migrations=[FIRST, SECOND]) for _ in range(6)))
    assert sorted(outcomes, key=len)[:5] == [[]] * 5
    assert query(empty_database_url, "SELECT * FROM first") == [(1, "one")]


async def test_many_that_deploy_at_once_make_one_model_and_one_tenant(empty_database_url: str) -> None:
    async def deploy() -> EmbeddingModel:
        await migrate(empty_database_url, app_password="secret")
        model = await register_model(empty_database_url, "fake/hash", 64)
        await create_tenant(empty_database_url, "acme")
        return model

    models = await asyncio.gather(*(deploy() for _ in range(8)))
    assert len(set(models)) == 1
    assert query(empty_database_url, "SELECT count(*) FROM embedding_models") == [(1,)]
    assert query(empty_database_url, "SELECT count(*) FROM tenants") == [(1,)]


async def test_a_migration_changed_after_it_was_applied_is_refused(empty_database_url: str) -> None:
    await migrate(empty_database_url, migrations=[FIRST])
    changed = replace(FIRST, text=FIRST.text + " ")
    with pytest.raises(MigrationError, match=r"0001_first\.sql was changed"):
        await migrate(empty_database_url, migrations=[changed, SECOND])
    assert query(empty_database_url, "SELECT name FROM schema_migrations") == [("0001_first.sql",)]


async def test_a_release_older_than_the_database_is_refused(empty_database_url: str) -> None:
    await migrate(empty_database_url, migrations=[FIRST, SECOND])
    with pytest.raises(MigrationError, match="older than the database"):
        await migrate(empty_database_url, migrations=[FIRST])


async def test_a_dry_run_says_what_is_pending_and_writes_nothing(empty_database_url: str) -> None:
    assert await migrate(empty_database_url, dry_run=True, migrations=[FIRST, SECOND]) == [FIRST.name, SECOND.name]
    assert tables(empty_database_url) == []
    await migrate(empty_database_url, migrations=[FIRST])
    assert await migrate(empty_database_url, dry_run=True, migrations=[FIRST, SECOND]) == [SECOND.name]
    assert query(empty_database_url, "SELECT * FROM first") == [(1,)]


async def test_a_migration_that_fails_leaves_nothing_of_itself_and_keeps_those_before_it(
    empty_database_url: str,
) -> None:
    with pytest.raises(psycopg.errors.DivisionByZero):
        await migrate(empty_database_url, migrations=[FIRST, SECOND, BROKEN])
    assert tables(empty_database_url) == ["first", "schema_migrations"]
    mended = replace(BROKEN, text="CREATE TABLE third (id integer)")
    assert await migrate(empty_database_url, migrations=[FIRST, SECOND, mended]) == [BROKEN.name]


async def test_a_migration_that_failed_blocks_nobody(empty_database_url: str) -> None:
    with pytest.raises(psycopg.errors.DivisionByZero):
        await migrate(empty_database_url, migrations=[BROKEN])
    async with asyncio.timeout(5):
        await migrate(empty_database_url, migrations=[FIRST])


async def test_registering_a_model_twice_is_the_same_model(empty_database_url: str) -> None:
    await migrate(empty_database_url)
    first = await register_model(empty_database_url, "fake/hash", 64)
    assert await register_model(empty_database_url, "fake/hash", 64) == first
    assert (await register_model(empty_database_url, "fake/hash", 128)).model_id != first.model_id


async def test_a_model_with_more_dimensions_than_an_index_takes_is_refused(empty_database_url: str) -> None:
    await migrate(empty_database_url)
    with pytest.raises(psycopg.errors.CheckViolation):
        await register_model(empty_database_url, "fake/hash", 4001)
    assert (await register_model(empty_database_url, "fake/large", 4000)).dimensions == 4000


@pytest.fixture
def ordinary_owner_url(cluster: Cluster) -> Iterator[str]:
    """An empty database whose owner is no superuser, as a managed Postgres has it."""
    name = f"edda_{uuid4().hex}"
    cluster.administer("DROP ROLE IF EXISTS edda_owner")
    cluster.administer("CREATE ROLE edda_owner LOGIN CREATEROLE")
    cluster.administer(f"CREATE DATABASE {name} OWNER edda_owner")
    with psycopg.connect(cluster.url(name, "postgres"), autocommit=True) as connection:
        connection.execute("CREATE EXTENSION vector")  # there an administrator's right that the owner has
    yield cluster.url(name, "edda_owner")
    cluster.administer(f"DROP DATABASE {name} WITH (FORCE)")
    cluster.administer("DROP ROLE edda_owner")


async def test_everything_works_for_an_owner_who_is_no_superuser(
    cluster: Cluster, template: EmbeddingModel, ordinary_owner_url: str
) -> None:
    """Forced row-level security applies to this owner: keys, foreign keys and cascades must not need to bypass it."""
    await migrate(ordinary_owner_url)
    model = await register_model(ordinary_owner_url, "fake/hash", 64)
    name = psycopg.conninfo.conninfo_to_dict(ordinary_owner_url)["dbname"]
    urls = DatabaseUrls(owner=ordinary_owner_url, app=make_conninfo(ordinary_owner_url, user="edda_app"))
    world = await World.build(urls, model)
    key = await create_key(ordinary_owner_url, world.tenant, "test")
    assert await KeyStore(world.database).authenticate(key) == world.tenant
    await world.bring_in("a.txt", "one\ntwo")
    await world.bring_in("a.txt", "two\nthree")
    assert (await world.run_sweep())["versions_dropped"] == 1
    await world.notice(await world.delete("a.txt"))
    await world.database.aclose()
    assert world.rows("SELECT count(*) FROM documents") == [(0,)]  # the owner is under row-level security
    everything = DatabaseUrls(owner=cluster.url(str(name), "postgres"), app=urls.app)
    check(everything)
    assert query(everything.owner, "SELECT count(*) FROM chunks") == [(0,)]
    assert query(everything.owner, "SELECT count(*) FROM documents WHERE deleted_at IS NOT NULL") == [(1,)]


OLD_CHUNK = """
WITH tenant AS (SELECT %(tenant)s::uuid AS id),
document AS (INSERT INTO documents (document_id, tenant_id, object_key, name)
    SELECT gen_random_uuid(), id, 'a', 'a' FROM tenant RETURNING document_id),
version AS (INSERT INTO document_versions (version_id, tenant_id, document_id, s3_version_id, sequencer, modified_at)
    SELECT gen_random_uuid(), id, document_id, '1', 'a', now() FROM tenant, document RETURNING version_id)
INSERT INTO chunks (tenant_id, version_id, ordinal, chunk_id, content_hash, text, tokens, char_start, char_end,
                    heading_path, language)
SELECT id, version_id, n, gen_random_uuid(), gen_random_uuid(), 'a', 1, 0, 1, '{}', 'en'
FROM tenant, version, generate_series(0, 1) n"""


async def test_terms_of_what_is_stored_already_are_to_be_made(ordinary_owner_url: str) -> None:
    """Of every tenant, though row-level security is forced on the owner; and searches go on."""
    *before, made = [migration for migration in released_migrations() if migration.name < "0007"]
    await migrate(ordinary_owner_url, migrations=before)
    tenants = [(await create_tenant(ordinary_owner_url, slug)).tenant_id for slug in ("one", "two")]
    for tenant_id in tenants:
        with psycopg.connect(ordinary_owner_url) as connection:
            connection.execute("SELECT set_config('app.tenant_id', %s, true)", [str(tenant_id)])
            connection.execute(OLD_CHUNK.encode(), {"tenant": str(tenant_id)})
    with psycopg.connect(ordinary_owner_url) as reader:
        reader.execute("SELECT count(*) FROM chunks, documents, document_versions")
        async with asyncio.timeout(20):
            await migrate(ordinary_owner_url, migrations=[*before, made])
    forced = "SELECT relname::text FROM pg_class WHERE relforcerowsecurity AND relname IN ('chunks', 'chunk_terms')"
    assert query(ordinary_owner_url, forced) == [("chunks",)]
    await migrate(ordinary_owner_url)
    for tenant_id in tenants:
        with psycopg.connect(ordinary_owner_url) as connection:
            connection.execute("SELECT set_config('app.tenant_id', %s, true)", [str(tenant_id)])
            assert connection.execute("SELECT terms_from FROM document_versions").fetchall() == [(-1,)]
