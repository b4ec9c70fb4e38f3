"""Every Reranker there is, ready to be asked, with a way to make its provider fail."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial

from edda.adapters.bedrock_reranker import BedrockReranker
from edda.adapters.http_client import HttpTimeouts
from edda.adapters.http_reranker import HttpReranker
from edda.errors import ProviderMisconfigured, ProviderThrottled, ProviderUnavailable
from edda.ports import Reranker

from tests.contracts.providers import SESSION
from tests.fakes.provider_server import Fault, aws_error, edited, status
from tests.fakes.rerank_server import RerankServer, TeiServer
from tests.fakes.reranker import FakeReranker

KEY = "co-do-not-tell"
BEDROCK_MODEL = "cohere.rerank-v3-5:0"


@dataclass(frozen=True, slots=True)
class RerankProvider:
    """A reranker, and what makes its next request fail; `answer` puts a list of (index, score) in its next answer."""

    reranker: Reranker
    throttle: Callable[[], None]
    break_down: Callable[[], None]
    lock_out: Callable[[], None]
    answer: Callable[[list[tuple[object, object]]], None] | None = None
    server: RerankServer | None = None


def http(server: RerankServer, **options: object) -> HttpReranker:
    settings = {"base_url": server.url, "timeouts": HttpTimeouts(5, 5), **options}
    return HttpReranker(server.kind, "a-model", KEY, **settings)  # type: ignore[arg-type]  # options are of many types


def bedrock(server: RerankServer, model: str = BEDROCK_MODEL, read_timeout_s: float = 5.0) -> BedrockReranker:
    return BedrockReranker(SESSION, model, endpoint_url=server.url, read_timeout_s=read_timeout_s)


@asynccontextmanager
async def rerank_provider(kind: str) -> AsyncIterator[RerankProvider]:
    """One of `KINDS`, closed at the end."""
    async with KINDS[kind]() as ready:
        try:
            yield ready
        finally:
            await ready.reranker.aclose()


@asynccontextmanager
async def _fake() -> AsyncIterator[RerankProvider]:
    reranker = FakeReranker()
    yield RerankProvider(
        reranker,
        throttle=lambda: reranker.script.append(ProviderThrottled(retry_after_s=7)),
        break_down=lambda: reranker.script.append(ProviderUnavailable()),
        lock_out=lambda: reranker.script.append(ProviderMisconfigured()),
    )


@asynccontextmanager
async def _http(kind: str) -> AsyncIterator[RerankProvider]:
    async with TeiServer() if kind == "tei" else RerankServer(kind) as server:
        faults = status(429, retry_after="7"), status(503), status(401)
        yield _on(server, http(server), *faults)


@asynccontextmanager
async def _bedrock() -> AsyncIterator[RerankProvider]:
    async with RerankServer("bedrock") as server:
        yield _on(
            server,
            bedrock(server),
            aws_error(429, "ThrottlingException", "Too many requests", retry_after="7"),
            aws_error(502, "BadGatewayException"),
            aws_error(403, "AccessDeniedException"),
        )


LISTS = {"cohere": "results", "jina": "results", "voyage": "data", "bedrock": "results"}
SCORES = {"tei": "score", "bedrock": "relevanceScore"}


def answering(kind: str, pairs: list[tuple[object, object]]) -> Fault:
    """An answer with these results, in the provider's words."""
    results = [{"index": index, SCORES.get(kind, "relevance_score"): score} for index, score in pairs]
    return edited(lambda good: {**good, LISTS[kind]: results} if kind in LISTS else results)


def _on(
    server: RerankServer, reranker: Reranker, throttle: Fault, break_down: Fault, lock_out: Fault
) -> RerankProvider:
    return RerankProvider(
        reranker,
        throttle=partial(server.script.append, throttle),
        break_down=partial(server.script.append, break_down),
        lock_out=partial(server.script.append, lock_out),
        answer=lambda pairs: server.script.append(answering(server.kind, pairs)),
        server=server,
    )


KINDS: dict[str, Callable[[], AbstractAsyncContextManager[RerankProvider]]] = {
    "fake": _fake,
    "cohere": partial(_http, "cohere"),
    "jina": partial(_http, "jina"),
    "voyage": partial(_http, "voyage"),
    "tei": partial(_http, "tei"),
    "bedrock": _bedrock,
}
