"""The proxy does to a connection what it says, and nothing when it says nothing."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.fakes.tcp_proxy import Faults, TcpProxy

SOON_S = 5


@dataclass
class EchoServer:
    """Sends back what it gets, and remembers it."""

    received: bytearray = field(default_factory=bytearray)
    _ends: asyncio.Queue[None] = field(default_factory=asyncio.Queue)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1000):
                self.received += data
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        self._ends.put_nowait(None)
        writer.close()

    async def sees_an_end(self) -> None:
        """Of one connection."""
        async with asyncio.timeout(SOON_S):
            await self._ends.get()


@pytest.fixture
def echo() -> EchoServer:
    return EchoServer()


@pytest.fixture
async def proxy(echo: EchoServer) -> AsyncIterator[TcpProxy]:
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    async with TcpProxy((host, port)) as proxy:
        yield proxy
    server.close()


async def connect(proxy: TcpProxy) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", proxy.port)


async def echoed(proxy: TcpProxy, data: bytes) -> bytes:
    """What comes back of it before the connection ends, or all of it."""
    reader, writer = await connect(proxy)
    try:
        writer.write(data)
        async with asyncio.timeout(SOON_S):
            return await reader.readexactly(len(data))
    except asyncio.IncompleteReadError as short:
        return short.partial
    finally:
        writer.close()


async def test_without_faults_everything_comes_through(proxy: TcpProxy) -> None:
    data = bytes(range(256)) * 4000
    assert await echoed(proxy, data) == data
    assert (proxy.connections, proxy.resets) == (1, 0)


async def test_it_reaches_a_unix_socket(tmp_path: Path, echo: EchoServer) -> None:
    server = await asyncio.start_unix_server(echo.serve, tmp_path / "socket")
    async with TcpProxy(str(tmp_path / "socket")) as proxy:
        assert await echoed(proxy, b"hello") == b"hello"
    server.close()


async def test_latency_and_jitter_pass_before_each_piece(proxy: TcpProxy) -> None:
    proxy.chance = lambda: 0.5
    proxy.to_client = Faults(latency_s=0.1, jitter_s=0.1)
    began = time.monotonic()
    assert await echoed(proxy, b"x") == b"x"
    assert time.monotonic() - began >= 0.15


async def test_bandwidth_holds_for_all_bytes(proxy: TcpProxy) -> None:
    proxy.to_server = Faults(bytes_per_s=1000)
    began = time.monotonic()
    assert await echoed(proxy, b"x" * 200) == b"x" * 200
    assert time.monotonic() - began >= 0.2


async def test_slices_are_small(proxy: TcpProxy) -> None:
    proxy.to_client = Faults(slice_bytes=3, latency_s=0.01)
    reader, writer = await connect(proxy)
    writer.write(b"0123456789")
    assert await reader.read(100) == b"012"
    assert await reader.readexactly(7) == b"3456789"
    writer.close()


async def test_a_cut_is_a_reset_for_the_client_and_an_end_for_the_server(proxy: TcpProxy, echo: EchoServer) -> None:
    reader, writer = await connect(proxy)
    writer.write(b"hello")
    assert await reader.readexactly(5) == b"hello"
    proxy.cut()
    with pytest.raises(ConnectionResetError):
        await reader.read()
    await echo.sees_an_end()
    writer.close()


async def test_a_reset_comes_after_so_many_bytes(proxy: TcpProxy, echo: EchoServer) -> None:
    proxy.to_server = Faults(reset_after_bytes=4)
    with pytest.raises(ConnectionResetError):
        await echoed(proxy, b"hello")
    await echo.sees_an_end()
    assert echo.received == b"hell"
    assert proxy.resets == 1


@pytest.mark.parametrize("pieces", [[b"BEGIN; COMMIT;"], [b"BEGIN; COM", b"MIT;"]])
async def test_a_reset_after_a_sequence_passes_it_on(proxy: TcpProxy, echo: EchoServer, pieces: list[bytes]) -> None:
    proxy.to_server = Faults(reset_after=b"COMMIT")
    reader, writer = await connect(proxy)
    *first, last = pieces
    for piece in first:
        writer.write(piece)
        assert await reader.readexactly(len(piece)) == piece
    writer.write(last)
    with pytest.raises(ConnectionResetError):
        await reader.read()
    await echo.sees_an_end()
    assert echo.received == b"BEGIN; COMMIT;"


async def test_of_many_sequences_the_nth_is_struck_and_no_other(proxy: TcpProxy, echo: EchoServer) -> None:
    proxy.to_server, proxy.nth = Faults(reset_before=b"COMMIT"), 2
    reader, writer = await connect(proxy)
    writer.write(b"COMMIT;")
    assert await reader.readexactly(7) == b"COMMIT;"
    writer.write(b"COMMIT;")
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()
    assert await echoed(proxy, b"COMMIT;") == b"COMMIT;"
    assert (proxy.sequences, proxy.resets) == (3, 1)


async def test_a_reset_before_a_sequence_keeps_it(proxy: TcpProxy, echo: EchoServer) -> None:
    proxy.to_server = Faults(reset_before=b"COMMIT")
    reader, writer = await connect(proxy)
    writer.write(b"BEGIN;")
    assert await reader.readexactly(6) == b"BEGIN;"
    writer.write(b"COMMIT;")
    with pytest.raises(ConnectionResetError):
        await reader.read()
    await echo.sees_an_end()
    assert echo.received == b"BEGIN;"
    writer.close()


async def test_a_black_hole_swallows_what_comes_after_so_many_bytes(proxy: TcpProxy, echo: EchoServer) -> None:
    proxy.to_client = Faults(blackhole_after_bytes=3)
    reader, writer = await connect(proxy)
    writer.write(b"hello")
    assert await reader.readexactly(3) == b"hel"
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await reader.read()
    assert echo.received == b"hello"
    writer.close()


async def test_silence_is_switched_on_and_off_on_an_open_connection(proxy: TcpProxy, echo: EchoServer) -> None:
    reader, writer = await connect(proxy)
    proxy.go_silent()
    writer.write(b"lost")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await reader.read()
    proxy.heal()
    writer.write(b"heard")
    assert await reader.readexactly(5) == b"heard"
    assert echo.received == b"heard"
    writer.close()


async def test_after_a_half_close_the_other_direction_goes_on(proxy: TcpProxy, echo: EchoServer) -> None:
    proxy.to_client = Faults(half_close_after_bytes=2)
    reader, writer = await connect(proxy)
    writer.write(b"hello")
    assert await reader.read() == b"he"
    writer.write(b" world")
    writer.write_eof()
    await echo.sees_an_end()
    assert echo.received == b"hello world"
    writer.close()


async def test_a_slow_accept_keeps_new_connections_waiting(proxy: TcpProxy) -> None:
    proxy.accept_s = 0.2
    began = time.monotonic()
    assert await echoed(proxy, b"x") == b"x"
    assert time.monotonic() - began >= 0.2


async def test_closed_it_refuses_and_open_again_it_has_the_same_port(proxy: TcpProxy) -> None:
    assert await echoed(proxy, b"x") == b"x"
    await proxy.close()
    with pytest.raises(ConnectionRefusedError):
        await connect(proxy)
    await proxy.open()
    assert await echoed(proxy, b"x") == b"x"


async def test_a_server_that_is_not_there_is_a_reset(unused_port: int) -> None:
    async with TcpProxy(("127.0.0.1", unused_port)) as proxy:
        reader, writer = await connect(proxy)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()


@pytest.fixture
async def unused_port() -> int:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port: int = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    return port
