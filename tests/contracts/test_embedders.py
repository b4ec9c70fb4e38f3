"""What every Embedder promises: the fake, the HTTP provider, Bedrock's models, the model in this process."""

import math
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Literal

import pytest
from edda.batching import RetryPolicy
from edda.concurrency import Deadline
from edda.errors import EmbeddingRejected

from tests.contracts.providers import KINDS, Provider, provider
from tests.fakes.embedder import asked_all

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_leaked_tasks")]

TEXTS = ["A river crosses the valley.", "Interest rates rose in March.", "Der Fluss quert das Tal. 河流 🏞"]


@pytest.fixture(params=KINDS)
async def ready(request: pytest.FixtureRequest, no_leaked_tasks: None, model_folder: Path) -> AsyncIterator[Provider]:
    async with provider(request.param, model_folder) as one:
        yield one


def numbers(vector: bytes | EmbeddingRejected) -> tuple[float, ...]:
    assert isinstance(vector, bytes), vector
    return struct.unpack(f"<{len(vector) // 4}f", vector)


def possible(fault: Callable[..., None] | None) -> Callable[..., None]:
    if fault is None:
        pytest.skip("there is no provider that could do this")
    return fault


async def embed(
    ready: Provider, *texts: str, purpose: Literal["document", "query"] = "document"
) -> list[bytes | EmbeddingRejected]:
    """As many requests as the limits ask for."""
    size = ready.embedder.limits.max_texts_per_request
    return [
        vector
        for start in range(0, len(texts), size)
        for vector in await ready.embedder.embed(
            texts[start : start + size], purpose=purpose, deadline=Deadline.after(30)
        )
    ]


async def test_it_says_who_it_is_and_what_it_takes(ready: Provider) -> None:
    embedder, limits = ready.embedder, ready.embedder.limits
    maker, _, model = embedder.name.partition("/")
    assert maker
    assert model
    assert embedder.dimensions > 0
    assert limits.max_texts_per_request > 0
    assert limits.max_concurrent_requests > 0
    assert 0 < limits.max_tokens_per_text <= limits.max_tokens_per_request


@pytest.mark.parametrize("purpose", ["document", "query"])
async def test_every_text_gets_a_vector_of_unit_length(ready: Provider, purpose: Literal["document", "query"]) -> None:
    vectors = [numbers(vector) for vector in await embed(ready, *TEXTS, purpose=purpose)]
    assert [len(vector) for vector in vectors] == [ready.embedder.dimensions] * len(TEXTS)
    assert [math.hypot(*vector) for vector in vectors] == pytest.approx([1.0] * len(TEXTS), abs=1e-4)


async def test_vectors_are_in_the_order_of_their_texts_whatever_their_company(ready: Provider) -> None:
    alone = [vector for text in TEXTS for vector in await embed(ready, text)]
    assert len(set(alone)) == len(TEXTS)
    assert await embed(ready, *TEXTS) == alone
    assert await embed(ready, *reversed(TEXTS)) == alone[::-1]


async def test_the_same_text_twice_has_the_same_vector_twice(ready: Provider) -> None:
    first, second = await embed(ready, TEXTS[0], TEXTS[0])
    assert first == second


async def test_no_texts_have_no_vectors(ready: Provider) -> None:
    assert list(await ready.embedder.embed([], purpose="document", deadline=Deadline.after(30))) == []


async def test_a_full_request_is_not_too_much(ready: Provider) -> None:
    count = ready.embedder.limits.max_texts_per_request
    texts = [f"text {number}" for number in range(count)]
    assert len(await ready.embedder.embed(texts, purpose="document", deadline=Deadline.after(30))) == count


async def test_a_refused_request_is_a_rejection(ready: Provider) -> None:
    possible(ready.refuse)("poison")
    with pytest.raises(EmbeddingRejected):
        await embed(ready, "poison")


async def test_one_bad_text_fails_alone_and_the_others_have_vectors(ready: Provider) -> None:
    possible(ready.refuse)("poison")
    texts = [f"text {number}" for number in range(20)]
    texts[13] = "poison"
    outcomes: dict[int, bytes | EmbeddingRejected] = {}
    async with aclosing(asked_all(ready.embedder, texts, [3] * 20, Deadline.after(30), RetryPolicy())) as ended:
        async for batches in ended:
            for batch in batches:
                assert batch.error is None
                outcomes |= dict(zip(batch.indices, batch.vectors, strict=True))
    assert [index for index in range(20) if isinstance(outcomes[index], EmbeddingRejected)] == [13]
    assert outcomes[14] == (await embed(ready, texts[14]))[0]


async def test_many_texts_at_once_have_each_their_own_vector(ready: Provider) -> None:
    texts = [f"text {number}" for number in range(150)]
    outcomes: dict[int, bytes | EmbeddingRejected] = {}
    retry = RetryPolicy(attempts=1)
    async with aclosing(asked_all(ready.embedder, texts, [3] * 150, Deadline.after(60), retry)) as ended:
        async for batches in ended:
            for batch in batches:
                outcomes |= dict(zip(batch.indices, batch.vectors, strict=True))
    assert len(outcomes) == 150
    assert len(set(outcomes.values())) == 150
    for index in (0, 77, 149):
        assert [outcomes[index]] == await embed(ready, texts[index])
