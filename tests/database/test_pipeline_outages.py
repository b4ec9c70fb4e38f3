"""The database goes away, sleeps, fails over or is frozen out: nothing crashes, nothing is lost, one reconnect."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest
from edda.errors import DatabaseUnavailable
from edda.store import database as database_module
from edda.store.database import Database
from psycopg.conninfo import conninfo_to_dict

from tests.database.world import World, connect
from tests.fakes.tcp_proxy import TcpProxy
from tests.postgres import DatabaseUrls, as_owner

SOCKET = ".s.PGSQL.5432"


@pytest.fixture
async def proxy(pipeline_database_urls: DatabaseUrls) -> AsyncIterator[TcpProxy]:
    folder = conninfo_to_dict(pipeline_database_urls.app)["host"]
    async with TcpProxy(str(Path(str(folder), SOCKET))) as proxy:
        yield proxy


@pytest.fixture
async def far(proxy: TcpProxy, pipeline_database_urls: DatabaseUrls) -> AsyncIterator[Database]:
    """A connection that goes through the proxy."""
    name = conninfo_to_dict(pipeline_database_urls.app)["dbname"]
    url = f"postgresql://edda_app@127.0.0.1:{proxy.port}/{name}"
    database = connect(url, connect_timeout_s=2, probe_timeout_s=0.1)
    yield database
    await database.aclose()


async def backend(database: Database) -> int:
    async with database.transaction(None) as cursor:
        await cursor.execute("SELECT pg_backend_pid() AS pid")
        row = await cursor.fetchone()
    assert row is not None
    return int(row["pid"])


async def write(database: Database) -> None:
    async with database.transaction(None) as cursor:
        await cursor.execute("DELETE FROM documents")


def kill_backends(urls: DatabaseUrls) -> None:
    as_owner(
        urls,
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )


async def test_a_connection_killed_between_invocations_is_replaced_without_a_sound(world: World) -> None:
    await world.notice(await world.put("a.txt", "one"))
    first = await backend(world.database)
    kill_backends(world.urls)
    assert await world.embed() == {}
    assert world.visible("a.txt") == ["one"]
    assert await backend(world.database) != first


async def test_a_connection_killed_inside_a_transaction_is_unavailable_once(world: World) -> None:
    async def killed() -> None:
        async with world.database.transaction(world.tenant_id) as cursor:
            kill_backends(world.urls)
            await cursor.execute("SELECT 1")

    with pytest.raises(DatabaseUnavailable):
        await killed()
    assert await backend(world.database)


async def test_a_worker_frozen_inside_a_transaction_keeps_nobody_waiting_for_its_locks(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "IDLE_S", 0.2)
    await world.notice(await world.put("a.txt", "one"))

    async def frozen() -> None:
        async with world.database.transaction(world.tenant_id) as cursor:
            await cursor.execute("UPDATE documents SET name = 'lost' WHERE true")
            # Meanwhile this process does nothing, as one that was suspended.
            as_owner(world.urls, "UPDATE documents SET name = 'another worker''s' WHERE true")
            await cursor.execute("SELECT 1")

    with pytest.raises(DatabaseUnavailable):
        await frozen()
    assert world.rows("SELECT name FROM documents") == [("another worker's",)]
    assert await world.embed() == {}
    assert world.visible("a.txt") == ["one"]


async def test_a_backend_killed_while_the_provider_answers_costs_one_reconnect(world: World) -> None:
    await world.notice(await world.put("a.txt", "one"))

    async def kill() -> None:
        kill_backends(world.urls)

    world.embedder.meanwhile = kill
    assert await world.embed() == {}
    assert world.visible("a.txt") == ["one"]
    assert world.embedder.texts == ["one"]


async def test_a_socket_that_was_cut_while_frozen_is_replaced(far: Database, proxy: TcpProxy) -> None:
    await backend(far)
    proxy.cut()
    await backend(far)
    assert proxy.connections == 2


async def test_a_socket_that_went_dumb_while_frozen_is_replaced_in_time(far: Database, proxy: TcpProxy) -> None:
    """A NAT that forgot the connection answers nothing at all, not even a reset."""
    await backend(far)
    proxy.go_silent()
    asyncio.get_running_loop().call_later(0.3, proxy.heal)
    async with asyncio.timeout(5):
        await backend(far)


async def test_an_idle_connection_is_not_replaced(far: Database, proxy: TcpProxy) -> None:
    assert await backend(far) == await backend(far)
    assert proxy.connections == 1


async def test_while_postgres_is_stopped_it_is_unavailable_and_afterwards_it_is_not(
    far: Database, proxy: TcpProxy
) -> None:
    await backend(far)
    await proxy.close()
    for _ in range(2):
        with pytest.raises(DatabaseUnavailable) as raised:
            await backend(far)
    assert str(proxy.port) not in str(raised.value)
    await proxy.open()
    assert await backend(far)


async def test_a_database_that_accepts_and_never_answers_is_unavailable(far: Database, proxy: TcpProxy) -> None:
    proxy.go_silent()
    async with asyncio.timeout(10):
        with pytest.raises(DatabaseUnavailable):
            await backend(far)


async def test_while_postgres_is_stopped_every_message_comes_back(world: World, far: Database, proxy: TcpProxy) -> None:
    far_world = await _through(world, far)
    await world.notice(await world.put("a.txt", "one"), await world.put("b.txt", "two"))
    far_world.embed_queue.messages = world.embed_queue.take()
    await proxy.close()
    failures = await far_world.embed()
    assert [error.code for error in failures.values()] == ["database_unavailable"] * 2
    with pytest.raises(DatabaseUnavailable):
        await far_world.notice(await world.put("c.txt", "three"))
    await proxy.open()
    assert await far_world.embed() == {}
    assert world.visible("a.txt") == ["one"]


async def test_postgres_gone_while_the_provider_answers_brings_the_message_back(
    world: World, far: Database, proxy: TcpProxy
) -> None:
    far_world = await _through(world, far)
    await far_world.notice(await world.put("a.txt", "one"))
    far_world.embedder.meanwhile = proxy.close
    failures = await far_world.embed()
    assert [error.code for error in failures.values()] == ["database_unavailable"]
    assert len(world.leases()) == 1  # it could not be given back: it ends by itself
    far_world.embedder.meanwhile = None
    await proxy.open()
    world.rows("UPDATE embed_batches SET lease_until = now()")
    assert await far_world.embed() == {}
    assert world.visible("a.txt") == ["one"]


async def test_no_connection_left_is_unavailable_not_a_crash(database_urls: DatabaseUrls) -> None:
    name = conninfo_to_dict(database_urls.app)["dbname"]
    as_owner(database_urls, f"ALTER DATABASE {name} CONNECTION LIMIT 0")
    database = connect(database_urls.app)
    with pytest.raises(DatabaseUnavailable):
        await backend(database)


async def test_a_writer_that_became_a_reader_is_left_for_the_new_writer(database_urls: DatabaseUrls) -> None:
    """After a failover the old writer still answers, but takes no write: the connection must not be kept."""
    name = conninfo_to_dict(database_urls.app)["dbname"]
    as_owner(database_urls, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    database = connect(database_urls.app)
    first = await backend(database)
    with pytest.raises(DatabaseUnavailable):
        await write(database)
    with psycopg.connect(database_urls.owner, autocommit=True, options="-c default_transaction_read_only=off") as owner:
        owner.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = off".encode())
    assert await backend(database) != first
    await write(database)
    await database.aclose()


async def test_a_deadlock_is_unavailable_once_and_the_connection_is_kept(world: World) -> None:
    """Of two that wait for each other Postgres stops one: it does the whole transaction again."""
    for name in ("a.txt", "b.txt"):
        await world.bring_in(name, "one")
    other = connect(world.urls.app)
    first = await backend(world.database)
    both_hold_one = asyncio.Barrier(2)

    async def lock(database: Database, *names: str) -> None:
        async with database.transaction(world.tenant_id) as cursor:
            for name in names:
                await cursor.execute("SELECT FROM documents WHERE object_key = %s FOR UPDATE", [world.key(name)])
                if name == names[0]:
                    await both_hold_one.wait()

    outcomes = await asyncio.gather(
        lock(world.database, "a.txt", "b.txt"), lock(other, "b.txt", "a.txt"), return_exceptions=True
    )
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["DatabaseUnavailable", "NoneType"]
    assert await backend(world.database) == first
    await other.aclose()


async def test_the_way_to_the_database_is_asked_for_at_every_connect(world: World) -> None:
    """A rotated password is picked up."""
    asked = 0

    async def conninfo() -> str:
        nonlocal asked
        asked += 1
        return world.urls.app

    database = Database(conninfo)
    await backend(database)
    await backend(database)
    assert asked == 1
    kill_backends(world.urls)
    await backend(database)
    assert asked == 2
    await database.aclose()


async def test_an_error_of_ours_rolls_the_transaction_back(world: World) -> None:
    await world.bring_in("a.txt", "one")

    async def broken() -> None:
        async with world.database.transaction(world.tenant_id) as cursor:
            await cursor.execute("UPDATE documents SET name = 'changed'")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await broken()
    assert world.rows("SELECT name FROM documents") == [("a.txt",)]


async def _through(world: World, database: Database) -> World:
    """The same tenant and bucket, over another connection."""
    return await World.build(world.urls, world.model, world.tenant.slug, database=database, objects=world.objects)
