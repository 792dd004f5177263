"""AgentFlow: run AI agents from Python. Importing it does nothing: names are loaded when they are used."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentflow.client import AgentFlow, AsyncAgentFlow
    from agentflow.errors import AgentFlowError, APIError
    from agentflow.resources.pages import AsyncPage
    from agentflow.resources.streams import AsyncStream
    from agentflow.transport.request import Timeout
    from agentflow.types.runs import (
        ContextRef,
        InlinePromptBlock,
        MemoryPolicy,
        RetrievalOptions,
        RunOptions,
        RunResult,
    )

__version__ = "0.1.0"
_HOMES = {
    "AgentFlow": "agentflow.client",
    "AsyncAgentFlow": "agentflow.client",
    "AgentFlowError": "agentflow.errors",
    "APIError": "agentflow.errors",
    "AsyncPage": "agentflow.resources.pages",
    "AsyncStream": "agentflow.resources.streams",
    "Timeout": "agentflow.transport.request",
    "ContextRef": "agentflow.types.runs",
    "InlinePromptBlock": "agentflow.types.runs",
    "MemoryPolicy": "agentflow.types.runs",
    "RetrievalOptions": "agentflow.types.runs",
    "RunOptions": "agentflow.types.runs",
    "RunResult": "agentflow.types.runs",
}
__all__ = [
    "APIError",
    "AgentFlow",
    "AgentFlowError",
    "AsyncAgentFlow",
    "AsyncPage",
    "AsyncStream",
    "ContextRef",
    "InlinePromptBlock",
    "MemoryPolicy",
    "RetrievalOptions",
    "RunOptions",
    "RunResult",
    "Timeout",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'agentflow' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
