"""Schema migrations: plain SQL files, applied in order, once, under an advisory lock, frozen by hash once released.

About a hundred lines of our own rather than a migration tool: no ORM is used here whose models could be compared, a
tool's own dependencies would travel in the migrate function, and what is needed is this little.
"""

from dataclasses import dataclass
from decimal import Decimal
from hashlib import sha256
from importlib.resources import files

from psycopg import AsyncConnection, sql
from psycopg.rows import dict_row

from edda.models import EmbeddingModel

LOCK = "SELECT pg_advisory_lock(hashtextextended('edda migrations', 0))"
UNLOCK = "SELECT pg_advisory_unlock(hashtextextended('edda migrations', 0))"
JOURNAL = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    name       text PRIMARY KEY,
    sha256     text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)"""


class MigrationError(Exception):
    """The files and the database do not fit together."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file of `edda/sql/migrations`."""

    name: str
    text: str

    @property
    def sha256(self) -> str:
        return sha256(self.text.encode()).hexdigest()


def released_migrations() -> list[Migration]:
    """Every migration of this release, in order."""
    folder = files("edda").joinpath("sql/migrations")
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return [Migration(name, folder.joinpath(name).read_text(encoding="utf-8")) for name in names]


async def migrate(
    conninfo: str, *, app_password: str | None = None, dry_run: bool = False, migrations: list[Migration] | None = None
) -> list[str]:
    """Bring the schema up to date as its owner. The names of the migrations applied (or, in a dry run, pending).

    `app_password` is given to the application's role `edda_app`, which is made if it is not there.
    Raises MigrationError when a migration that was applied has since been changed or removed.
    """
    async with await AsyncConnection.connect(conninfo, autocommit=True, row_factory=dict_row) as connection:
        await connection.execute(LOCK)
        try:
            if not dry_run:
                await connection.execute(JOURNAL)
            pending = await _pending(connection, migrations if migrations is not None else released_migrations())
            if not dry_run:
                await _ensure_app_role(connection, app_password)
                for migration in pending:
                    await _apply(connection, migration)
            return [migration.name for migration in pending]
        finally:
            await connection.execute(UNLOCK)


async def _pending(connection: AsyncConnection[dict[str, str]], migrations: list[Migration]) -> list[Migration]:
    applied: dict[str, str] = {}
    cursor = await connection.execute("SELECT 1 WHERE to_regclass('schema_migrations') IS NOT NULL")
    if await cursor.fetchone() is not None:
        cursor = await connection.execute("SELECT name, sha256 FROM schema_migrations")
        applied = {row["name"]: row["sha256"] for row in await cursor.fetchall()}
    known = {migration.name: migration.sha256 for migration in migrations}
    for name, digest in applied.items():
        if name not in known:
            raise MigrationError(f"the database has {name}, this release does not: it is older than the database")
        if known[name] != digest:
            raise MigrationError(f"{name} was changed after it was applied; write a new migration instead")
    return [migration for migration in migrations if migration.name not in applied]


async def _apply(connection: AsyncConnection[dict[str, str]], migration: Migration) -> None:
    async with connection.transaction():
        await connection.execute(migration.text.encode())
        await connection.execute(
            "INSERT INTO schema_migrations (name, sha256) VALUES (%s, %s)", [migration.name, migration.sha256]
        )


async def _ensure_app_role(connection: AsyncConnection[dict[str, str]], password: str | None) -> None:
    """Roles belong to the whole cluster: two databases of it may migrate at once, so losing the race is fine."""
    await connection.execute(
        "DO $$ BEGIN CREATE ROLE edda_app LOGIN NOSUPERUSER NOBYPASSRLS; "
        "EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$"
    )
    if password is not None:
        await connection.execute(sql.SQL("ALTER ROLE edda_app PASSWORD {}").format(sql.Literal(password)))


async def register_model(
    conninfo: str, name: str, dimensions: int, *, price_per_million_tokens: Decimal = Decimal(0)
) -> EmbeddingModel:
    """The number of an embedding model, made if it is new. Runs as the schema's owner.

    The price is for the usage ledger: what is counted from now on costs this.
    """
    async with await AsyncConnection.connect(conninfo, autocommit=True, row_factory=dict_row) as connection:
        await connection.execute(
            "INSERT INTO embedding_models (name, dimensions, price_per_million_tokens) VALUES (%s, %s, %s) "
            "ON CONFLICT (name, dimensions) DO UPDATE SET price_per_million_tokens = EXCLUDED.price_per_million_tokens",
            [name, dimensions, price_per_million_tokens],
        )
        cursor = await connection.execute(
            "SELECT model_id FROM embedding_models WHERE name = %s AND dimensions = %s", [name, dimensions]
        )
        row = await cursor.fetchone()
        if row is None:
            raise MigrationError(f"the embedding model {name} could not be registered")
        return EmbeddingModel(row["model_id"], name, dimensions)
