"""Receivers of events: a bus and webhooks in lists."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from edda.concurrency import Deadline
from edda.errors import WebhookFailed
from edda.models import BusEvent


@dataclass(slots=True)
class FakeEventBus:
    """Passes the same contract suite as EventBridge. `outage`: it takes nothing."""

    outage: bool = False
    events: list[BusEvent] = field(default_factory=list)

    async def send(self, events: Sequence[BusEvent]) -> list[int]:
        if self.outage:
            return list(range(len(events)))
        self.events += events
        return []

    @property
    def types(self) -> list[str]:
        return [event.type for event in self.events]


@dataclass(slots=True)
class FakeWebhooks:
    """`failures`: what the next attempts end in; `hangs`: nothing is answered before the deadline."""

    failures: list[WebhookFailed] = field(default_factory=list)
    hangs: bool = False
    posts: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)

    async def post(self, url: str, headers: dict[str, str], body: bytes, deadline: Deadline) -> None:
        if self.hangs:
            await asyncio.sleep(deadline.remaining_s())
            raise WebhookFailed("It did not answer in time.")
        self.posts.append((url, headers, body))
        if self.failures:
            raise self.failures.pop(0)

    @property
    def bodies(self) -> list[Any]:
        return [json.loads(body) for _, _, body in self.posts]
