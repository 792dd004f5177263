"""Sub-agents on the wire."""

from typing import Any

from pydantic import Field

from agentflow.types.agents import Agent, AgentSettings, Name
from agentflow.types.base import Page, RequestModel


class SubagentCreate(AgentSettings):
    """A new agent that its parent may call.

    Attributes:
        description: what the parent's model reads to decide whether to call it.
        tool_assignments: names of tools. background: the parent may call it without waiting.
    """

    name: str = Name
    description: str = Field(min_length=1, max_length=10_000)  # pyright: ignore[reportIncompatibleVariableOverride, reportGeneralTypeIssues]  # required here
    label: str | None = Field(default=None, max_length=200)
    tool_assignments: list[str] | None = None
    background: bool = False


class SubagentUpdate(AgentSettings):
    """Changes to a sub-agent; what is left out stays as it is, `llm_config` field by field."""

    name: str | None = Field(default=None, min_length=1, max_length=200)
    label: str | None = Field(default=None, max_length=200)
    tool_assignments: list[str] | None = None
    background: bool | None = None


class SubagentAssignment(RequestModel):
    """How a parent may call an agent."""

    background: bool = False


class Subagent(Agent):
    """An agent as one of its parents sees it.

    Attributes:
        tool_name: the tool by which the parent's model calls it. background: it may be called without waiting.
    """

    parent_id: str
    tool_name: str
    background: bool = False
    implementation_type: str = "user"
    icon_color: str | None = None
    system_prompt: str | None = None
    llm_config: dict[str, Any] = Field(default_factory=dict[str, Any])
    max_turns: int = 10
    enable_planning: bool = False
    enable_reflection: bool = False
    max_reflection_attempts: int = 1
    tool_assignments: list[str] = Field(default_factory=list[str])
    knowledge_bases: list[str] = Field(default_factory=list[str])


class SubagentPage(Page):
    """A page of sub-agents."""

    subagents: list[Subagent]
