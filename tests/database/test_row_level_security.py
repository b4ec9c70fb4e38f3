"""A tenant sees its own rows and nothing else, whatever the application forgets. Asked of Postgres' own catalogue."""

from collections.abc import Iterator
from hashlib import sha256
from uuid import UUID, uuid4

import psycopg
import pytest
from edda.errors import Unauthorized
from edda.models import Tenant
from edda.store.bucket import LastKnown, Sighting
from edda.store.database import Database
from edda.store.keys import KEY, KeyStore, create_key, create_tenant, revoke_key
from edda.store.usage import Caps, set_caps
from psycopg import sql

from tests.database.world import World
from tests.postgres import DatabaseUrls, as_owner

WITH_TENANT = """
SELECT c.relname::text FROM pg_class c
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
  AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped)
"""
ALL_PRIVILEGES = "SELECT,INSERT,UPDATE,DELETE,TRUNCATE,REFERENCES,TRIGGER"


def tables_of_tenants(urls: DatabaseUrls) -> set[str]:
    return {row[0] for row in as_owner(urls, WITH_TENANT)}


@pytest.fixture
def app(pipeline_database_urls: DatabaseUrls) -> Iterator[psycopg.Connection]:
    """The application's role, in a transaction that is rolled back."""
    with psycopg.connect(pipeline_database_urls.app) as connection:
        yield connection
        connection.rollback()


def become(app: psycopg.Connection, tenant_id: UUID | None) -> None:
    app.execute("SELECT set_config('app.tenant_id', %s, true)", ["" if tenant_id is None else str(tenant_id)])


# The catalogue ----------------------------------------------------------------------------------------------------


def test_every_table_of_tenants_is_under_forced_row_level_security_or_closed_to_the_application(
    pipeline_database_urls: DatabaseUrls,
) -> None:
    """But for one: its functions, which are the owner's, ask for the tenant themselves."""
    open_tables = as_owner(
        pipeline_database_urls,
        f"{WITH_TENANT} AND NOT (c.relrowsecurity AND (c.relforcerowsecurity OR c.relname = 'chunk_terms')) "
        f"AND (has_table_privilege('edda_app', c.oid, '{ALL_PRIVILEGES}') "
        f"OR has_any_column_privilege('edda_app', c.oid, 'SELECT,INSERT,UPDATE,REFERENCES'))",
    )
    assert open_tables == []
    assert {"documents", "document_versions", "chunks", "chunk_terms", "embeddings", "embed_batches"} <= (
        tables_of_tenants(pipeline_database_urls)
    )


def test_every_policy_compares_the_tenant_for_reading_and_for_writing(pipeline_database_urls: DatabaseUrls) -> None:
    forced = as_owner(pipeline_database_urls, f"{WITH_TENANT} AND c.relrowsecurity ORDER BY 1")
    policies = as_owner(
        pipeline_database_urls,
        "SELECT tablename::text, cmd, qual, COALESCE(with_check, qual), permissive FROM pg_policies ORDER BY 1",
    )
    rule = "(tenant_id = ( SELECT app_tenant() AS app_tenant))"
    assert policies == [(name, "ALL", rule, rule, "PERMISSIVE") for (name,) in forced]


def test_the_application_owns_nothing_and_can_bypass_nothing(pipeline_database_urls: DatabaseUrls) -> None:
    assert as_owner(
        pipeline_database_urls,
        "SELECT rolsuper, rolbypassrls, rolcreaterole, rolcreatedb, rolreplication FROM pg_roles "
        "WHERE rolname = 'edda_app'",
    ) == [(False,) * 5]
    for catalogue, column in (("pg_class", "relowner"), ("pg_proc", "proowner"), ("pg_namespace", "nspowner")):
        owned = f"SELECT * FROM {catalogue} WHERE {column} = 'edda_app'::regrole"
        assert as_owner(pipeline_database_urls, owned) == []
    assert as_owner(pipeline_database_urls, "SELECT * FROM pg_auth_members WHERE member = 'edda_app'::regrole") == []


def test_the_application_can_make_no_table(app: psycopg.Connection) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        app.execute("CREATE TABLE mine (id integer)")


@pytest.mark.parametrize("table", ["tenants", "api_keys", "schema_migrations"])
def test_the_application_cannot_read_who_there_is(app: psycopg.Connection, table: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        app.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(table)))


