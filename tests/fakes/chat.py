"""Chat models without a model."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from edda.concurrency import Deadline
from edda.errors import ProviderUnavailable
from edda.models import ChatReply, ChatRequest
from edda.tokens import count_tokens

Say = Callable[[ChatRequest], str]


def said(answer: str, *citations: tuple[int, str], **more: Any) -> str:
    """An answer as the rules want it: (passage, quote) for each citation."""
    body = {"found": True, "answer": answer, "citations": [{"passage": n, "quote": quote} for n, quote in citations]}
    return json.dumps({**body, **more})


NOTHING = json.dumps({"found": False})


@dataclass(slots=True)
class FakeChat:
    """Passes the same contract suite as the real ones, and keeps what it was asked.

    `script`: one entry a request: a reply, an exception to raise, or what makes a reply of the request; the last one is
    said for ever.
    """

    script: list[str | Exception | Say | ChatReply] = field(default_factory=lambda: [NOTHING])
    name: str = "fake/chat"
    requests: list[ChatRequest] = field(default_factory=list)

    async def reply(self, request: ChatRequest, deadline: Deadline) -> ChatReply:
        if deadline.expired:
            raise ProviderUnavailable("No time was left.")
        self.requests.append(request)
        next_one = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(next_one, Exception):
            raise next_one
        if isinstance(next_one, ChatReply):
            return next_one
        text = next_one if isinstance(next_one, str) else next_one(request)
        words = count_tokens("".join(turn.content for turn in request.turns))
        return ChatReply(text, is_whole=True, input_tokens=words, output_tokens=count_tokens(text))

    async def aclose(self) -> None:
        """Nothing to give back."""
