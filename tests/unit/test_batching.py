"""Cutting, retrying and halving requests, on an embedder that fails as it is told."""

import asyncio
import math
import time
from collections.abc import Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest
from edda.batching import EmbeddedBatch, NotAsked, RetryPolicy, batch_indices, embed_all, retry_after_s
from edda.concurrency import Deadline
from edda.errors import EmbeddingRejected, ProviderMisconfigured, ProviderThrottled, ProviderUnavailable
from edda.models import EmbeddingLimits
from edda.vectors import InvalidVector
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.embedder import FakeEmbedder, asked_all
from tests.fakes.leaks import no_leaked_tasks  # noqa: F401 - a fixture

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_leaked_tasks")]

AT_ONCE = RetryPolicy(attempts=3, first_wait_s=0.0)
counts = st.lists(st.integers(0, 500), max_size=60)


def words(count: int) -> list[str]:
    return [f"text {number}" for number in range(count)]


async def all_batches(
    embedder: FakeEmbedder, texts: Sequence[str], *, seconds: float = 30.0, retry: RetryPolicy = AT_ONCE
) -> list[EmbeddedBatch]:
    deadline = Deadline.after(seconds)
    async with aclosing(asked_all(embedder, texts, [10] * len(texts), deadline, retry)) as ended:
        return [batch async for batches in ended for batch in batches]


def by_index(batches: Sequence[EmbeddedBatch]) -> dict[int, Any]:
    """What became of every text; fails when one is there twice."""
    pairs = [
        (index, batch.error or batch.vectors[position])
        for batch in batches
        for position, index in enumerate(batch.indices)
    ]
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


# --- cutting ---------------------------------------------------------------------------------------------------------


@given(counts, st.integers(1, 20), st.integers(1, 1000))
async def test_batches_have_every_text_once_in_order_within_both_limits(
    token_counts: list[int], max_items: int, max_tokens: int
) -> None:
    batches = list(batch_indices(token_counts, max_items, max_tokens))
    assert [index for batch in batches for index in batch] == list(range(len(token_counts)))
    for batch in batches:
        assert 1 <= len(batch) <= max_items
        assert len(batch) == 1 or sum(token_counts[index] for index in batch) <= max_tokens


@given(counts, st.integers(1, 20), st.integers(1, 1000))
async def test_no_two_neighbouring_batches_would_fit_into_one(
    token_counts: list[int], max_items: int, max_tokens: int
) -> None:
    for first, second in pairwise(batch_indices(token_counts, max_items, max_tokens)):
        one_more = [*first, second[0]]
        assert len(one_more) > max_items or sum(token_counts[index] for index in one_more) > max_tokens


async def test_a_text_above_the_limit_has_a_batch_of_its_own() -> None:
    assert list(batch_indices([5, 500, 5], 10, 100)) == [range(0, 1), range(1, 2), range(2, 3)]


# --- waiting ---------------------------------------------------------------------------------------------------------


async def test_waits_grow_up_to_the_longest_and_are_anywhere_below_that() -> None:
    longest = RetryPolicy(first_wait_s=0.5, longest_wait_s=20, chance=lambda: 1.0)
    assert [longest.wait_s(failures, None) for failures in range(1, 9)] == [0.5, 1, 2, 4, 8, 16, 20, 20]
    assert RetryPolicy(chance=lambda: 0.0).wait_s(5, None) == 0.0


async def test_a_wait_is_never_shorter_than_the_provider_asks_for() -> None:
    assert RetryPolicy(chance=lambda: 0.0).wait_s(1, 7.0) == 7.0
    assert RetryPolicy(first_wait_s=1, chance=lambda: 1.0).wait_s(1, 7.0) == 8.0


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "7", "retry-after-ms": "250"}, 0.25),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:30 GMT"}, 30.0),
        ({"retry-after": "99999999"}, 3600.0),
        ({"retry-after": "Wed, 21 Oct 2020 07:28:30 GMT"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "nan"}, None),
        ({}, None),
    ],
)
async def test_retry_after_is_read_in_every_form_that_makes_sense(
    headers: dict[str, str], wait_s: float | None
) -> None:
    assert retry_after_s(headers, datetime(2026, 10, 21, 7, 28, tzinfo=UTC)) == wait_s


# --- embedding -------------------------------------------------------------------------------------------------------


async def test_every_text_gets_its_own_vector_in_requests_within_the_limits() -> None:
    embedder, texts = FakeEmbedder(), words(100)
    assert by_index(await all_batches(embedder, texts)) == dict(enumerate(map(embedder.vector, texts)))
    assert max(map(len, embedder.requests)) == embedder.limits.max_texts_per_request
    assert sorted(embedder.texts) == sorted(texts)
    assert set(embedder.purposes) == {"document"}


