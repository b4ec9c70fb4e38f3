"""How much memory and time a long file takes: `make long-files`, or `python -m tests.long_files --help`.

A text and a PDF are made, then cut into chunks by the real verb, parser process, store and Postgres, in as many
invocations as a time limit makes of it. The bucket is a folder, the queues only count. The function is a process of its
own, so that its memory and its parser's are nobody else's: what /proc says is looked at 50 times a second.
"""

import argparse
import asyncio
import json
import multiprocessing
import random
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, cast
from uuid import UUID, uuid4

import psycopg
from edda.adapters.parser_process import ParserProcess
from edda.concurrency import Deadline
from edda.ingesting import Ingestion
from edda.messages import IngestVersion
from edda.models import ParseCursor, ParseOutcome
from edda.observing import Observing
from edda.ports import ObjectStore
from edda.runtime import RESERVE_S
from edda.s3_events import API_FOLDER
from edda.settings import OWN_MEMORY_BYTES, Settings
from edda.store.bucket import BucketStore, DeleteBrake
from edda.store.database import Database
from edda.store.ingest import IngestStore
from edda.store.keys import KeyStore, create_tenant
from edda.store.migrations import migrate, register_model

from tests.fakes import files
from tests.postgres import MODEL_DIMENSIONS, MODEL_NAME, DatabaseUrls, running_cluster
from tests.words import WORDS

MEGABYTE = 1024**2
FUNCTION_BYTES = 1769 * MEGABYTE  # ChunkMemoryMegabytes of template.yaml
PIECE_BYTES = MEGABYTE
LOOK_EVERY_S = 0.02
# Statistics of tables, as any real server keeps them.
CONFIGURATION = "autovacuum = on\nmax_wal_size = '8GB'\n"


@dataclass(frozen=True, slots=True)
class Task:
    """What the function's process is told."""

    path: str
    name: str
    database_url: str
    tenant_id: UUID
    version_id: UUID
    model_id: int
    limit_s: float


@dataclass(slots=True)
class CountingQueue:
    """Takes every message and forgets it."""

    messages: int = 0
    first_at_s: float | None = None

    async def send(self, bodies: Sequence[str], group: str = "") -> list[int]:
        self.messages += len(bodies)
        self.first_at_s = self.first_at_s or time.monotonic()
        return []


@dataclass(frozen=True, slots=True)
class Folder:
    """A bucket of one object."""

    path: Path

    async def download(self, key: str, version_id: str, path: Path, max_bytes: int) -> bytes:
        return await asyncio.to_thread(self._copy, path)

    def _copy(self, path: Path) -> bytes:
        digest = sha256()
        with self.path.open("rb") as source, path.open("wb") as target:
            while piece := source.read(PIECE_BYTES):
                digest.update(piece)
                target.write(piece)
        return digest.digest()


class CountingParser(ParserProcess):
    """The real one; and how many parts it made."""

    parts = 0

    async def parse(
        self, path: Path, name: str, content_type: str | None, cursor: ParseCursor | None = None
    ) -> ParseOutcome:
        outcome = await super().parse(path, name, content_type, cursor)
        self.parts += 1
        return outcome


def function(task: Task, answers: Any) -> None:
    """The chunk function's process, warm from one invocation to the next."""
    answers.send(asyncio.run(_function(task)))


