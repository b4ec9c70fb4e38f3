"""Bedrock's Converse API: every maker's chat models, spoken to alike."""

from typing import Any

import aioboto3

from edda.adapters.bedrock_client import BedrockClient
from edda.concurrency import Deadline
from edda.errors import ChatRejected, ProviderMisconfigured, ProviderUnavailable
from edda.models import ChatReply, ChatRequest

REFUSED = {"guardrail_intervened", "content_filtered"}


class BedrockChat:
    """Converse on bedrock-runtime. `model` is a model id, an inference profile or an ARN."""

    def __init__(
        self,
        session: aioboto3.Session,
        model: str,
        *,
        endpoint_url: str | None = None,
        connect_timeout_s: float = 3.0,
        read_timeout_s: float = 25.0,
    ) -> None:
        if not model:
            raise ProviderMisconfigured("The chat provider needs a model.")
        self.name = f"bedrock/{model}"
        self._model = model
        self._total_timeout_s = connect_timeout_s + read_timeout_s
        self._bedrock = BedrockClient(
            session,
            "bedrock-runtime",
            ChatRejected,
            setting="temperature",
            endpoint_url=endpoint_url,
            connect_timeout_s=connect_timeout_s,
            read_timeout_s=read_timeout_s,
        )

    async def reply(self, request: ChatRequest, deadline: Deadline) -> ChatReply:
        async with self._bedrock.asked(deadline.sooner(self._total_timeout_s)) as client:
            return _reply(await client.converse(**self._arguments(request)))

    async def aclose(self) -> None:
        await self._bedrock.aclose()

    def _arguments(self, request: ChatRequest) -> dict[str, Any]:
        inference: dict[str, Any] = {"maxTokens": request.max_output_tokens}
        if request.temperature is not None:
            inference["temperature"] = request.temperature
        return {
            "modelId": self._model,
            "system": [{"text": request.system}],
            "messages": [{"role": turn.role, "content": [{"text": turn.content}]} for turn in request.turns],
            "inferenceConfig": inference,
        }


def _reply(answer: Any) -> ChatReply:
    """Raises KeyError, TypeError or AttributeError for what is no reply."""
    ended = answer["stopReason"]
    if ended in REFUSED:
        raise ChatRejected("Bedrock would not answer this.")
    # Models that think aloud put other blocks beside the text.
    text = "".join(block.get("text", "") for block in answer["output"]["message"]["content"])
    usage = answer.get("usage") or {}
    if ended == "max_tokens" and not text.strip():  # it thought; asking again would end alike
        raise ChatRejected("The chat model was cut off before it wrote anything: raise max_output_tokens.")
    if not text.strip():
        raise ProviderUnavailable("Bedrock returned no text.")
    return ChatReply(text, ended != "max_tokens", usage.get("inputTokens"), usage.get("outputTokens"))
