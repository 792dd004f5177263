"""What dynamic blocks and entity resolvers are, and the blocks of the server itself. Used by the service and app.py."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from agentflow.errors import ValidationError
from agentflow.types.prompt_blocks import BlockScope, Mode, Role
from agentflow.types.runs import MemoryPolicy


@dataclass(frozen=True, slots=True)
class PromptContext:
    """What a dynamic block or a resolver is told of the run it works for.

    Attributes:
        agent_id: None in a preview without an agent. message: what the user wrote. now: aware, in `client_timezone`
            (UTC without one). session_context, memory_policy: as the request has them.
        agent: the agent's stored configuration; empty in a preview without one.
    """

    tenant: str
    user_id: str
    agent_id: str | None
    agent_name: str | None
    conversation_id: str | None
    message: str
    now: datetime
    client_timezone: str | None = None
    session_context: "str | dict[str, Any] | None" = None
    memory_policy: MemoryPolicy | None = None
    agent: "Mapping[str, Any]" = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class DynamicBlock:
    """A block that a function on the server writes; it gives the inner text, None or blank to say nothing.

    Args:
        ttl: seconds its text may be kept; None for as long as its conversation lasts, and five minutes across
            conversations.
    """

    name: str
    function: "Callable[[PromptContext], Awaitable[str | None]]"
    description: str | None = None
    message: Role = "system"
    mode: Mode = "cached"
    scope: BlockScope = "conversation"
    tags: Sequence[str] = ()
    order: int = 100
    ttl: int | None = None
    agents: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class EntityResolver:
    """A function that finds records of another system, for `context_refs`: it gives a text or an object, None if there
    is no such record.
    """

    system: str
    type: str
    function: "Callable[[PromptContext, str], Awaitable[str | dict[str, Any] | None]]"


def zone_of(name: str | None) -> ZoneInfo:
    """The time zone of a request; UTC without a name.

    Raises:
        ValidationError: it is not the name of one.
    """
    try:
        return ZoneInfo(name or "UTC")
    except (ValueError, OSError, LookupError):
        message = f"{name!r} is not an IANA time zone"
        details = [{"field": "client_timezone", "message": message}]
        raise ValidationError(f"client_timezone: {message}", details=details) from None


async def _datetime(context: PromptContext) -> str | None:
    if context.client_timezone is None:
        return None
    return f"The user's time zone is {context.client_timezone}; it is {context.now:%A, %Y-%m-%d %H:%M}."


DATETIME = DynamicBlock(
    "datetime",
    _datetime,
    "The date and time in the user's time zone, if the request has `client_timezone`.",
    message="user",
    mode="real_time",
    scope="turn",
    tags=("time",),
    order=10,
)
