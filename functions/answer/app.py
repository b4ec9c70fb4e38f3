"""Questions into answers."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Body
from edda import openapi, preloading, services
from edda.answer_models import AnswerBody, AnswerRequest
from edda.gateway import Event, Gateway, answer
from edda.observability import function_logger
from edda.runtime import LambdaContext
from edda.services import AnswerServices


def build(provide: Callable[[], Awaitable[AnswerServices]]) -> Gateway:
    """The function, on these services."""
    gateway = Gateway(provide)

    @gateway.resolver.post(**openapi.ANSWER_OPERATION)
    def answers(request: Annotated[AnswerRequest, Body()]) -> Response[Any]:
        question = request.to_question()

        async def work() -> AnswerBody:
            answering = (await provide()).answering
            answered = await answering.answer(gateway.tenant, question, gateway.until)
            return AnswerBody.of(answered, None if answering.chat is None else answering.chat.name)

        return answer(gateway.run(work()))

    return gateway


gateway = build(services.answer_services)
preloading.preload(preloading.ANSWER, embedder=True, chat=True)


def lambda_handler(event: Event, context: LambdaContext) -> Event:
    """One request of the HTTP API, payload version 2.0."""
    function_logger()
    return gateway(event, context)
