"""A real Postgres crashes, is cut off, is full, has no connection to spare: nothing is lost, doubled or stuck."""

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from edda.adapters.aws import AwsClients
from edda.adapters.secrets import SecretsManager
from edda.concurrency import Deadline
from edda.errors import DatabaseUnavailable, RetryableError
from edda.models import EmbeddingModel
from edda.runtime import cut_off
from edda.store.database import FIRST_PAUSE_S, Database
from psycopg.conninfo import make_conninfo

from tests.aws import client
from tests.database.world import Record, World, check, connect
from tests.fakes.tcp_proxy import Faults, TcpProxy
from tests.faults.conftest import DATABASE, all_connections
from tests.postgres import Cluster, as_owner

WITHIN_S = 60
PATIENCE_S = 20.0
TEXT = "one\ntwo\nthree"
LINES = TEXT.splitlines()


@pytest.fixture
async def proxy(server: Cluster) -> AsyncIterator[TcpProxy]:
    async with TcpProxy(server.socket) as proxy:
        yield proxy


def far_url(proxy: TcpProxy) -> str:
    return f"postgresql://edda_app@127.0.0.1:{proxy.port}/{DATABASE}"


async def worker_of(world: World, database: Database) -> World:
    """The same tenant and bucket, over another connection."""
    return await World.build(world.urls, world.model, world.tenant.slug, database=database, objects=world.objects)


async def until_done(worker: World, *records: Record) -> int:
    """Deliver the events, and all messages that come of them, until nothing is left to do: how often that failed."""
    failures = 0
    async with asyncio.timeout(WITHIN_S):
        for record in records:
            while True:
                try:
                    await worker.notice(record)
                    break
                except RetryableError:
                    failures += 1
        while await open_work(worker):
            failures += len(await worker.embed())
            if await open_work(worker):
                # A lease that could not be given back ends by itself.
                for table in ("document_versions", "embed_batches"):
                    query = f"UPDATE {table} SET lease_until = now() WHERE tenant_id = %s AND lease_until > now()"
                    await looked(worker, query, worker.tenant_id)
                with suppress(RetryableError):
                    await worker.run_sweep()
                    await worker.answer_ingest_queue()
    return failures


async def open_work(worker: World) -> int:
    """Versions of this tenant that have not ended."""
    query = "SELECT count(*) FROM document_versions WHERE tenant_id = %s AND finished_at IS NULL"
    return int((await looked(worker, query, worker.tenant_id))[0][0])


async def looked(world: World, query: str, *values: Any) -> list[tuple[Any, ...]]:
    """As the owner, as soon as the server lets us."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            with suppress(psycopg.OperationalError):
                return world.rows(query, *values)
            await asyncio.sleep(0.02)


def assert_whole(world: World, *names: str) -> None:
    """Each is ready once, with each of its lines once."""
    for name in names:
        assert (world.statuses(name), world.visible(name)) == (["ready"], LINES)


# --- crashes ---------------------------------------------------------------------------------------------------------


async def test_crashes_in_the_middle_of_work_lose_and_double_nothing(world: World, server: Cluster) -> None:
    """`pg_ctl restart -m immediate`, three times, under three tenants' workers that are writing."""
    texts = {f"{n}.txt": [f"line {n}.{m}" for m in range(80)] + LINES for n in range(6)}
    workers = [
        await World.build(
            world.urls,
            world.model,
            f"{world.tenant.slug}-{n}",
            database=connect(world.urls.app, patience_s=PATIENCE_S),
            objects=world.objects,
        )
        for n in range(3)
    ]
    records = [[await worker.put(name, "\n".join(lines)) for name, lines in texts.items()] for worker in workers]
    work = asyncio.gather(*(until_done(worker, *put) for worker, put in zip(workers, records, strict=True)))
    recoveries = []
    for vectors in (100, 500, 900):
        await until(world, "SELECT count(*) >= %s FROM embeddings", vectors)
        if work.done():  # what comes at once may be the last
            break
        await asyncio.to_thread(server.restart)
        recoveries.append(await first_commit_s(world, work))
    assert recoveries[0] is not None
    await work
    for worker in workers:
        for name, lines in texts.items():
            assert (worker.statuses(name), worker.visible(name)) == (["ready"], lines)
        await worker.database.aclose()
    asked = sum(len(worker.embedder.texts) for worker in workers)
    print(f"from the server's start to the first commit {recoveries} s; {asked} texts paid of {world.vectors()}")


