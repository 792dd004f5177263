"""Agents on the wire."""

from datetime import datetime
from typing import Any, Literal

from pydantic import ConfigDict, Field

from agentflow.types.base import Page, RequestModel, ResponseModel

Name = Field(min_length=1, max_length=200)
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh"]


class LLMConfig(RequestModel):
    """Which model an agent asks, and how.

    Attributes:
        model: `provider/model`; None takes the server's default. max_tokens: most tokens of one answer.
    """

    model: str | None = Field(default=None, min_length=1, max_length=300)
    temperature: float | None = Field(default=None, ge=0, le=2)
    max_tokens: int | None = Field(default=None, ge=1, le=10_000_000)
    top_p: float | None = Field(default=None, ge=0, le=1)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    reasoning_effort: Effort | None = None


class AgentMemory(RequestModel):
    """How an agent deals with memory.

    Attributes:
        consolidation: False keeps its conversations out of sleep-time memory.
    """

    consolidation: bool | None = None


class AgentSettings(RequestModel):
    """What can be said of an agent besides its name and its tools."""

    description: str | None = Field(default=None, max_length=10_000)
    icon: str | None = Field(default=None, max_length=200)
    llm_config: LLMConfig | None = None
    system_prompt: str | None = Field(default=None, max_length=200_000)
    custom_instructions: str | None = Field(default=None, max_length=200_000)
    additional_context: str | None = Field(default=None, max_length=200_000)
    max_turns: int | None = Field(default=None, ge=1, le=100)
    enable_planning: bool | None = None
    enable_reflection: bool | None = None
    max_reflection_attempts: int | None = Field(default=None, ge=0, le=10)
    knowledge_bases: list[str] | None = None
    artifact_types: list[str] | None = Field(
        default=None, description="Types of artifacts it may make; `*` means all. Names that do not exist are left out."
    )
    background_tools: list[str] | None = Field(
        default=None, description="Names of its tools that the model may call without waiting."
    )
    memory: AgentMemory | None = None


class AgentCreate(AgentSettings):
    """A new agent."""

    name: str = Name
    label: str | None = Field(default=None, max_length=200)
    tools: list[str] | None = Field(default=None, description="Names of built-in tools the agent may use.")


class AgentUpdate(AgentSettings):
    """Changes to an agent; what is left out stays as it is, `llm_config` field by field."""

    name: str | None = Field(default=None, min_length=1, max_length=200)
    label: str | None = Field(default=None, max_length=200)
    tools: list[str] | None = None


class AgentConfigUpdate(AgentUpdate):
    """The same changes through the configuration route."""


class Capabilities(ResponseModel):
    """What an agent is switched on for."""

    planning: bool = False
    reflection: bool = False


class Agent(ResponseModel):
    """An agent as listings show it."""

    id: str
    name: str
    label: str | None = None
    description: str | None = None
    icon: str | None = None
    icon_type: str | None = None
    icon_url: str | None = None
    icon_display: str | None = None
    tool_count: int = 0
    sub_agent_count: int = 0
    capabilities: Capabilities = Field(default_factory=Capabilities)
    is_system_agent: bool = False
    created_by_user_id: str | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None


class AgentConfig(ResponseModel):
    """An agent's whole configuration."""

    model_config = ConfigDict(extra="allow", defer_build=True)

    id: str | None = None
    name: str
    label: str | None = None
    description: str | None = None
    icon: str | None = None
    llm_config: dict[str, Any] = Field(default_factory=dict[str, Any])
    system_prompt: str | None = None
    custom_instructions: str | None = None
    additional_context: str | None = None
    max_turns: int = 10
    enable_planning: bool = False
    enable_reflection: bool = False
    max_reflection_attempts: int = 1
    knowledge_bases: list[str] = Field(default_factory=list[str])
    artifact_types: list[str] = Field(default_factory=list[str])
    background_tools: list[str] = Field(default_factory=list[str])
    memory: dict[str, Any] = Field(default_factory=dict[str, Any])
    tools: list[str] = Field(default_factory=list[str])
    tool_count: int = 0
    sub_agent_count: int = 0


class AgentPage(Page):
    """A page of agents."""

    agents: list[Agent]


class AgentStats(ResponseModel):
    """How many agents and tools the tenant has."""

    agents: int
    system_agents: int
    tools: int
