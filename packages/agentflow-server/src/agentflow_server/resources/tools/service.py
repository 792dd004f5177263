"""Which tools a run has: builds them from the references in its plan. Called by the runtime through `ToolResolver`."""

from collections.abc import Mapping

from agentflow_server.kit.clock import Clock
from agentflow_server.resources.tools.builtin import CURRENT_TIME, current_time
from agentflow_server.runtime.context import RunContext
from agentflow_server.runtime.plan import ToolRef
from agentflow_server.runtime.tools import Tool

BUILTIN = "builtin"
MEMORY = "memory"
RECALL_MEMORY, UPDATE_MEMORY = "recall_memory", "update_memory"
DEFAULT_TOOLS = (CURRENT_TIME, RECALL_MEMORY, UPDATE_MEMORY)


class ToolsService:
    """The tools room."""

    def __init__(self, clock: Clock) -> None:
        tools: list[Tool] = [current_time(clock)]
        self._builtin = {tool.spec.name: tool for tool in tools}
        self._kinds = dict.fromkeys(self._builtin, BUILTIN) | {RECALL_MEMORY: MEMORY, UPDATE_MEMORY: MEMORY}

    def references(self, names: list[str]) -> tuple[ToolRef, ...]:
        """References to an agent's tools, in order; names that no longer exist are left out."""
        return tuple(ToolRef(kind=self._kinds[name], name=name) for name in names if name in self._kinds)

    async def resolve(self, context: RunContext) -> Mapping[str, Tool]:
        """The run's tools by name."""
        return {
            ref.name: self._builtin[ref.name]
            for ref in context.plan.tools
            if ref.kind == BUILTIN and ref.name in self._builtin
        }
