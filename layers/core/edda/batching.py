"""Texts of many messages into few provider requests: how they are cut, retried and split.

`batch_indices`, `RetryPolicy` and `retry_after_s` are pure; `embed_all` puts them around an Embedder.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import partial

from edda.concurrency import Deadline, as_finished
from edda.errors import EddaError, EmbeddingRejected, ProviderUnavailable, RetryableError
from edda.vectors import InvalidVector


def batch_indices(token_counts: Sequence[int], max_items: int, max_tokens: int) -> Iterator[range]:
    """Cut 0..n into runs of at most `max_items` texts and `max_tokens` tokens, in order and without gaps.

    A text that alone is above `max_tokens` has a batch of its own: whether it is too long is the provider's word.
    """
    if max_items < 1:
        raise ValueError("max_items must be at least 1")
    start = tokens = 0
    for index, count in enumerate(token_counts):
        full = index - start == max_items or tokens + count > max_tokens
        if full and index > start:
            yield range(start, index)
            start, tokens = index, 0
        tokens += count
    if start < len(token_counts):
        yield range(start, len(token_counts))


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Full jitter: each wait is anywhere between 0 and a ceiling that doubles from `first_wait_s` to `longest_wait_s`.

    `chance` gives numbers in [0, 1); a simulator hands in its own.
    """

    attempts: int = 6
    first_wait_s: float = 0.5
    longest_wait_s: float = 20.0
    chance: Callable[[], float] = random.random

    def wait_s(self, failures: int, retry_after_s: float | None) -> float:
        """How long to wait after the n-th failure (from 1): never less than the provider asks for."""
        ceiling = min(self.longest_wait_s, self.first_wait_s * 2.0 ** (failures - 1))
        return (retry_after_s or 0.0) + self.chance() * ceiling


def retry_after_s(headers: Mapping[str, str], now: datetime) -> float | None:
    """How long a provider asks to be left alone, by Retry-After (seconds or a date) or retry-after-ms: at most an hour.

    Header names are in lower case. None when it does not say, or not in a way that makes sense.
    """
    milliseconds, seconds = headers.get("retry-after-ms"), headers.get("retry-after")
    try:
        if milliseconds is not None:
            wait_s = float(milliseconds) / 1000
        elif seconds is None:
            return None
        elif seconds.strip()[:1].isalpha():
            wait_s = (parsedate_to_datetime(seconds) - now).total_seconds()
        else:
            wait_s = float(seconds)
    except (ValueError, TypeError):
        return None
    return min(wait_s, 3600.0) if wait_s >= 0 else None


@dataclass(frozen=True, slots=True)
class EmbeddedBatch:
    """What became of the texts at `indices`.

    Either `error` is None and `vectors` has for each index its float32 bytes or why the text was refused, or
    `error` says why all of them must be tried again later and `vectors` is empty.
    """

    indices: Sequence[int]
    vectors: Sequence[bytes | EmbeddingRejected] = ()
    error: EddaError | None = None


class NotAsked(Exception):
    """The request is not to be made, nor tried again here; `error` says why."""

    def __init__(self, error: EddaError) -> None:
        super().__init__(error)
        self.error = error


Ask = Callable[[Sequence[int]], Awaitable[Sequence[bytes | EmbeddingRejected]]]


