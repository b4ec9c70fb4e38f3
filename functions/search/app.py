"""Questions into hits."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Body
from edda import openapi, preloading, services
from edda.api_models import HitBody, SearchBody, SearchRequest
from edda.filters import parse_filter
from edda.gateway import Event, Gateway, answer
from edda.observability import function_logger
from edda.runtime import LambdaContext
from edda.searching import Searching
from edda.services import SearchServices


def build(provide: Callable[[], Awaitable[SearchServices]]) -> Gateway:
    """The function, on these services."""
    gateway = Gateway(provide)

    @gateway.resolver.post(**openapi.SEARCH_OPERATION)
    def search(question: Annotated[SearchRequest, Body()]) -> Response[Any]:
        filter_ = parse_filter(question.filter)

        async def work() -> SearchBody:
            built = await provide()
            searching = Searching(built.search, built.embedder)
            hits = await searching.search(gateway.tenant, question.query, question.top_k, filter_, gateway.until)
            return SearchBody(hits=[HitBody.of(hit) for hit in hits], model=built.embedder.name)

        return answer(gateway.run(work()))

    return gateway


gateway = build(services.search_services)
preloading.preload(preloading.SEARCH, embedder=True)


def lambda_handler(event: Event, context: LambdaContext) -> Event:
    """One request of the HTTP API, payload version 2.0."""
    function_logger()
    return gateway(event, context)
