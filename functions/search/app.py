"""Questions into hits."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Body
from edda import openapi, preloading, services
from edda.gateway import Event, Gateway, answer
from edda.observability import function_logger
from edda.runtime import LambdaContext
from edda.search_models import SearchBody, SearchRequest
from edda.services import SearchServices


def build(provide: Callable[[], Awaitable[SearchServices]]) -> Gateway:
    """The function, on these services."""
    gateway = Gateway(provide)

    @gateway.resolver.post(**openapi.SEARCH_OPERATION)
    def search(question: Annotated[SearchRequest, Body()]) -> Response[Any]:
        query = question.search_query()

        async def work() -> SearchBody:
            services_ = await provide()
            return SearchBody.of(await services_.searching.search(gateway.tenant, query, gateway.until))

        return answer(gateway.run(work()))

    return gateway


gateway = build(services.search_services)
preloading.preload(preloading.SEARCH, embedder=True)


def lambda_handler(event: Event, context: LambdaContext) -> Event:
    """One request of the HTTP API, payload version 2.0."""
    function_logger()
    return gateway(event, context)