class Slow(FakeEmbedder):
    """Holds every request until `go_on`, but the first."""

    def __init__(self, limits: EmbeddingLimits) -> None:
        super().__init__(limits=limits)
        self.go_on = asyncio.Event()
        self.in_flight = self.most_in_flight = 0

    async def embed(self, texts: Sequence[str], **options: Any) -> Sequence[bytes | EmbeddingRejected]:
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            if texts[0] != "text 0":
                await self.go_on.wait()
            return await super().embed(texts, **options)
        finally:
            self.in_flight -= 1


async def test_a_batch_is_there_while_others_are_still_in_flight() -> None:
    embedder = Slow(EmbeddingLimits(10, 10_000, 1000, 2))
    async with aclosing(asked_all(embedder, words(50), [1] * 50, Deadline.after(30), RetryPolicy())) as ended:
        (first,) = await anext(ended)
        assert list(first.indices) == list(range(10))
        embedder.go_on.set()
        assert sum([len(batch.indices) async for batches in ended for batch in batches]) == 40
    assert embedder.most_in_flight == 2


async def test_leaving_early_ends_the_requests_in_flight() -> None:
    embedder = Slow(EmbeddingLimits(10, 10_000, 1000, 3))
    async with aclosing(asked_all(embedder, words(50), [1] * 50, Deadline.after(30), RetryPolicy())) as batches:
        await anext(batches)
    assert embedder.in_flight == 0


@pytest.mark.parametrize("position", [0, 1, 49, 98, 99])
async def test_one_bad_text_among_a_hundred_is_found_in_few_requests_and_fails_alone(position: int) -> None:
    embedder = FakeEmbedder(limits=EmbeddingLimits(100, 100_000, 1000, 1), refuses={f"text {position}"})
    outcomes = by_index(await all_batches(embedder, words(100)))
    assert [index for index, outcome in outcomes.items() if isinstance(outcome, EmbeddingRejected)] == [position]
    assert sum(isinstance(outcome, bytes) for outcome in outcomes.values()) == 99
    assert len(embedder.requests) <= 1 + 2 * math.ceil(math.log2(100))


async def test_several_bad_texts_fail_alone_each() -> None:
    bad = {3, 4, 64}
    embedder = FakeEmbedder(refuses={f"text {number}" for number in bad})
    outcomes = by_index(await all_batches(embedder, words(80)))
    assert {index for index, outcome in outcomes.items() if isinstance(outcome, EmbeddingRejected)} == bad
    assert len(outcomes) == 80


async def test_a_request_that_fails_for_now_is_tried_again() -> None:
    embedder = FakeEmbedder(script=[ProviderUnavailable(), ProviderThrottled()])
    (batch,) = await all_batches(embedder, words(3))
    assert batch.error is None
    assert len(embedder.requests) == 3


async def test_a_throttled_request_waits_as_long_as_it_is_asked_to() -> None:
    embedder = FakeEmbedder(script=[ProviderThrottled(retry_after_s=0.05)])
    started = time.monotonic()
    (batch,) = await all_batches(embedder, words(1))
    assert batch.error is None
    assert time.monotonic() - started >= 0.05


async def test_a_wait_that_outlasts_the_deadline_is_not_begun() -> None:
    embedder = FakeEmbedder(script=[ProviderThrottled(retry_after_s=3000)])
    (batch,) = await all_batches(embedder, words(1), seconds=20)
    assert isinstance(batch.error, ProviderThrottled)
    assert batch.error.retry_after_s == 3000
    assert len(embedder.requests) == 1


async def test_a_batch_that_keeps_failing_is_an_error_of_its_own_and_the_others_are_there() -> None:
    one_at_a_time = EmbeddingLimits(10, 10_000, 1000, 1)
    embedder = FakeEmbedder(limits=one_at_a_time, script=[ProviderUnavailable()] * AT_ONCE.attempts)
    failed, *others = await all_batches(embedder, words(30))
    assert list(failed.indices) == list(range(10))
    assert isinstance(failed.error, ProviderUnavailable)
    assert [batch.error for batch in others] == [None, None]
    assert len(embedder.requests) == AT_ONCE.attempts + 2


async def test_the_good_half_is_kept_when_the_other_half_fails_for_now() -> None:
    embedder = FakeEmbedder(
        limits=EmbeddingLimits(4, 1000, 1000, 1), refuses={"text 0"}, script=[None, None, None, None]
    )
    embedder.script += [ProviderUnavailable()] * AT_ONCE.attempts  # requests: 0-3, 0-1, 0, 1, then 2-3
    outcomes = by_index(await all_batches(embedder, words(4)))
    assert isinstance(outcomes[0], EmbeddingRejected)
    assert outcomes[1] == embedder.vector("text 1")
    assert isinstance(outcomes[2], ProviderUnavailable)
    assert isinstance(outcomes[3], ProviderUnavailable)


