"""A mock provider of embeddings, in a process of its own: `python -m benchmarks.provider '{"port": 8000}'`.

`POST /v1/embeddings` answers as OpenAI does, in base64 or JSON. It keeps each request waiting as a provider would, lets
so many through at once, refuses what is above its limits a minute, and fails now and then: `Behaviour` says what.
`GET /stats` says what it has seen. `POST /` is just enough of SQS to take a failed message's new visibility timeout;
`GET /visibility` gives it back.

asyncio protocols, a request parsed by hand. README.md has the figures of what else was tried.
"""

import asyncio
import json
import math
import random
import re
import resource
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

from benchmarks.vectors import Vectors

SEND_BYTES = 4 * 1024 * 1024  # an answer of 128 vectors leaves in one call; only Linux's own limit is lower
BURST_S = 5  # how much of a minute's allowance may be taken at once


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What a regime asks of the provider. 0 is no limit."""

    port: int = 0
    dimensions: int = 1536  # of the vectors that are made before it listens
    request_ms: float = 120
    text_ms: float = 1
    jitter: float = 0.15  # sigma of the log-normal factor, whose median is 1
    seed: int = 1
    concurrent: int = 0  # more than these wait their turn
    requests_a_minute: int = 0
    tokens_a_minute: int = 0
    errors: float = 0  # share of requests answered with 500
    says_limits: bool = False  # x-ratelimit-* in every answer, as OpenAI does


@dataclass(slots=True)
class Stats:
    """What it has seen since it started."""

    connections: int = 0
    requests: int = 0
    texts: int = 0
    throttled: int = 0
    errors: int = 0
    most_in_flight: int = 0


@dataclass(slots=True)
class Allowance:
    """A bucket that fills by the minute."""

    a_minute: int
    left: float = field(init=False)
    at: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.left = self.most

    @property
    def most(self) -> float:
        return self.a_minute * BURST_S / 60

    def wait_s(self, amount: float) -> float:
        """How long until so much is there; 0 now. More than the bucket holds needs it full, and empties it further."""
        now = time.monotonic()
        self.left = min(self.most, self.left + (now - self.at) * self.a_minute / 60)
        self.at = now
        return max(0.0, (min(amount, self.most) - self.left) * 60 / self.a_minute) if self.a_minute else 0.0


class Provider:
    """All that is shared by its connections."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.stats = Stats()
        self.visibility: dict[str, int] = {}
        self._chance = random.Random(behaviour.seed)
        self._vectors = {behaviour.dimensions: Vectors(behaviour.dimensions)}
        self._requests = Allowance(behaviour.requests_a_minute)
        self._tokens = Allowance(behaviour.tokens_a_minute)
        self._in_flight = 0
        self._waiting: deque[Callable[[], None]] = deque()
        self._loop = asyncio.get_running_loop()

    def vectors(self, dimensions: int) -> Vectors:
        if dimensions not in self._vectors:
            self._vectors[dimensions] = Vectors(dimensions)
        return self._vectors[dimensions]

    def take(self, path: bytes, body: bytes, send: Callable[[bytes], None]) -> None:
        """Answer a request, now or later."""
        if path == b"/v1/embeddings":
            self._embed(json.loads(body), send)
        elif path == b"/stats":
            send(_reply(json.dumps({name: getattr(self.stats, name) for name in Stats.__slots__}).encode()))
        elif path == b"/visibility":
            send(_reply(json.dumps(self.visibility).encode()))
        else:
            entries = json.loads(body)["Entries"]
            self.visibility |= {entry["ReceiptHandle"]: entry["VisibilityTimeout"] for entry in entries}
            answer = {"Successful": [{"Id": entry["Id"]} for entry in entries], "Failed": []}
            send(_reply(json.dumps(answer).encode(), content_type=b"application/x-amz-json-1.0"))

    def _embed(self, request: dict[str, Any], send: Callable[[bytes], None]) -> None:
        given = request["input"]
        texts = [given] if isinstance(given, str) else given
        self.stats.requests += 1
        if not all(isinstance(text, str) for text in texts):
            send(_error(400, "invalid_request_error"))
            return
        tokens = sum(map(len, texts)) // 4
        wait_s = max(self._requests.wait_s(1), self._tokens.wait_s(tokens))
        if wait_s > 0:
            self.stats.throttled += 1
            retry_after = b"Retry-After: %d\r\n" % math.ceil(wait_s)
            send(_error(429, "rate_limit_exceeded", retry_after + self._limits()))
            return
        self._requests.left -= 1
        self._tokens.left -= tokens

        limits = self._limits()

        def begin() -> None:
            self._in_flight += 1
            self.stats.most_in_flight = max(self.stats.most_in_flight, self._in_flight)
            behaviour = self.behaviour
            latency_s = (behaviour.request_ms + behaviour.text_ms * len(texts)) / 1000
            if latency_s:
                self._loop.call_later(latency_s * self._chance.lognormvariate(0, behaviour.jitter), end)
            else:
                end()

        def end() -> None:
            if self._chance.random() < self.behaviour.errors:
                self.stats.errors += 1
                send(_error(500, "server_error"))
            else:
                self.stats.texts += len(texts)
                send(self._answer(request, texts, tokens, limits))
            self._in_flight -= 1
            if self._waiting:
                self._waiting.popleft()()

        if self.behaviour.concurrent and self._in_flight >= self.behaviour.concurrent:
            self._waiting.append(begin)
        else:
            begin()

    def _limits(self) -> bytes:
        if not self.behaviour.says_limits:
            return b""
        lines = b""
        for name, allowance in ((b"requests", self._requests), (b"tokens", self._tokens)):
            if allowance.a_minute:
                left = max(0, int(allowance.left))
                lines += b"x-ratelimit-limit-%b: %d\r\n" % (name, allowance.a_minute)
                lines += b"x-ratelimit-remaining-%b: %d\r\n" % (name, left)
        return lines

    def _answer(self, request: dict[str, Any], texts: list[str], tokens: int, headers: bytes) -> bytes:
        vectors = self.vectors(request.get("dimensions") or 1536)
        parts = [b"", b'{"object":"list","data":[']
        if request.get("encoding_format") == "base64":
            before, after, inside = b'"', b'"', vectors.in_base64
        else:
            before, after, inside = b"[", b"]", vectors.in_json
        for index, text in enumerate(texts):
            head = b'%b{"object":"embedding","index":%d,"embedding":%b' % (b"," if index else b"", index, before)
            parts += [head, inside(text), after, b"}"]
        model = json.dumps(request["model"]).encode()
        parts.append(b'],"model":%b,"usage":{"prompt_tokens":%d,"total_tokens":%d}}' % (model, tokens, tokens))
        parts[0] = _head(sum(map(len, parts)), headers=headers)
        return b"".join(parts)  # the one copy that is made of a megabyte


