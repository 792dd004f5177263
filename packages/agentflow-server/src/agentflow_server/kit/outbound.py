"""HTTP to addresses that users name: tools, web pages, webhooks. Refuses addresses that only this network can reach.

The check is made on the address the connection is opened to, after the name was resolved: so redirects, names that
resolve to private addresses, names that resolve differently the second time and odd spellings of an address are all
covered by one rule (OWASP, "Server-Side Request Forgery Prevention Cheat Sheet").
"""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Iterable
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import httpcore2
import httpx2
from httpcore2 import AnyIOBackend, AsyncNetworkBackend, AsyncNetworkStream

_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class ForbiddenAddressError(Exception):
    """The address is one that the server does not call for its users; the message says which and what to do."""


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the public internet; an IPv4 address inside an IPv6 one is judged itself."""
    try:
        ip = ipaddress.ip_address(address.split("%", 1)[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is None and ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF)
        if inner is not None:
            return is_public(str(inner))
    return ip.is_global and not ip.is_multicast


async def resolve_public(host: str, port: int, *, allow_private: bool = False) -> list[str]:
    """The addresses of a host, every one of them public.

    Raises:
        ForbiddenAddressError: one is not. OSError: the name cannot be resolved.
    """
    found = await asyncio.to_thread(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    if not allow_private:
        for address in addresses:
            if not is_public(address):
                raise ForbiddenAddressError(
                    f"{host} is at {address}, a private address, which this server does not call;"
                    " an operator can allow it with AGENTFLOW_ALLOW_PRIVATE_ADDRESSES=true"
                )
    return addresses


async def address_problem(url: str, *, allow_private: bool) -> str | None:
    """Why the server would not call a URL, or None. A name that cannot be resolved now is no problem: it may be later.

    Raises:
        ForbiddenAddressError: it leads to a private address.
    """
    try:
        parsed = urlsplit(url)
        host, port = parsed.hostname, parsed.port
    except ValueError as error:
        return f"this is no address: {error}"
    if parsed.scheme not in ("https", "http") or not host:
        return "an address begins with https:// (or http://) and names a host"
    if parsed.username or parsed.password:
        return "an address with a user name or a password is not taken"
    try:
        await resolve_public(host, port or (443 if parsed.scheme == "https" else 80), allow_private=allow_private)
    except (OSError, UnicodeError):
        return None
    return None


class _GuardedBackend(AsyncNetworkBackend):
    """Resolves, judges, and connects to what was judged."""

    def __init__(self, *, allow_private: bool) -> None:
        self._plain = AnyIOBackend()
        self._allow_private = allow_private

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> AsyncNetworkStream:
        try:
            addresses = await resolve_public(host.strip("[]"), port, allow_private=self._allow_private)
        except OSError as error:
            raise httpcore2.ConnectError(f"{host} cannot be resolved: {error.strerror or error}") from error
        failure: Exception | None = None
        for address in addresses:
            try:
                return await self._plain.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
        raise failure or httpcore2.ConnectError(f"{host} has no address")

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> AsyncNetworkStream:
        raise ForbiddenAddressError("a socket file is no public address")

    async def sleep(self, seconds: float) -> None:
        await self._plain.sleep(seconds)


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    return httpx2.create_ssl_context(trust_env=False)


def outbound_client(
    *, allow_private: bool, timeout: float = 30.0, follow_redirects: bool = False
) -> httpx2.AsyncClient:
    """A client for addresses that users name. No proxies, no cookies or credentials of the server's own.

    Args:
        allow_private: an operator's decision (`Settings.allow_private_addresses`). timeout: seconds for each wait.

    The client's calls raise `ForbiddenAddressError` for an address that may not be called, besides httpx2's errors.
    """
    transport = httpx2.AsyncHTTPTransport(verify=_tls(), trust_env=False)
    transport._pool = httpcore2.AsyncConnectionPool(  # the transport has no argument for its backend
        ssl_context=_tls(), network_backend=_GuardedBackend(allow_private=allow_private), max_connections=64
    )
    return httpx2.AsyncClient(
        transport=transport, timeout=timeout, follow_redirects=follow_redirects, max_redirects=5, trust_env=False
    )