def test_functions_that_run_as_the_owner_fix_where_names_are_looked_up(pipeline_database_urls: DatabaseUrls) -> None:
    functions = as_owner(
        pipeline_database_urls,
        "SELECT proname::text, proconfig, has_function_privilege('public', oid, 'EXECUTE') FROM pg_proc "
        "WHERE prosecdef AND pronamespace = 'public'::regnamespace",
    )
    assert {name for name, _, _ in functions} == {
        *("authenticate", "tenant_of_slug", "all_tenants"),
        *("term_frequencies", "chunks_with_terms"),
    }
    for _, settings, open_to_all in functions:
        assert settings[0] == "search_path=pg_catalog, public, pg_temp"
        assert all(setting.startswith("enable_") for setting in settings[1:])
        assert not open_to_all


async def test_a_temporary_table_does_not_decide_who_is_who(world: World) -> None:
    """Left out of the search path, the temporary schema would come first."""
    key = f"edda_{'0' * 12}_{'A' * 43}"
    async with world.database.transaction(None) as cursor:
        await cursor.execute("CREATE TEMP TABLE tenants (tenant_id uuid, slug text)")
        await cursor.execute(
            "CREATE TEMP TABLE api_keys (prefix text, key_sha256 bytea, tenant_id uuid, revoked_at timestamptz)"
        )
        await cursor.execute("INSERT INTO pg_temp.tenants VALUES (%s, 'forged')", [world.tenant_id])
        await cursor.execute(
            "INSERT INTO pg_temp.api_keys VALUES (%s, %s, %s)",
            ["0" * 12, sha256(key.encode()).digest(), world.tenant_id],
        )
        await cursor.execute("GRANT SELECT ON pg_temp.tenants, pg_temp.api_keys TO PUBLIC")
    with pytest.raises(Unauthorized):
        await KeyStore(world.database).authenticate(key)
    assert await KeyStore(world.database).tenant_of_slug("forged") is None


# Rows -------------------------------------------------------------------------------------------------------------


async def test_without_a_tenant_every_table_is_empty_and_with_another_tenant_too(
    world: World, app: psycopg.Connection
) -> None:
    other = await create_tenant(world.urls.owner, "globex")
    await set_caps(world.urls.owner, world.tenant, Caps())
    world.rows("INSERT INTO webhooks VALUES (%s, 'https://acme.example', 'secret')", world.tenant_id)
    await world.bring_in("a.txt", "one")
    world.rows("INSERT INTO bucket_walks (tenant_id, began_at) VALUES (%s, now())", world.tenant_id)
    world.rows("INSERT INTO delete_brakes (tenant_id, began_at, deleted) VALUES (%s, now(), 0)", world.tenant_id)
    readable = [
        table
        for table in tables_of_tenants(world.urls)
        if as_owner(world.urls, "SELECT has_table_privilege('edda_app', %s, 'SELECT')", [table]) == [(True,)]
    ]
    assert len(readable) >= 5
    for table in readable:
        count = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))
        seen = []
        for tenant_id in (None, other.tenant_id, uuid4(), world.tenant_id):
            become(app, tenant_id)
            seen.append(app.execute(count).fetchone())
        assert seen[:3] == [(0,)] * 3, table
        assert seen[3] == ((2,) if table == "event_deliveries" else (1,)), table


def test_before_any_tenant_was_ever_set_every_table_is_empty(app: psycopg.Connection) -> None:
    assert app.execute("SELECT count(*) FROM documents").fetchone() == (0,)


async def test_after_a_transaction_the_tenant_is_forgotten(world: World) -> None:
    await world.bring_in("a.txt", "one")
    async with world.database.transaction(None) as cursor:
        await cursor.execute("SELECT count(*) AS n FROM documents")
        assert await cursor.fetchone() == {"n": 0}


