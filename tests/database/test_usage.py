"""The ledger says what was paid for, neither more nor less, and caps stop what would go over them."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Literal

import pytest
from edda.concurrency import Deadline
from edda.errors import (
    DatabaseUnavailable,
    EmbeddingRejected,
    ProviderThrottled,
    ProviderUnavailable,
)
from edda.messages import EmbedBatch
from edda.models import Usage
from edda.store.embed import EmbedStore
from edda.store.ingest import IngestStore
from edda.store.keys import KeyStore
from edda.store.migrations import register_model
from edda.store.usage import FIELDS, Caps, set_caps
from edda.vectors import wrong_dimensions

from tests.database.test_sweep import age
from tests.database.world import BusyEmbedder, World, connect
from tests.postgres import MODEL_DIMENSIONS, MODEL_NAME

LINES = [f"line {number:03}" for number in range(100)]  # eight characters each, which the parser here calls tokens
TEXT = "\n".join(LINES)


def ledger(world: World, name: str | None = None) -> Usage:
    """The sum of all documents' rows, or of one's."""
    sums = ", ".join(f"COALESCE(sum(u.{field}), 0)::bigint" for field in FIELDS)
    ((row),) = world.rows(
        f"SELECT {sums} FROM document_usage u JOIN documents d USING (document_id) "
        "WHERE u.tenant_id = %s AND (%s::text IS NULL OR d.object_key = %s)",
        world.tenant_id,
        name,
        world.key(name or ""),
    )
    return Usage(*row)


def paid(world: World) -> int:
    """By the provider's book: every text it embedded, as often as it did."""
    return sum(len(text) for text in world.embedder.texts)


# Counting ---------------------------------------------------------------------------------------------------------


async def test_without_faults_what_was_paid_is_what_was_planned_and_nothing_is_unsettled(world: World) -> None:
    await world.bring_in("a.txt", TEXT)
    assert ledger(world) == Usage(
        bytes=len(TEXT), chunks=100, tokens_planned=800, tokens=800, provider_calls=len(world.embedder.requests)
    )
    assert paid(world) == 800


async def test_what_is_delivered_again_adds_nothing(world: World) -> None:
    record = await world.put("a.txt", TEXT)
    await world.notice(record, record)
    messages = list(world.embed_queue.messages)
    await world.embed()
    before = ledger(world)
    await world.notice(record)
    world.embed_queue.messages = messages * 2
    await world.embed()
    await world.run_sweep()
    assert ledger(world) == before
    assert paid(world) == 800


async def test_only_what_changed_is_paid_for(world: World) -> None:
    await world.bring_in("a.txt", TEXT)
    await world.bring_in("a.txt", TEXT.replace("line 050", "line fifty"))
    assert ledger(world).tokens == ledger(world).tokens_planned == paid(world) == 800 + len("line fifty")


async def test_a_text_that_two_documents_share_is_counted_once(world: World) -> None:
    for name in ("a.txt", "b.txt"):
        await world.notice(await world.put(name, "shared"))
    await world.embed()
    assert (ledger(world).tokens, ledger(world).tokens_unsettled, paid(world)) == (6, 0, 6)
    assert sorted(ledger(world, name).tokens for name in ("a.txt", "b.txt")) == [0, 6]


async def test_a_refused_text_costs_its_requests_and_no_tokens(world: World) -> None:
    world.embedder.refuses = {"bad"}
    await world.bring_in("a.txt", "good\nbad")
    assert ledger(world) == Usage(bytes=8, chunks=2, tokens_planned=7, tokens=4, provider_calls=3)


async def test_what_was_reserved_for_a_refused_text_is_settled_before_its_document_ends(world: World) -> None:
    world.embedder.refuses = {LINES[0]}
    await world.notice(await world.put("a.txt", TEXT))
    world.embed_queue.messages = world.embed_queue.messages[:1]  # of two
    await world.embed()
    assert world.statuses("a.txt") == ["embedding"]
    assert (ledger(world).tokens, ledger(world).tokens_unsettled) == (63 * 8, 0)


