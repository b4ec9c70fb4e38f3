"""What no contestant can beat: the mock provider's own ceiling, and a bare binary COPY."""

import asyncio
import json
import struct
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import psycopg

from benchmarks.postgres import Server
from benchmarks.processes import provider
from benchmarks.provider import Behaviour
from benchmarks.vectors import Vectors

COPY_SIGNATURE = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
CONNECTIONS = 16
ASKED = 500  # requests at least
BLOCK_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Ceiling:
    """Of the provider without latency: what one client that does nothing else got out of it, and its own CPU."""

    texts_a_request: int
    requests_a_s: float
    texts_a_s: float
    provider_cpu_us_a_text: float


def provider_ceiling(texts: Sequence[str], dimensions: int, texts_a_request: int) -> Ceiling:
    """Requests made beforehand, answers counted and not read."""
    requests: list[bytes] = []
    for start in range(0, len(texts) - texts_a_request + 1, texts_a_request):
        content = {"model": "m", "input": texts[start : start + texts_a_request], "encoding_format": "base64"}
        body = json.dumps(content | {"dimensions": dimensions}).encode()
        requests.append(b"POST /v1/embeddings HTTP/1.1\r\nHost: m\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    requests *= -(-ASKED // len(requests))
    with provider(Behaviour(request_ms=0, text_ms=0, dimensions=dimensions)) as running:
        port = int(running.url.rpartition(":")[2])
        cpu, began = running.cpu_s, time.perf_counter()
        asyncio.run(_ask(port, requests))
        seconds, cpu = time.perf_counter() - began, running.cpu_s - cpu
    asked = len(requests) * texts_a_request
    return Ceiling(texts_a_request, len(requests) / seconds, asked / seconds, cpu / asked * 1e6)


async def _ask(port: int, requests: Sequence[bytes]) -> None:
    waiting = iter(requests)

    async def work() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 24)
        for request in waiting:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.lower().partition(b"content-length:")[2].split(b"\r", 1)[0]))
        writer.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(CONNECTIONS):
            group.create_task(work())


def bare_copy(server: Server, texts: Sequence[str], vectors: Vectors) -> float:
    """Rows a second of one binary COPY into a table with a primary key, its bytes made beforehand."""
    content = bytearray(COPY_SIGNATURE)
    for number, text in enumerate(texts):
        words = array("f", vectors.floats(text))
        words.byteswap()
        vector = struct.pack(">HH", vectors.dimensions, 0) + words.tobytes()
        content += struct.pack(">hiq", 3, 8, number)
        for field in (text.encode(), vector):
            content += struct.pack(">i", len(field)) + field
    content += struct.pack(">h", -1)
    with (
        server.fresh("table", vectors.dimensions) as fresh,
        psycopg.connect(fresh.owner_url) as connection,
        connection.cursor() as cursor,
    ):
        began = time.perf_counter()
        with cursor.copy("COPY chunks (id, text, embedding) FROM STDIN (FORMAT binary)") as copy:
            for start in range(0, len(content), BLOCK_BYTES):
                copy.write(bytes(content[start : start + BLOCK_BYTES]))
        connection.commit()
        return len(texts) / (time.perf_counter() - began)