async def test_a_wrong_configuration_stops_everything() -> None:
    embedder = FakeEmbedder(limits=EmbeddingLimits(1, 1000, 1000, 2), script=[ProviderMisconfigured()] * 100)
    with pytest.raises(ProviderMisconfigured):
        await all_batches(embedder, words(100))
    assert len(embedder.requests) <= 2 * 2 + 2 * 2  # what was read at once, and what may be running or unread


async def test_a_bug_is_raised_and_not_retried() -> None:
    embedder = FakeEmbedder(script=[ZeroDivisionError()])
    with pytest.raises(ZeroDivisionError):
        await all_batches(embedder, words(1))
    assert len(embedder.requests) == 1


async def test_a_vector_that_is_no_vector_is_asked_for_once_more_alone() -> None:
    embedder = FakeEmbedder(script=[{"text 1": InvalidVector()}])
    outcomes = by_index(await all_batches(embedder, words(3)))
    assert outcomes == dict(enumerate(map(embedder.vector, words(3))))
    assert embedder.requests == [words(3), ["text 1"]]


async def test_a_text_that_never_gets_a_vector_is_rejected_and_its_neighbours_are_not() -> None:
    embedder = FakeEmbedder(script=[{"text 1": InvalidVector()}, {"text 1": InvalidVector()}])
    outcomes = by_index(await all_batches(embedder, words(3)))
    assert isinstance(outcomes[1], InvalidVector)
    assert isinstance(outcomes[0], bytes)
    assert isinstance(outcomes[2], bytes)
    assert len(embedder.requests) == 2


async def test_when_no_time_is_left_every_text_is_accounted_for_and_nothing_is_asked() -> None:
    embedder = FakeEmbedder()
    outcomes = by_index(await all_batches(embedder, words(40), seconds=0))
    assert {type(outcome) for outcome in outcomes.values()} == {ProviderUnavailable}
    assert len(outcomes) == 40
    assert embedder.requests == []


async def test_a_request_that_outlasts_the_deadline_is_tried_again_later() -> None:
    embedder = Slow(EmbeddingLimits(10, 10_000, 1000, 2))
    outcomes = by_index(await all_batches(embedder, words(30), seconds=0.05))
    assert sum(isinstance(outcome, bytes) for outcome in outcomes.values()) == 10
    assert sum(isinstance(outcome, ProviderUnavailable) for outcome in outcomes.values()) == 20


async def test_no_texts_need_no_request() -> None:
    embedder = FakeEmbedder()
    assert await all_batches(embedder, []) == []
    assert embedder.requests == []


# --- what is paid is kept ---------------------------------------------------------------------------------------------


async def test_what_was_answered_before_a_wrong_configuration_is_handed_out_first() -> None:
    under_way, refused = asyncio.Event(), asyncio.Event()

    async def ask(indices: Sequence[int]) -> Sequence[bytes]:
        if indices[0] == 2:
            await under_way.wait()
            refused.set()
            raise ProviderMisconfigured
        if indices[0] == 4:
            under_way.set()
        await refused.wait()
        return [b"vector"] * len(indices)

    handed_out: list[int] = []
    requests = [[0, 1], [2, 3], [4, 5], [6, 7]]

    async def read() -> None:
        async with aclosing(embed_all(ask, requests, 3, Deadline.after(30), AT_ONCE)) as ended:
            async for batches in ended:
                handed_out.extend(index for batch in batches for index in batch.indices)

    with pytest.raises(ProviderMisconfigured):
        await read()
    assert sorted(handed_out) == [0, 1, 4, 5]


async def test_sound_vectors_are_kept_when_the_rest_of_their_request_comes_too_late() -> None:
    async def ask(indices: Sequence[int]) -> Sequence[bytes | EmbeddingRejected]:
        if len(indices) == 1:
            await asyncio.Event().wait()
        return [InvalidVector() if index == 3 else b"vector" for index in indices]

    async with aclosing(embed_all(ask, [range(8)], 2, Deadline.after(0.2), AT_ONCE)) as ended:
        outcomes = by_index([batch async for batches in ended for batch in batches])
    assert [index for index, outcome in outcomes.items() if outcome == b"vector"] == [0, 1, 2, 4, 5, 6, 7]
    assert isinstance(outcomes[3], ProviderUnavailable)


async def test_what_is_not_to_be_asked_is_not_tried_again() -> None:
    asked: list[Sequence[int]] = []

    async def ask(indices: Sequence[int]) -> Sequence[bytes]:
        asked.append(indices)
        raise NotAsked(ProviderUnavailable("stuck"))

    async with aclosing(embed_all(ask, [[0], [1]], 2, Deadline.after(30), RetryPolicy())) as ended:
        outcomes = by_index([batch async for batches in ended for batch in batches])
    assert [str(outcomes[index]) for index in (0, 1)] == ["stuck", "stuck"]
    assert len(asked) == 2
