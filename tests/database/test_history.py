"""What has long been over is forgotten, and nothing that comes late brings it back."""

import asyncio
from dataclasses import replace

from edda.store.sweep import SweepStore
from edda.store.usage import UsageStore

from tests.database.world import World, connect


def age(world: World, days: int) -> None:
    """Everything that is over was over so many days before."""
    world.rows("UPDATE documents SET deleted_at = deleted_at - make_interval(days => %s)", days)
    for table in ("document_usage", "tenant_usage"):
        world.rows(f"UPDATE {table} SET day = day - %s", days)


def known(world: World) -> list[str]:
    return [row[0].partition("/")[2] for row in world.rows("SELECT object_key FROM documents ORDER BY 1")]


async def test_deleted_documents_and_usage_are_forgotten_when_they_are_old_enough(world: World) -> None:
    await world.bring_in("here.txt", "one")
    await world.bring_in("gone.txt", "two")
    await world.notice(await world.delete("gone.txt"))
    age(world, 399)
    assert await world.run_sweep() == {}
    age(world, 2)
    assert await world.run_sweep() == {"rows_forgotten": 4}  # one document, two documents' usage, the tenant's
    assert known(world) == ["here.txt"]
    assert world.visible("here.txt") == ["one"]
    assert world.rows("SELECT count(*) FROM document_event_counters") == [(1,)]
    assert await world.run_sweep() == {}


async def test_how_long_they_are_known_can_be_set(world: World) -> None:
    world.sweep = replace(world.sweep, patience=replace(world.sweep.patience, history_days=31))
    await world.bring_in("gone.txt", "two")
    await world.notice(await world.delete("gone.txt"))
    age(world, 32)
    assert await world.run_sweep() == {"rows_forgotten": 3}
    assert known(world) == []


async def test_a_document_whose_object_may_still_be_there_is_not_forgotten(world: World) -> None:
    await world.bring_in("gone.txt", "two")
    await world.notice(await world.delete("gone.txt"))
    world.rows("UPDATE documents SET object_to_delete = true, updated_at = now() + interval '1 hour'")
    age(world, 401)
    assert await world.run_sweep() == {"rows_forgotten": 2}  # the usage
    assert known(world) == ["gone.txt"]


async def test_events_that_come_after_their_document_was_forgotten_change_nothing(world: World) -> None:
    put = await world.bring_in("gone.txt", "one")
    delete = await world.delete("gone.txt")
    await world.notice(delete)
    age(world, 401)
    assert await world.run_sweep() == {"rows_forgotten": 3}
    await world.notice(put)
    assert known(world) == []
    await world.notice(delete, put)
    assert world.visible("gone.txt") == []
    assert world.rows("SELECT count(*) FROM document_versions") == [(0,)]
    again = await world.bring_in("gone.txt", "two")
    await world.notice(put, delete, again)
    assert world.visible("gone.txt") == ["two"]


async def test_usage_of_a_forgotten_document_is_told_as_a_deleted_ones(world: World) -> None:
    await world.bring_in("gone.txt", "one")
    await world.notice(await world.delete("gone.txt"))
    world.rows("UPDATE documents SET deleted_at = deleted_at - interval '401 days'")
    assert await world.run_sweep() == {"rows_forgotten": 1}
    ((day,),) = world.rows("SELECT day FROM document_usage")
    (row,) = await UsageStore(world.database).by_document(world.tenant_id, day, day, None, 10)
    assert (row["name"], row["deleted"], row["chunks"]) == (None, True, 1)


async def test_two_who_forget_at_once_forget_everything_once(world: World) -> None:
    for number in range(20):
        await world.bring_in(f"{number}.txt", f"line {number}")
        await world.notice(await world.delete(f"{number}.txt"))
    age(world, 401)
    database = connect(world.urls.app)
    stores = [SweepStore(one, world.model.model_id, limit=7) for one in (world.database, database)]
    forgotten = 0
    while some := sum(await asyncio.gather(*(one.forget(world.tenant_id, world.sweep.patience) for one in stores))):
        forgotten += some
    await database.aclose()
    assert forgotten == 20 + 20 + 1
    assert known(world) == []
