"""A way to Postgres over TCP that can be cut, closed or struck dumb."""

import asyncio
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self


@dataclass(slots=True)
class TcpProxy:
    """Forwards a loopback port to a Unix socket: `async with TcpProxy(path) as proxy`, then `proxy.port`."""

    socket: str
    dumb: bool = False  # connections stay open, and nothing comes through any more
    connections: int = 0
    port: int = 0
    _server: asyncio.Server | None = None
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def open(self) -> None:
        """Listen, on the same port as before."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Refuse new connections and reset those that are there."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Reset every connection."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        to_reader, to_writer = await asyncio.open_unix_connection(self.socket)
        self._writers |= {writer, to_writer}
        for task in (
            asyncio.create_task(self._forward(reader, to_writer)),
            asyncio.create_task(self._forward(to_reader, writer)),
        ):
            self._tasks.add(task)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                if not self.dumb:
                    writer.write(data)
                    await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.transport.abort()