async def until(world: World, query: str, *values: Any) -> Any:
    """The one value that this gives, when it is neither null nor false."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            if value := (await looked(world, query, *values))[0][0]:
                return value
            await asyncio.sleep(0.01)


async def first_commit_s(world: World, work: asyncio.Future[Any]) -> float | None:
    """From the moment the server began to start, its recovery included, until the first vectors were committed. None
    where all had been committed before.
    """
    query = """SELECT extract(epoch FROM min(committed) - pg_postmaster_start_time())
               FROM (SELECT pg_xact_commit_timestamp(xmin) AS committed FROM embeddings) AS vectors
               WHERE committed > pg_postmaster_start_time()"""
    first = asyncio.create_task(until(world, query))
    await asyncio.wait([first, work], return_when=asyncio.FIRST_COMPLETED)
    if first.done():
        return round(float(first.result()), 3)
    ((seconds,),) = await looked(world, query)  # they may have ended together
    first.cancel()
    return None if seconds is None else round(float(seconds), 3)


async def test_a_crash_while_the_provider_answers_is_waited_out_and_nothing_is_paid_twice(
    world: World, server: Cluster
) -> None:
    worker = await worker_of(world, connect(world.urls.app, patience_s=PATIENCE_S))
    await worker.notice(await world.put("a.txt", TEXT))

    async def crash() -> None:
        await asyncio.to_thread(server.crash)
        starting.append(asyncio.create_task(asyncio.to_thread(server.start)))

    starting: list[asyncio.Task[None]] = []
    worker.embedder.meanwhile = crash
    assert await worker.embed() == {}
    await asyncio.gather(*starting)
    assert_whole(world, "a.txt")
    assert sorted(worker.embedder.texts) == sorted(LINES)
    await worker.database.aclose()


async def test_who_comes_just_after_patience_was_in_vain_is_not_kept_waiting(world: World, proxy: TcpProxy) -> None:
    await proxy.close()
    database = connect(far_url(proxy), patience_s=0.5)
    loop = asyncio.get_running_loop()
    waits = []
    for _ in range(3):
        began = loop.time()
        with pytest.raises(DatabaseUnavailable):
            async with database.transaction(None):
                pass
        waits.append(loop.time() - began)
    assert waits[0] >= FIRST_PAUSE_S > max(waits[1:])


# --- cut off ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault", [Faults(reset_after=b"COMMIT"), Faults(reset_before=b"COMMIT")], ids=["it happened", "it did not"]
)
async def test_every_commit_whose_end_nobody_knows_is_done_once(world: World, proxy: TcpProxy, fault: Faults) -> None:
    """The connection is reset after COMMIT has reached the server, or just before: each commit in its turn."""
    for nth in count(1):
        name = f"{nth}.txt"
        worker = await worker_of(world, connect(far_url(proxy)))
        text = "\n".join(f"{line} {name}" for line in LINES)
        proxy.to_server, proxy.nth, proxy.sequences, proxy.resets = fault, nth, 0, 0
        await until_done(worker, await world.put(name, text))
        proxy.heal()
        await worker.database.aclose()
        assert (world.statuses(name), world.visible(name)) == (["ready"], text.splitlines())
        assert len(worker.embedder.texts) <= len(LINES) * (1 + proxy.resets)
        check(world.urls)
        if not proxy.resets:
            break
    assert nth > 8  # transactions on a document's way


@pytest.mark.parametrize(
    "fault",
    [Faults(reset_after=b"COMMIT"), Faults(reset_before=b"INSERT INTO embeddings"), Faults(reset_before=b"COMMIT")],
    ids=["after the commit", "at the statement", "before the commit"],
)
async def test_vectors_that_were_paid_survive_a_connection_cut_while_they_are_stored(
    world: World, proxy: TcpProxy, fault: Faults
) -> None:
    worker = await worker_of(world, connect(far_url(proxy)))
    await worker.notice(await world.put("a.txt", TEXT))

    async def cut_next() -> None:
        proxy.to_server, proxy.nth, proxy.sequences = fault, 1, 0

    worker.embedder.meanwhile = cut_next
    assert await worker.embed() == {}
    assert proxy.resets == 1
    assert_whole(world, "a.txt")
    assert sorted(worker.embedder.texts) == sorted(LINES)
    await worker.database.aclose()


@pytest.mark.parametrize("direction", ["to_server", "to_client"])
async def test_a_connection_cut_after_any_number_of_bytes_costs_another_try(
    world: World, proxy: TcpProxy, direction: str
) -> None:
    """In the middle of a statement, of its answer, of connecting."""
    cuts = 0
    for size_bytes in range(100, 12_000, 700):
        name = f"{size_bytes}.txt"
        worker = await worker_of(world, connect(far_url(proxy)))
        text = "\n".join(f"{line} {name}" for line in LINES)
        setattr(proxy, direction, Faults(reset_after_bytes=size_bytes))
        proxy.resets = 0
        record = await world.put(name, text)
        try:
            await worker.notice(record)
            await worker.embed()
        except RetryableError:
            pass
        cuts += proxy.resets > 0
        proxy.heal()
        await until_done(worker, record)
        await worker.database.aclose()
        assert (world.statuses(name), world.visible(name)) == (["ready"], text.splitlines())
    assert cuts >= 8


@pytest.mark.parametrize("direction", ["to_server", "to_client"])
async def test_a_connection_that_falls_silent_in_a_transaction_is_given_up_in_time(
    world: World, proxy: TcpProxy, direction: str
) -> None:
    worker = await worker_of(world, connect(far_url(proxy), connect_timeout_s=2, probe_timeout_s=0.2))
    await worker.notice(await world.put("a.txt", TEXT))
    proxy.to_server = proxy.to_client = Faults()

    async def fall_silent() -> None:
        setattr(proxy, direction, Faults(blackhole=True))

    worker.embedder.meanwhile = fall_silent
    messages = list(worker.embed_queue.messages)
    async with asyncio.timeout(10):
        with pytest.raises(TimeoutError):
            await cut_off(worker.embed(), Deadline.after(0.5))
    proxy.heal()
    worker.embedder.meanwhile = None
    worker.embed_queue.messages = messages
    await until_done(worker)
    assert_whole(world, "a.txt")
    await worker.database.aclose()


async def test_a_slow_and_sliced_connection_is_only_slow(world: World, proxy: TcpProxy) -> None:
    proxy.to_server = Faults(slice_bytes=200, latency_s=0.0005, jitter_s=0.001)
    proxy.to_client = Faults(slice_bytes=13, bytes_per_s=200_000)
    worker = await worker_of(world, connect(far_url(proxy)))
    assert await until_done(worker, await world.put("a.txt", TEXT)) == 0
    assert_whole(world, "a.txt")
    await worker.database.aclose()


async def test_a_database_that_wakes_up_is_waited_for(world: World, proxy: TcpProxy) -> None:
    """Aurora's auto-pause: connections are taken, and nobody answers for a while (here 3 s instead of 15 to 35)."""
    worker = await worker_of(world, connect(far_url(proxy), connect_timeout_s=2, patience_s=PATIENCE_S))
    proxy.go_silent()
    asyncio.get_running_loop().call_later(3, proxy.heal)
    assert await until_done(worker, await world.put("a.txt", TEXT)) == 0
    assert_whole(world, "a.txt")
    await worker.database.aclose()


