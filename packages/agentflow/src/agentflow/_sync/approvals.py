"""Generated from agentflow/resources/approvals.py by tools/sync_generator.py: do not edit.

`client.approvals`: decide on tool calls that wait for it."""

from collections.abc import Sequence
from typing import Any, Literal

from agentflow._sync.pages import Page
from agentflow._sync.runs import segment
from agentflow.transport.drivers import SyncTransport
from agentflow.transport.request import Request
from agentflow.types.approvals import (
    Approval,
    ApprovalPage,
    ApprovalResponse,
    ApprovalStats,
    ApprovalSummary,
    BulkRespond,
    BulkResult,
    BulkResults,
    Cleanup,
    Decision,
    ToolStats,
)

_BASE = "/api/v1/approvals"
Wanted = Literal["pending", "approved", "denied", "expired", "cancelled", "all"]


class Approvals:
    """Requests for approval of the caller's runs."""

    def __init__(self, transport: SyncTransport) -> None:
        self._transport = transport

    def list(
        self, *, page: int = 1, page_size: int = 20, status: Wanted = "pending", tool_name: str | None = None
    ) -> Page[Approval]:
        """A page of approvals, the newest first; iterating it walks on through all.

        Args:
            page: counts from 1. page_size: 1 to 100. status: those that wait by default; `all` for every one.
        """
        query = {"page": page, "page_size": page_size, "status": status, "tool_name": tool_name}
        data = self._transport.call(Request("GET", _BASE, query, repeatable=True), ApprovalPage)

        def fetch(start: int) -> Page[Approval]:
            return self.list(page=start // page_size + 1, page_size=page_size, status=status, tool_name=tool_name)

        return Page(data, "approvals", fetch)

    def retrieve(self, approval_id: str) -> Approval:
        """One approval.

        Raises:
            NotFoundError: there is none, or it is somebody else's.
        """
        return self._transport.call(Request("GET", _path(approval_id), repeatable=True), Approval)

    def respond(
        self,
        approval_id: str,
        decision: Decision,
        *,
        modified_arguments: dict[str, Any] | None = None,
        reason: str | None = None,
    ) -> Approval:
        """Approve or deny a call; its run goes on.

        Args:
            decision: `approved` or `denied`. modified_arguments: in place of the proposed ones; only with `approved`.
            reason: if it is denied, the model is told.

        Raises:
            NotFoundError: there is none, or it is somebody else's. ConflictError: it was decided before, or has
            expired. ValidationError: the arguments are not what the tool takes.
        """
        body = _response(decision, modified_arguments, reason).wire()
        return self._transport.call(Request("POST", _path(approval_id, "/respond"), body=body), Approval)

    def respond_to_many(self, responses: Sequence[dict[str, Any]]) -> Sequence[BulkResult]:
        """Decide on several calls, each for itself.

        Args:
            responses: dicts of `id`, `decision`, and `modified_arguments` and `reason` if there are any.
        """
        items = [{("status" if name == "decision" else name): one[name] for name in one} for one in responses]
        body = BulkRespond.model_validate({"responses": items}).wire()
        results = self._transport.call(Request("POST", f"{_BASE}/bulk-respond", body=body), BulkResults)
        return results.results

    def cancel(self, approval_id: str) -> Approval:
        """Withdraw a request: the model is told that the call was cancelled.

        Raises:
            NotFoundError, ConflictError: as `respond`.
        """
        return self._transport.call(Request("POST", _path(approval_id, "/cancel")), Approval)

    def stats(self, *, tool: str | None = None) -> Sequence[ToolStats]:
        """How often calls of each tool (or of one, by id or name) were approved, denied and so on."""
        request = Request("GET", f"{_BASE}/stats", {"tool": tool}, repeatable=True)
        return (self._transport.call(request, ApprovalStats)).tools

    def summary(self) -> ApprovalSummary:
        """How many approvals there are of each status."""
        return self._transport.call(Request("GET", f"{_BASE}/summary", repeatable=True), ApprovalSummary)

    def cleanup(self) -> int:
        """Remove the expired ones; returns how many there were."""
        removed = self._transport.call(Request("POST", f"{_BASE}/cleanup", repeatable=True), Cleanup)
        return removed.removed


def _path(approval_id: str, rest: str = "") -> str:
    return f"{_BASE}/{segment(approval_id)}{rest}"


def _response(decision: Decision, modified: dict[str, Any] | None, reason: str | None) -> ApprovalResponse:
    given = {"status": decision, "modified_arguments": modified, "reason": reason}
    return ApprovalResponse.model_validate({name: value for name, value in given.items() if value is not None})