async def test_nothing_can_be_written_in_another_tenants_name(world: World, app: psycopg.Connection) -> None:
    other = await create_tenant(world.urls.owner, "globex")
    await world.bring_in("a.txt", "one")
    statements = {
        "documents": "INSERT INTO documents (document_id, tenant_id, object_key, name) "
        "VALUES (gen_random_uuid(), %(other)s, 'k', 'n')",
        "document_versions": "INSERT INTO document_versions (version_id, tenant_id, document_id, s3_version_id, "
        "sequencer, modified_at) SELECT gen_random_uuid(), %(other)s, document_id, '', '', now() FROM documents",
        "chunks": "INSERT INTO chunks (tenant_id, version_id, ordinal, chunk_id, content_hash, text, tokens, "
        "char_start, char_end, heading_path) SELECT %(other)s, version_id, 9, version_id, version_id, '', 1, 0, 0, "
        "'{}' FROM document_versions",
        "chunk_terms": "INSERT INTO chunk_terms SELECT %(other)s, version_id, 9, content_hash, NULL, weights, terms "
        "FROM chunk_terms",
        "embeddings": "INSERT INTO embeddings SELECT %(other)s, model_id, content_hash, vector FROM embeddings",
        "embed_batches": "INSERT INTO embed_batches (tenant_id, version_id, first_ordinal, last_ordinal) "
        "SELECT %(other)s, version_id, 5, 5 FROM document_versions",
    }
    values = {"other": other.tenant_id}
    for table, statement in statements.items():
        become(app, world.tenant_id)
        update = sql.SQL("UPDATE {} SET tenant_id = %(other)s").format(sql.Identifier(table)).as_string()
        for attempt in (statement, update):
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"), app.transaction():
                app.execute(attempt.encode(), values)


async def test_no_row_hangs_below_another_tenants_whoever_writes_it(world: World) -> None:
    """Row-level security does not bind a superuser, nor foreign keys; these carry the tenant."""
    other = await create_tenant(world.urls.owner, "globex")
    await world.bring_in("a.txt", "one")
    tables = "SELECT conrelid::regclass::text FROM pg_constraint WHERE contype = 'f' AND array_length(conkey, 1) = 2"
    assert {row[0] for row in world.rows(tables)} == {
        *("documents", "document_versions", "chunks", "chunk_terms", "embed_batches"),
    }
    values = "chunk_id, content_hash, text, tokens, char_start, char_end, heading_path"
    for statement in (
        "UPDATE documents SET tenant_id = %s",
        "UPDATE document_versions SET tenant_id = %s",
        "UPDATE chunks SET tenant_id = %s",
        "UPDATE chunk_terms SET tenant_id = %s",
        "UPDATE embed_batches SET tenant_id = %s",
        f"INSERT INTO chunks (tenant_id, version_id, ordinal, {values}) SELECT %s, version_id, 9, {values} FROM chunks",
    ):
        with pytest.raises(psycopg.errors.ForeignKeyViolation):
            world.rows(statement, other.tenant_id)


async def test_another_tenants_rows_can_be_neither_changed_nor_deleted(world: World, app: psycopg.Connection) -> None:
    other = await create_tenant(world.urls.owner, "globex")
    await world.bring_in("a.txt", "one")
    for tenant_id in (None, other.tenant_id):
        become(app, tenant_id)
        for table in ("chunks", "chunk_terms", "embeddings", "embed_batches", "document_versions", "documents"):
            assert app.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(table))).rowcount == 0
        assert app.execute("UPDATE documents SET name = 'x'").rowcount == 0


async def test_the_index_of_terms_finds_the_tenant_s_own_chunks_only(world: World, app: psycopg.Connection) -> None:
    """Its functions run as the owner. Numbers of terms are the tenant's own, but another tenant could guess them."""
    other = await create_tenant(world.urls.owner, "globex")
    await world.bring_in("a.txt", "one")
    ((terms, weights),) = world.rows("SELECT terms, weights::text FROM chunk_terms")
    found = []
    for tenant_id in (None, other.tenant_id, uuid4(), world.tenant_id):
        become(app, tenant_id)
        counted = app.execute("SELECT chunks FROM term_frequencies(%s, 10)", [terms]).fetchone()
        chunks = app.execute("SELECT * FROM chunks_with_terms(%s, %s, %s::sparsevec)", [terms, [], weights])
        both = app.execute("SELECT * FROM chunks_with_terms('{}', %s, %s::sparsevec)", [[f"{{{terms[0]}}}"], weights])
        found.append((counted, len(chunks.fetchall()), len(both.fetchall())))
    assert found == [((0,), 0, 0)] * 3 + [((1,), 1, 1)]


