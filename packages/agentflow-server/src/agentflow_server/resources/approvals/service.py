"""Approvals: the gate that parks a run until somebody has decided on a tool call, and the decisions.

Called by routes, by the runtime through the tools room (`gate`), and by the job that lets requests expire. Nothing
waits in memory: a decision wakes the run in whichever process takes it up.
"""

import json
import uuid
from dataclasses import replace
from typing import Any

from agentflow.errors import APIError, ConflictError, NotFoundError, ValidationError
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
    ToolStats,
)

from agentflow_server.http.identity import Caller
from agentflow_server.jobs import Job, NewJob, Worker, ledger
from agentflow_server.kit.clock import SECOND, Clock, to_datetime, to_iso
from agentflow_server.resources.approvals import store
from agentflow_server.resources.approvals.store import ApprovalRecord
from agentflow_server.resources.tools.execution import Gated
from agentflow_server.runtime.emitter import draft
from agentflow_server.runtime.plan import Notice
from agentflow_server.runtime.structured import first_problem
from agentflow_server.runtime.tools import Suspended, ToolFailedError, ToolInvocation
from agentflow_server.storage import Database, Tx

EXPIRY = "approval_expiry"
_IDS = uuid.UUID("0d6a0f4e-90a5-4b39-8f0e-5f1c6f0c7a11")


class ApprovalsService:
    """The approvals room."""

    def __init__(self, db: Database, clock: Clock, worker: Worker) -> None:
        self._db = db
        self._clock = clock
        self._worker = worker
        worker.register(EXPIRY, self._expire)

    async def gate(self, invocation: ToolInvocation, gated: Gated) -> ToolInvocation:
        """The call as it was approved; see `ApprovalGate`.

        Raises:
            Suspended: nobody has decided yet. ToolFailedError: it was denied, cancelled, or has expired.
        """
        tenant = invocation.context.tenant
        approval_id = str(uuid.uuid5(_IDS, invocation.call_id))
        record = await self._db.tenant(tenant).read(lambda tx: store.by_id(tx, tenant, approval_id))
        if record is None:
            raise self._asked(approval_id, invocation, gated)
        if record.status == "pending":
            raise Suspended((), lambda _: None, lambda tx: _decided(tx, tenant, approval_id))
        told = (Notice(type=f"approval_{record.status}", content=_outcome(record)),)
        if record.status != "approved":
            raise ToolFailedError(f"approval_{record.status}", _refusal(record), told)
        changed = record.modified_arguments
        return replace(
            invocation, arguments=record.arguments if changed is None else changed, notices=(*invocation.notices, *told)
        )

    def _asked(self, approval_id: str, invocation: ToolInvocation, gated: Gated) -> Suspended:
        """The request, and the job that lets it expire."""
        context, run = invocation.context, invocation.context.run
        now = self._clock.micros()
        record = ApprovalRecord(
            approval_id, "pending", run.agent_id, run.user_id, run.conversation_id, run.id, invocation.call_id, None,
            now, now + int(gated.timeout * SECOND), None, gated.tool_id, gated.spec.name, invocation.arguments, None,
            gated.spec.parameters, None,
        )  # fmt: skip
        content = {
            "id": approval_id, "tool_id": gated.tool_id, "tool_name": gated.spec.name,
            "arguments": invocation.arguments, "conversation_id": run.conversation_id, "run_id": run.id,
            "agent_id": run.agent_id, "timeout_seconds": gated.timeout, "expires_at": to_iso(record.expires_at),
        }  # fmt: skip
        event = draft(context, self._clock, "approval_required", content, call_id=invocation.call_id)

        def also(tx: Tx) -> None:
            if store.insert(tx, run.tenant, record):
                expiry = NewJob(run.tenant, EXPIRY, payload={"approval_id": approval_id}, run_at=record.expires_at)
                ledger.enqueue(tx, expiry, now)

        return Suspended((event,), also, lambda tx: _decided(tx, run.tenant, approval_id))

    async def _expire(self, job: Job) -> None:
        await self._resolve(job.tenant, job.payload["approval_id"], "expired")

    async def _resolve(self, tenant: str, approval_id: str, status: str, **decision: Any) -> bool:
        """Decide, and let the run go on; False if it was decided before."""
        now = self._clock.micros()

        def unit(tx: Tx) -> bool:
            if not store.resolve(tx, tenant, approval_id, status, now, **decision):
                return False
            record = store.by_id(tx, tenant, approval_id)
            if record is not None:
                ledger.wake(tx, tenant, record.run_id, now)
            return True

        resolved = await self._db.tenant(tenant).write(unit)
        self._worker.ring()
        return resolved

    async def list(
        self, caller: Caller, *, status: str | None, tool_name: str | None, page: int, page_size: int
    ) -> ApprovalPage:
        """A page of the caller's approvals."""
        offset = (page - 1) * page_size
        records, total = await self._db.tenant(caller.tenant).read(
            lambda tx: store.page(
                tx, caller.user_id, status=status, tool_name=tool_name, limit=page_size, offset=offset
            )
        )
        found = [approval_of(record) for record in records]
        return ApprovalPage(
            approvals=found, total=total, limit=page_size, offset=offset, page=page, page_size=page_size
        )

    async def retrieve(self, caller: Caller, approval_id: str) -> Approval:
        """One approval.

        Raises:
            NotFoundError: the caller has none of this id.
        """
        return approval_of(await self._own(caller, approval_id))

    async def respond(self, caller: Caller, approval_id: str, answer: ApprovalResponse) -> Approval:
        """Decide on a call; the run goes on.

        Raises:
            NotFoundError: the caller has no such approval. ConflictError: it was decided before, or has expired.
            ValidationError: the changed arguments do not fit the tool's schema.
        """
        record = await self._pending(caller, approval_id)
        if answer.modified_arguments is not None:
            problem = first_problem(answer.modified_arguments, record.schema)
            if problem:
                message = f"modified_arguments: {problem}"
                raise ValidationError(message, details=[{"field": "modified_arguments", "message": problem}])
        return await self._decide(
            caller, record, answer.status, reason=answer.reason, modified=answer.modified_arguments
        )

    async def respond_to_many(self, caller: Caller, wanted: BulkRespond) -> BulkResults:
        """Decide on several calls, each for itself."""
        results: list[BulkResult] = []
        for answer in wanted.responses:
            try:
                approval = await self.respond(caller, answer.id, answer)
                results.append(BulkResult(id=answer.id, success=True, approval=approval))
            except APIError as error:
                told = {"code": error.code, "message": error.message, "status": error.status}
                results.append(BulkResult(id=answer.id, success=False, error=told))
        return BulkResults(results=results)

    async def cancel(self, caller: Caller, approval_id: str) -> Approval:
        """Withdraw a request: the model is told that the call was cancelled.

        Raises:
            NotFoundError, ConflictError: as `respond`.
        """
        return await self._decide(caller, await self._pending(caller, approval_id), "cancelled")

    async def _decide(self, caller: Caller, record: ApprovalRecord, status: str, **decision: Any) -> Approval:
        if not await self._resolve(caller.tenant, record.id, status, by=caller.user_id, **decision):
            raise _late(await self._own(caller, record.id))
        return approval_of(await self._own(caller, record.id))

    async def _own(self, caller: Caller, approval_id: str) -> ApprovalRecord:
        record = await self._db.tenant(caller.tenant).read(lambda tx: store.by_id(tx, caller.tenant, approval_id))
        if record is None or record.user_id != caller.user_id:
            raise NotFoundError(f"there is no approval {approval_id!r}")
        return record

    async def _pending(self, caller: Caller, approval_id: str) -> ApprovalRecord:
        record = await self._own(caller, approval_id)
        if record.status == "pending" and record.expires_at <= self._clock.micros():
            await self._resolve(caller.tenant, approval_id, "expired")
            record = await self._own(caller, approval_id)
        if record.status != "pending":
            raise _late(record)
        return record

    async def summary(self, caller: Caller) -> ApprovalSummary:
        """How many of the caller's approvals there are of each status."""
        counts = await self._db.tenant(caller.tenant).read(lambda tx: store.counts(tx, caller.user_id))
        return ApprovalSummary(total=sum(counts.values()), **counts)

    async def stats(self, caller: Caller, tool: str | None) -> ApprovalStats:
        """Counts and times of each tool, or of one by id or name."""
        rows = await self._db.tenant(caller.tenant).read(lambda tx: store.statistics(tx, caller.user_id, tool))
        tools: dict[str, ToolStats] = {}
        micros: dict[str, int] = {}
        for row in rows:
            known = tools.setdefault(row["tool_id"], ToolStats(tool_id=row["tool_id"], tool_name=row["tool_name"]))
            setattr(known, row["status"], row["n"])
            known.total += row["n"]
            known.modified += row["modified"]
            if row["status"] in ("approved", "denied"):
                micros[known.tool_id] = micros.get(known.tool_id, 0) + row["micros"]
        for tool_id, total in micros.items():
            decided = tools[tool_id].approved + tools[tool_id].denied
            tools[tool_id].mean_seconds_to_decision = round(total / decided / SECOND, 3)
        return ApprovalStats(tools=list(tools.values()))

    async def cleanup(self, caller: Caller) -> Cleanup:
        """Remove the caller's expired approvals."""
        removed = await self._db.tenant(caller.tenant).write(lambda tx: store.remove_expired(tx, caller.user_id))
        return Cleanup(removed=removed)


