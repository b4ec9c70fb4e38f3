"""The embedding provider, from its HTTP answer inwards: the real OpenAI adapter reads what this one writes."""

import asyncio
import base64
import json
import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

import aiohttp
from edda.adapters.http_client import Answer
from edda.adapters.openai_embedder import OpenAIEmbedder
from edda.models import EmbeddingLimits

from tests.fakes.provider_server import unit_vector
from tests.simulation.database import MODEL_DIMENSIONS
from tests.simulation.lambdas import Environment
from tests.simulation.schedules import REFUSED

if TYPE_CHECKING:
    from tests.simulation.world import World

# Small requests, so that a few chunks make several.
LIMITS = EmbeddingLimits(3, 10_000, 1_000, 2)
SECRET = "sk-simulated-secret"


@cache
def vector_of(text: str) -> list[float]:
    return unit_vector(text, MODEL_DIMENSIONS)


@dataclass(slots=True)
class Provider:
    """What was asked and paid for."""

    world: "World"
    paid: Counter[str] = field(default_factory=Counter)  # texts answered, whether the answer arrived or not
    spoilt: Counter[str] = field(default_factory=Counter)  # texts answered with a vector that is none

    async def answer(self, environment: Environment, texts: Sequence[str]) -> Answer:
        kind = await environment.step("request")
        await asyncio.sleep(self.world.random.uniform(0.05, 1.0))
        self.world.asked(environment, texts)
        if kind == "hangs":
            await asyncio.Event().wait()
        if kind == "throttled_429":
            return _reply(429, b"{}")
        if kind == "throttled_retry_after":
            return _reply(429, b"{}", {"retry-after": "7"})
        if kind == "server_error":
            return _reply(500, SECRET.encode())
        if any(REFUSED in text for text in texts):
            error = {"message": f"{SECRET}: {texts[0]}", "type": "invalid_request_error", "param": "input"}
            return _reply(400, json.dumps({"error": error}).encode())
        self.paid.update(texts)
        if kind == "reset":
            raise aiohttp.ClientOSError("connection reset")
        if kind in {None, "other_order"}:
            self.world.observer.provider_answered(environment, texts)
        return self._good_or_spoilt(kind, texts)

    def _good_or_spoilt(self, kind: str | None, texts: Sequence[str]) -> Answer:
        data = [{"index": index, "embedding": vector_of(text)} for index, text in enumerate(texts)]
        if kind == "too_few":
            data.pop()
        if kind == "other_order":
            data.reverse()
        if kind == "twice_the_index":
            data[-1]["index"] = 0
            data.append(dict(data[0]))
        if kind == "other_dimensions":
            data[0]["embedding"] = [0.5, 0.5]
        if kind in {"nan", "zero"}:
            number = float("nan") if kind == "nan" else 0.0
            data[0]["embedding"] = [number] * MODEL_DIMENSIONS
            self.spoilt[texts[0]] += 1
        for item in data:
            item["embedding"] = _packed(item["embedding"])  # type: ignore[arg-type]  # a list until here
        body = json.dumps({"object": "list", "data": data}).encode()
        if kind == "truncated":
            return _reply(200, body[: len(body) // 2])
        if kind == "html":
            return _reply(200, b"<html>busy</html>", {"content-type": "text/html"})
        return _reply(200, body)


def _packed(vector: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _reply(status: int, body: bytes, headers: dict[str, str] | None = None) -> Answer:
    return Answer(status, {"content-type": "application/json"} | (headers or {}), body)


class SimulatedEmbedder(OpenAIEmbedder):
    """The real adapter, but for its HTTP client."""

    def __init__(self, environment: Environment) -> None:
        super().__init__("http://provider", "simulated", MODEL_DIMENSIONS, SECRET, limits=LIMITS)
        self._environment = environment

    async def _post(self, texts: Sequence[str]) -> Answer:
        return await self._environment.world.provider.answer(self._environment, texts)