# --- full ------------------------------------------------------------------------------------------------------------


async def test_without_a_connection_to_spare_work_waits_and_fails_nobody(world: World) -> None:
    """53300: who has patience waits until one is free; who has none says that it could not be done now."""
    tried_again = asyncio.Event()
    tries = 0

    async def conninfo() -> str:
        nonlocal tries
        tries += 1
        if tries == 3:
            tried_again.set()
        return world.urls.app

    hasty = await worker_of(world, connect(world.urls.app))
    patient = await worker_of(world, Database(conninfo, patience_s=PATIENCE_S))
    record = await world.put("a.txt", TEXT)
    with all_connections(world.urls) as held:
        with pytest.raises(DatabaseUnavailable):
            await hasty.notice(record)
        work = asyncio.create_task(until_done(patient, record))
        await tried_again.wait()
        held.pop().close()
        assert await work == 0
    assert_whole(world, "a.txt")
    await patient.database.aclose()


@pytest.fixture
def small_disk(server: Cluster) -> Iterator[Path]:
    """A file system of 24 MB for one database; only root can make one."""
    folder = server.folder.parent / f"small-{uuid4().hex[:8]}"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        folder.rmdir()
        pytest.skip(f"a small file system needs root: {mounted.stderr.strip()}")
    try:
        shutil.chown(folder, server.server.system_user)
        server.administer(f"CREATE TABLESPACE small LOCATION '{folder}'")
        server.administer(f"CREATE DATABASE crowded TEMPLATE {DATABASE} TABLESPACE small")
        yield folder
    finally:
        server.administer("DROP DATABASE IF EXISTS crowded WITH (FORCE)")
        server.administer("DROP TABLESPACE IF EXISTS small")
        subprocess.run(["umount", str(folder)], check=True)
        folder.rmdir()


