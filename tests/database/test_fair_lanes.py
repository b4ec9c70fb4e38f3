"""One tenant's large upload does not keep another's file waiting, and an idle system is one tenant's alone.

Workers are tasks with a connection each. They take messages from one queue as chunk functions do, each stays with a
file until it is parsed, and the large tenant's files take for ever until the test says otherwise.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from edda.concurrency import Deadline
from edda.ingesting import Ingestion, Lane
from edda.messages import EmbedBatch, IngestVersion
from edda.models import ParseCursor, ParseOutcome
from edda.ports import QueuedMessage
from edda.s3_events import object_changes
from edda.store.ingest import IngestStore, LaneFull
from edda.store.keys import KeyStore

from tests.database.test_sweep import leave_unparsed
from tests.database.world import LineParser, World, connect

WORKERS = 4
SHARE = 2


@dataclass(slots=True)
class SlowFiles(LineParser):
    """Files whose text begins with `slow` are not done before the gate lets them out, one by one."""

    gate: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    working: int = 0

    async def parse(
        self, path: Path, name: str, content_type: str | None, cursor: ParseCursor | None = None
    ) -> ParseOutcome:
        outcome = await LineParser.parse(self, path, name, content_type, cursor)
        if outcome.chunks[0].text.startswith("slow"):
            self.working += 1
            await self.gate.acquire()
            self.working -= 1
        return outcome

    def open(self) -> None:
        for _ in range(1000):
            self.gate.release()


@dataclass(slots=True)
class SimulatedSqs:
    """A standard queue. Plain: oldest first. Fair: of the groups with the fewest messages in flight, oldest first.

    A message without a group is a group of its own, as in SQS.
    """

    fair: bool
    waiting: list[tuple[str, Any]] = field(default_factory=list)
    in_flight: Counter[str] = field(default_factory=Counter)
    arrived: asyncio.Condition = field(default_factory=asyncio.Condition)
    numbers: int = 0

    async def send(self, bodies: Sequence[Any], group: str = "") -> list[int]:
        async with self.arrived:
            for body in bodies:
                self.numbers += 1
                self.waiting.append((group or f"alone {self.numbers}", body))
            self.arrived.notify_all()
        return []

    async def delay(self, delays_s: Any) -> None:
        """Not used here."""

    async def receive(self) -> list[QueuedMessage]:
        """Workers here take messages by `message`; only dead-letter queues are received from, and this is none."""
        return []

    async def remove(self, receipt_handles: Sequence[str]) -> None:
        """Not used here."""

    @asynccontextmanager
    async def message(self) -> AsyncIterator[Any]:
        async with self.arrived:
            await self.arrived.wait_for(lambda: self.waiting)
            group, body = min(self.waiting, key=lambda each: self.in_flight[each[0]] if self.fair else 0)
            self.waiting.remove((group, body))
            self.in_flight[group] += 1
        try:
            yield body
        finally:
            self.in_flight[group] -= 1


@dataclass(slots=True)
class Hall:
    """Two tenants, the queue of their files, and who works on it."""

    large: World
    small: World
    queue: SimulatedSqs
    parser: SlowFiles
    ingestions: list[Ingestion]

    async def work(self, ingestion: Ingestion) -> None:
        while True:
            async with self.queue.message() as body:
                if isinstance(body, str):
                    await ingestion.ingest(IngestVersion.model_validate_json(body), Deadline.after(60))
                else:
                    for change in object_changes({"Records": [body]}):
                        await ingestion.object_changed(change, Deadline.after(60))

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        workers = [asyncio.create_task(self.work(ingestion)) for ingestion in self.ingestions]
        try:
            yield
        finally:
            for worker in workers:
                worker.cancel()
            outcomes = await asyncio.gather(*workers, return_exceptions=True)
            assert {type(outcome) for outcome in outcomes} == {asyncio.CancelledError}

    async def upload(self, files: int) -> None:
        """The large tenant's files, and then one of the small one's."""
        for number in range(files):
            await self.queue.send([await self.large.put(f"{number}.txt", f"slow {number}")])
        await self.queue.send([await self.small.put("small.txt", "quick")])


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not is_so():  # noqa: ASYNC110 - Postgres has no event for it
            await asyncio.sleep(0.01)


@pytest.fixture(params=["plain", "fair"])
async def hall(request: pytest.FixtureRequest, world: World) -> AsyncIterator[Hall]:
    small = await World.build(world.urls, world.model, "globex", database=world.database, objects=world.objects)
    queue, parser = SimulatedSqs(fair=request.param == "fair"), SlowFiles()
    databases = [connect(world.urls.app) for _ in range(WORKERS)]
    ingestions = [
        replace(
            world.ingestion,
            store=IngestStore(database, world.model.model_id),
            keys=KeyStore(database),
            parser=parser,
            lane=Lane(queue, SHARE),
        )
        for database in databases
    ]
    yield Hall(world, small, queue, parser, ingestions)
    for database in databases:
        await database.aclose()


async def test_a_small_tenants_file_is_done_while_a_large_backlog_has_not_moved(hall: Hall) -> None:
    files = 60
    async with hall.at_work():
        await hall.upload(files)
        await until(lambda: len(hall.large.embed_queue.messages) == 1)  # both tenants' messages are on one queue
        await hall.large.embed()
        assert hall.small.statuses("small.txt") == ["ready"]
        assert hall.large.rows("SELECT count(*) FROM document_versions WHERE chunked_at IS NOT NULL") == [(1,)]
        # What passes through the lane is begun by whoever is free: all workers are the large tenant's now.
        await until(lambda: hall.parser.working == WORKERS)
        hall.parser.open()
        await until(
            lambda: hall.large.rows("SELECT count(*) FROM document_versions WHERE chunked_at IS NULL") == [(0,)]
        )
        await until(lambda: not hall.queue.waiting and not +hall.queue.in_flight)
    await hall.large.embed()
    assert hall.large.rows("SELECT status, count(*) FROM document_versions GROUP BY 1") == [("ready", files + 1)]
    assert hall.large.rows("SELECT max(attempt) FROM document_versions") == [(1,)]
    await hall.small.database.aclose()


async def test_a_file_that_comes_when_the_lane_is_long_and_all_workers_are_taken_is_the_next(hall: Hall) -> None:
    hall.queue.fair = True  # here it is the queue that decides
    async with hall.at_work():
        for number in range(20):
            await hall.queue.send([await hall.large.put(f"{number}.txt", f"slow {number}")])
        await until(lambda: hall.parser.working == WORKERS and len(hall.queue.waiting) == 20 - WORKERS)
        await hall.queue.send([await hall.small.put("small.txt", "quick")])
        hall.parser.gate.release()
        await until(lambda: hall.small.statuses("small.txt") == ["embedding"])
        assert hall.large.rows("SELECT count(*) FROM document_versions WHERE chunked_at IS NOT NULL") == [(2,)]
        hall.parser.open()
        await until(lambda: not hall.queue.waiting and not +hall.queue.in_flight)
    await hall.large.embed()
    assert hall.large.rows("SELECT status, count(*) FROM document_versions GROUP BY 1") == [("ready", 21)]


async def test_without_the_lane_the_small_tenant_would_wait_for_the_large_one(hall: Hall) -> None:
    """So the test above shows something."""
    hall.ingestions = [replace(ingestion, lane=None) for ingestion in hall.ingestions]
    async with hall.at_work():
        await hall.upload(10)
        await until(lambda: hall.parser.working == WORKERS)
        assert hall.small.statuses("small.txt") == []
        hall.parser.open()
        await until(lambda: hall.small.statuses("small.txt") == ["embedding"])
        await until(lambda: not hall.queue.waiting and not +hall.queue.in_flight)
    await hall.large.embed()


async def test_what_waits_in_the_lane_is_not_rung_for_by_the_sweep_as_well(hall: Hall) -> None:
    async with hall.at_work():
        for number in range(WORKERS + 6):
            await hall.queue.send([await hall.large.put(f"{number}.txt", f"slow {number}")])
        await until(lambda: hall.parser.working == WORKERS and len(hall.queue.waiting) == 6)
        assert await hall.large.run_sweep() == {}
        hall.parser.open()
        await until(lambda: not hall.queue.waiting and not +hall.queue.in_flight)
    await hall.large.embed()


async def test_of_many_who_begin_at_once_only_the_share_begins(hall: Hall) -> None:
    names = [f"{number}.txt" for number in range(WORKERS)]
    for name in names:
        await leave_unparsed(hall.large, name)
    versions = [row[0] for row in hall.large.rows("SELECT version_id FROM document_versions")]
    outcomes = await asyncio.gather(
        *(
            ingestion.store.claim_version(hall.large.tenant_id, version_id, 60, share=SHARE)
            for ingestion, version_id in zip(hall.ingestions, versions, strict=True)
        ),
        return_exceptions=True,
    )
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["LaneFull"] * 2 + ["VersionLease"] * 2
    assert hall.large.rows(
        "SELECT count(*) FROM document_versions WHERE status = 'parsing' AND lease_until > now()"
    ) == [(SHARE,)]
    # One tenant's share is not another's, and a lease that has ended counts no more.
    hall.large.rows("UPDATE document_versions SET lease_until = now() - interval '1 second'")
    refused = next(
        version for version, outcome in zip(versions, outcomes, strict=True) if isinstance(outcome, LaneFull)
    )
    store = hall.ingestions[0].store
    assert await store.claim_version(hall.large.tenant_id, refused, 60, share=SHARE) is not None


async def test_a_lane_that_takes_nothing_costs_no_file_its_turn(hall: Hall) -> None:
    class Closed(SimulatedSqs):
        async def send(self, bodies: Sequence[Any], group: str = "") -> list[int]:
            return list(range(len(bodies)))

    ingestion = replace(hall.ingestions[0], lane=Lane(Closed(fair=False), 0))
    for change in object_changes({"Records": [await hall.small.put("a.txt", "quick")]}):
        await ingestion.object_changed(change, Deadline.after(30))
    assert hall.small.statuses("a.txt") == ["embedding"]


async def test_every_message_of_ours_names_its_tenant(hall: Hall) -> None:
    world = hall.large
    await world.notice(await world.put("a.txt", "one"))
    await leave_unparsed(world, "b.txt")
    world.embed_queue.take()
    world.rows("UPDATE embed_batches SET sent_at = sent_at - interval '1 hour'")
    await world.run_sweep()
    assert set(world.embed_queue.groups + world.ingest_queue.groups) == {str(world.tenant_id)}
    assert (len(world.embed_queue.groups), len(world.ingest_queue.groups)) == (2, 1)


async def test_in_one_batch_of_messages_who_has_little_comes_first(hall: Hall) -> None:
    await hall.large.notice(await hall.large.put("large.txt", "\n".join(f"line {number}" for number in range(200))))
    await hall.small.notice(await hall.small.put("small.txt", "quick"))
    bodies = hall.large.embed_queue.take() + hall.small.embed_queue.take()
    batches = [EmbedBatch.model_validate_json(body) for body in bodies]
    assert await hall.large.embedding.embed_batches(batches, Deadline.after(30)) == {}
    assert hall.large.embedder.requests[0] == ["quick"]
