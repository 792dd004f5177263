"""What a run will do, frozen when it is accepted: so that a resumed run is the run that was started.

Made by the runs room (and by whoever starts a child run), stored with the run's header, read by the loop.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from agentflow.types.runs import RunOptions
from pydantic import BaseModel, ConfigDict, Field

from agentflow_server.gateway.messages import Part, UserMessage


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


class Notice(BaseModel):
    """An event that is told when the run begins: what was found for it (`retrieval`), what was left out (`warning`)."""

    model_config = ConfigDict(frozen=True)

    type: str
    content: dict[str, Any]


def handle_of(task_id: str, name: str, kind: str) -> dict[str, Any]:
    """The handle of work that nobody waits for, as it begins: a `sub_agent` or a `tool`."""
    return {"task_id": task_id, "kind": kind, "name": name, "status": "running"}


class Plan(BaseModel):
    """A frozen run.

    Attributes:
        text: what the user wrote, as people see it. user: the same as the model sees it, with hidden context.
        sampling: fields of the model request (temperature, max_tokens, …).
        settings: what rooms above the runtime need to find again when a run resumes (client timezone, …).
        parent_call_id: the unit that caused this run, for a child run. depth: how many runs are above it.
        thread: the call id of the child run whose thread this one carries on, if it is not its own.
        background: nobody waits for the run; its end is told by a `background_task` event.
        planning: make a plan before the first answer. reflections: how often a draft may be sent back.
        notices: events told when the run begins. citations: where hidden context came from; in the run's result.
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
    thread: str | None = None
    background: bool = False
    planning: bool = False
    reflections: int = 0
    settings: dict[str, Any] = Field(default_factory=dict[str, Any])
    notices: tuple[Notice, ...] = ()
    trace: str | None = None
    citations: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class PlanAsk:
    """What a contributor is told of the run that is being planned.

    Attributes:
        agent: the agent's stored configuration. options: the request. model: what the run will use.
        conversation_id: None for a conversation that does not exist yet.
    """

    tenant: str
    user_id: str
    agent_id: str
    agent_name: str
    agent: Mapping[str, Any]
    message: str
    options: RunOptions
    model: str
    conversation_id: str | None = None


@dataclass(frozen=True, slots=True)
class Contribution:
    """What a room adds to a run.

    Attributes:
        system: blocks of the cached prefix: the same bytes from turn to turn wherever possible.
        context: hidden `system_context` of this turn. reminders: hidden `system_reminders` of this turn.
        events: hidden `system_events`: what happened since the last turn.
        parts: images and documents of the user's message.
    """

    system: tuple[str, ...] = ()
    context: tuple[str, ...] = ()
    reminders: tuple[str, ...] = ()
    events: tuple[str, ...] = ()
    parts: tuple[Part, ...] = ()
    tools: tuple[ToolRef, ...] = ()
    notices: tuple[Notice, ...] = ()
    citations: tuple[dict[str, Any], ...] = ()
    settings: dict[str, Any] = field(default_factory=dict[str, Any])


class Contributor(Protocol):
    """A room that has something to add to runs. Asked when a run is accepted, side by side with the others."""

    async def contribute(self, ask: PlanAsk) -> Contribution:
        """What it adds.

        Raises:
            ValidationError, NotFoundError: the request names something that cannot be used.
        """
        ...
