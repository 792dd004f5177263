"""Generated from agentflow/resources/background.py by tools/sync_generator.py: do not edit.

`client.background`: work that no run waits for."""

import time
from typing import Literal

from agentflow.errors import RequestTimeoutError
from agentflow._sync.pages import Page
from agentflow._sync.runs import segment
from agentflow._sync.streams import new_id
from agentflow.transport.drivers import SyncTransport
from agentflow.transport.request import Request
from agentflow.types.background import BackgroundMessage, BackgroundTask, BackgroundTaskPage

_BASE = "/api/v1/background"
_ROUND = 30.0


class Background:
    """Tasks that runs have begun without waiting for them: sub-agents and tools."""

    def __init__(self, transport: SyncTransport) -> None:
        self._transport = transport

    def list(
        self, *, status: str | None = None, conversation_id: str | None = None, limit: int = 50, offset: int = 0
    ) -> Page[BackgroundTask]:
        """A page of tasks, the newest first; iterating it walks on through all.

        Args:
            status: `running`, `completed`, `failed` or `cancelled`. limit: 1 to 100.
        """
        query = {"status": status, "conversation_id": conversation_id, "limit": limit, "offset": offset}
        data = self._transport.call(Request("GET", _BASE, query, repeatable=True), BackgroundTaskPage)

        def fetch(start: int) -> Page[BackgroundTask]:
            return self.list(status=status, conversation_id=conversation_id, limit=limit, offset=start)

        return Page(data, "tasks", fetch)

    def retrieve(self, task_id: str) -> BackgroundTask:
        """A task: where it stands, and what it gave.

        Raises:
            NotFoundError: there is no such task.
        """
        return self._retrieve(task_id, 0.0)

    def _retrieve(self, task_id: str, wait: float) -> BackgroundTask:
        request = Request("GET", f"{_BASE}/{segment(task_id)}", {"wait": wait}, repeatable=True)
        return self._transport.call(request, BackgroundTask)

    def wait(self, task_id: str, *, timeout: float | None = None) -> BackgroundTask:
        """Wait until a task has ended, however it did.

        Args:
            timeout: seconds; None waits as long as it takes.

        Raises:
            NotFoundError: there is no such task. RequestTimeoutError: it has not ended in time; it goes on.
        """
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            left = _ROUND if until is None else max(0.0, min(_ROUND, until - time.monotonic()))
            task = self._retrieve(task_id, left)
            if task.ended:
                return task
            if until is not None and time.monotonic() >= until:
                raise RequestTimeoutError(f"background task {task_id} has not ended within {timeout:g} s; it goes on")

    def cancel(self, task_id: str) -> BackgroundTask:
        """Ask a task to stop; what it said until then is kept. Does nothing to one that has ended.

        Raises:
            NotFoundError: there is no such task.
        """
        return self._transport.call(
            Request("POST", f"{_BASE}/{segment(task_id)}/cancel", repeatable=True), BackgroundTask
        )

    def message(
        self, task_id: str, message: str, *, mode: Literal["send", "send_and_wait"] = "send", timeout: float = 30.0
    ) -> BackgroundTask:
        """Say something to a sub-agent. It reads it between two turns; one that has ended takes its thread up again.

        Args:
            mode: `send_and_wait` returns when it has ended, or when the time is over (see `.ended`).
            timeout: seconds to wait, at most 60.

        Raises:
            NotFoundError: there is no such task. ValidationError: it is a tool's. ConflictError: another message has
                just taken the sub-agent up again.
        """
        body = BackgroundMessage(message=message, mode=mode)
        request = Request(
            "POST",
            f"{_BASE}/{segment(task_id)}/messages",
            {"wait": timeout},
            body.model_dump(mode="json"),
            headers={"Idempotency-Key": new_id()},
            repeatable=True,
        )
        return self._transport.call(request, BackgroundTask)
