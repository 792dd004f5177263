"""Sessions with MCP servers, kept open between calls and opened again when they break. Called by the tools room.

A server may hang, flood or die: every wait is bounded, what it sends is counted, and the harm ends with its session.
Source: Model Context Protocol, https://modelcontextprotocol.io/specification.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import httpx2

from agentflow_server.connectors.errors import ConnectorError
from agentflow_server.kit.outbound import ForbiddenAddressError, outbound_client

if TYPE_CHECKING:
    from mcp.client import Client
    from mcp.shared.dispatcher import ProgressFnT
    from mcp_types import CallToolResult

    from agentflow_server.connectors.stdio import Meter

CONNECT_SECONDS = 15.0
MAX_RECEIVED = 16 * 1024 * 1024
MAX_RESULT = 1024 * 1024
MAX_TOOLS = 500
_IDLE_SECONDS = 300.0
_MAX_SESSIONS = 64
_CLOSED = -32000
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class McpTarget:
    """Where a server is, and what it is told. `version` changes when any of it does."""

    id: str
    version: str
    url: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    command: str | None = None
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class McpTool:
    """A tool as its server describes it."""

    name: str
    description: str
    parameters: dict[str, Any]
    idempotent: bool


@dataclass(frozen=True, slots=True)
class McpAnswer:
    """What a tool gave: text for the model, and the structured result if there is one."""

    text: str
    result: Any
    is_error: bool


class McpPool:
    """Open sessions by server.

    Args:
        allow_private: whether servers on private addresses may be called.
    """

    def __init__(self, *, allow_private: bool) -> None:
        self._allow_private = allow_private
        self._sessions: OrderedDict[str, _Session] = OrderedDict()
        self._locks: dict[str, asyncio.Lock] = {}
        self._leaving: set[asyncio.Task[None]] = set()

    async def tools(self, target: McpTarget) -> list[McpTool]:
        """What a server offers.

        Raises:
            ConnectorError: it cannot be reached, or does not answer as it should.
        """
        found: list[McpTool] = []
        async with self._session(target) as session:
            cursor: str | None = None
            while True:
                listing = session.client.list_tools(cursor=cursor)
                page = await session.bounded(listing, CONNECT_SECONDS, "list its tools")
                for tool in page.tools:
                    hints = tool.annotations
                    repeatable = bool(hints and (hints.read_only_hint or hints.idempotent_hint))
                    found.append(McpTool(tool.name, tool.description or tool.name, tool.input_schema, repeatable))
                cursor = page.next_cursor
                if cursor is None:
                    return found
                if len(found) > MAX_TOOLS:
                    raise ConnectorError("mcp_error", f"the server lists more than {MAX_TOOLS} tools")

    async def call(
        self,
        target: McpTarget,
        tool: str,
        arguments: dict[str, Any],
        *,
        timeout: float,
        progress: Callable[[Any], None],
    ) -> McpAnswer:
        """Call a tool.

        Args:
            timeout: seconds.

        Raises:
            ConnectorError: the server cannot be reached, hangs, floods, dies or refuses the call.
        """
        report = _reporter(progress)
        async with self._session(target) as session:
            calling = session.client.call_tool(tool, arguments, progress_callback=report)
            result = await session.bounded(calling, timeout, f"answer {tool}")
        return _answer(result)

    async def aclose(self) -> None:
        """End every session."""
        sessions, self._sessions = list(self._sessions.values()), OrderedDict()
        await asyncio.gather(*(session.aclose() for session in sessions), *self._leaving)

    @asynccontextmanager
    async def _session(self, target: McpTarget) -> "AsyncGenerator[_Session]":
        key = f"{target.id}:{target.version}"
        self._retire_idle()
        async with self._locks.setdefault(key, asyncio.Lock()):
            session = self._sessions.get(key)
            if session is None or not session.alive:
                self._retire(key)
                session = _Session(target, allow_private=self._allow_private)
                await session.open()
                self._sessions[key] = session
            session.users += 1
        self._sessions.move_to_end(key)
        try:
            yield session
        finally:
            session.users -= 1
            session.used = asyncio.get_running_loop().time()
            if not session.alive:
                if self._sessions.get(key) is session:
                    self._retire(key)
                elif session.users == 0:
                    self._leave(session)

    def _retire_idle(self) -> None:
        before = asyncio.get_running_loop().time() - _IDLE_SECONDS
        idle = [key for key, session in self._sessions.items() if session.users == 0]
        spare = len(self._sessions) - _MAX_SESSIONS
        for position, key in enumerate(idle):
            if self._sessions[key].used < before or position < spare:
                self._retire(key)

    def _retire(self, key: str) -> None:
        session = self._sessions.pop(key, None)
        if session is not None and session.users == 0:
            self._leave(session)
        if key in self._locks and not self._locks[key].locked():
            del self._locks[key]

    def _leave(self, session: "_Session") -> None:
        task = asyncio.ensure_future(session.aclose())
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)


class _Session:
    """One session. A task of its own holds it open, since it must be left by the task that entered it."""

    client: "Client"

    def __init__(self, target: McpTarget, *, allow_private: bool) -> None:
        from agentflow_server.connectors.stdio import Meter

        loop = asyncio.get_running_loop()
        self._target = target
        self._allow_private = allow_private
        self._ready: asyncio.Future[None] = loop.create_future()
        self._closing = asyncio.Event()
        self._broken = False
        self._task: asyncio.Task[None] | None = None
        self._meter: Meter = Meter(MAX_RECEIVED)
        self.users = 0
        self.used = loop.time()

    @property
    def alive(self) -> bool:
        return not (self._broken or self._meter.exceeded or self._task is None or self._task.done())

    async def open(self) -> None:
        """Connect and shake hands."""
        self._task = asyncio.create_task(self._hold())
        try:
            await asyncio.wait({self._task, self._ready}, timeout=CONNECT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if not self._ready.done():
                raise self._failure("connect")
        finally:
            if not self._ready.done():
                self._ready.cancel()
                await self.aclose()

    async def _hold(self) -> None:
        from mcp.client import Client

        async with AsyncExitStack() as stack:
            transport = await self._transport(stack)
            client = Client(transport, cache=None)
            self.client = await stack.enter_async_context(client)
            if not self._ready.done():
                self._ready.set_result(None)
            await self._closing.wait()

    async def _transport(self, stack: AsyncExitStack) -> Any:
        target = self._target
        if target.url is None:
            from agentflow_server.connectors.stdio import stdio

            return stdio(target.command or "", target.args, target.env, self._meter)
        from mcp.client.streamable_http import streamable_http_client

        http = await stack.enter_async_context(outbound_client(allow_private=self._allow_private, timeout=300.0))
        http.headers.update(target.headers)
        http.event_hooks = {"response": [self._bound]}
        return streamable_http_client(target.url, http_client=http)

    async def _bound(self, response: httpx2.Response) -> None:
        response.stream = _Counted(response.stream, self._meter)

    async def bounded(self, work: Coroutine[Any, Any, T], timeout: float, what: str) -> T:
        """The result of a request, unless it takes too long or the session ends first."""
        from mcp.shared.exceptions import MCPError

        assert self._task is not None
        self._meter.start()
        asking = asyncio.ensure_future(work)
        try:
            await asyncio.wait({asking, self._task}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not asking.done():
                asking.cancel()
                self._broken = True
                await asyncio.wait({asking}, timeout=1.0)
        if asking.cancelled() or not asking.done():
            if self._task.done() or self._meter.exceeded:
                raise self._failure(what)
            raise ConnectorError("tool_timeout", f"the MCP server did not {what} within {timeout:g} s", transient=True)
        error = asking.exception()
        if error is None:
            return asking.result()
        if isinstance(error, MCPError) and error.code != _CLOSED and not self._meter.exceeded:
            self._broken = "session" in str(error).lower()
            raise ConnectorError("mcp_error", f"the MCP server refused: {error}", transient=self._broken)
        self._broken = True
        if isinstance(error, ValueError):
            raise ConnectorError("mcp_error", "the MCP server answered with what is no result")
        raise self._failure(what)

    def _failure(self, what: str) -> ConnectorError:
        if self._meter.exceeded:
            return ConnectorError("mcp_flood", f"the MCP server sent more than {MAX_RECEIVED} bytes and was left")
        cause = None
        if self._task is not None and self._task.done() and not self._task.cancelled():
            cause = _root(self._task.exception())
        if isinstance(cause, ForbiddenAddressError):
            return ConnectorError("forbidden_address", str(cause))
        reason = f": {type(cause).__name__}: {cause}" if cause is not None else ""
        if cause is None and self._task is not None and not self._task.done() and what == "connect":
            return ConnectorError("tool_timeout", f"the MCP server did not answer within {CONNECT_SECONDS:g} s")
        return ConnectorError("mcp_disconnected", f"the MCP server ended the session{reason}"[:1000], transient=True)

    async def aclose(self) -> None:
        """End the session, however it stands."""
        self._broken = True
        self._closing.set()
        task = self._task
        if task is None:
            return
        await asyncio.wait({task}, timeout=0.5)
        if not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=6.0)
        if task.done() and not task.cancelled():
            task.exception()


class _Counted(httpx2.AsyncByteStream):
    """A response's body that ends the session when there is too much of it."""

    def __init__(self, stream: Any, meter: "Meter") -> None:
        self._stream = stream
        self._meter = meter

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._stream:
            if not self._meter.add(len(chunk)):
                raise httpx2.ReadError("the MCP server sends too much")
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


def _reporter(tell: Callable[[Any], None]) -> "ProgressFnT":
    async def report(progress: float, total: float | None, message: str | None) -> None:
        tell({"progress": progress, "total": total, "message": message})

    return report


def _root(error: BaseException | None) -> BaseException | None:
    """The first plain error inside a group of them."""
    while isinstance(error, BaseExceptionGroup) and error.exceptions:
        error = error.exceptions[0]
    return error


def _answer(result: "CallToolResult") -> McpAnswer:
    texts: list[str] = []
    for block in result.content:
        text = getattr(block, "text", None) or getattr(getattr(block, "resource", None), "text", None)
        texts.append(text if isinstance(text, str) else f"[{block.type}]")
    joined = "\n".join(texts)
    structured = result.structured_content
    if len(joined) > MAX_RESULT or (structured is not None and len(repr(structured)) > MAX_RESULT):
        raise ConnectorError("response_too_large", f"the MCP server answered with more than {MAX_RESULT} characters")
    return McpAnswer(joined, structured if structured is not None else joined, result.is_error)
