"""`make local`: Postgres, the emulator, the built and deployed template, and an API key, in that order."""

import argparse
import contextlib
import fcntl
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from local import build, deploy, emulator, engine, function_logs, postgres
from local.deploy import Deployment
from local.errors import LocalError, StepFailed
from local.ports import refuse_taken
from local.processes import stop_leftover
from local.settings import REGION, ROOT, TENANT, LocalSettings, add_arguments, from_arguments

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Stack:
    """A running stack."""

    settings: LocalSettings
    deployment: Deployment
    database: postgres.Database
    servers: dict[str, subprocess.Popen[bytes]]

    def check(self) -> None:
        """Raises StepFailed if a server has ended."""
        for name, server in self.servers.items():
            if server.poll() is not None:
                raise StepFailed(f"{name} has ended unasked: see {self.settings.logs}, and start again")


@contextlib.contextmanager
def stack(settings: LocalSettings) -> Iterator[Stack]:
    """Everything up for as long as the block lasts; its data stays. Raises LocalError, StepFailed."""
    began = time.monotonic()
    try:
        settings.state.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LocalError(f"{settings.state} cannot be a folder ({error.strerror}): set EDDA_STATE") from None

    def remove_containers() -> None:
        engine.remove_containers(engine.connect(), settings)

    with contextlib.ExitStack() as servers:
        servers.enter_context(alone(settings))
        stop_leftovers(settings)
        emulator.refuse_taken_port(settings)  # said before minutes are spent on a build
        postgres.refuse_taken_port(settings)
        if settings.containers is None:
            _step("build", lambda: build.build(settings))
        else:
            refuse_taken(["127.0.0.1"], settings.containers.api_port, "sam local start-api", "EDDA_API_PORT")
            remove_containers()
            servers.callback(remove_containers)
        database = _step("postgres", lambda: servers.enter_context(postgres.database(settings)))
        if database.is_new:
            emulator.forget(settings)  # what it knows was about other data
        parameters = build.parameters(settings, database.application_url, database.owner_url)
        deploy_now = None
        if not deploy.is_current(settings, parameters):
            deploy_now = servers.enter_context(deploy.deployment(settings, parameters))
        aws = _step("emulator", lambda: servers.enter_context(emulator.emulator(settings)))
        if settings.containers:
            servers.callback(remove_containers)  # at once; the emulator would stop one after the other, gently
        servers.enter_context(function_logs.collected(settings))
        if deploy_now is not None:
            _step("deploy", deploy_now)
        print(f"  up in      {time.monotonic() - began:5.1f} s", flush=True)
        try:
            yield Stack(
                settings, deploy.describe(settings), database, {"postgres": database.server, "the emulator": aws}
            )
        finally:
            print("stopping", flush=True)


def stop_leftovers(settings: LocalSettings) -> None:
    """End what a run that was killed has left, if anything. Only while no other run is alive."""
    stop_leftover(sam_pid_file(settings), signal.SIGTERM, within_s=15)
    postgres.stop_leftover_server(settings)
    emulator.stop_leftover_server(settings)


def sam_pid_file(settings: LocalSettings) -> Path:
    """Of `sam local start-api`."""
    return settings.state / "run" / "start-api.pid"


def _step(name: str, action: Callable[[], T]) -> T:
    """Do it and say how long it took."""
    began = time.monotonic()
    result = action()
    print(f"  {name:<10} {time.monotonic() - began:5.1f} s", flush=True)
    return result


def api_key(settings: LocalSettings, database: postgres.Database) -> str:
    """The tenant's key: the one of the last time if the database is the same, else a new one. Raises StepFailed."""
    kept = settings.state / "api-key"
    if kept.exists() and not database.is_new:
        return kept.read_text()
    key = create_api_key(database, TENANT)
    kept.touch(mode=0o600)
    kept.write_text(key)
    return key


def create_api_key(database: postgres.Database, tenant: str) -> str:
    """A new key, and its tenant where it is new. Raises StepFailed."""
    answer = subprocess.run(
        [sys.executable, "-m", "edda.admin", "create-key", "--tenant", tenant],
        env={**os.environ, "EDDA_DATABASE_OWNER_URL": database.owner_url},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode:
        raise StepFailed(f"no API key: {answer.stderr.strip()}")
    return answer.stdout.split()[-1]


def write_operator_file(running: Stack) -> Path:
    """What the commands of docs/operations.md ask for, to be sourced by a shell."""
    deployment = running.deployment
    variables = {
        "EDDA_DATABASE_URL": running.database.application_url,
        "EDDA_DATABASE_OWNER_URL": running.database.owner_url,
        "EDDA_INGEST_QUEUE_URL": deployment.ingest_queue_url,
        "EDDA_INGEST_DEAD_LETTER_QUEUE_URL": deployment.ingest_dead_letter_queue_url,
        "EDDA_EMBED_QUEUE_URL": deployment.embed_queue_url,
        "EDDA_EMBED_DEAD_LETTER_QUEUE_URL": deployment.embed_dead_letter_queue_url,
        "AWS_ENDPOINT_URL": running.settings.endpoint,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
    }
    file = running.settings.state / "operator.env"
    file.touch(mode=0o600)
    file.write_text("".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items()))
    return file


@contextlib.contextmanager
def alone(settings: LocalSettings) -> Iterator[None]:
    """One run at a time in one state folder; the lock goes with the process, however that ends."""
    with (settings.state / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise LocalError(
                f"a local stack is running already (process {lock.read().strip()}): stop it first"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


USAGE = """
  API       {url}
            {url}/docs
  API key   {key}   (tenant {tenant})
  bucket    {bucket}   files under {tenant}/ are taken in as well
  postgres  {database}
  operator  . {operator}, then .venv/bin/python -m edda.admin

  curl -H 'Authorization: Bearer {key}' -F file=@README.md {url}/v1/documents
  curl -H 'Authorization: Bearer {key}' {url}/v1/documents
  curl -H 'Authorization: Bearer {key}' -d '{{"query": "how do I deploy?"}}' {url}/v1/search
  curl -H 'Authorization: Bearer {key}' -d '{{"question": "how do I deploy?"}}' {url}/v1/answers

  logs are in {logs}; Ctrl-C stops, the data stays
"""


def main() -> int:
    """Entry point of `make local`."""
    parser = argparse.ArgumentParser(prog="make local", description="Run the whole stack on this machine until Ctrl-C.")
    add_arguments(parser)
    settings = from_arguments(parser.parse_args())
    return run(lambda: _serve(settings))


def _serve(settings: LocalSettings) -> int:
    """Up, and wait."""
    with stack(settings) as running:
        print(
            USAGE.format(
                url=running.deployment.api_url,
                key=api_key(settings, running.database),
                tenant=TENANT,
                bucket=running.deployment.uploads_bucket,
                database=running.database.owner_url,
                operator=write_operator_file(running),
                logs=settings.logs,
            ),
            flush=True,
        )
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                time.sleep(1)
                running.check()
    return 0


def run(command: Callable[[], int]) -> int:
    """A command's exit code: what went wrong is said in a line, and Ctrl-C or SIGTERM ends it cleanly."""

    def end(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a script's background job starts with it ignored
    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGHUP, end)
    try:
        return command()
    except KeyboardInterrupt:
        return 130
    except StepFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except LocalError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
