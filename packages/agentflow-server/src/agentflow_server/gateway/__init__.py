"""The model port: one request, one stream of chunks, whoever the provider is."""

from agentflow_server.gateway.gateway import Gateway, GatewaySettings
from agentflow_server.gateway.messages import Attribution, ModelRequest, ToolSpec, Usage
from agentflow_server.gateway.stream import Chunk, Completed, ReasoningChunk, TextChunk, ToolCallStarted

__all__ = [
    "Attribution", "Chunk", "Completed", "Gateway", "GatewaySettings", "ModelRequest", "ReasoningChunk", "TextChunk",
    "ToolCallStarted", "ToolSpec", "Usage",
]  # fmt: skip
