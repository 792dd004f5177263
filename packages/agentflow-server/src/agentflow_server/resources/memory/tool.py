"""What models can do with memory: `recall_memory` and `update_memory`. Handed to the tools room by app.py."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from agentflow.errors import ValidationError

from agentflow_server.gateway.messages import ToolSpec
from agentflow_server.resources.memory.edits import BLOCK_TYPES, Edit, EditError
from agentflow_server.resources.memory.service import MemoryService, Owner
from agentflow_server.resources.tools.service import RECALL_MEMORY, UPDATE_MEMORY
from agentflow_server.runtime.tools import Tool, ToolFailedError, ToolInvocation, ToolOutcome

_RECALL = ToolSpec(
    name=RECALL_MEMORY,
    description="Recalls remembered entries (facts, preferences, past decisions) by a query.",
    parameters={
        "type": "object",
        "properties": {
            "query": {
                "type": "string",
                "description": "What you want to know of the user or of earlier conversations, with names and words"
                " that are likely to stand in the entry. Ask once for each thing you need.",
            },
            "limit": {"type": "integer", "minimum": 1, "maximum": 50, "description": "Most entries; 10 by default."},
        },
        "required": ["query"],
        "additionalProperties": False,
    },
)
_UPDATE = ToolSpec(
    name=UPDATE_MEMORY,
    description="Remembers an entry for later conversations, or corrects or forgets one.",
    parameters={
        "type": "object",
        "properties": {
            "action": {
                "type": "string",
                "enum": ["add", "replace", "remove"],
                "description": "`add` entry; `replace` old_entry by entry when a fact has changed; `remove` entry.",
            },
            "entry": {
                "type": "string",
                "description": "One fact in one sentence that can be understood alone, with names and dates:"
                " `Prefers answers in French.` For `remove`: the entry to remove, as it is written.",
            },
            "old_entry": {
                "type": "string",
                "description": "For `replace`: the entry there is, or a part of it that no other entry has.",
            },
            "block": {
                "type": "string",
                "enum": list(BLOCK_TYPES),
                "description": "`core` (default): short, for what matters in every conversation."
                " `archival`: for details to be looked up when they are needed.",
            },
            "scope": {
                "type": "string",
                "enum": ["user", "agent"],
                "description": "`user` (default): for every agent. `agent`: only for you.",
            },
        },
        "required": ["action", "entry"],
        "additionalProperties": False,
    },
)


@dataclass(frozen=True, slots=True)
class MemoryTool:
    """A tool of this room."""

    spec: ToolSpec
    function: Callable[[ToolInvocation], Awaitable[Any]]
    timeout: float | None = 30.0
    idempotent: bool = True

    async def gate(self, invocation: ToolInvocation) -> ToolInvocation:
        return invocation

    async def run(self, invocation: ToolInvocation) -> ToolOutcome:
        return ToolOutcome.of(await self.function(invocation))


def memory_tools(memory: MemoryService) -> tuple[Tool, ...]:
    """The tools of this room: they always work on the memory of the run's own user and agent."""
    work = _Work(memory)
    return MemoryTool(_RECALL, work.recall), MemoryTool(_UPDATE, work.update)


class _Work:
    def __init__(self, memory: MemoryService) -> None:
        self._memory = memory

    async def recall(self, invocation: ToolInvocation) -> list[dict[str, Any]]:
        arguments = invocation.arguments
        query = str(arguments["query"]).strip()
        if not query:
            raise ToolFailedError("invalid_arguments", "query: must not be empty")
        limit = int(arguments.get("limit", 10))
        found = await self._memory.find(_owner(invocation), query[:10_000], BLOCK_TYPES, limit=limit, min_score=0.0)
        return [
            {
                "entry": result.content,
                "score": result.score,
                "block": result.block_type,
                "scope": result.scope,
                "updated": result.updated_at.date().isoformat(),
            }
            for result in found.results
        ]

    async def update(self, invocation: ToolInvocation) -> dict[str, Any]:
        arguments = invocation.arguments
        block, scope = arguments.get("block", "core"), arguments.get("scope", "user")
        own = _owner(invocation)
        owner = own if scope == "agent" else Owner(own.tenant, own.user_id)
        edit = Edit(arguments["action"], arguments["entry"], arguments.get("old_entry", ""))
        try:
            record = await self._memory.edit(owner, block, edit)
        except EditError as error:
            raise ToolFailedError("memory_edit_failed", str(error)) from None
        except ValidationError as error:
            advice = "replace or remove an entry first, or use block archival"
            raise ToolFailedError("memory_full", f"{error.message}; {advice}") from None
        return {"saved": True, "changed": record is not None, "block": block, "scope": scope}


def _owner(invocation: ToolInvocation) -> Owner:
    run = invocation.context.run
    return Owner(run.tenant, run.user_id, run.agent_id)
