"""Documents that share texts, embedded by several workers at once: each text is paid for once."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from edda.errors import ProviderUnavailable
from edda.messages import EmbedBatch

from tests.database.world import World, connect


@pytest.fixture
async def workers(world: World) -> AsyncIterator[list[World]]:
    """Three of them, of one tenant."""
    others = [
        await World.build(
            world.urls, world.model, world.tenant.slug, database=connect(world.urls.app), objects=world.objects
        )
        for _ in range(2)
    ]
    yield [world, *others]
    for other in others:
        await other.database.aclose()


def at_once(workers: list[World]) -> None:
    """Nobody gets an answer before all have asked."""
    all_asked = asyncio.Barrier(len(workers))

    async def wait_for_all() -> None:
        await all_asked.wait()

    for worker in workers:
        worker.embedder.meanwhile = wait_for_all


async def test_the_same_text_in_documents_that_are_embedded_at_once_is_paid_for_once(workers: list[World]) -> None:
    for number, worker in enumerate(workers):
        await worker.notice(await worker.put(f"{number}.txt", f"shared\nown {number}\nshared as well"))
    at_once(workers)
    assert await asyncio.gather(*(worker.embed() for worker in workers)) == [{}] * 3
    assert sorted(text for worker in workers for text in worker.embedder.texts) == [
        *("own 0", "own 1", "own 2", "shared", "shared as well")
    ]
    for number, worker in enumerate(workers):
        assert worker.visible(f"{number}.txt") == ["shared", f"own {number}", "shared as well"]


async def test_who_waits_in_vain_has_the_message_delivered_again_and_embeds_the_text_then(workers: list[World]) -> None:
    first, second, _ = workers
    for number, worker in enumerate((first, second)):
        await worker.notice(await worker.put(f"{number}.txt", f"shared\nown {number}"))
    asked, answered = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        asked.set()
        await answered.wait()

    first.embedder.meanwhile, first.embedder.script = wait, [ProviderUnavailable()]
    embedding = asyncio.create_task(first.embed())
    await asked.wait()
    second.embedding = replace(second.embedding, others_s=0)
    assert len(await second.embed()) == 1
    assert second.embedder.texts == ["own 1"]
    answered.set()
    assert len(await embedding) == 1
    assert await second.embed() == {}
    assert second.embedder.texts == ["own 1", "shared"]
    assert second.visible("1.txt") == ["shared", "own 1"]
    assert await first.embed() == {}
    assert first.embedder.requests[1:] == [["own 0"]]


async def test_a_text_held_by_a_worker_that_died_is_embedded_by_another_when_the_lease_ends(
    workers: list[World],
) -> None:
    first, second, _ = workers
    for number, worker in enumerate((first, second)):
        await worker.notice(await worker.put(f"{number}.txt", "shared"))
    (message,) = first.embed_queue.take()
    assert await first.claim_batch(EmbedBatch.model_validate_json(message), 60) is not None
    first.rows("UPDATE embed_batches SET lease_until = now() WHERE lease_until IS NOT NULL")
    assert await second.embed() == {}
    assert second.visible("1.txt") == ["shared"]
    first.embed_queue.messages = [message]
    assert await first.embed() == {}
    assert first.embedder.texts == []
