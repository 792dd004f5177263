"""HTTP of the background room."""

from typing import Annotated, Literal

from agentflow.types.background import BackgroundMessage, BackgroundTask, BackgroundTaskPage
from fastapi import APIRouter, Query

from agentflow_server.http.identity import CurrentCaller
from agentflow_server.http.pages import IdempotencyKey, Limit, Offset
from agentflow_server.resources.background.service import BackgroundService

Wait = Annotated[float, Query(ge=0, le=60, description="seconds to wait for its end")]
Status = Annotated[Literal["running", "completed", "failed", "cancelled"] | None, Query()]


def router(service: BackgroundService) -> APIRouter:
    """The room's routes."""
    routes = APIRouter(prefix="/background", tags=["background"])

    @routes.get("")
    async def list_tasks(
        caller: CurrentCaller,
        limit: Limit = 50,
        offset: Offset = 0,
        status: Status = None,
        conversation_id: Annotated[str | None, Query(min_length=1, max_length=200)] = None,
    ) -> BackgroundTaskPage:
        """The caller's background tasks, the newest first."""
        return await service.list(caller, status=status, conversation_id=conversation_id, limit=limit, offset=offset)

    @routes.get("/{task_id}")
    async def retrieve(caller: CurrentCaller, task_id: str, wait: Wait = 0.0) -> BackgroundTask:
        """A task; with `wait`, as it stands once it has ended or the time is over."""
        return await service.retrieve(caller, task_id, wait=wait)

    @routes.post("/{task_id}/cancel", status_code=202)
    async def cancel(caller: CurrentCaller, task_id: str) -> BackgroundTask:
        """Ask a task to stop."""
        return await service.cancel(caller, task_id)

    @routes.post("/{task_id}/messages", status_code=202)
    async def message(
        caller: CurrentCaller,
        task_id: str,
        body: BackgroundMessage,
        wait: Wait = 0.0,
        idempotency_key: IdempotencyKey = None,
    ) -> BackgroundTask:
        """Say something to a sub-agent."""
        return await service.message(caller, task_id, body, wait=wait, key=idempotency_key)

    return routes
