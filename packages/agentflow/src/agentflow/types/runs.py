"""Runs on the wire: what a run is asked to do, what it gives back."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from agentflow.types.agents import Effort
from agentflow.types.base import RequestModel, ResponseModel
from agentflow.types.knowledge_bases import SearchOptions
from agentflow.types.prompt_blocks import MAX_BODY, BlockName, Tags

Id = Field(default=None, min_length=1, max_length=200, pattern=r"^[A-Za-z0-9_.:|@\-]+$")


class InlinePromptBlock(RequestModel):
    """Text for the model only, wrapped in `<name>…</name>` and kept with the turn."""

    name: BlockName
    body: str = Field(max_length=MAX_BODY)
    tags: Tags | None = None


class MemoryPolicy(RequestModel):
    """What of the user's memory a run is given."""

    archival_mode: Literal["tool_only", "auto", "off"] = "tool_only"
    archival_limit: int = Field(default=10, ge=1, le=100)
    archival_min_score: float | None = Field(default=None, ge=0, le=1)
    include_user_core: bool = True
    include_agent_core: bool = True


class RetrievalOptions(SearchOptions):
    """How knowledge bases are searched for a run: as `SearchOptions`. top_k: most passages, 5 by default."""

    top_k: int | None = Field(default=None, ge=1, le=100)


class ContextRef(RequestModel):
    """A record of another system, resolved to hidden context."""

    system: str = Field(min_length=1, max_length=200)
    type: str = Field(min_length=1, max_length=200)
    id: str = Field(min_length=1, max_length=500)


if TYPE_CHECKING:  # a type checker lets references be written as dicts, as the SDK page does
    ContextRefs = Sequence[ContextRef | Mapping[str, Any]]
else:
    ContextRefs = list[ContextRef]


class RunOptions(RequestModel):
    """Everything that can be said about one run besides its message. Each field is one of the chat route.

    Attributes:
        verbose: also stream the events of tools and sub-agents, and usage.
        model, temperature, max_tokens, …: in place of the agent's own, for this run.
        max_turns: most model calls of the run.
        enable_planning, enable_reflection, max_reflection_attempts: in place of the agent's own.
        selected_tools: only these of the agent's tools. client_timezone: IANA name.
        session_context: facts about the session for the model only.
        source, source_id, source_metadata: where the conversation comes from; used by listings.
        call_id: the id of the run's root call, to cancel it by.
    """

    verbose: bool = False
    attachment_ids: list[str] | None = None
    knowledge_bases: list[str] | None = None
    retrieval_options: RetrievalOptions | None = None
    skills: list[str] | None = None
    artifacts: list[str] | None = None
    context_refs: ContextRefs | None = Field(default=None, max_length=50)
    prompt_blocks: list[InlinePromptBlock] | None = Field(default=None, max_length=50)
    memory_policy: MemoryPolicy | None = None
    model: str | None = Field(default=None, min_length=1, max_length=300)
    temperature: float | None = Field(default=None, ge=0, le=2)
    max_tokens: int | None = Field(default=None, ge=1, le=10_000_000)
    top_p: float | None = Field(default=None, ge=0, le=1)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    max_turns: int | None = Field(default=None, ge=1, le=100)
    reasoning_effort: Effort | None = None
    reasoning_summary: Literal["auto", "concise", "detailed"] | None = None
    image_detail: Literal["auto", "low", "high"] | None = None
    enable_planning: bool | None = None
    enable_reflection: bool | None = None
    max_reflection_attempts: int | None = Field(default=None, ge=0, le=10)
    enable_query_rewrite: bool | None = None
    selected_tools: list[str] | None = None
    client_timezone: str | None = Field(default=None, max_length=100)
    session_context: str | dict[str, Any] | None = None
    source: str | None = Field(default=None, min_length=1, max_length=200)
    source_id: str | None = Field(default=None, min_length=1, max_length=500)
    source_metadata: dict[str, Any] | None = None
    call_id: str | None = Id


class OutputSchema(RequestModel):
    """The structure the answer must have.

    Attributes:
        schema_: JSON Schema (draft 2020-12), `schema` on the wire.
    """

    name: str = Field(default="output", min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_\-]+$")
    schema_: dict[str, Any] = Field(alias="schema")


class ChatRequest(RunOptions):
    """The body of the chat route."""

    message: str
    conversation_id: str | None = Id
    message_id: str | None = Id
    stream: bool = True
    output_schema: OutputSchema | None = None


class Usage(ResponseModel):
    """Tokens of a run, over all its model calls."""

    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    requests: int = 0
    total_tokens: int = 0


class RunMetrics(ResponseModel):
    """Times in milliseconds from the acceptance of the run, and counts."""

    duration_ms: float | None = None
    time_to_first_token_ms: float | None = None
    model: str | None = None
    turns: int = 0
    tool_calls: int = 0
    background_tasks: list[Any] = Field(default_factory=list[Any])


class RunResult(ResponseModel):
    """What a run gave.

    Attributes:
        text: the answer. output: the structured output, if one was asked for.
        finish_reason: `stop`, `length`, `content_filter`, `max_turns` or `cancelled`.
        cost: US dollars, None if the model's price is not known.
        events: the run's events, if `verbose` was asked for without streaming.
    """

    text: str
    output: Any = None
    conversation_id: str
    message_id: str
    run_id: str
    call_id: str
    finish_reason: str
    usage: Usage = Field(default_factory=Usage)
    cost: float | None = None
    metrics: RunMetrics = Field(default_factory=RunMetrics)
    background_tasks: list[Any] = Field(default_factory=list[Any])
    citations: list[Any] = Field(default_factory=list[Any])
    events: list[dict[str, Any]] | None = None

    @property
    def raw(self) -> dict[str, Any]:
        """The result as plain JSON values."""
        return self.model_dump(mode="json")


RunStatus = Literal["queued", "running", "waiting", "completed", "failed", "cancelled"]


class Run(ResponseModel):
    """The header of a run."""

    id: str
    status: RunStatus | str
    agent_id: str
    conversation_id: str
    message_id: str
    call_id: str
    root_call_id: str | None = None
    created_at: datetime
    updated_at: datetime
    result: RunResult | None = None
    error: dict[str, Any] | None = None
