"""What comes back from a model: pieces, and at the end the whole, always."""

from typing import Literal, NamedTuple

from agentflow_server.gateway.messages import AssistantMessage, Usage

FinishReason = Literal["stop", "tool_calls", "length", "content_filter"]


class TextChunk(NamedTuple):
    """A piece of the answer: everything one network read brought."""

    text: str


class ReasoningChunk(NamedTuple):
    """A piece of the model's reasoning."""

    text: str


class ToolCallStarted(NamedTuple):
    """The model has begun to write a call."""

    position: int
    id: str
    name: str


class Completed(NamedTuple):
    """The whole answer. Always the last chunk; a stream without it has broken off.

    `cost` is in US dollars, None if the price is not known.
    """

    message: AssistantMessage
    finish_reason: FinishReason
    usage: Usage
    model: str
    cost: float | None = None
    provider_request_id: str | None = None


Chunk = TextChunk | ReasoningChunk | ToolCallStarted | Completed
