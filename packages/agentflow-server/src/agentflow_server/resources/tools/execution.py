"""How a tool is executed: in the sandbox, over HTTP, by an MCP server, or as code of the operator; with its time-out,
its retries and its gate. Made by the room's service for each run.
"""

import asyncio
import contextvars
import functools
import inspect
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Protocol

from agentflow.types.tools import Credentials, HttpCall
from pydantic import ValidationError

from agentflow_server.connectors import http
from agentflow_server.connectors.errors import ConnectorError
from agentflow_server.connectors.mcp import McpPool, McpTarget
from agentflow_server.definitions import ToolContext, ToolDefinition
from agentflow_server.gateway.messages import ToolSpec
from agentflow_server.runtime.tools import Tool, ToolFailedError, ToolInvocation, ToolOutcome
from agentflow_server.sandbox import (
    Limits,
    Sandbox,
    SandboxError,
    SandboxMemoryExceeded,
    SandboxOutputExceeded,
    SandboxRefused,
    SandboxTimeout,
    SandboxToolError,
)

RETRY_DELAY = 1.0
BACKOFF = 2.0
_MAX_STDOUT = 10_000
_CODES: tuple[tuple[type[SandboxError], str], ...] = (
    (SandboxTimeout, "tool_timeout"),
    (SandboxMemoryExceeded, "tool_memory"),
    (SandboxOutputExceeded, "tool_output"),
    (SandboxRefused, "tool_refused"),
    (SandboxToolError, "tool_error"),
)


@dataclass(frozen=True, slots=True)
class Gated:
    """A call that needs approval: of which tool, and for how many seconds it may be given."""

    tool_id: str
    spec: ToolSpec
    timeout: float


class ApprovalGate(Protocol):
    """Who decides on calls that need approval. The approvals room; handed in by app.py."""

    async def __call__(self, invocation: ToolInvocation, gated: Gated) -> ToolInvocation:
        """The call as it may be executed.

        Raises:
            ToolFailedError: it may not. Suspended: nobody has decided yet.
        """
        ...


class Executor(Protocol):
    """Does a tool's work once."""

    async def __call__(self, invocation: ToolInvocation) -> ToolOutcome:
        """The outcome.

        Raises:
            ToolFailedError: it cannot be done. TransientError: it may be done the next time.
        """
        ...


class TransientError(ToolFailedError):
    """A failure that may not come again."""


@dataclass(frozen=True, slots=True)
class GatedTool:
    """A tool whose calls need approval, whatever else it is."""

    tool: Tool
    gated: Gated
    approve: ApprovalGate

    @property
    def spec(self) -> ToolSpec:
        return self.tool.spec

    @property
    def timeout(self) -> float | None:
        return self.tool.timeout

    @property
    def idempotent(self) -> bool:
        return self.tool.idempotent

    async def gate(self, invocation: ToolInvocation) -> ToolInvocation:
        return await self.tool.gate(await self.approve(invocation, self.gated))

    async def run(self, invocation: ToolInvocation) -> ToolOutcome:
        return await self.tool.run(invocation)


@dataclass(frozen=True, slots=True)
class RegisteredTool:
    """A tool from the database. Attempts are bounded by the executor, so the call as a whole needs no bound."""

    spec: ToolSpec
    executor: Executor
    idempotent: bool = False
    max_retries: int = 0
    timeout: float | None = field(default=None, init=False)

    async def gate(self, invocation: ToolInvocation) -> ToolInvocation:
        return invocation

    async def run(self, invocation: ToolInvocation) -> ToolOutcome:
        attempt = 0
        while True:
            try:
                return await self.executor(invocation)
            except TransientError as error:
                if not self.idempotent or attempt >= self.max_retries:
                    raise
                attempt += 1
                invocation.progress({"retry": attempt, "of": self.max_retries, "reason": str(error)[:500]})
            await asyncio.sleep(RETRY_DELAY * BACKOFF ** (attempt - 1))


@dataclass(frozen=True, slots=True)
class SourceExecutor:
    """Runs source that users sent, in a sandbox, which bounds it."""

    sandbox: Sandbox
    source: str
    entrypoint: str | None
    limits: Limits

    async def __call__(self, invocation: ToolInvocation) -> ToolOutcome:
        try:
            result = await self.sandbox.run(
                self.source, self.entrypoint, invocation.arguments, limits=self.limits, on_progress=invocation.progress
            )
        except SandboxError as error:
            raise failure_of(error) from None
        outcome = ToolOutcome.of(result.value)
        if result.stdout:
            outcome.metadata["stdout"] = result.stdout[:_MAX_STDOUT]
        return outcome


