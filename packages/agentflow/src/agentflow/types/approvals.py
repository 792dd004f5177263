"""Approvals on the wire."""

from datetime import datetime
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from agentflow.types.base import Page, RequestModel, ResponseModel

Decision = Literal["approved", "denied"]
Status = Literal["pending", "approved", "denied", "expired", "cancelled"]


class ApprovalResponse(RequestModel):
    """An answer to a request for approval.

    Attributes:
        status: the decision. modified_arguments: in place of the proposed ones; only with `approved`.
        reason: for whoever looks at it later, and for the model if it is denied.
    """

    status: Decision
    modified_arguments: dict[str, Any] | None = None
    reason: str | None = Field(default=None, max_length=4000)

    @model_validator(mode="after")
    def _changes_need_approval(self) -> Self:
        if self.modified_arguments is not None and self.status != "approved":
            raise ValueError("modified_arguments go with status approved only")
        return self


class BulkResponse(ApprovalResponse):
    """One answer among several."""

    id: str = Field(min_length=1, max_length=200)


class BulkRespond(RequestModel):
    """Several answers in one request; each is judged for itself."""

    responses: list[BulkResponse] = Field(min_length=1, max_length=100)


class Approval(ResponseModel):
    """A tool call that waits, or waited, for somebody's approval.

    Attributes:
        arguments: as they were proposed. modified_arguments: as they were approved, if they were changed.
        approver: who decided.
    """

    id: str
    status: Status | str
    tool_id: str
    tool_name: str
    arguments: dict[str, Any]
    modified_arguments: dict[str, Any] | None = None
    reason: str | None = None
    approver: str | None = None
    agent_id: str | None = None
    conversation_id: str
    run_id: str
    call_id: str | None = None
    created_at: datetime
    expires_at: datetime
    resolved_at: datetime | None = None


class ApprovalPage(Page):
    """A page of approvals, the newest first; `page` counts from 1."""

    approvals: list[Approval]
    page: int
    page_size: int


class BulkResult(ResponseModel):
    """What became of one answer among several: `approval`, or `error` as in the error envelope."""

    id: str
    success: bool
    approval: Approval | None = None
    error: dict[str, Any] | None = None


class BulkResults(ResponseModel):
    """What became of several answers, in their order."""

    results: list[BulkResult]


class ToolStats(ResponseModel):
    """How often calls of a tool were approved, denied and so on; times in seconds from request to decision."""

    tool_id: str
    tool_name: str
    total: int = 0
    pending: int = 0
    approved: int = 0
    denied: int = 0
    expired: int = 0
    cancelled: int = 0
    modified: int = 0
    mean_seconds_to_decision: float | None = None


class ApprovalStats(ResponseModel):
    """Statistics of each tool."""

    tools: list[ToolStats]


class ApprovalSummary(ResponseModel):
    """How many approvals there are of each status."""

    total: int = 0
    pending: int = 0
    approved: int = 0
    denied: int = 0
    expired: int = 0
    cancelled: int = 0


class Cleanup(ResponseModel):
    """How many expired approvals were removed."""

    removed: int