async def embed_all(
    ask: Ask,
    requests: Sequence[Sequence[int]],
    limit: int,
    deadline: Deadline,
    retry: RetryPolicy = RetryPolicy(),
) -> AsyncGenerator[list[EmbeddedBatch], None]:
    """Make every request, at most `limit` at once: what has ended since the last look, each index at most once.

    `ask` is one provider request for the texts of these indices, or raises NotAsked. One that fails for now is tried
    again while attempts and time are left, and then becomes its own batch's `error`; the others go on. One that is
    refused is halved until the texts at fault are alone (2 log2 n requests for one in n). After ProviderMisconfigured,
    or anything unforeseen, no request is begun; it is raised when those under way have ended, for what they bring is
    paid.

    Requests go on while the reader works. Loop over it inside `contextlib.aclosing`.
    """
    settler = _Settler(ask, deadline, retry)
    settled: list[list[EmbeddedBatch]] = [[] for _ in requests]
    jobs = (partial(settler.begin, indices, settled[position]) for position, indices in enumerate(requests))
    async with aclosing(as_finished(limit, jobs, deadline)) as finished:
        async for outcomes in finished:
            batches: list[EmbeddedBatch] = []
            for position, outcome in outcomes:
                batches += settled[position]
                if isinstance(outcome, TimeoutError):
                    known = {index for batch in settled[position] for index in batch.indices}
                    late = [index for index in requests[position] if index not in known]
                    batches.append(EmbeddedBatch(late, error=ProviderUnavailable("No time was left to embed this.")))
                settled[position] = []
            yield batches
    if settler.failure is not None:
        raise settler.failure


@dataclass(slots=True)
class _Settler:
    ask: Ask
    deadline: Deadline
    retry: RetryPolicy
    failure: Exception | None = None

    async def begin(self, indices: Sequence[int], settled: list[EmbeddedBatch]) -> None:
        if self.failure is not None:
            return
        try:
            await self.settle(indices, settled)
        except Exception as error:
            self.failure = self.failure or error

    async def settle(self, indices: Sequence[int], settled: list[EmbeddedBatch]) -> None:
        """Embed these texts, in as many requests as it takes to know of each what became of it: into `settled`, bit by
        bit, so that what is paid is there if the rest comes too late.
        """
        try:
            vectors = await self._ask(indices)
        except (RetryableError, NotAsked) as error:
            reason = error.error if isinstance(error, NotAsked) else error
            settled.append(EmbeddedBatch(indices, error=reason))
            return
        except EmbeddingRejected as rejection:
            if len(indices) == 1:
                settled.append(EmbeddedBatch(indices, [rejection]))
                return
            middle = len(indices) // 2
            await self.settle(indices[:middle], settled)
            await self.settle(indices[middle:], settled)
            return
        invalid = [index for index, vector in zip(indices, vectors, strict=True) if _is_invalid(vector)]
        if not invalid:
            settled.append(EmbeddedBatch(indices, vectors))
            return
        sound = [(index, vector) for index, vector in zip(indices, vectors, strict=True) if not _is_invalid(vector)]
        if sound:
            settled.append(EmbeddedBatch([index for index, _ in sound], [vector for _, vector in sound]))
        for index in invalid:
            settled.append(await self._once_more(index))

    async def _once_more(self, index: int) -> EmbeddedBatch:
        """A NaN may be the text's fault or a passing fault of the provider's: ask again, for that text alone."""
        try:
            return EmbeddedBatch([index], await self._ask([index]))
        except RetryableError as error:
            return EmbeddedBatch([index], error=error)
        except EmbeddingRejected as rejection:
            return EmbeddedBatch([index], [rejection])

    async def _ask(self, indices: Sequence[int]) -> Sequence[bytes | EmbeddingRejected]:
        return await _patiently(partial(self.ask, indices), self.deadline, self.retry)


async def _patiently(
    ask: Callable[[], Awaitable[Sequence[bytes | EmbeddingRejected]]], deadline: Deadline, retry: RetryPolicy
) -> Sequence[bytes | EmbeddingRejected]:
    """One request, tried again while it fails for now; the last RetryableError when time or attempts are up."""
    failures = 0
    while True:
        try:
            return await ask()
        except RetryableError as error:
            failures += 1
            wait_s = retry.wait_s(failures, error.retry_after_s)
            if failures == retry.attempts or wait_s >= deadline.remaining_s():
                raise
        await asyncio.sleep(wait_s)


def _is_invalid(vector: bytes | EmbeddingRejected) -> bool:
    return isinstance(vector, InvalidVector)
