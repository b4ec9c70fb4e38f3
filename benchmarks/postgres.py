"""The one Postgres of a benchmark run, and a fresh database in it for each contestant's turn."""

import asyncio
import contextlib
import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from edda.store.keys import create_tenant
from edda.store.migrations import migrate, register_model
from psycopg import sql

from benchmarks.processes import cpu_with_children_s
from local.postgres import data_home, database
from local.settings import LocalSettings

EDDA_MODEL = "openai/benchmark"
TENANT = "benchmark"
# As durable as any, with room to work: no checkpoint and no cold cache in the middle of a run.
SETTINGS = {
    "shared_buffers": "1GB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "1h",
    "max_connections": "200",
    "maintenance_work_mem": "512MB",
}
# What a peer that brings no schema of its own writes to.
PEER_TABLE = "CREATE TABLE chunks (id bigint PRIMARY KEY, text text NOT NULL, embedding vector({dimensions}) NOT NULL)"


@dataclass(frozen=True, slots=True)
class Server:
    """A running Postgres."""

    pid: int
    superuser_url: str
    owner_url: str
    application_url: str
    templates: set[str] = field(default_factory=set)

    @property
    def cpu_s(self) -> float:
        """What it has used so far, the sessions that have ended included."""
        return cpu_with_children_s(self.pid)

    def administer(self, *statements: str) -> None:
        with psycopg.connect(self.superuser_url, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    @contextlib.contextmanager
    def fresh(self, kind: str, dimensions: int) -> Iterator["Fresh"]:
        """A database for one turn, gone afterwards: Edda's schema, a plain table, or empty."""
        name = "turn"
        self.administer(
            f"DROP DATABASE IF EXISTS {name} WITH (FORCE)",
            f"CREATE DATABASE {name} TEMPLATE {self._template(kind, dimensions)}",
            "CHECKPOINT",  # what was copied is not written during the measurement
        )
        try:
            yield Fresh(*(_other(url, name) for url in (self.superuser_url, self.owner_url, self.application_url)))
        finally:
            self.administer(f"DROP DATABASE {name} WITH (FORCE)")

    def _template(self, kind: str, dimensions: int) -> str:
        """What turns are copied from, made at the first."""
        name = f"{kind}_{dimensions}"
        if name not in self.templates:
            self.administer(
                f"DROP DATABASE IF EXISTS {name} WITH (FORCE)", f"CREATE DATABASE {name} OWNER edda_owner TEMPLATE edda"
            )
            owner = _other(self.owner_url, name)
            if kind == "edda":
                asyncio.run(_make_edda(owner, dimensions))
            elif kind == "table":
                with psycopg.connect(owner, autocommit=True) as connection:
                    connection.execute(PEER_TABLE.format(dimensions=dimensions).encode())
            self.templates.add(name)
        return name


@dataclass(frozen=True, slots=True)
class Fresh:
    """One turn's database, seen by three roles."""

    superuser_url: str
    owner_url: str
    application_url: str

    def url_for(self, kind: str) -> str:
        """Edda's role is under row-level security; who brings a schema of his own may make what he likes."""
        return {"edda": self.application_url, "table": self.owner_url, "empty": self.superuser_url}[kind]

    def rows(self, query: str, values: Any = None) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.superuser_url, autocommit=True) as connection:
            cursor = connection.execute(query.encode(), values)
            return cursor.fetchall() if cursor.description else []

    @property
    def sessions(self) -> int:
        """How many are open, but for this one."""
        query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        return int(self.rows(query)[0][0])


@contextlib.contextmanager
def server(state: Path) -> Iterator[Server]:
    """Run Postgres for as long as the block lasts; its data stays in `state`."""
    settings = LocalSettings(state=state, port=0, database_port=free_port(), zipped_layers=False)
    with database(settings) as running:
        superuser = _superuser_url(settings, running.owner_url)
        with psycopg.connect(superuser, autocommit=True) as connection:
            for name, value in SETTINGS.items():
                set_value = sql.SQL("ALTER SYSTEM SET {} = {}").format(sql.Identifier(name), sql.Literal(value))
                connection.execute(set_value)
    with database(settings) as running:  # again, for some of these settings need a start
        yield Server(running.server.pid, superuser, running.owner_url, running.application_url)


async def _make_edda(owner_url: str, dimensions: int) -> None:
    await migrate(owner_url)
    await register_model(owner_url, EDDA_MODEL, dimensions)
    await create_tenant(owner_url, TENANT)


def _other(url: str, database_name: str) -> str:
    return f"{url.rpartition('/')[0]}/{database_name}"


def _superuser_url(settings: LocalSettings, owner_url: str) -> str:
    passwords = json.loads((data_home(settings) / "passwords.json").read_text())
    address = owner_url.rpartition("@")[2].rpartition("/")[0]
    return f"postgresql://postgres:{passwords['postgres']}@{address}/postgres"


def free_port() -> int:
    """Nobody listens there now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port
