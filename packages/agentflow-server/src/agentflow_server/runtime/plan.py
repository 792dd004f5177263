"""What a run will do, frozen when it is accepted: so that a resumed run is the run that was started.

Made by the runs room (and by whoever starts a child run), stored with the run's header, read by the loop.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from agentflow_server.gateway.messages import UserMessage


class ToolRef(BaseModel):
    """A tool by reference: `kind` names who resolves it, `config` is what that one needs to build it again."""

    model_config = ConfigDict(frozen=True)

    kind: str
    name: str
    config: dict[str, Any] = Field(default_factory=dict[str, Any])


class OutputSpec(BaseModel):
    """The structure a run's answer must have (JSON Schema)."""

    model_config = ConfigDict(frozen=True)

    name: str = "output"
    json_schema: dict[str, Any]


class Plan(BaseModel):
    """A frozen run.

    Attributes:
        text: what the user wrote, as people see it. user: the same as the model sees it, with hidden context.
        sampling: fields of the model request (temperature, max_tokens, …).
        settings: what rooms above the runtime need to find again when a run resumes (client timezone, …).
        parent_call_id: the unit that caused this run, for a child run.
    """

    model_config = ConfigDict(frozen=True)

    agent_id: str
    agent_name: str
    model: str
    text: str
    user: UserMessage
    system: tuple[str, ...] = ()
    sampling: dict[str, Any] = Field(default_factory=dict[str, Any])
    tools: tuple[ToolRef, ...] = ()
    max_turns: int = 10
    output: OutputSpec | None = None
    parent_call_id: str | None = None
    depth: int = 0
    settings: dict[str, Any] = Field(default_factory=dict[str, Any])
