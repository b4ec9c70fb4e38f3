"""The database that workers share: emptied before each schedule, and made older where others would wait."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import psycopg
from edda.store.migrations import migrate, register_model
from psycopg import sql

from tests.postgres import Cluster, DatabaseUrls
from tests.simulation.database import MODEL_DIMENSIONS, MODEL_NAME

NAME = "edda_processes"
EMPTY = ("documents", "embeddings", "tenants")  # everything else goes with these


@contextmanager
def migrated_database(cluster: Cluster) -> Iterator[DatabaseUrls]:
    """Gone afterwards."""
    cluster.administer(f"CREATE DATABASE {NAME}")
    urls = cluster.urls(NAME)

    async def build() -> None:
        await migrate(urls.owner)
        await register_model(urls.owner, MODEL_NAME, MODEL_DIMENSIONS)

    try:
        asyncio.run(build())
        yield urls
    finally:
        cluster.administer(f"DROP DATABASE {NAME} WITH (FORCE)")


def make_database(urls: DatabaseUrls, tenants: Sequence[str], webhook: str) -> None:
    """Empty, but for these tenants; the first of them has a webhook."""
    with psycopg.connect(urls.owner) as connection:
        connection.execute("UPDATE documents SET current_version_id = NULL")
        for table in EMPTY:
            connection.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(table)))
        for slug in tenants:
            connection.execute("INSERT INTO tenants (slug) VALUES (%s)", [slug])
        connection.execute(
            "INSERT INTO webhooks (tenant_id, url, secret) SELECT tenant_id, %s, %s FROM tenants WHERE slug = %s",
            [webhook, "whsec_" + "MDAw" * 8, tenants[0]],
        )


def make_older(urls: DatabaseUrls, seconds: float) -> None:
    """Every time in every tenant's rows."""
    with psycopg.connect(urls.owner) as connection:
        columns = connection.execute(
            "SELECT c.table_name, array_agg(c.column_name::text ORDER BY c.column_name) "
            "FROM information_schema.columns c JOIN information_schema.columns t USING (table_schema, table_name) "
            "WHERE table_schema = 'public' AND t.column_name = 'tenant_id' "
            "AND c.data_type = 'timestamp with time zone' GROUP BY 1 ORDER BY 1"
        ).fetchall()
        for table, names in columns:
            moved = [
                sql.SQL("{name} = {name} - make_interval(secs => {seconds})").format(
                    name=sql.Identifier(name), seconds=sql.Literal(seconds)
                )
                for name in names
            ]
            connection.execute(sql.SQL("UPDATE {} SET {}").format(sql.Identifier(table), sql.SQL(", ").join(moved)))
