"""Functions are killed and Postgres crashes while `make local` ingests a folder: every file comes to its end once."""

import json
import os
import random
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest

from local import deploy, postgres
from local.client import EddaClient
from local.demo import problems_of
from local.processes import wait_until
from local.stack import Stack, create_api_key
from local.uploading import Sender, SentFile, Way, sending
from local.watching import watch
from tests.database.world import check
from tests.postgres import DatabaseUrls, as_owner

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]

TENANT = "faults"
WORDS = ("harbour", "crane", "ledger", "invoice", "winter", "pallet", "driver", "permit", "label", "route", "engine")


@pytest.fixture
def files(tmp_path: Path) -> list[SentFile]:
    """Some pages each, no two alike. All go straight into the bucket: the API would say 503 now and then."""
    words = random.Random(4)
    for number in range(8):
        paragraphs = [" ".join(words.choices(WORDS, k=120)) + "." for _ in range(6)]
        (tmp_path / f"{number}.md").write_text("\n\n".join(paragraphs))
    return [SentFile(path, path.name, Way.BUCKET) for path in sorted(tmp_path.iterdir())]


@pytest.fixture
def urls(running_stack: Stack) -> DatabaseUrls:
    """As the superuser, who sees every tenant."""
    settings = running_stack.settings
    passwords = json.loads((postgres.data_home(settings) / "passwords.json").read_text())
    role = f"{postgres.SUPERUSER}:{passwords[postgres.SUPERUSER]}"
    url = f"postgresql://{role}@127.0.0.1:{settings.database_port}/{postgres.DATABASE}"
    return DatabaseUrls(owner=url, app=running_stack.database.application_url)


def test_killed_functions_and_a_crashed_database_lose_and_double_nothing(
    running_stack: Stack, urls: DatabaseUrls, files: list[SentFile]
) -> None:
    database, emulator = running_stack.servers.values()
    key = create_api_key(running_stack.database, TENANT)
    with EddaClient(running_stack.deployment.api_url, key) as api:
        s3 = deploy.client(running_stack.settings, "s3")
        with sending(Sender(api, s3, running_stack.deployment.uploads_bucket, TENANT), files):
            until(urls, "SELECT count(*) > 0 FROM document_versions WHERE status = 'parsing'")
            assert kill(functions(emulator.pid, "ChunkFunction"))
        until(urls, "SELECT count(*) > 0 FROM embed_batches WHERE lease_until > now()")
        assert kill(functions(emulator.pid, "EmbedFunction"))
        hours_pass(urls)
        until(urls, "SELECT count(*) > 0 FROM embed_batches WHERE lease_until > now()")
        assert kill(sessions(database.pid))  # Postgres takes that for a crash: it drops everybody and recovers
        for _ in range(10):
            hours_pass(urls)
            assert watch(api, files, 60, lambda _: None) == []
        assert problems_of(files) == []
        assert {file.status for file in files} == {"ready"}
        for file in files:
            assert file.document_id is not None
            chunks = [chunk["chunk_id"] for chunk in api.chunks(file.document_id)]
            assert len(chunks) == len(set(chunks)) == file.planned == file.chunks
    assert wait_until(lambda: holds(urls), within_s=30)


def until(urls: DatabaseUrls, query: str) -> None:
    assert wait_until(lambda: as_owner(urls, query) == [(True,)], within_s=120), query


def hours_pass(urls: DatabaseUrls) -> None:
    """For what was killed before it had written anything down, whose messages SQS hides for 12 or 30 minutes: messages
    count as lost, and the bucket is walked again.
    """

    def done() -> bool:
        with suppress(psycopg.OperationalError):  # Postgres recovers
            as_owner(urls, "UPDATE embed_batches SET sent_at = sent_at - interval '1 hour' WHERE done_at IS NULL")
            as_owner(urls, "UPDATE bucket_walks SET began_at = began_at - interval '1 hour'")
            return True
        return False

    assert wait_until(done, within_s=60)


def holds(urls: DatabaseUrls) -> bool:
    """What must be true after every schedule; sweeps come and go meanwhile."""
    with suppress(AssertionError):
        check(urls)
        return True
    return False


def functions(emulator: int, name: str) -> Iterator[int]:
    """The emulator's processes that run a function."""
    for pid in descendants(emulator):
        with suppress(OSError):
            environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            if any(one.startswith(b"AWS_LAMBDA_FUNCTION_NAME=") and name.encode() in one for one in environment):
                yield pid


def sessions(database: int) -> Iterator[int]:
    """One process of Postgres that serves the application."""
    for pid in descendants(database):
        with suppress(OSError):
            if b": edda_app " in Path(f"/proc/{pid}/cmdline").read_bytes():
                yield pid
                return


def descendants(pid: int) -> Iterator[int]:
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            yield int(child)
            yield from descendants(int(child))


def kill(pids: Iterator[int]) -> int:
    """With -9: how many there were."""
    killed = 0
    for pid in list(pids):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            killed += 1
    return killed
