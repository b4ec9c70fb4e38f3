"""A real HTTP server on loopback that stands in for an embedding provider, with faults on request.

Three of them speak like a provider: OpenAIServer (`/v1/embeddings`), TitanServer and CohereServer (Bedrock's
`/model/{id}/invoke`). Each answers well unless told otherwise:

    async with OpenAIServer() as server:
        server.script = [throttled(retry_after="2"), ok, cut_off_after(100)]   # for the next three requests
        server.refuses = {"poison"}                                            # texts that spoil their request

A fault is a function from the good reply to the reply that is sent instead.
"""

import asyncio
import base64
import hashlib
import json
import math
import random
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Request:
    path: str
    headers: dict[str, str]  # names in lower case
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Reply:
    """What goes over the wire, and how: `cut_after` bytes of the body the connection ends, `drip_s` passes between
    single bytes, `reset` and `hang` send nothing at all."""

    body: bytes
    status: int = 200
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    drip_s: float | None = None
    reset: bool = False
    hang: bool = False

    def head(self) -> bytes:
        headers = {"Content-Type": self.content_type, "Content-Length": str(len(self.body)), **self.headers}
        lines = [f"HTTP/1.1 {self.status} Scripted", *(f"{name}: {value}" for name, value in headers.items())]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()


Fault = Callable[[Reply], Reply]


def unit_vector(text: str, dimensions: int) -> list[float]:
    """The same text has the same direction everywhere; other texts have others."""
    numbers = random.Random(hashlib.sha256(text.encode()).digest())
    values = [numbers.gauss(0, 1) for _ in range(dimensions)]
    length = math.hypot(*values)
    return [value / length for value in values]


# --- faults ----------------------------------------------------------------------------------------------------------


def ok(good: Reply) -> Reply:
    return good


def status(code: int, body: dict[str, Any] | None = None, **headers: str) -> Fault:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _: Reply(json.dumps(body or {}).encode(), status=code, headers=named)


def throttled(**headers: str) -> Fault:
    return status(429, {"error": {"code": "rate_limit_exceeded"}}, **headers)


def aws_error(code: int, kind: str, message: str = "", **headers: str) -> Fault:
    return status(code, {"message": message}, x_amzn_errortype=kind, **headers)


def html_page(code: int = 200) -> Fault:
    return lambda _: Reply(b"<html><body>Bad gateway</body></html>", status=code, content_type="text/html")


def as_type(content_type: str) -> Fault:
    return lambda good: replace(good, content_type=content_type)


def cut_off_after(size_bytes: int) -> Fault:
    """The connection ends in the middle of the body."""
    return lambda good: replace(good, cut_after=size_bytes)


def truncated_to(size_bytes: int) -> Fault:
    """A shorter body with a length that fits it: only the JSON is broken."""
    return lambda good: replace(good, body=good.body[:size_bytes])


def dripping(gap_s: float) -> Fault:
    return lambda good: replace(good, drip_s=gap_s)


def reset(good: Reply) -> Reply:
    return replace(good, reset=True)


def hang(good: Reply) -> Reply:
    return replace(good, hang=True)


def edited(edit: Callable[[Any], Any]) -> Fault:
    """The good reply with its JSON changed: `edit` gets the decoded body and returns the new one."""
    return lambda good: replace(good, body=json.dumps(edit(json.loads(good.body))).encode())


# --- the servers -----------------------------------------------------------------------------------------------------