def approval_of(record: ApprovalRecord) -> Approval:
    """An approval as the wire shows it."""
    return Approval(
        id=record.id, status=record.status, tool_id=record.tool_id, tool_name=record.tool_name,
        arguments=record.arguments, modified_arguments=record.modified_arguments, reason=record.reason,
        approver=record.resolved_by, agent_id=record.agent_id, conversation_id=record.conversation_id,
        run_id=record.run_id, call_id=record.call_id, created_at=to_datetime(record.created_at),
        expires_at=to_datetime(record.expires_at),
        resolved_at=to_datetime(record.resolved_at) if record.resolved_at else None,
    )  # fmt: skip


def _decided(tx: Tx, tenant: str, approval_id: str) -> bool:
    record = store.by_id(tx, tenant, approval_id)
    return record is not None and record.status != "pending"


def _outcome(record: ApprovalRecord) -> dict[str, Any]:
    """The content of the event that tells a decision."""
    content: dict[str, Any] = {"id": record.id, "tool_name": record.tool_name, "status": record.status}
    if record.resolved_by is not None:
        content["approver"] = record.resolved_by
    if record.reason is not None:
        content["reason"] = record.reason
    if record.modified_arguments is not None:
        content["modified_arguments"] = record.modified_arguments
    return content


def _refusal(record: ApprovalRecord) -> str:
    """What the model is told of a call that may not be executed."""
    name = record.tool_name
    if record.status == "denied":
        return f"the call of {name} was denied" + (f": {record.reason}" if record.reason else "")
    if record.status == "expired":
        return f"nobody has approved the call of {name} in time"
    return f"the call of {name} was cancelled"


def _late(record: ApprovalRecord) -> ConflictError:
    told = "has expired" if record.status == "expired" else f"was {record.status} before"
    return ConflictError(f"the approval {told}", details=json.loads(approval_of(record).model_dump_json()))
