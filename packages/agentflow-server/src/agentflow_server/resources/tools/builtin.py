"""Tools every agent may be given without anybody writing them."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from agentflow_server.gateway.messages import ToolSpec
from agentflow_server.kit.clock import Clock, to_datetime
from agentflow_server.runtime.tools import ToolFailedError, ToolInvocation, ToolOutcome

CURRENT_TIME = "current_time"


@dataclass(frozen=True, slots=True)
class FunctionTool:
    """A tool of the server itself: a function over its checked arguments."""

    spec: ToolSpec
    function: Callable[[ToolInvocation], Awaitable[Any]]
    timeout: float | None = 30.0
    idempotent: bool = True

    async def gate(self, invocation: ToolInvocation) -> ToolInvocation:
        return invocation

    async def run(self, invocation: ToolInvocation) -> ToolOutcome:
        return ToolOutcome.of(await self.function(invocation))


def current_time(clock: Clock) -> FunctionTool:
    """What day and time it is, in the user's time zone if the run knows it."""

    async def tell(invocation: ToolInvocation) -> dict[str, Any]:
        name = invocation.arguments.get("timezone") or invocation.context.plan.settings.get("client_timezone") or "UTC"
        try:
            zone = ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ToolFailedError("invalid_arguments", f"{name!r} is not an IANA time zone") from None
        now: datetime = to_datetime(clock.micros()).astimezone(zone)
        return {
            "iso": now.isoformat(timespec="seconds"),
            "date": now.date().isoformat(),
            "time": now.strftime("%H:%M"),
            "weekday": now.strftime("%A"),
            "week": now.isocalendar().week,
            "timezone": name,
        }

    parameters = {
        "type": "object",
        "properties": {"timezone": {"type": "string", "description": "IANA name, for example Europe/Vienna"}},
        "additionalProperties": False,
    }
    description = "Tells what day it is: the current date, time, weekday and calendar week."
    return FunctionTool(ToolSpec(name=CURRENT_TIME, description=description, parameters=parameters), tell)
