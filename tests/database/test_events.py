"""Every end is told of: once written, at least once delivered, to the bus and to the tenant's own receiver."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import psycopg
import pytest
from edda.concurrency import Deadline
from edda.delivering import EVENTS_AT_ONCE, Delivery
from edda.errors import NoText, RetryableError, WebhookFailed
from edda.signing import new_secret, signed_headers
from edda.store.events import EventStore, Persistence, remove_webhook, set_webhook
from edda.store.keys import KeyStore

from tests.database.world import World, connect
from tests.fakes.events import FakeEventBus, FakeWebhooks

URL = "https://acme.example/hooks"
SECRET = new_secret()


@dataclass(slots=True)
class Audience:
    """A world that tells of its documents, and who listens."""

    world: World
    bus: FakeEventBus
    webhooks: FakeWebhooks
    delivery: Delivery

    async def sweep(self, seconds: float = 30) -> dict[str, int]:
        done = await self.delivery.deliver_all(Deadline.after(seconds))
        return {kind: times for kind, times in done.items() if times}

    def written(self) -> list[tuple[Any, ...]]:
        return self.world.rows("SELECT type, sequence FROM document_events ORDER BY created_at, sequence")

    def age(self, seconds: float) -> None:
        past = f"- interval '{seconds} seconds'"
        self.world.rows(f"UPDATE document_events SET created_at = created_at {past}")
        self.world.rows(f"UPDATE event_deliveries SET next_attempt_at = next_attempt_at {past}")

    def deliveries(self) -> list[tuple[Any, ...]]:
        return self.world.rows(
            "SELECT channel, attempts, delivered_at IS NOT NULL, abandoned_at IS NOT NULL, last_error "
            "FROM event_deliveries ORDER BY channel"
        )


@pytest.fixture
async def audience(world: World) -> Audience:
    """One tenant with a webhook, in a deployment with a bus."""
    await set_webhook(world.urls.owner, world.tenant, URL, SECRET)
    bus, webhooks = FakeEventBus(), FakeWebhooks()
    delivery = Delivery(EventStore(world.database), KeyStore(world.database), webhooks, bus)
    world.ingestion = replace(world.ingestion, delivery=delivery)
    world.embedding = replace(world.embedding, delivery=delivery)
    return Audience(world, bus, webhooks, delivery)


@pytest.fixture
async def elsewhere(audience: Audience) -> AsyncIterator[Delivery]:
    """Another execution environment that delivers."""
    database = connect(audience.world.urls.app)
    yield replace(audience.delivery, store=EventStore(database), keys=KeyStore(database))
    await database.aclose()


# Writing ----------------------------------------------------------------------------------------------------------


async def test_each_end_of_a_version_and_of_a_document_is_written_once_and_in_order(audience: Audience) -> None:
    world = audience.world
    await world.bring_in("a.txt", "good")
    world.embedder.refuses = {"bad"}
    await world.bring_in("a.txt", "good\nbad")
    world.parser.error = NoText()
    await world.bring_in("a.txt", "blank")
    removal = await world.delete("a.txt")
    await world.notice(removal, removal)
    assert audience.written() == [
        ("document.ready", 1),
        ("document.partial", 2),
        ("document.failed", 3),
        ("document.deleted", 4),
    ]


async def test_an_event_is_written_in_the_transaction_of_what_it_tells_of(audience: Audience) -> None:
    await audience.world.bring_in("a.txt", "one")
    assert audience.world.rows("SELECT v.xmin::text = e.xmin::text FROM document_versions v, document_events e") == [
        (True,)
    ]


async def test_what_is_delivered_again_is_not_told_again(audience: Audience) -> None:
    record = await audience.world.bring_in("a.txt", "one")
    await audience.world.notice(record)
    await audience.world.embed()
    await audience.world.run_sweep()
    assert audience.written() == [("document.ready", 1)]


async def test_a_version_that_the_sweep_gives_up_is_told_of(audience: Audience) -> None:
    world = audience.world
    world.parser.error = RetryableError()
    with pytest.raises(RetryableError):
        await world.notice(await world.put("a.txt", "one"))
    world.rows("UPDATE document_versions SET attempt = 9")
    await world.run_sweep()
    assert await audience.sweep() == {"events_delivered": 2}
    (body,) = audience.webhooks.bodies
    assert (body["type"], body["data"]["error"]["code"]) == ("document.failed", "attempts_exhausted")


async def test_a_version_begun_again_tells_of_its_second_end_too(audience: Audience) -> None:
    world = audience.world
    world.parser.error = NoText()
    record = await world.bring_in("a.txt", "one")
    world.parser.error = None
    world.rows("UPDATE document_versions SET status = 'queued', error_code = NULL, finished_at = NULL")
    await world.notice(record)
    await world.embed()
    assert audience.written() == [("document.failed", 1), ("document.ready", 2)]


async def test_a_delete_of_what_nobody_has_seen_is_not_told(audience: Audience) -> None:
    await audience.world.notice(await audience.world.delete("never.txt"))
    assert audience.written() == []


async def test_a_document_in_flight_that_is_deleted_ends_so(audience: Audience) -> None:
    await audience.world.notice(await audience.world.put("a.txt", "one"))
    await audience.world.notice(await audience.world.delete("a.txt"))
    await audience.world.embed()
    assert audience.written() == [("document.deleted", 1)]


# Delivering -------------------------------------------------------------------------------------------------------


async def test_right_after_the_commit_both_receivers_have_it_and_the_sweep_has_nothing_to_do(
    audience: Audience,
) -> None:
    world = audience.world
    await world.bring_in("a.txt", "one\ntwo")
    ((event_id, document_id, version_id),) = world.rows(
        "SELECT event_id::text, document_id::text, body -> 'data' ->> 'version_id' FROM document_events"
    )
    ((url, headers, body),) = audience.webhooks.posts
    (event,) = audience.bus.events
    assert url == URL
    assert headers["webhook-id"] == event_id
    assert headers == signed_headers(SECRET, event_id, int(headers["webhook-timestamp"]), body)
    assert (event.type, event.detail.encode()) == ("document.ready", body)
    (told,) = audience.webhooks.bodies
    assert told["timestamp"].endswith("Z")
    assert told == {
        "id": event_id,
        "type": "document.ready",
        "sequence": 1,
        "timestamp": told["timestamp"],
        "data": {
            "tenant_id": str(world.tenant_id),
            "document_id": document_id,
            "version_id": version_id,
            "s3_version_id": "version-1",
            "object_key": world.key("a.txt"),
            "name": "a.txt",
            "status": "ready",
            "error": None,
            "size_bytes": 7,
            "chunks": 2,
        },
    }
    assert await audience.sweep() == {}


async def test_a_tenant_without_a_webhook_is_told_of_on_the_bus_alone(audience: Audience) -> None:
    other = await World.build(audience.world.urls, audience.world.model, "globex", database=audience.world.database)
    other.embedding = replace(other.embedding, delivery=audience.delivery)
    await other.bring_in("a.txt", "one")
    assert audience.bus.types == ["document.ready"]
    assert audience.webhooks.posts == []


async def test_a_receiver_that_fails_is_tried_again_with_the_same_event_until_it_takes_it(audience: Audience) -> None:
    audience.webhooks.failures = [WebhookFailed("It answered 500."), WebhookFailed("It answered 503.")]
    await audience.world.bring_in("a.txt", "one")
    assert audience.deliveries()[1] == ("webhook", 1, False, False, "It answered 500.")
    assert await audience.sweep() == {}  # not due yet
    audience.age(31)
    assert await audience.sweep() == {"deliveries_failed": 1}
    audience.age(61)
    assert await audience.sweep() == {"events_delivered": 1}
    assert audience.deliveries()[1] == ("webhook", 3, True, False, None)
    assert len({headers["webhook-id"] for _, headers, _ in audience.webhooks.posts}) == 1
    assert len({body for _, _, body in audience.webhooks.posts}) == 1


async def test_waits_double_with_jitter_up_to_the_longest(audience: Audience) -> None:
    audience.webhooks.failures = [WebhookFailed()] * 20
    await audience.world.bring_in("a.txt", "one")
    waits = []
    for _ in range(10):
        ((wait,),) = audience.world.rows(
            "SELECT extract(epoch FROM next_attempt_at - now())::float8 FROM event_deliveries WHERE channel = 'webhook'"
        )
        waits.append(wait)
        audience.age(wait + 1)
        await audience.sweep()
    for attempt, wait in enumerate(waits):
        ceiling = min(30 * 2**attempt, 3600)
        assert ceiling / 2 - 5 <= wait <= ceiling  # some of it has passed


async def test_a_delivery_is_given_up_when_its_time_is_over_and_that_is_counted(audience: Audience) -> None:
    audience.webhooks.failures = [WebhookFailed("It answered 500.")] * 2
    await audience.world.bring_in("a.txt", "one")
    audience.age(3 * 86_400)
    assert await audience.sweep() == {"deliveries_failed": 1, "deliveries_abandoned": 1}
    audience.age(7200)
    assert await audience.sweep() == {}
    assert audience.deliveries()[1] == ("webhook", 2, False, True, "It answered 500.")


async def test_a_receiver_that_is_gone_is_not_asked_again(audience: Audience) -> None:
    audience.webhooks.failures = [WebhookFailed("It answered 410.", is_final=True)]
    await audience.world.bring_in("a.txt", "one")
    assert audience.deliveries()[1] == ("webhook", 1, False, True, "It answered 410.")


async def test_while_a_receiver_has_trouble_no_worker_waits_for_it(audience: Audience) -> None:
    audience.webhooks.failures = [WebhookFailed()]
    await audience.world.bring_in("a.txt", "one")
    await audience.world.bring_in("b.txt", "two")
    assert len(audience.webhooks.posts) == 1
    assert audience.bus.types == ["document.ready"] * 2
    assert await audience.sweep() == {"events_delivered": 1}  # b's; a's is not due
    audience.age(31)
    await audience.sweep()
    await audience.world.bring_in("c.txt", "three")
    assert len(audience.webhooks.posts) == 4


async def test_a_worker_that_dies_with_an_event_in_its_hand_leaves_it_to_another(audience: Audience) -> None:
    world = audience.world
    world.embedding = replace(world.embedding, delivery=None)
    await world.bring_in("a.txt", "one")
    assert len(await audience.delivery.store.claim(world.tenant_id, ["webhook"], 10, only_first=True)) == 1
    assert await audience.sweep() == {"events_delivered": 1}  # the bus's
    audience.age(31)
    assert await audience.sweep() == {"events_delivered": 1}
    assert len(audience.webhooks.posts) == 1


async def test_what_another_is_just_claiming_is_not_waited_for(audience: Audience) -> None:
    world = audience.world
    world.embedding = replace(world.embedding, delivery=None)
    await world.bring_in("a.txt", "one")
    async with await psycopg.AsyncConnection.connect(world.urls.owner) as other:
        await other.execute("SELECT FROM event_deliveries WHERE channel = 'webhook' FOR UPDATE")
        async with asyncio.timeout(10):
            assert await audience.sweep() == {"events_delivered": 1}
    assert audience.bus.types == ["document.ready"]
    assert audience.webhooks.posts == []


async def test_two_who_deliver_at_once_send_each_event_once(audience: Audience, elsewhere: Delivery) -> None:
    world = audience.world
    world.embedding = replace(world.embedding, delivery=None)
    for number in range(120):
        await world.notice(await world.put(f"{number}.txt", f"text {number}"))
    await world.embed()
    await asyncio.gather(audience.sweep(), elsewhere.deliver_all(Deadline.after(30)))
    assert len(audience.webhooks.posts) == 120
    assert len({headers["webhook-id"] for _, headers, _ in audience.webhooks.posts}) == 120
    assert len(audience.bus.events) == 120


async def test_a_bus_that_takes_nothing_is_tried_again_and_costs_the_work_nothing(audience: Audience) -> None:
    audience.bus.outage = True
    await audience.world.bring_in("a.txt", "one")
    assert audience.world.statuses("a.txt") == ["ready"]
    assert audience.deliveries()[0] == ("event_bus", 1, False, False, "the event bus did not take it")
    audience.bus.outage = False
    audience.age(31)
    assert await audience.sweep() == {"events_delivered": 1}


async def test_a_receiver_that_hangs_costs_a_sweep_no_more_than_its_time(audience: Audience) -> None:
    world = audience.world
    world.embedding = replace(world.embedding, delivery=None)
    await world.bring_in("a.txt", "one")
    audience.webhooks.hangs = True
    assert await audience.sweep(seconds=1.2) == {"events_delivered": 1, "deliveries_failed": 1}
    assert audience.deliveries()[1][4] is not None


async def test_without_time_nothing_is_begun_and_no_receiver_is_blamed(audience: Audience) -> None:
    world = audience.world
    world.embedding = replace(world.embedding, delivery=None)
    await world.bring_in("a.txt", "one")
    await audience.delivery.promptly([world.tenant_id], Deadline.after(0.5))
    assert await audience.sweep(seconds=0.5) == {}
    assert {row[1] for row in audience.deliveries()} == {0}


async def test_one_tenants_dead_receiver_does_not_keep_anothers_events(audience: Audience) -> None:
    world = audience.world
    other = await World.build(world.urls, world.model, "globex", database=world.database)
    await set_webhook(world.urls.owner, other.tenant, "https://globex.example/", new_secret())
    world.embedding = replace(world.embedding, delivery=None)
    await world.bring_in("a.txt", "one")
    await other.bring_in("a.txt", "one")
    audience.webhooks.failures = [WebhookFailed()]
    await audience.sweep()
    audience.age(31)
    await audience.sweep()
    assert {url for url, _, _ in audience.webhooks.posts} == {URL, "https://globex.example/"}
    assert audience.world.rows("SELECT count(*) FROM event_deliveries WHERE delivered_at IS NULL") == [(0,)]


async def test_a_backlog_of_the_webhook_does_not_keep_events_from_the_bus(audience: Audience) -> None:
    world = audience.world
    audience.webhooks.failures = [WebhookFailed()] * 1000
    world.ingestion = replace(world.ingestion, delivery=None)
    world.embedding = replace(world.embedding, delivery=None)
    world.parser.error = NoText()  # the shortest way to an end
    for number in range(EVENTS_AT_ONCE + 1):
        await world.notice(await world.put(f"{number}.txt", "one"))
    world.rows("UPDATE event_deliveries SET delivered_at = now() WHERE channel = 'event_bus'")
    world.parser.error = None
    await world.bring_in("a.txt", "one")
    assert await audience.sweep() == {"events_delivered": 1, "deliveries_failed": EVENTS_AT_ONCE}
    assert [event.type for event in audience.bus.events] == ["document.ready"]


async def test_after_its_webhook_is_removed_a_tenants_events_are_given_up(audience: Audience) -> None:
    audience.webhooks.failures = [WebhookFailed()]
    await audience.world.bring_in("a.txt", "one")
    await remove_webhook(audience.world.urls.owner, audience.world.tenant)
    audience.age(31)
    assert await audience.sweep() == {"deliveries_failed": 1, "deliveries_abandoned": 1}
    await audience.world.bring_in("b.txt", "two")
    assert len(audience.webhooks.posts) == 1


async def test_without_a_bus_webhooks_alone_are_served_and_nothing_piles_up(audience: Audience) -> None:
    deaf = replace(audience.delivery, bus=None)
    audience.world.embedding = replace(audience.world.embedding, delivery=deaf)
    await audience.world.bring_in("a.txt", "one")
    assert len(audience.webhooks.posts) == 1
    await deaf.deliver_all(Deadline.after(30))
    assert [row[0] for row in audience.deliveries()] == ["webhook"]


async def test_old_events_are_forgotten_and_the_numbers_go_on(audience: Audience) -> None:
    await audience.world.bring_in("a.txt", "one")
    audience.age(31 * 86_400)
    assert await audience.sweep() == {"events_forgotten": 1}
    assert audience.deliveries() == []
    audience.world.rows("UPDATE document_versions SET finished_at = NULL, status = 'embedding'")
    await audience.world.bring_in("a.txt", "two")
    assert audience.written() == [("document.ready", 2)]
    audience.world.rows("UPDATE document_versions SET finished_at = now(), status = 'ready' WHERE finished_at IS NULL")


async def test_what_a_worker_meets_while_it_tells_does_nothing_to_its_work(audience: Audience) -> None:
    class Broken(EventStore):
        async def claim(self, *_: Any, **__: Any) -> Any:
            raise RuntimeError("not foreseen")

    broken = replace(audience.delivery, store=Broken(audience.world.database, Persistence()))
    audience.world.embedding = replace(audience.world.embedding, delivery=broken)
    await audience.world.notice(await audience.world.put("a.txt", "one"))
    assert await audience.world.embed() == {}
    assert audience.world.statuses("a.txt") == ["ready"]
    assert await audience.sweep() == {"events_delivered": 2}