async def test_a_throttled_request_is_counted_and_costs_nothing(world: World) -> None:
    await world.notice(await world.put("a.txt", "one"))
    world.embedder.script = [ProviderThrottled()]
    await world.embed()
    assert ledger(world) == Usage(bytes=3, chunks=1, tokens_planned=3, provider_calls=1)
    await world.embed()
    assert ledger(world) == Usage(bytes=3, chunks=1, tokens_planned=3, tokens=3, provider_calls=2)


async def test_a_request_whose_answer_was_lost_may_have_been_paid(world: World) -> None:
    await world.notice(await world.put("a.txt", "one"))
    world.embedder.script = [ProviderUnavailable()]
    await world.embed()
    assert await world.embed() == {}
    assert ledger(world) == Usage(
        bytes=3, chunks=1, tokens_planned=3, tokens=3, tokens_unsettled=3, provider_calls=2, provider_calls_lost=1
    )


async def test_vectors_of_another_model_were_paid_for_though_nothing_can_be_done_with_them(world: World) -> None:
    await world.notice(await world.put("a.txt", "one"))
    world.embedder.script = [wrong_dimensions(3, MODEL_DIMENSIONS)]
    await world.embed()
    assert await world.embed() == {}
    assert (ledger(world).tokens, ledger(world).tokens_unsettled, ledger(world).provider_calls_lost) == (3, 3, 1)


async def test_a_worker_that_died_leaves_its_tokens_unsettled(world: World) -> None:
    await world.notice(await world.put("a.txt", "one"))
    await world.claim_batch(EmbedBatch.model_validate_json(world.embed_queue.messages[0]), 0)
    assert await world.embed() == {}
    assert (ledger(world).tokens, ledger(world).tokens_unsettled) == (3, 3)


async def test_what_was_paid_and_could_not_be_stored_stays_unsettled(world: World) -> None:
    class Failing(EmbedStore):
        async def save(self, *_: object) -> Any:
            raise DatabaseUnavailable

    await world.notice(await world.put("a.txt", "one"))
    broken = replace(world.embedding, store=Failing(world.database, world.model.model_id))
    batches = [EmbedBatch.model_validate_json(body) for body in world.embed_queue.messages]
    assert len(await broken.embed_batches(batches, Deadline.after(30))) == 1
    assert (ledger(world).tokens, ledger(world).tokens_unsettled) == (0, 3)
    await world.embed()
    assert (ledger(world).tokens, ledger(world).tokens_unsettled, paid(world)) == (3, 3, 6)


async def test_work_that_was_taken_over_is_counted_for_both_who_did_it(world: World) -> None:
    await world.notice(await world.put("a.txt", "one"))
    (body,) = world.embed_queue.messages

    async def somebody_else() -> None:
        world.embedder.meanwhile = None
        age(world, 3600)
        world.embed_queue.messages = [body]
        assert await world.embed() == {}

    world.embedder.meanwhile = somebody_else
    await world.embed()
    assert (ledger(world).tokens, ledger(world).tokens_unsettled, paid(world)) == (6, 0, 6)


async def test_what_a_deleted_document_cost_stays_known(world: World) -> None:
    await world.bring_in("a.txt", "one")
    await world.notice(await world.delete("a.txt"))
    assert ledger(world).tokens == 3


async def test_tokens_cost_what_the_deployment_was_told(world: World) -> None:
    await register_model(world.urls.owner, MODEL_NAME, MODEL_DIMENSIONS, price_per_million_tokens=Decimal("0.02"))
    try:
        await world.bring_in("a.txt", TEXT)
    finally:
        await register_model(world.urls.owner, MODEL_NAME, MODEL_DIMENSIONS)
    assert world.rows("SELECT cost, cost_planned FROM document_usage") == [(Decimal("0.000016"), Decimal("0.000016"))]


