"""A TCP proxy with faults that can be switched while connections are open.

    async with TcpProxy(("127.0.0.1", 9000)) as proxy:      # or the path of a Unix socket
        proxy.to_client = Faults(latency_s=0.1, jitter_s=0.05)
        proxy.to_server = Faults(reset_after=b"COMMIT")

What holds for a direction holds for its next bytes, on connections that are open as well.
"""

import asyncio
import random
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

LONGEST_SEQUENCE = 64
RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER: no farewell, what waits is thrown away


@dataclass(frozen=True, slots=True)
class Faults:
    """What befalls the bytes of one direction. `…_bytes` of an end count from the connection's begin.

    - `latency_s`, and up to `jitter_s` more, pass before each piece; `slice_bytes` and `bytes_per_s` make pieces small
      and slow;
    - `reset_after_bytes`, `reset_after` (a sequence of bytes, which is passed on) and `reset_before` (which is not)
      end the connection: the client sees a reset, the server the end of what was passed on;
    - `half_close_after_bytes` ends this direction, while the other one goes on;
    - `blackhole` and `blackhole_after_bytes` swallow the rest without a word.
    """

    latency_s: float = 0.0
    jitter_s: float = 0.0
    slice_bytes: int | None = None
    bytes_per_s: float | None = None
    reset_after_bytes: int | None = None
    reset_after: bytes | None = None
    reset_before: bytes | None = None
    half_close_after_bytes: int | None = None
    blackhole: bool = False
    blackhole_after_bytes: int | None = None


@dataclass(slots=True)
class TcpProxy:
    """Forwards a loopback port, `port`, to `target`. Connections wait `accept_s` before anybody answers them."""

    target: str | tuple[str, int]
    to_server: Faults = Faults()
    to_client: Faults = Faults()
    accept_s: float = 0.0
    connections: int = 0
    nth: int | None = None  # of `reset_after` or `reset_before` only this sequence does harm
    sequences: int = 0  # seen so far
    resets: int = 0  # by `reset_…` of a direction
    port: int = 0
    chance: Callable[[], float] = random.random
    _server: asyncio.Server | None = None
    _links: dict[asyncio.Task[None], "_Link"] = field(default_factory=dict)

    async def open(self) -> None:
        """Listen, on the same port as before."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Refuse new connections and reset those that are there."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()
        tasks = list(self._links)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def cut(self) -> None:
        """Reset every connection."""
        for link in self._links.values():
            link.reset()

    def go_silent(self) -> None:
        """Connections stay open, new ones are taken, and nothing comes through any more."""
        self.to_server = self.to_client = Faults(blackhole=True)

    def heal(self) -> None:
        """No faults any more. Connections that lost bytes do not get them back."""
        self.to_server = self.to_client = Faults()
        self.accept_s = 0.0

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        link = _Link(writer)
        task = asyncio.create_task(self._serve(link, reader))
        self._links[task] = link
        task.add_done_callback(self._links.pop)

    async def _serve(self, link: "_Link", from_client: asyncio.StreamReader) -> None:
        try:
            await asyncio.sleep(self.accept_s)
            if isinstance(self.target, str):
                from_server, link.server = await asyncio.open_unix_connection(self.target)
            else:
                from_server, link.server = await asyncio.open_connection(*self.target)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._forward(link, from_client, link.server, lambda: self.to_server))
                both.create_task(self._forward(link, from_server, link.client, lambda: self.to_client))
        except* OSError:
            pass  # one side is gone; the other will be told
        finally:
            link.reset()

    async def _forward(
        self, link: "_Link", reader: asyncio.StreamReader, writer: asyncio.StreamWriter, faults: Callable[[], Faults]
    ) -> None:
        passed, seen = 0, b""
        while data := await reader.read(faults().slice_bytes or 65536):
            now = faults()
            await asyncio.sleep(_delay_s(now, len(data), self.chance()))
            now = faults()  # may have been switched meanwhile
            kept, end = _cut(now, passed, seen, data)
            if end == "reset" and now.reset_after_bytes is None:
                self.sequences += 1
                if self.nth not in {None, self.sequences}:
                    kept, end = data, None
            data = kept
            writer.write(data)
            await writer.drain()
            passed, seen = passed + len(data), (seen + data)[-LONGEST_SEQUENCE:]
            if end == "reset":
                self.resets += 1
                link.reset()
            if end == "half-close":
                break
        writer.write_eof()


@dataclass(slots=True)
class _Link:
    """Both ends of one connection."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter | None = None

    def reset(self) -> None:
        """The client is told at once and rudely; the server still gets what was passed on."""
        connection: socket.socket = self.client.get_extra_info("socket")
        if not self.client.transport.is_closing():
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self.client.transport.abort()
        if self.server is not None:
            self.server.close()


def _delay_s(faults: Faults, size_bytes: int, chance: float) -> float:
    transfer_s = size_bytes / faults.bytes_per_s if faults.bytes_per_s else 0.0
    return faults.latency_s + chance * faults.jitter_s + transfer_s


def _cut(faults: Faults, passed: int, seen: bytes, data: bytes) -> tuple[bytes, str | None]:
    """What is passed on of `data`, after `passed` bytes that ended in `seen`; and how the direction ends, if so."""

    def left(limit: int) -> bytes:
        return data[: max(0, limit - passed)]

    def reaches(limit: int | None) -> bool:
        return limit is not None and passed + len(data) >= limit

    def holds(sequence: bytes | None) -> bool:
        """Also one that began in an earlier piece."""
        return sequence is not None and (seen + data).count(sequence) > seen.count(sequence)

    if faults.blackhole:
        return b"", None
    if faults.blackhole_after_bytes is not None:
        return left(faults.blackhole_after_bytes), None
    if faults.reset_after_bytes is not None and reaches(faults.reset_after_bytes):
        return left(faults.reset_after_bytes), "reset"
    if faults.half_close_after_bytes is not None and reaches(faults.half_close_after_bytes):
        return left(faults.half_close_after_bytes), "half-close"
    if holds(faults.reset_before):
        return b"", "reset"
    if holds(faults.reset_after):
        return data, "reset"
    return data, None