async def test_a_document_deleted_in_another_tenants_name_stays(world: World) -> None:
    other = await create_tenant(world.urls.owner, "globex")
    await world.bring_in("a.txt", "one")
    sighting = Sighting(world.key("a.txt"), "a.txt", last_known=LastKnown(), exact=True)
    await world.sweep.bucket.object_is_gone(other.tenant_id, sighting)
    await world.sweep.bucket.set_metadata(other.tenant_id, world.key("a.txt"), {"x": 1}, None, "v")
    assert world.visible("a.txt") == ["one"]
    assert world.metadata("a.txt") == ({}, None)


# Keys -------------------------------------------------------------------------------------------------------------


@pytest.fixture
async def keys(world: World) -> KeyStore:
    return KeyStore(world.database)


@pytest.fixture
async def key(world: World) -> str:
    return await create_key(world.urls.owner, world.tenant, "test")


async def test_a_key_is_its_tenants(world: World, keys: KeyStore, key: str) -> None:
    assert await keys.authenticate(key) == world.tenant


async def test_a_key_is_stored_as_a_hash_only(world: World, key: str) -> None:
    secret = key.rpartition("_")[2]
    ((row,),) = world.rows("SELECT to_jsonb(k)::text FROM api_keys k")
    assert secret not in row
    assert sha256(key.encode()).hexdigest() in row


async def test_two_keys_of_a_tenant_differ_and_both_work(world: World, keys: KeyStore, key: str) -> None:
    second = await create_key(world.urls.owner, world.tenant, "second")
    assert second != key
    assert await keys.authenticate(second) == await keys.authenticate(key)


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "edda_",
        "x" * 10_000,
        f"edda_{'0' * 12}_{'A' * 43}",
        f"edda_{'0' * 12}_{'A' * 43}\n",
        f"EDDA_{'0' * 12}_{'A' * 43}",
        f"edda_{'0' * 12}_{'ä' * 43}",
        f"edda_{'0' * 12}_' OR true --",
        "edda_\0",
        "\ud800",
    ],
)
async def test_a_key_that_is_malformed_or_unknown_is_unauthorized(keys: KeyStore, wrong: str) -> None:
    with pytest.raises(Unauthorized):
        await keys.authenticate(wrong)


async def test_a_key_with_another_secret_is_unauthorized(keys: KeyStore, key: str) -> None:
    last = "A" if key[-1] != "A" else "B"
    with pytest.raises(Unauthorized):
        await keys.authenticate(key[:-1] + last)


async def test_a_revoked_key_is_unauthorized_at_once(world: World, keys: KeyStore, key: str) -> None:
    prefix = key.split("_")[1]
    assert await revoke_key(world.urls.owner, prefix) is True
    with pytest.raises(Unauthorized):
        await keys.authenticate(key)
    assert await revoke_key(world.urls.owner, prefix) is False


async def test_every_key_that_is_made_has_the_form_that_is_checked(world: World) -> None:
    for _ in range(20):
        assert KEY.fullmatch(await create_key(world.urls.owner, world.tenant, "test"))


async def test_a_tenant_made_twice_is_one_tenant(world: World) -> None:
    assert await create_tenant(world.urls.owner, world.tenant.slug) == world.tenant


@pytest.mark.parametrize("slug", ["", "-a", "A", "a/b", "a_b", "ä", "a" * 64, "..", "a\n"])
async def test_a_slug_that_is_no_folder_name_is_refused(world: World, slug: str) -> None:
    with pytest.raises(psycopg.errors.CheckViolation):
        await create_tenant(world.urls.owner, slug)


@pytest.mark.parametrize("slug", ["globex", "ACME", "", "acme ", "'"])
async def test_a_folder_that_is_nobodys_has_no_tenant(keys: KeyStore, slug: str) -> None:
    assert await keys.tenant_of_slug(slug) is None


async def test_all_tenants_are_told_to_the_sweep(world: World, keys: KeyStore) -> None:
    other = await create_tenant(world.urls.owner, "globex")
    assert set(await keys.all_tenants()) == {world.tenant, other}


async def test_looking_a_tenant_up_needs_no_tenant(database: Database, tenant: Tenant) -> None:
    assert await KeyStore(database).tenant_of_slug("acme") == tenant