@dataclass
class HonestEmbedder(BusyEmbedder):
    """Faults by chance, and the provider's own book of what it embedded: for certain, and at most."""

    chance: random.Random | None = None
    certain: int = 0
    at_most: int = 0

    async def embed(
        self, texts: Sequence[str], *, purpose: Literal["document", "query"], deadline: Deadline
    ) -> Sequence[bytes | EmbeddingRejected]:
        assert self.chance is not None
        draw = self.chance.random()
        if draw < 0.15:
            raise ProviderThrottled
        tokens = sum(len(text) for text in texts)
        if draw < 0.3:
            self.at_most += tokens
            raise ProviderUnavailable
        if draw < 0.35:
            raise EmbeddingRejected
        vectors = await super().embed(texts, purpose=purpose, deadline=deadline)
        self.certain += tokens
        self.at_most += tokens
        return vectors


@pytest.mark.parametrize("seed", range(12))
async def test_the_ledger_bounds_what_was_paid_under_any_faults(world: World, seed: int) -> None:
    chance = random.Random(seed)
    embedder = HonestEmbedder(world.model.name, world.model.dimensions, chance=chance)
    embedding = replace(world.embedding, embedder=embedder)
    for number in range(4):
        await world.notice(await world.put(f"{number}.txt", "\n".join(chance.choices(LINES, k=80))))
    messages = [EmbedBatch.model_validate_json(body) for body in world.embed_queue.take()]
    for _ in range(12):
        delivered = chance.sample(messages, chance.randint(1, len(messages)))
        if chance.random() < 0.2:  # a worker takes its work and dies
            for message in delivered:
                await world.claim_batch(message, 0)
        else:
            await embedding.embed_batches(delivered, Deadline.after(30))
        age(world, 3600)
    usage = ledger(world)
    assert usage.tokens == embedder.certain
    assert embedder.at_most <= usage.tokens + usage.tokens_unsettled


# Caps -------------------------------------------------------------------------------------------------------------


async def cap(world: World, **caps: int | Decimal) -> None:
    await set_caps(world.urls.owner, world.tenant, Caps(**caps))  # type: ignore[arg-type]  # numbers of its own types


@pytest.mark.parametrize("name", ["tokens_per_day", "tokens_per_month"])
async def test_a_document_that_would_go_over_a_cap_fails_with_its_code_and_embeds_nothing(
    world: World, name: str
) -> None:
    await cap(world, **{name: 799})
    await world.bring_in("a.txt", TEXT)
    assert (world.statuses("a.txt"), world.error_codes("a.txt")) == (["failed"], ["quota_exceeded"])
    ((message,),) = world.rows("SELECT error_message FROM document_versions")
    assert f"The cap {name} of 799" in message
    assert world.embedder.requests == []
    assert world.rows("SELECT count(*) FROM chunks") == [(0,)]
    assert ledger(world) == Usage()


async def test_a_document_that_just_fits_is_taken_and_the_next_one_is_not_even_read(world: World) -> None:
    await cap(world, tokens_per_day=800)
    await world.bring_in("a.txt", TEXT)
    assert world.statuses("a.txt") == ["ready"]

    async def reading() -> None:
        raise AssertionError("it was read")

    world.parser.meanwhile = reading
    await world.bring_in("b.txt", "x")
    assert world.error_codes("b.txt") == ["quota_exceeded"]


async def test_a_cost_cap_counts_dollars(world: World) -> None:
    await register_model(world.urls.owner, MODEL_NAME, MODEL_DIMENSIONS, price_per_million_tokens=Decimal(1))
    try:
        await cap(world, cost_per_month=Decimal("0.0008"))
        await world.bring_in("a.txt", TEXT)
        await world.bring_in("b.txt", "one more")
    finally:
        await register_model(world.urls.owner, MODEL_NAME, MODEL_DIMENSIONS)
    assert world.statuses("a.txt") == ["ready"]
    assert world.error_codes("b.txt") == ["quota_exceeded"]