def failure_of(error: SandboxError) -> ToolFailedError:
    """What the model is told of a run in the sandbox that gave no value."""
    for kind, code in _CODES:
        if isinstance(error, kind):
            return ToolFailedError(code, str(error))
    return TransientError("tool_crashed", str(error))


@dataclass(frozen=True, slots=True)
class HttpExecutor:
    """Makes an HTTP request."""

    client: Callable[[float], Any]
    call: HttpCall
    credentials: Credentials | None
    seconds: float
    idempotent: bool

    async def __call__(self, invocation: ToolInvocation) -> ToolOutcome:
        key = invocation.idempotency_key if self.idempotent else None
        try:
            async with asyncio.timeout(self.seconds), self.client(self.seconds) as client:
                answer = await http.send(client, self.call, invocation.arguments, self.credentials, idempotency_key=key)
        except ConnectorError as error:
            raise _failed(error) from None
        except TimeoutError:
            raise _late(self.seconds) from None
        outcome = ToolOutcome.of(answer.body)
        outcome.metadata["http_status"] = answer.status
        return outcome


@dataclass(frozen=True, slots=True)
class McpExecutor:
    """Calls a tool of an MCP server."""

    pool: McpPool
    target: McpTarget
    tool: str
    seconds: float

    async def __call__(self, invocation: ToolInvocation) -> ToolOutcome:
        try:
            answer = await self.pool.call(
                self.target, self.tool, invocation.arguments, timeout=self.seconds, progress=invocation.progress
            )
        except ConnectorError as error:
            raise _failed(error) from None
        if answer.is_error:
            raise ToolFailedError("tool_error", answer.text or "the tool failed")
        return ToolOutcome(answer.text, answer.result)


@dataclass(frozen=True, slots=True)
class CodeExecutor:
    """Calls a function of the operator's own code; one that is not async in a thread."""

    definition: ToolDefinition

    async def __call__(self, invocation: ToolInvocation) -> ToolOutcome:
        definition = self.definition
        try:
            checked = definition.arguments.model_validate(invocation.arguments)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(step) for step in first["loc"]) or "arguments"
            raise ToolFailedError("invalid_arguments", f"{where}: {first['msg']}") from None
        given = {name: getattr(checked, name) for name in checked.model_fields_set}
        if definition.context_parameter is not None:
            given[definition.context_parameter] = _context(invocation)
        result = await self._within_time(_called(definition.function, given))
        return result if isinstance(result, ToolOutcome) else ToolOutcome.of(_plain(result))

    async def _within_time(self, work: Coroutine[Any, Any, Any]) -> Any:
        seconds = self.definition.timeout
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait({task}, timeout=seconds)
        finally:
            task.cancel()
        if not task.done():
            raise _late(seconds)
        error = task.exception()
        if error is None:
            return task.result()
        if isinstance(error, ToolFailedError) or not isinstance(error, Exception):
            raise error
        raise TransientError("tool_error", f"{type(error).__name__}: {error}") from error


async def _called(function: Callable[..., Any], given: dict[str, Any]) -> Any:
    if inspect.iscoroutinefunction(function):
        return await function(**given)
    context = contextvars.copy_context()
    result = await asyncio.to_thread(context.run, functools.partial(function, **given))
    return await result if inspect.isawaitable(result) else result


def _context(invocation: ToolInvocation) -> ToolContext:
    run = invocation.context.run
    loop = asyncio.get_running_loop()

    def progress(value: Any) -> None:
        loop.call_soon_threadsafe(invocation.progress, value)

    return ToolContext(
        run.tenant, run.user_id, run.agent_id, run.conversation_id, run.id, invocation.call_id,
        invocation.idempotency_key, progress,
    )  # fmt: skip


def _plain(result: Any) -> Any:
    return result.model_dump(mode="json") if hasattr(result, "model_dump") else result


def _failed(error: ConnectorError) -> ToolFailedError:
    kind = TransientError if error.transient else ToolFailedError
    return kind(error.code, str(error))


def _late(seconds: float) -> ToolFailedError:
    return TransientError("tool_timeout", f"the tool took longer than {seconds:g} s")