async def _function(task: Task) -> dict[str, Any]:
    async def conninfo() -> str:
        return task.database_url

    settings = Settings.from_environment({"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(FUNCTION_BYTES // MEGABYTE)})
    database, parser = Database(conninfo), CountingParser(settings)
    ring, embed = CountingQueue(), CountingQueue()
    objects = cast(ObjectStore, Folder(Path(task.path)))
    ingestion = Ingestion(
        store=IngestStore(database, task.model_id),
        keys=KeyStore(database),
        observing=Observing(BucketStore(database, DeleteBrake()), objects),
        objects=objects,
        parser=parser,
        ingest_queue=cast(Any, ring),
        embed_queue=cast(Any, embed),
        max_document_bytes=settings.max_document_bytes,
        max_chunks=settings.max_chunks,
    )
    message = IngestVersion(tenant_id=task.tenant_id, version_id=task.version_id)
    began, invocations, longest_s = time.monotonic(), 0, 0.0
    try:
        while ring.messages == invocations:  # it rang for itself
            invocations += 1
            invoked = time.monotonic()
            await ingestion.ingest(message, Deadline.after(task.limit_s - RESERVE_S))
            longest_s = max(longest_s, time.monotonic() - invoked)
    finally:
        await parser.aclose()
        await database.aclose()
    return {
        "seconds": round(time.monotonic() - began),
        "first_message_after_s": round((embed.first_at_s or 0) - began, 1),
        "invocations": invocations,
        "parts": parser.parts,
        "longest_invocation_s": round(longest_s, 1),
        "messages": embed.messages,
    }


def measured(task: Task) -> dict[str, Any]:
    """Run it: what it says of itself, and the most memory that was resident at any time (bytes)."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(target=function, args=(task, sender))
    process.start()
    sender.close()
    assert process.pid is not None
    peaks = {"function": 0, "parser": 0, "both": 0}
    while not receiver.poll(LOOK_EVERY_S) and process.is_alive():
        own, children = _resident(process.pid), sum(_resident(child) for child in _children(process.pid))
        for name, size in (("function", own), ("parser", children), ("both", own + children)):
            peaks[name] = max(peaks[name], size)
    result: dict[str, Any] = receiver.recv()
    process.join()
    return result | {f"peak_{name}_mb": round(size / MEGABYTE) for name, size in peaks.items()}


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
    except (OSError, IndexError):
        return 0


def _children(pid: int) -> list[int]:
    try:
        threads = Path(f"/proc/{pid}/task").iterdir()
        return [int(child) for thread in threads for child in (thread / "children").read_text().split()]
    except OSError:
        return []


# The files ---------------------------------------------------------------------------------------------------------


def sentences(chance: random.Random) -> Iterator[str]:
    """For ever; no two alike."""
    phrases = [" ".join(chance.choices(WORDS, k=chance.randint(5, 20))).capitalize() for _ in range(5_000)]
    number = 0
    while True:
        for phrase in chance.sample(phrases, len(phrases)):
            number += 1
            yield f"{phrase} {number}."


def write_text(path: Path, size_bytes: int) -> None:
    """Paragraphs of wrapped lines."""
    chance = random.Random(1)
    said, written = sentences(chance), 0
    with path.open("w") as file:
        while written < size_bytes:
            paragraph = "\n".join(next(said) for _ in range(chance.randint(2, 9))) + "\n\n"
            written += file.write(paragraph[: size_bytes - written])


def write_pdf(path: Path, pages: int) -> None:
    """Forty lines a page."""
    said = sentences(random.Random(2))
    streams = []
    for _ in range(pages):
        lines = "".join(f"({next(said)[:95]}) Tj T*\n" for _ in range(40))
        streams.append(f"BT /F 10 Tf 14 TL 54 740 Td\n{lines}ET".encode())
    path.write_bytes(files.pdf_of_streams(streams, ""))


# One run -----------------------------------------------------------------------------------------------------------


@contextmanager
def migrated() -> Iterator[tuple[DatabaseUrls, UUID, int]]:
    """A Postgres with Edda's schema, a tenant and a model in it."""
    with running_cluster(CONFIGURATION) as cluster:
        cluster.administer("CREATE DATABASE edda_long")
        urls = cluster.urls("edda_long")

        async def prepare() -> tuple[UUID, int]:
            await migrate(urls.owner)
            model = await register_model(urls.owner, MODEL_NAME, MODEL_DIMENSIONS)
            return (await create_tenant(urls.owner, "acme")).tenant_id, model.model_id

        yield urls, *asyncio.run(prepare())


def run(kind: str, path: Path, limit_s: float) -> dict[str, Any]:
    """One file, from nothing to chunks; raises when it does not come to its end."""
    document_id, version_id = uuid4(), uuid4()
    with migrated() as (urls, tenant_id, model_id), psycopg.connect(urls.owner, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO documents (document_id, tenant_id, object_key, name) VALUES (%s, %s, %s, %s)",
            [document_id, tenant_id, f"acme/{API_FOLDER}/{path.name}", path.name],
        )
        connection.execute(
            "INSERT INTO document_versions (version_id, tenant_id, document_id, s3_version_id, sequencer, "
            "modified_at, size_bytes) VALUES (%s, %s, %s, '1', '1', now(), %s)",
            [version_id, tenant_id, document_id, path.stat().st_size],
        )
        task = Task(str(path), path.name, urls.app, tenant_id, version_id, model_id, limit_s)
        result = measured(task)
        status, chunks, characters = connection.execute(
            "SELECT status, planned_chunks, characters FROM document_versions"
        ).fetchall()[0]
        counted = connection.execute("SELECT count(*), max(ordinal) + 1, max(char_end) FROM chunks").fetchall()[0]
    if status != "embedding" or counted[:2] != (chunks, chunks) or abs(counted[2] - characters) > 2:
        raise AssertionError(f"{kind}: {status}, {chunks} chunks planned, {counted} stored")
    size_mb = round(path.stat().st_size / MEGABYTE)
    return {"file": kind, "size_mb": size_mb, "limit_s": limit_s, "chunks": chunks, **result}


def main() -> None:
    parser = argparse.ArgumentParser(prog="make long-files", description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1024, help="of text (default: 1024)")
    parser.add_argument("--pages", type=int, default=2000, help="of PDF (default: 2000)")
    parser.add_argument("--limit-s", type=float, default=60, help="of one invocation (default: 60)")
    parser.add_argument("--only", choices=("text", "pdf"))
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="edda-long-"))
    try:
        if options.only != "pdf":
            path = folder / "long.txt"
            write_text(path, options.megabytes * MEGABYTE)
            print(json.dumps(run("text", path, options.limit_s)), flush=True)
            path.unlink()
        if options.only != "text":
            path = folder / "long.pdf"
            write_pdf(path, options.pages)
            print(json.dumps(run(f"PDF of {options.pages} pages", path, options.limit_s)), flush=True)
        print(
            f"The function has {FUNCTION_BYTES // MEGABYTE} MB, of which {OWN_MEMORY_BYTES // MEGABYTE} MB are its own."
        )
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