async def test_the_old_version_answers_while_a_cap_keeps_the_new_one_out(world: World) -> None:
    await world.bring_in("a.txt", "old")
    await cap(world, tokens_per_day=3)
    await world.bring_in("a.txt", "new")
    assert world.visible("a.txt") == ["old"]


async def test_a_refused_version_becomes_ready_when_it_is_begun_again_under_a_higher_cap(world: World) -> None:
    await cap(world, tokens_per_day=10)
    record = await world.put("a.txt", TEXT)
    await world.notice(record)
    await cap(world, tokens_per_day=800)
    world.rows("UPDATE document_versions SET status = 'queued', error_code = NULL, error_message = NULL, "
               "finished_at = NULL")  # fmt: skip
    await world.notice(record)
    await world.embed()
    assert world.statuses("a.txt") == ["ready"]
    assert ledger(world).tokens == 800


async def test_yesterday_does_not_count_today(world: World) -> None:
    await cap(world, tokens_per_day=800)
    await world.bring_in("a.txt", TEXT)
    for table in ("document_usage", "tenant_usage"):
        world.rows(f"UPDATE {table} SET day = day - 1")
    await world.bring_in("b.txt", TEXT.upper())
    assert world.statuses("b.txt") == ["ready"]


async def test_one_tenants_cap_is_not_anothers(world: World) -> None:
    other = await World.build(world.urls, world.model, "globex")
    await cap(other, tokens_per_day=0)
    await world.bring_in("a.txt", "one")
    await other.bring_in("a.txt", "one")
    assert (world.statuses("a.txt"), other.statuses("a.txt")) == (["ready"], ["failed"])
    await other.database.aclose()


async def test_two_documents_planned_at_once_do_not_share_the_same_rest_of_a_cap(world: World) -> None:
    await cap(world, tokens_per_day=1200)
    records = [await world.put("a.txt", TEXT), await world.put("b.txt", TEXT.upper())]
    elsewhere = connect(world.urls.app)
    others = replace(world.ingestion, store=IngestStore(elsewhere, world.model.model_id), keys=KeyStore(elsewhere))
    second = replace(world, ingestion=others)
    await asyncio.gather(world.notice(records[0]), second.notice(records[1]))
    await elsewhere.aclose()
    await world.embed()
    assert sorted([*world.statuses("a.txt"), *world.statuses("b.txt")]) == ["failed", "ready"]


async def test_many_workers_of_one_tenant_charge_and_tell_without_waiting_in_a_circle(world: World) -> None:
    """A deadlock would end as DatabaseUnavailable, and be raised here."""
    databases = [connect(world.urls.app) for _ in range(4)]
    shared = [f"shared {number}" for number in range(30)]

    async def work(seed: int) -> None:
        chance, database = random.Random(seed), databases[seed]
        model_id = world.model.model_id
        mine = replace(
            world,
            ingestion=replace(world.ingestion, store=IngestStore(database, model_id), keys=KeyStore(database)),
            embedding=replace(world.embedding, store=EmbedStore(database, model_id)),
            embed_queue=world.embed_queue,
        )
        for number in range(8):
            name = f"{chance.randrange(5)}.txt"
            lines = [*chance.sample(shared, 20), f"own {seed} {number}"]
            await mine.notice(await mine.put(name, "\n".join(lines)))
            failures = await mine.embed()
            assert [error for error in failures.values() if not isinstance(error, ProviderUnavailable)] == []
            if chance.random() < 0.3:
                await mine.notice(await mine.delete(name))

    await asyncio.gather(*(work(seed) for seed in range(4)))
    for _ in range(3):
        age(world, 3600)
        await world.run_sweep()
        await world.embed()
    for database in databases:
        await database.aclose()
    assert world.rows("SELECT count(*) FROM document_versions WHERE finished_at IS NULL") == [(0,)]
    assert ledger(world).tokens == paid(world)
    assert ledger(world).tokens_unsettled == 0
