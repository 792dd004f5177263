"""Background tasks on the wire."""

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from agentflow.types.base import Page, RequestModel, ResponseModel


class BackgroundTask(ResponseModel):
    """Work that no run waits for.

    Attributes:
        kind: `sub_agent` or `tool`. name: whose. status: `running`, `completed`, `failed` or `cancelled`.
        run_id: the sub-agent's run, to follow it with `client.runs.stream`. input: what it was asked.
        result: a sub-agent's result as of a run; a tool's `text` and `output`. progress: what a tool last reported.
    """

    task_id: str
    kind: str
    name: str
    status: Literal["running", "completed", "failed", "cancelled"] | str
    conversation_id: str | None = None
    run_id: str | None = None
    input: dict[str, Any] = Field(default_factory=dict[str, Any])
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    progress: Any = None
    created_at: datetime | None = None
    ended_at: datetime | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self.status != "running"

    @property
    def text(self) -> str:
        """What it gave, as text."""
        return (self.result or {}).get("text") or ""


class BackgroundTaskPage(Page):
    """A page of background tasks."""

    tasks: list[BackgroundTask]


class BackgroundMessage(RequestModel):
    """Something to say to a sub-agent; `send_and_wait` answers when it has ended."""

    message: str = Field(min_length=1, max_length=100_000)
    mode: Literal["send", "send_and_wait"] = "send"
