"""Conversations on the wire."""

from datetime import datetime
from typing import Any

from pydantic import Field

from agentflow.types.base import Page, RequestModel, ResponseModel
from agentflow.types.runs import Id

Title = Field(default=None, min_length=1, max_length=300)


class ConversationCreate(RequestModel):
    """A new conversation; `id` may be chosen, and creating it again with the same id gives the one there is."""

    agent_id: str = Field(min_length=1, max_length=200)
    id: str | None = Id
    title: str | None = Title
    metadata: dict[str, Any] | None = None
    source: str | None = Field(default=None, min_length=1, max_length=200)
    source_ref_id: str | None = Field(default=None, min_length=1, max_length=500)


class ConversationUpdate(RequestModel):
    """Changes to a conversation."""

    title: str | None = Title
    metadata: dict[str, Any] | None = None


class Conversation(ResponseModel):
    """A conversation as listings show it.

    Attributes:
        has_active_generation: whether a run of it has not ended. is_active: the same.
    """

    id: str
    agent_id: str
    title: str | None = None
    source: str | None = None
    source_ref_id: str | None = None
    metadata: dict[str, Any] = Field(default_factory=dict[str, Any])
    message_count: int | None = None
    has_active_generation: bool = False
    is_active: bool = False
    created_at: datetime
    updated_at: datetime


class ConversationPage(Page):
    """A page of conversations; `total` counts all that match."""

    conversations: list[Conversation]


class ConversationCreated(ResponseModel):
    """The conversation, and whether it is new."""

    conversation: Conversation
    created: bool


class Message(ResponseModel):
    """What the user or the agent said."""

    id: str
    conversation_id: str | None = None
    role: str
    content: str
    timestamp: datetime | None = None
    run_id: str | None = None


class MessagePage(Page):
    """A page of messages, oldest first."""

    messages: list[Message]


class ConversationDetail(Conversation):
    """A conversation with its messages."""

    messages: list[Message] = Field(default_factory=list[Message])


class TimelineCall(ResponseModel):
    """One unit of work: a run, a tool call, a sub-agent.

    Attributes:
        status: `running`, `completed`, `failed` or `cancelled`. calls: the units it caused.
    """

    call_id: str
    parent_call_id: str | None = None
    run_id: str | None = None
    name: str | None = None
    role: str
    status: str
    input: Any = None
    result: Any = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    calls: list["TimelineCall"] = Field(default_factory=list["TimelineCall"])


class TimelinePart(ResponseModel):
    """One stored piece of a conversation, in order of `seq`."""

    seq: int
    type: str
    call_id: str
    parent_call_id: str | None = None
    root_call_id: str
    message_id: str
    run_id: str
    visible: bool
    content: Any
    timestamp: datetime


class Timeline(ResponseModel):
    """Everything that happened in a conversation: the tree of executions, and the parts in their order."""

    conversation_id: str
    calls: list[TimelineCall]
    parts: list[TimelinePart]


class ConversationSnapshot(ResponseModel):
    """How a watched conversation stands.

    Attributes:
        messages: those since the last snapshot the watcher has seen. active_run: the run that has not ended.
        deleted: the conversation is gone; the last snapshot.
    """

    conversation: Conversation | None = None
    messages: list[Message] = Field(default_factory=list[Message])
    active_run: dict[str, Any] | None = None
    last_seq: int = -1
    deleted: bool = False
