"""Starts the runs that other runs cause, and says how they ended. Called by rooms that delegate.

A child lives in its parent's conversation and tree, on a thread of its own. Its id comes from what caused it, so that
a cause that is looked at again, after a restart for example, finds the child instead of starting another.
"""

import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from agentflow_server.eventlog import StoredEvent, runs
from agentflow_server.eventlog.runs import RunHeader
from agentflow_server.eventlog.tail import head
from agentflow_server.jobs import Job, ledger
from agentflow_server.runtime.context import RunContext
from agentflow_server.runtime.engine import Engine
from agentflow_server.runtime.plan import Plan
from agentflow_server.runtime.runner import QUEUE, Runner
from agentflow_server.runtime.tools import ToolFailedError, ToolOutcome
from agentflow_server.storage import Tx

_CALLS = uuid.UUID("b3b0a6a5-5d0f-4f0c-9f43-0a6f5e0b8e55")
Also = Callable[[Tx, RunHeader], None]


def call_of(run_id: str) -> str:
    """The id of the unit that a child run is in the event tree."""
    return str(uuid.uuid5(_CALLS, run_id))


class Children:
    """Starts child runs."""

    def __init__(self, engine: Engine, runner: Runner) -> None:
        self._engine = engine
        self._runner = runner

    async def find(self, tenant: str, run_id: str) -> RunHeader | None:
        """The child of this id, if it was started."""
        return await self._engine.db.read(lambda tx: runs.by_id(tx, tenant, run_id))

    async def start(
        self, parent: RunHeader, plan: Plan, run_id: str, *, cause: Job | None = None, also: Also | None = None
    ) -> RunHeader:
        """Start a child, or find the one that has this id.

        Args:
            cause: the parent's job, if it is the parent that starts it: then it must still own it and not be cancelled.
            also: written in the same transaction.

        Raises:
            ToolFailedError: the parent was cancelled. LeaseLostError: it is driven elsewhere.
        """
        engine = self._engine
        wanted = _header(parent, plan, run_id, engine.clock.micros())

        def unit(tx: Tx, started: bool) -> tuple[RunHeader, RunContext | None, list[StoredEvent]]:
            if (existing := runs.by_id(tx, parent.tenant, run_id)) is not None:
                return existing, None, []
            if cause is not None:
                ledger.check_fence(tx, cause)
                if ledger.cancel_requested(tx, cause.tenant, cause.id):
                    raise ToolFailedError("cancelled", "the run was cancelled")
            status = "running" if started else "queued"
            run = replace(wanted, status=status, first_seq=head(tx, parent.conversation_id))
            runs.insert(tx, run)
            job = self._runner.job(run, started=started)
            ledger.enqueue(tx, job, run.created_at)
            if also is not None:
                also(tx, run)
            if not started:
                return run, None, []
            context = RunContext(run, plan, ledger.born_claimed(job))
            return run, context, self._runner.record_opening(tx, context)

        with engine.worker.places(QUEUE, 1) as started:
            run, context, events = await engine.db.tenant(parent.tenant).write(lambda tx: unit(tx, started > 0))
            if context is not None:
                self._runner.accept(context, events)
        if context is None:
            engine.worker.ring()
        return run


def _header(parent: RunHeader, plan: Plan, run_id: str, now: int) -> RunHeader:
    return RunHeader(
        tenant=parent.tenant, id=run_id, conversation_id=parent.conversation_id, message_id=run_id,
        agent_id=plan.agent_id, user_id=parent.user_id, call_id=call_of(run_id), root_call_id=parent.root_call_id,
        parent_run_id=parent.id, status="queued", body_hash="", plan=plan.model_dump_json(), result=None, error=None,
        first_seq=0, created_at=now, updated_at=now,
    )  # fmt: skip


def has_ended(tx: Tx, tenant: str, run_id: str) -> bool:
    """Whether a run has ended."""
    run = runs.by_id(tx, tenant, run_id)
    return run is None or run.ended


def outcome_of(run: RunHeader, name: str) -> ToolOutcome:
    """What a child that has ended gives to the call that waited for it; its usage goes to the parent's account."""
    if run.result is not None:
        result = run.result
        spent = {"usage": result["usage"], "cost": result["cost"]}
        told = {
            "text": result["text"],
            "run_id": run.id,
            "call_id": run.call_id,
            "finish_reason": result["finish_reason"],
        }
        metadata: dict[str, Any] = {
            **spent,
            "background_tasks": result["background_tasks"],
            "citations": result["citations"],
        }
        if run.status == "cancelled":
            told["error"] = {"code": "cancelled", "message": f"{name} was cancelled"}
            return ToolOutcome(f"Error: {name} was cancelled.", told, is_error=True, metadata=metadata)
        text = result["text"] or f"{name} ended without an answer."
        return ToolOutcome(text, told, metadata=metadata)
    error = run.error or {"code": "internal_error", "message": "it ended without an answer"}
    failed = ToolOutcome.failure(error["code"], f"{name} failed: {error['message']}")
    spent = {key: error[key] for key in ("usage", "cost") if key in error}
    return replace(failed, result={**failed.result, "run_id": run.id, "call_id": run.call_id}, metadata=spent)