class ProviderServer:
    """Takes one scripted fault a request, records what came in, and counts connections."""

    def __init__(self, dimensions: int, latency_s: float = 0.0) -> None:
        self.dimensions = dimensions
        self.latency_s = latency_s
        self.at_a_time = asyncio.Semaphore(1_000_000)  # requests; the others wait
        self.script: list[Fault] = []
        self.refuses: set[str] = set()
        self.requests: list[Request] = []
        self.connections = 0
        self.in_flight = 0
        self.most_in_flight = 0
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def texts(self, body: dict[str, Any]) -> Sequence[str]:
        raise NotImplementedError

    def answer(self, body: dict[str, Any]) -> Reply:
        raise NotImplementedError

    def refusal(self, text: str) -> Reply:
        raise NotImplementedError

    def _reply_to(self, request: Request) -> Reply:
        refused = [text for text in self.texts(request.body) if text in self.refuses]
        good = self.refusal(refused[0]) if refused else self.answer(request.body)
        return self.script.pop(0)(good) if self.script else good

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (request := await _read(reader)) is not None:
                async with self._counted():
                    self.requests.append(request)
                    async with self.at_a_time:
                        await asyncio.sleep(self.latency_s)
                    if not await _send(self._reply_to(request), writer):
                        return
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client went away
        finally:
            writer.close()

    @asynccontextmanager
    async def _counted(self) -> AsyncIterator[None]:
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            yield
        finally:
            self.in_flight -= 1


async def _read(reader: asyncio.StreamReader) -> Request | None:
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines) if name}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(first.split(" ")[1], headers, json.loads(body))


async def _send(reply: Reply, writer: asyncio.StreamWriter) -> bool:
    """Send it the way it wants to be sent; False when the connection is of no use afterwards."""
    if reply.hang:
        await asyncio.Event().wait()
    if reply.reset:
        writer.transport.abort()
        return False
    wire = reply.head() + reply.body[: reply.cut_after]
    if reply.drip_s is None:
        writer.write(wire)
    else:
        for position in range(len(wire)):
            writer.write(wire[position : position + 1])
            await writer.drain()
            await asyncio.sleep(reply.drip_s)
    await writer.drain()
    return reply.cut_after is None


class OpenAIServer(ProviderServer):
    """POST /v1/embeddings, vectors in base64 or as numbers, as asked for."""

    def __init__(self, dimensions: int = 8, latency_s: float = 0.0, *, knows_base64: bool = True) -> None:
        super().__init__(dimensions, latency_s)
        self.knows_base64 = knows_base64

    @property
    def base_url(self) -> str:
        return f"{self.url}/v1"

    def texts(self, body: dict[str, Any]) -> Sequence[str]:
        return list(body["input"])

    def answer(self, body: dict[str, Any]) -> Reply:
        base64_wanted = self.knows_base64 and body.get("encoding_format") == "base64"
        data = []
        for index, text in enumerate(self.texts(body)):
            vector = unit_vector(text, self.dimensions)
            packed = base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
            data.append({"object": "embedding", "index": index, "embedding": packed if base64_wanted else vector})
        return Reply(json.dumps({"object": "list", "data": data, "model": body["model"]}).encode())

    def refusal(self, text: str) -> Reply:
        error = {"message": f"Invalid input: {text}", "type": "invalid_request_error", "param": "input", "code": None}
        return Reply(json.dumps({"error": error}).encode(), status=400)


class BedrockServer(ProviderServer):
    def refusal(self, text: str) -> Reply:
        return aws_error(400, "ValidationException", f"Malformed input request: {text}")(Reply(b""))


class TitanServer(BedrockServer):
    def texts(self, body: dict[str, Any]) -> Sequence[str]:
        return [body["inputText"]]

    def answer(self, body: dict[str, Any]) -> Reply:
        vector = unit_vector(body["inputText"], body.get("dimensions", 1024))
        return Reply(json.dumps({"embedding": vector, "inputTextTokenCount": 3}).encode())


class CohereServer(BedrockServer):
    def texts(self, body: dict[str, Any]) -> Sequence[str]:
        return list(body["texts"])

    def answer(self, body: dict[str, Any]) -> Reply:
        vectors = [unit_vector(text, body.get("output_dimension", self.dimensions)) for text in body["texts"]]
        answer = {"id": "1", "embeddings": {"float": vectors}, "response_type": "embeddings_by_type"}
        return Reply(json.dumps(answer).encode())
