"""What background tasks note as work begins and ends. Called inside the transactions of the runtime."""

from typing import Any

from agentflow_server.eventlog import runs
from agentflow_server.eventlog.runs import RunHeader
from agentflow_server.jobs import ledger
from agentflow_server.kit.clock import Clock
from agentflow_server.resources.background import store
from agentflow_server.resources.background.store import TaskRecord
from agentflow_server.runtime.detached import Ended
from agentflow_server.runtime.engine import Follower
from agentflow_server.runtime.tools import ToolOutcome
from agentflow_server.storage import Tx
from agentflow_server.storage.database import TenantTx


def began(tx: Tx, run: RunHeader, task: dict[str, Any]) -> None:
    """A sub-agent was started that nobody waits for; its run's id is the task's."""
    store.insert(
        tx,
        TaskRecord(
            run.id, run.user_id, run.conversation_id, run.parent_run_id or "", "sub_agent", task["name"], run.id,
            "running", {"message": task["message"]}, None, None, False, run.created_at, None,
        ),
    )  # fmt: skip


def tool_ended(clock: Clock) -> Ended:
    """Notes how a tool call has ended, and wakes who waits for it."""

    def ended(tx: Tx, tenant: str, task_id: str, status: str, outcome: ToolOutcome) -> None:
        now = clock.micros()
        error = outcome.result["error"] if outcome.is_error and isinstance(outcome.result, dict) else None
        result = None if outcome.is_error else {"text": outcome.content, "output": outcome.result}
        store.finish(tx, task_id, status, result=result, error=error, now=now)
        _wake(tx, tenant, store.conversation_of(tx, task_id), now)

    return ended


def follower(clock: Clock) -> Follower:
    """Notes how a sub-agent in the background has ended; a run that was cancelled takes its tool calls with it."""

    def follow(tx: Tx, run: RunHeader, result: dict[str, Any] | None) -> None:
        bound, now = TenantTx(tx, run.tenant), clock.micros()
        if run.parent_run_id is not None and (task_id := store.of_run(bound, run.id)) is not None:
            ended = runs.by_id(tx, run.tenant, run.id)
            assert ended is not None
            store.finish(bound, task_id, ended.status, result=result, error=ended.error, now=now)
            _wake(tx, run.tenant, run.conversation_id, now)
        if result is not None and result["finish_reason"] == "cancelled":
            for task_id in store.begun_by(bound, run.id):
                ledger.request_cancel(tx, run.tenant, task_id, now)

    return follow


def erase(tx: Tx, conversation_id: str) -> None:
    """A conversation is deleted: its tasks go with it."""
    store.erase(tx, conversation_id)


def _wake(tx: Tx, tenant: str, conversation_id: str, now: int) -> None:
    """Let the waiting runs of a conversation look again: one of them may wait for this task."""
    for run in runs.active_in(tx, tenant, conversation_id):
        if run.status == "waiting":
            ledger.wake(tx, tenant, run.id, now)
