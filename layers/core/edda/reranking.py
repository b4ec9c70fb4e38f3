"""Passages put in order by a model that reads them with the question: cut into requests, and checked."""

import math
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from edda.concurrency import Deadline, bounded
from edda.errors import ProviderUnavailable
from edda.ports import Reranker


async def rerank_all(reranker: Reranker, query: str, texts: Sequence[str], deadline: Deadline) -> list[float]:
    """How well each text answers the query, in order, from as many requests as the limits ask for.

    One request that fails fails them all: scores of a part only would say nothing of the order. Raises as
    `Reranker.rerank` does.
    """
    size, limit = reranker.limits.max_texts_per_request, reranker.limits.max_concurrent_requests
    requests = [texts[start : start + size] for start in range(0, len(texts), size)]
    jobs = [partial(reranker.rerank, query, request, deadline) for request in requests]
    scores: list[float] = []
    for request, outcome in zip(requests, await bounded(limit, jobs, deadline), strict=True):
        if isinstance(outcome, TimeoutError):
            raise ProviderUnavailable("The reranker did not answer in time.") from outcome
        if isinstance(outcome, Exception):
            raise outcome
        scores += checked(enumerate(outcome), len(request))
    return scores


def checked(results: Iterable[tuple[Any, Any]], count: int) -> list[float]:
    """Scores by position, from (index, score) in any order.

    Raises ProviderUnavailable unless each of `count` positions has one finite number.
    """
    found: dict[int, float] = {}
    for index, score in results:
        if not _is_number(score) or type(index) is not int or index in found:
            raise ProviderUnavailable("The reranker returned something that is no score.")
        found[index] = float(score)
    if found.keys() != set(range(count)):
        raise ProviderUnavailable("The reranker returned other results than were asked for.")
    return [found[index] for index in range(count)]


def _is_number(score: Any) -> bool:
    return type(score) in {int, float} and math.isfinite(score)
