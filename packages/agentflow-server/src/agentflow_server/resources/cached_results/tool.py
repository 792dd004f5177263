"""The cache as the runtime sees it: around every tool that may give much, and a tool to read what is kept."""

from collections.abc import Mapping
from dataclasses import dataclass

from agentflow.errors import NotFoundError

from agentflow_server.gateway.messages import ToolSpec
from agentflow_server.resources.cached_results.service import CachedResultsService
from agentflow_server.runtime.context import RunContext
from agentflow_server.runtime.plan import ToolRef
from agentflow_server.runtime.tools import Tool, ToolFailedError, ToolInvocation, ToolOutcome

READ = "read_cached_result"
_LARGE = frozenset({"source", "http", "mcp", "code"})
_PIECE = 8_000
_MOST = 20_000


class CachedResults:
    """Wrapper and resolver: runs with tools of their users' own get the cache, and the tool that reads it."""

    def __init__(self, service: CachedResultsService) -> None:
        self._service = service

    async def resolve(self, context: RunContext) -> Mapping[str, Tool]:
        """The reading tool, where something may be kept."""
        if any(_says_much(ref) for ref in context.plan.tools):
            return {READ: ReadCached(self._service)}
        return {}

    def wrap(self, context: RunContext, ref: ToolRef | None, tool: Tool) -> Tool:
        """The tool with the cache around it; the platform's own tools say little."""
        return Cached(tool, self._service) if ref is not None and _says_much(ref) else tool


def _says_much(ref: ToolRef) -> bool:
    return ref.config.get("kind") in _LARGE


@dataclass(frozen=True, slots=True)
class Cached:
    """A tool whose large results are kept, and summarised for the model."""

    inner: Tool
    service: CachedResultsService

    @property
    def spec(self) -> ToolSpec:
        return self.inner.spec

    @property
    def timeout(self) -> float | None:
        return self.inner.timeout

    @property
    def idempotent(self) -> bool:
        return self.inner.idempotent

    async def gate(self, invocation: ToolInvocation) -> ToolInvocation:
        return await self.inner.gate(invocation)

    async def run(self, invocation: ToolInvocation) -> ToolOutcome:
        outcome = await self.inner.run(invocation)
        if outcome.is_error or len(outcome.content) <= self.service.threshold:
            return outcome
        return self.service.shortened(invocation, self.spec.name, outcome)


@dataclass(frozen=True, slots=True)
class ReadCached:
    """`read_cached_result`: a piece of what is kept."""

    service: CachedResultsService
    timeout: float | None = 30.0
    idempotent: bool = True

    @property
    def spec(self) -> ToolSpec:
        return ToolSpec(
            name=READ,
            description="Pages through a tool result that was kept under a cache_id.",
            parameters={
                "type": "object",
                "properties": {
                    "cache_id": {"type": "string", "minLength": 1, "maxLength": 200},
                    "offset": {"type": "integer", "minimum": 0, "default": 0},
                    "limit": {"type": "integer", "minimum": 1, "maximum": _MOST, "default": _PIECE},
                },
                "required": ["cache_id"],
                "additionalProperties": False,
            },
        )

    async def gate(self, invocation: ToolInvocation) -> ToolInvocation:
        return invocation

    async def run(self, invocation: ToolInvocation) -> ToolOutcome:
        run, arguments = invocation.context.run, invocation.arguments
        try:
            found = await self.service.record(run.tenant, run.user_id, run.conversation_id, arguments["cache_id"])
        except NotFoundError as error:
            raise ToolFailedError("not_found", str(error)) from None
        start = arguments.get("offset", 0)
        end = min(found.size, start + arguments.get("limit", _PIECE))
        rest = f"; go on with offset {end}" if end < found.size else ""
        piece = found.content[start:end]
        told = {"cache_id": found.id, "offset": start, "next_offset": end if rest else None, "size": found.size}
        return ToolOutcome(f"{piece}\n[characters {start} to {end} of {found.size}{rest}]", told)
