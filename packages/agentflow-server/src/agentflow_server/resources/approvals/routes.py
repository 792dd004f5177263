"""HTTP of the approvals room."""

from typing import Annotated, Literal

from agentflow.types.approvals import (
    Approval,
    ApprovalPage,
    ApprovalResponse,
    ApprovalStats,
    ApprovalSummary,
    BulkRespond,
    BulkResults,
    Cleanup,
    Status,
)
from fastapi import APIRouter, Query

from agentflow_server.http.identity import CurrentCaller
from agentflow_server.resources.approvals.service import ApprovalsService

PageNumber = Annotated[int, Query(ge=1, le=1_000_000, description="counts from 1")]
PageSize = Annotated[int, Query(ge=1, le=100)]
Name = Annotated[str | None, Query(min_length=1, max_length=200)]


def router(service: ApprovalsService) -> APIRouter:
    """The room's routes."""
    routes = APIRouter(prefix="/approvals", tags=["approvals"])

    @routes.get("")
    async def list_approvals(
        caller: CurrentCaller,
        page: PageNumber = 1,
        page_size: PageSize = 20,
        status: Status | Literal["all"] = "all",
        tool_name: Name = None,
    ) -> ApprovalPage:
        """The caller's approvals, the newest first."""
        wanted = None if status == "all" else status
        return await service.list(caller, status=wanted, tool_name=tool_name, page=page, page_size=page_size)

    @routes.get("/pending")
    async def pending(
        caller: CurrentCaller, page: PageNumber = 1, page_size: PageSize = 20, tool_name: Name = None
    ) -> ApprovalPage:
        """Those that wait for a decision."""
        return await service.list(caller, status="pending", tool_name=tool_name, page=page, page_size=page_size)

    @routes.get("/stats")
    async def stats(caller: CurrentCaller, tool: Name = None) -> ApprovalStats:
        """Counts and times of each tool; `tool` is an id or a name."""
        return await service.stats(caller, tool)

    @routes.get("/summary")
    async def summary(caller: CurrentCaller) -> ApprovalSummary:
        """How many there are of each status."""
        return await service.summary(caller)

    @routes.post("/bulk-respond")
    async def bulk_respond(caller: CurrentCaller, body: BulkRespond) -> BulkResults:
        """Decide on several calls, each for itself."""
        return await service.respond_to_many(caller, body)

    @routes.post("/cleanup")
    async def cleanup(caller: CurrentCaller) -> Cleanup:
        """Remove the expired ones."""
        return await service.cleanup(caller)

    @routes.get("/{approval_id}")
    async def retrieve(caller: CurrentCaller, approval_id: str) -> Approval:
        """One approval."""
        return await service.retrieve(caller, approval_id)

    @routes.post("/{approval_id}/respond")
    async def respond(caller: CurrentCaller, approval_id: str, body: ApprovalResponse) -> Approval:
        """Approve or deny a call."""
        return await service.respond(caller, approval_id, body)

    @routes.post("/{approval_id}/cancel")
    async def cancel(caller: CurrentCaller, approval_id: str) -> Approval:
        """Withdraw a request."""
        return await service.cancel(caller, approval_id)

    return routes