class Connection(asyncio.Protocol):
    """HTTP/1.1, kept alive; bodies come with a Content-Length."""

    _LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._received = bytearray()
        self._needed = 0
        self._is_new = True  # connections count once they have asked for something, not when they ask for statistics
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        connected: socket.socket = transport.get_extra_info("socket")
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BYTES)

    def connection_lost(self, _: Exception | None) -> None:
        self._transport = None

    def data_received(self, data: bytes) -> None:
        self._received += data
        while len(self._received) >= self._needed:
            head_end = self._received.find(b"\r\n\r\n")
            if head_end < 0:
                return
            head = bytes(self._received[:head_end])
            length = self._LENGTH.search(head)
            self._needed = head_end + 4 + (int(length[1]) if length else 0)
            if len(self._received) < self._needed:
                return
            body = bytes(self._received[head_end + 4 : self._needed])
            del self._received[: self._needed]
            self._needed = 0
            if body and self._is_new:
                self._provider.stats.connections += 1
                self._is_new = False
            self._provider.take(head.split(b" ", 2)[1], body, self._send)

    def _send(self, reply: bytes) -> None:
        if self._transport is not None:
            self._transport.write(reply)


def _head(length: int, status: int = 200, headers: bytes = b"", content_type: bytes = b"application/json") -> bytes:
    head = b"HTTP/1.1 %d Said\r\nContent-Type: %b\r\nContent-Length: %d\r\n%b\r\n"
    return head % (status, content_type, length, headers)


def _reply(body: bytes, content_type: bytes = b"application/json") -> bytes:
    return _head(len(body), content_type=content_type) + body


def _error(status: int, code: str, headers: bytes = b"") -> bytes:
    body = json.dumps({"error": {"message": code, "type": code, "code": code}}).encode()
    return _head(len(body), status, headers) + body


async def serve(behaviour: Behaviour) -> None:
    """Until SIGTERM. The port is printed when it listens."""
    loop = asyncio.get_running_loop()
    provider = Provider(behaviour)
    server = await loop.create_server(lambda: Connection(provider), "127.0.0.1", behaviour.port, backlog=32_768)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


def main() -> None:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # one connection a chunk is what some clients open
    behaviour = Behaviour(**json.loads(sys.argv[1]))
    asyncio.run(serve(behaviour))


if __name__ == "__main__":
    main()
