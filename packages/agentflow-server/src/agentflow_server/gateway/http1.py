"""HTTP/1.1 to model providers: a request goes out in one write, the answer's bytes come up as the network brings them.

The token path of every run, so it is written on the event loop's transports and httptools (RFC 9112) and does no more
than it has to; a general client costs ten times as much a read. Where a proxy stands in between, `Proxied` does the
same on httpx2. Called by providers.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import NamedTuple, Protocol, cast
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httptools
import httpx2

from agentflow_server.kit.outbound import ForbiddenAddressError, outbound_client

_HIGH_WATER = 1024 * 1024
_KEEP_SECONDS = 55.0
_MAX_HEADERS = 64 * 1024


class WireError(Exception):
    """The connection failed. `sent`: the provider may have read the request."""

    def __init__(self, message: str, *, sent: bool = True) -> None:
        super().__init__(message)
        self.sent = sent


class WireTimeoutError(WireError):
    """Nothing came in time; without `sent` the connection was not even made."""


class Answer(Protocol):
    """An answer that is being read."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    async def read(self) -> bytes | None:
        """The next bytes of the body; None at its end.

        Raises:
            WireError: it broke off, or nothing came in time.
        """
        ...


class Wire(Protocol):
    """Asks a provider."""

    def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes
    ) -> AbstractAsyncContextManager[Answer]:
        """Send a request; leaving the context without having read all of the answer closes the connection."""
        ...

    async def aclose(self) -> None:
        """Close every connection."""
        ...


class Target(NamedTuple):
    """Where a request goes."""

    tls: bool
    host: str
    port: int
    authority: str
    path: str


