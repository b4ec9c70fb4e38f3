"""Webhooks over HTTPS, to addresses that tenants have given: to public ones only, and following nothing."""

import asyncio
import socket
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from edda.adapters.http_client import tls_context
from edda.concurrency import Deadline
from edda.errors import WebhookFailed

TIMEOUT_S = 10.0
CONNECT_S = 3.0
GONE = 410  # Standard Webhooks: the receiver wants no more of this
HEADERS = {"content-type": "application/json", "user-agent": "edda-webhooks/1"}

NAT64 = ip_network("64:ff9b::/96")  # an IPv4 address in IPv6's clothes, as 6to4, Teredo and mapped ones are
NOT_PUBLIC = "Its address is not a public one."


class HttpWebhooks:
    """One POST an attempt. `allow_private`, for local use: plain HTTP and addresses of this machine and network too.

    What a name resolves to is looked at in the moment of connecting, and that address is connected to: a second
    answer of its name server makes no difference.
    """

    def __init__(self, *, allow_private: bool = False) -> None:
        self._allow_private = allow_private
        self._session: aiohttp.ClientSession | None = None

    async def post(self, url: str, headers: dict[str, str], body: bytes, deadline: Deadline) -> None:
        target = self._checked(url)
        seconds = deadline.sooner(TIMEOUT_S).remaining_s()
        if seconds == 0:
            raise WebhookFailed("There was no time left.")
        timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=CONNECT_S)
        try:
            async with self._open_session().post(
                target, data=body, headers=HEADERS | headers, timeout=timeout, allow_redirects=False
            ) as response:
                status = response.status  # the answer's body is not read: nobody asked for it
        except TimeoutError as error:
            raise WebhookFailed("It did not answer in time.") from error
        except _NotPublicError as error:
            raise WebhookFailed(NOT_PUBLIC) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise WebhookFailed(f"It could not be reached ({type(error).__name__}).") from error
        if not 200 <= status < 300:
            raise WebhookFailed(f"It answered {status}.", is_final=status == GONE)

    async def aclose(self) -> None:
        """Close what is open."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _checked(self, url: str) -> URL:
        try:
            target = URL(url)
        except ValueError as error:
            raise WebhookFailed("Its address is not valid.") from error
        if not target.host or target.scheme not in ({"https", "http"} if self._allow_private else {"https"}):
            raise WebhookFailed("Its address is not one of HTTPS.")
        try:
            address = ip_address(target.host)  # such a host is not resolved
        except ValueError:
            return target
        if not self._allow_private and not is_public(address):
            raise WebhookFailed(NOT_PUBLIC)
        return target

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:  # not in __init__: a session belongs to the loop that is running
            connector = aiohttp.TCPConnector(
                resolver=_Resolver(allow_private=self._allow_private),
                use_dns_cache=False,
                force_close=True,  # a connection kept through a freeze is a dead one
                ssl=tls_context(),
            )
            self._session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
        return self._session


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Is it one of the internet? Not this machine, this network, a cloud's metadata, or a disguise of these."""
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
        if inner is None and address in NAT64:
            inner = IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
    return address.is_global and not address.is_multicast and not address.is_reserved


class _NotPublicError(Exception):
    """The name leads to where only we can go. No OSError: aiohttp would dress it up."""


class _Resolver(AbstractResolver):
    def __init__(self, *, allow_private: bool) -> None:
        self._allow_private = allow_private

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
        addresses = [str(entry[4][0]).partition("%")[0] for entry in found]
        if not self._allow_private and not all(is_public(ip_address(address)) for address in addresses):
            raise _NotPublicError(NOT_PUBLIC)
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=entry[0],
                proto=entry[2],
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for entry, address in zip(found, addresses, strict=True)
        ]

    async def close(self) -> None:
        """Nothing is kept."""
