"""Webhooks against real servers on loopback, and against every way to reach what is not public."""

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

import pytest
from aiohttp import web
from edda.adapters.webhooks import NOT_PUBLIC, HttpWebhooks, is_public
from edda.concurrency import Deadline
from edda.errors import WebhookFailed


@dataclass
class Receiver:
    """Answers what it is told to."""

    status: int = 204
    hangs: bool = False
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    url: str = ""

    async def serve(self, request: web.Request) -> web.Response:
        self.requests.append((request.path_qs, dict(request.headers), await request.read()))
        if self.hangs:
            await asyncio.Event().wait()
        headers = {"Location": "/elsewhere"} if 300 <= self.status < 400 else {}
        return web.Response(status=self.status, headers=headers, text="x" * 100_000 if self.status == 500 else "")


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    built = Receiver()
    app = web.Application()
    app.router.add_post("/{path:.*}", built.serve)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    built.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hooks?of=acme"
    yield built
    await runner.cleanup()


@pytest.fixture
async def local() -> AsyncIterator[HttpWebhooks]:
    built = HttpWebhooks(allow_private=True)
    yield built
    await built.aclose()


@pytest.fixture
async def strict() -> AsyncIterator[HttpWebhooks]:
    built = HttpWebhooks()
    yield built
    await built.aclose()


async def post(webhooks: HttpWebhooks, url: str, seconds: float = 5) -> None:
    await webhooks.post(url, {"webhook-id": "1"}, b'{"a": "\xc3\xbc"}', Deadline.after(seconds))


async def test_headers_and_body_arrive_as_they_were_signed(local: HttpWebhooks, receiver: Receiver) -> None:
    await post(local, receiver.url)
    await post(local, receiver.url.replace("127.0.0.1", "localhost"))
    (path, headers, body), _ = receiver.requests
    assert (path, body) == ("/hooks?of=acme", b'{"a": "\xc3\xbc"}')
    assert (headers["webhook-id"], headers["Content-Type"]) == ("1", "application/json")


@pytest.mark.parametrize("status", [400, 404, 410, 429, 500, 503])
async def test_any_answer_but_success_is_a_failure_and_only_gone_is_final(
    local: HttpWebhooks, receiver: Receiver, status: int
) -> None:
    receiver.status = status
    with pytest.raises(WebhookFailed, match=str(status)) as raised:
        await post(local, receiver.url)
    assert raised.value.is_final == (status == 410)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_not_followed(local: HttpWebhooks, receiver: Receiver, status: int) -> None:
    receiver.status = status
    with pytest.raises(WebhookFailed, match=str(status)):
        await post(local, receiver.url)
    assert len(receiver.requests) == 1


async def test_a_receiver_that_hangs_costs_no_more_than_the_deadline(local: HttpWebhooks, receiver: Receiver) -> None:
    receiver.hangs = True
    with pytest.raises(WebhookFailed, match="in time"):
        await post(local, receiver.url, seconds=0.2)
    with pytest.raises(WebhookFailed, match="no time"):
        await post(local, receiver.url, seconds=0)


async def test_a_receiver_that_is_not_there_is_a_failure(local: HttpWebhooks) -> None:
    for url in ("http://127.0.0.1:9/", "http://no-such-host.invalid/"):
        with pytest.raises(WebhookFailed, match="could not be reached"):
            await post(local, url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "x",
        "ftp://example.com/",
        "http://example.com/",
        "file:///etc/passwd",
        "https://",
        "https://[/",
        "//example.com",
    ],
)
async def test_what_is_no_address_of_https_is_refused(strict: HttpWebhooks, url: str) -> None:
    with pytest.raises(WebhookFailed, match="address"):
        await post(strict, url)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "0.0.0.0",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.169.254",
        "169.254.170.2",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:a9fe:a9fe]",
        "[fd00:ec2::254]",
        "[fe80::1]",
        "[64:ff9b::a9fe:a9fe]",
        "[2002:a9fe:a9fe::1]",
        "224.0.0.1",
        "255.255.255.255",
    ],
)
async def test_what_is_not_public_is_refused_before_anything_is_sent(strict: HttpWebhooks, host: str) -> None:
    with pytest.raises(WebhookFailed, match=NOT_PUBLIC):
        await post(strict, f"https://{host}/latest/meta-data")


@pytest.mark.parametrize("host", ["2130706433", "0x7f.1", "127.1", "0177.0.0.1"])
async def test_an_address_written_in_an_odd_way_leads_nowhere(strict: HttpWebhooks, host: str) -> None:
    with pytest.raises(WebhookFailed):
        await post(strict, f"https://{host}/latest/meta-data")


async def test_what_a_name_leads_to_is_looked_at_in_the_moment_of_connecting(
    strict: HttpWebhooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One private address among public ones is enough to refuse."""
    loop = asyncio.get_running_loop()

    async def rebound(host: str, port: int, **_: Any) -> list[Any]:
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in ("93.184.215.14", "10.0.0.1")
        ]

    monkeypatch.setattr(loop, "getaddrinfo", rebound)
    with pytest.raises(WebhookFailed, match="not a public one"):
        await post(strict, "https://receiver.example/")


@pytest.mark.parametrize(
    "address", ["93.184.215.14", "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_public_addresses_are_public(address: str) -> None:
    assert is_public(ip_address(address))