def target_of(url: str) -> Target:
    """The parts of an address.

    Raises:
        ValueError: it is not the address of an HTTP server.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is not an http(s) address")
    tls = parts.scheme == "https"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(tls, parts.hostname, parts.port or (443 if tls else 80), parts.netloc.rpartition("@")[2], path)


class _Connection(asyncio.Protocol):
    """One connection: the parser's callbacks, and the one answer that is under way."""

    def __init__(self, idle_timeout: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._idle_timeout = idle_timeout
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._last = 0.0
        self._waiter: asyncio.Future[None] | None = None
        self._paused = False
        self.closed = False
        self.free_since = 0.0
        self._begin()

    def _begin(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._error: WireError | None = None
        self._pieces: list[bytes] = []
        self._size = 0
        self._header_size = 0
        self.headers: dict[str, str] = {}
        self.headed = False
        self.whole = False
        self._keep_alive = False
        self.heard = False

    # What the event loop tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._last = self._loop.time()
        self.heard = True
        if self.whole:
            self.abort()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(WireError(f"the answer is not HTTP: {error}"))
        self._wake()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if not self.whole:
            if self.headed and not self._framed():
                self.whole = True
            else:
                self._error = self._error or WireError(str(exc) if exc else "the connection was closed")
        self._wake()

    # What the parser tells

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_size += len(name) + len(value)
        if self._header_size > _MAX_HEADERS:
            self._fail(WireError("the answer's headers are too large"))
            return
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        if self._parser.get_status_code() >= 200:
            self.headed = True
        else:
            self.headers = {}

    def on_body(self, body: bytes) -> None:
        self._pieces.append(body)
        self._size += len(body)
        if self._size > _HIGH_WATER and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        if self.headed:
            self.whole = True
            self._keep_alive = self._parser.should_keep_alive()  # the parser forgets it with the message

    def _framed(self) -> bool:
        return "content-length" in self.headers or "chunked" in self.headers.get("transfer-encoding", "")

    # What the caller does

    @property
    def status(self) -> int:
        return self._parser.get_status_code()

    def ask(self, head: bytes, body: bytes) -> None:
        """Send a request."""
        self._begin()
        self._last = self._loop.time()
        self._watch()
        assert self._transport is not None
        self._transport.write(head + body)

    async def head(self) -> None:
        """Wait for the status and the headers."""
        while not self.headed:
            await self._more()

    async def read(self) -> bytes | None:
        while not self._pieces:
            if self.whole:
                return None
            await self._more()
        body = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces, self._size = [], 0
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return body

    async def _more(self) -> None:
        if self._error is not None:
            raise self._error
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
        if self._error is not None and not self._pieces and not self.whole:
            raise self._error

    def release(self) -> bool:
        """The answer is done with; whether the connection may be used again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        reusable = self.whole and not self.closed and self._keep_alive
        if not reusable:
            self.abort()
        self.free_since = self._loop.time()
        return reusable

    def abort(self) -> None:
        """Close at once."""
        self.closed = True
        if self._transport is not None:
            self._transport.abort()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, error: WireError) -> None:
        self._error = self._error or error
        self.abort()
        self._wake()

    def _watch(self) -> None:
        """Fail when nothing was heard for too long; one timer for a whole answer."""
        left = self._last + self._idle_timeout - self._loop.time()
        if left > 0 or self._paused:
            self._timer = self._loop.call_later(max(left, 0.05), self._watch)
        else:
            self._fail(WireTimeoutError(f"nothing came for {self._idle_timeout:g} s"))


class Direct:
    """Asks providers directly. Connections are kept and used again.

    Args:
        connect_timeout, idle_timeout: seconds to connect, and between two reads.
    """

    def __init__(self, *, connect_timeout: float, idle_timeout: float) -> None:
        self._connect_timeout = connect_timeout
        self._idle_timeout = idle_timeout
        self._free: dict[tuple[bool, str, int], deque[_Connection]] = {}
        self._tls: ssl.SSLContext | None = None

    @asynccontextmanager
    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes
    ) -> AsyncGenerator[Answer, None]:
        target = target_of(url)
        head = _head(method, target, headers, len(body))
        connection = await self._answered(target, head, body)
        try:
            yield connection
        finally:
            if connection.release():
                self._free.setdefault(target[:3], deque()).append(connection)

    async def _answered(self, target: Target, head: bytes, body: bytes) -> _Connection:
        """A connection on which the answer has begun. One that turns out to be closed before it said anything is
        replaced once: the provider had closed it while it lay idle.
        """
        while True:
            kept = self._kept(target)
            connection = kept or await self._connect(target)
            try:
                connection.ask(head, body)
                await connection.head()
            except WireError as error:
                connection.release()
                if kept is None or connection.heard or isinstance(error, WireTimeoutError):
                    raise
            except BaseException:
                connection.release()
                raise
            else:
                return connection

    def _kept(self, target: Target) -> _Connection | None:
        free = self._free.get(target[:3])
        now = asyncio.get_running_loop().time()
        while free:
            connection = free.pop()
            if not connection.closed and now - connection.free_since < _KEEP_SECONDS:
                return connection
            connection.abort()
        return None

    async def _connect(self, target: Target) -> _Connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._connect_timeout):
                _, connection = await loop.create_connection(
                    lambda: _Connection(self._idle_timeout),
                    target.host,
                    target.port,
                    ssl=self._context() if target.tls else None,
                )
        except TimeoutError:
            raise WireTimeoutError("the connection was not made in time", sent=False) from None
        except (OSError, ssl.SSLError) as error:
            raise WireError(f"{type(error).__name__}: {error}", sent=False) from None
        return connection

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
            self._tls.set_alpn_protocols(["http/1.1"])
        return self._tls

    async def aclose(self) -> None:
        for free in self._free.values():
            for connection in free:
                connection.abort()
        self._free.clear()


def _head(method: str, target: Target, headers: Mapping[str, str], size: int) -> bytes:
    lines = [f"{method} {target.path} HTTP/1.1", f"Host: {target.authority}", f"Content-Length: {size}"]
    for name, value in headers.items():
        if "\r" in value or "\n" in value:
            raise ValueError(f"the header {name} contains a line break")
        lines.append(f"{name}: {value}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


class Proxied:
    """Asks providers through the proxy that the environment names (`HTTPS_PROXY`, `NO_PROXY`, …)."""

    def __init__(self, *, connect_timeout: float, idle_timeout: float) -> None:
        self._client = httpx2.AsyncClient(
            timeout=httpx2.Timeout(idle_timeout, connect=connect_timeout),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=None),
            follow_redirects=False,
        )

    @asynccontextmanager
    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes
    ) -> AsyncGenerator[Answer, None]:
        try:
            async with self._client.stream(method, url, content=body, headers=dict(headers)) as response:
                yield _ProxiedAnswer(response)
        except httpx2.HTTPError as error:
            raise _wire_error(error) from None
        except ForbiddenAddressError as error:
            raise WireError(str(error), sent=False) from None

    async def aclose(self) -> None:
        await self._client.aclose()


class Guarded(Proxied):
    """Asks an address that a tenant has named: a public one, unless the operator allows others."""

    def __init__(self, *, connect_timeout: float, idle_timeout: float, allow_private: bool) -> None:
        self._client = outbound_client(allow_private=allow_private, timeout=idle_timeout)
        self._client.timeout = httpx2.Timeout(idle_timeout, connect=connect_timeout)


class _ProxiedAnswer:
    def __init__(self, response: httpx2.Response) -> None:
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self._pieces: AsyncIterator[bytes] = response.aiter_raw()

    async def read(self) -> bytes | None:
        try:
            return await anext(self._pieces, None)
        except httpx2.HTTPError as error:
            raise _wire_error(error) from None


def _wire_error(error: httpx2.HTTPError) -> WireError:
    sent = not isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout)
    kind = WireTimeoutError if isinstance(error, httpx2.TimeoutException) else WireError
    return kind(str(error) or type(error).__name__, sent=sent)


def wire_for(url: str, *, connect_timeout: float, idle_timeout: float) -> Wire:
    """The way to an address: direct, unless the environment names a proxy for it."""
    parts = urlsplit(url)
    proxied = bool(getproxies().keys() & {parts.scheme, "all"}) and not proxy_bypass(parts.hostname or "")
    return (Proxied if proxied else Direct)(connect_timeout=connect_timeout, idle_timeout=idle_timeout)
