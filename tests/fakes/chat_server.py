"""Servers on loopback that answer chats, each in its provider's own words; faults as in provider_server."""

import json
from collections.abc import Sequence
from typing import Any

from tests.fakes.provider_server import ProviderServer, Reply, aws_error


class ChatServer(ProviderServer):
    """Says `text`, and ends as `ended` says. Refuses a conversation that has a refused text in it."""

    def __init__(self, text: str = "Hello.") -> None:
        super().__init__(dimensions=0)
        self.text = text


class OpenAIChatServer(ChatServer):
    """POST /v1/chat/completions."""

    @property
    def base_url(self) -> str:
        return f"{self.url}/v1"

    def texts(self, body: dict[str, Any]) -> Sequence[str]:
        return [message["content"] for message in body["messages"]]

    def answer(self, body: dict[str, Any]) -> Reply:
        choice = {"index": 0, "message": {"role": "assistant", "content": self.text}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14}
        answer = {"id": "1", "object": "chat.completion", "model": body["model"], "choices": [choice], "usage": usage}
        return Reply(json.dumps(answer).encode())

    def refusal(self, text: str) -> Reply:
        error = {"message": f"too long: {text}", "type": "invalid_request_error", "code": "context_length_exceeded"}
        return Reply(json.dumps({"error": error}).encode(), status=400)


class ConverseServer(ChatServer):
    """POST /model/{id}/converse."""

    def texts(self, body: dict[str, Any]) -> Sequence[str]:
        return [block["text"] for message in body["messages"] for block in message["content"]]

    def answer(self, body: dict[str, Any]) -> Reply:
        answer = {
            "output": {"message": {"role": "assistant", "content": [{"text": self.text}]}},
            "stopReason": "end_turn",
            "usage": {"inputTokens": 11, "outputTokens": 3, "totalTokens": 14},
            "metrics": {"latencyMs": 5},
        }
        return Reply(json.dumps(answer).encode())

    def refusal(self, text: str) -> Reply:
        return aws_error(400, "ValidationException", f"Input is too long: {text}")(Reply(b""))