async def test_on_a_full_disk_work_stops_and_goes_on_when_there_is_room(
    model: EmbeddingModel, server: Cluster, small_disk: Path
) -> None:
    """53100, in the middle of storing chunks: nothing half-visible, nothing failed."""
    world = await World.build(server.urls("crowded"), model, f"acme-{uuid4().hex[:8]}")
    await world.bring_in("before.txt", TEXT)
    lines = [f"{number} {uuid4()} " + "x" * 2000 for number in range(40)]
    record = await world.put("large.txt", "\n".join(lines))
    ballast = small_disk / "ballast"
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    for _ in range(3):
        with pytest.raises(DatabaseUnavailable):
            await world.notice(record)
    assert world.visible("before.txt") == LINES
    query = "SELECT count(*) FROM chunks WHERE tenant_id = %s"
    assert world.rows(query, world.tenant_id) == [(len(LINES),)]
    ballast.unlink()
    await until_done(world, record)
    assert (world.statuses("large.txt"), world.visible("large.txt")) == (["ready"], lines)
    check(world.urls)
    await world.database.aclose()


# --- changed ---------------------------------------------------------------------------------------------------------


async def test_a_reader_is_left_and_the_next_writer_is_found(world: World) -> None:
    """A failover in the middle of a document: the old writer answers, but takes no write."""
    await world.notice(await world.put("a.txt", TEXT))
    as_owner(world.urls, f"ALTER DATABASE {DATABASE} SET default_transaction_read_only = on")
    try:
        await world.database.aclose()
        assert [error.code for error in (await world.embed()).values()] == ["database_unavailable"]
        with pytest.raises(DatabaseUnavailable):
            await world.notice(await world.put("b.txt", TEXT))
    finally:
        with psycopg.connect(world.urls.owner, autocommit=True) as owner:
            owner.execute("SET default_transaction_read_only = off")
            owner.execute(f"ALTER DATABASE {DATABASE} RESET default_transaction_read_only".encode())
    await until_done(world, world.objects.events[-1])
    assert_whole(world, "a.txt", "b.txt")


@contextmanager
def password_needed(server: Cluster) -> Iterator[None]:
    """The application's role has to know one."""
    rules = Path(server.server.pgdata, "pg_hba.conf")
    before = rules.read_text()
    rules.write_text(f"local {DATABASE} edda_app scram-sha-256\n{before}")
    server.administer("SELECT pg_reload_conf()")
    try:
        yield
    finally:
        rules.write_text(before)
        server.administer("SELECT pg_reload_conf()")


async def test_a_password_that_is_rotated_in_the_middle_of_work_fails_nothing(
    world: World, server: Cluster, aws: str
) -> None:
    """The server has the new password a little before the secret has it, as when one user is rotated."""
    secrets = client("secretsmanager")
    arn = secrets.create_secret(Name=uuid4().hex, SecretString='{"password": "old"}')["ARN"]
    server.administer("ALTER ROLE edda_app PASSWORD 'old'")
    refused = asyncio.Event()
    asked = 0
    with password_needed(server):
        async with AwsClients() as clients:

            async def conninfo() -> str:
                nonlocal asked
                asked += 1
                if asked == 3:
                    refused.set()
                return make_conninfo(world.urls.app, **await SecretsManager(clients).read(arn))

            async def rotate() -> None:
                server.administer("ALTER ROLE edda_app PASSWORD 'new'")
                server.administer("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'edda_app'")

            async def publish() -> None:
                await refused.wait()
                secrets.put_secret_value(SecretId=arn, SecretString='{"password": "new"}')

            worker = await worker_of(world, Database(conninfo, patience_s=PATIENCE_S))
            await worker.notice(await world.put("a.txt", TEXT))
            assert asked == 1
            worker.embedder.meanwhile = rotate
            failures, _ = await asyncio.gather(worker.embed(), publish())
            assert failures == {}
            await worker.database.aclose()
    assert_whole(world, "a.txt")
