"""Background tasks in the database. SQL of this room and nothing else; called by its service, tools and followers.

A task belongs to the user whose run began it. `run_id` is the run that works on it now; tools have none.
"""

import json
from dataclasses import dataclass
from typing import Any

from agentflow_server.storage import Row, Tx

_COLUMNS = (
    "id, user_id, conversation_id, began_by, kind, name, run_id, status, input, result, error, collected, created_at,"
    " ended_at FROM background_tasks WHERE tenant = :tenant"
)
_LAST_TURN = (
    "COALESCE((SELECT MAX(created_at) FROM runs WHERE runs.tenant = background_tasks.tenant AND runs.conversation_id ="
    " background_tasks.conversation_id AND runs.call_id = runs.root_call_id), 0)"
)


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """A task as it is stored. `status`: `running`, `completed`, `failed`, `cancelled`."""

    id: str
    user_id: str
    conversation_id: str
    began_by: str
    kind: str
    name: str
    run_id: str | None
    status: str
    input: dict[str, Any]
    result: Any
    error: dict[str, Any] | None
    collected: bool
    created_at: int
    ended_at: int | None

    @property
    def ended(self) -> bool:
        return self.status != "running"


def _record(row: Row) -> TaskRecord:
    return TaskRecord(
        row["id"], row["user_id"], row["conversation_id"], row["began_by"], row["kind"], row["name"], row["run_id"],
        row["status"], json.loads(row["input"]), json.loads(row["result"]) if row["result"] else None,
        json.loads(row["error"]) if row["error"] else None, bool(row["collected"]), row["created_at"], row["ended_at"],
    )  # fmt: skip


def insert(tx: Tx, task: TaskRecord) -> None:
    """Write a new task, once."""
    tx.execute(
        "INSERT INTO background_tasks (tenant, id, user_id, conversation_id, began_by, kind, name, run_id, status,"
        " input, created_at) VALUES (:tenant, :id, :user, :conversation, :began_by, :kind, :name, :run, :status,"
        " :input, :now) ON CONFLICT DO NOTHING",
        {
            "id": task.id, "user": task.user_id, "conversation": task.conversation_id, "began_by": task.began_by,
            "kind": task.kind, "name": task.name, "run": task.run_id, "status": task.status,
            "input": json.dumps(task.input), "now": task.created_at,
        },
    )  # fmt: skip


def by_id(tx: Tx, task_id: str, user_id: str) -> TaskRecord | None:
    row = tx.one(f"SELECT {_COLUMNS} AND id = :id AND user_id = :user", {"id": task_id, "user": user_id})
    return _record(row) if row else None


def page(
    tx: Tx, user_id: str, *, status: str | None, conversation_id: str | None, limit: int, offset: int
) -> tuple[list[TaskRecord], int]:
    """A page of a user's tasks, the newest first, and how many match."""
    where = " AND user_id = :user"
    where += " AND status = :status" if status else ""
    where += " AND conversation_id = :conversation" if conversation_id else ""
    key = {"user": user_id, "status": status, "conversation": conversation_id, "limit": limit, "offset": offset}
    rows = tx.all(f"SELECT {_COLUMNS}{where} ORDER BY created_at DESC, id DESC LIMIT :limit OFFSET :offset", key)
    total = tx.one(f"SELECT COUNT(*) AS n FROM background_tasks WHERE tenant = :tenant{where}", key)  # noqa: S608
    return [_record(row) for row in rows], total["n"] if total else 0


def of_run(tx: Tx, run_id: str) -> str | None:
    """The id of the task a run works on."""
    row = tx.one("SELECT id FROM background_tasks WHERE tenant = :tenant AND run_id = :run", {"run": run_id})
    return row["id"] if row else None


def begun_by(tx: Tx, run_id: str) -> list[str]:
    """Ids of the tool calls that a run began and that have not ended."""
    rows = tx.all(
        "SELECT id FROM background_tasks WHERE tenant = :tenant AND began_by = :run AND kind = 'tool'"
        " AND status = 'running'",
        {"run": run_id},
    )
    return [row["id"] for row in rows]


def conversation_of(tx: Tx, task_id: str) -> str:
    """The conversation of a task; empty if there is no such task."""
    row = tx.one("SELECT conversation_id FROM background_tasks WHERE tenant = :tenant AND id = :id", {"id": task_id})
    return row["conversation_id"] if row else ""


def known_in(tx: Tx, conversation_id: str) -> bool:
    """Whether a conversation has had tasks."""
    found = "SELECT 1 AS ok FROM background_tasks WHERE tenant = :tenant AND conversation_id = :conversation LIMIT 1"
    return tx.one(found, {"conversation": conversation_id}) is not None


def ended_since_last_turn(tx: Tx, conversation_id: str, user_id: str) -> list[TaskRecord]:
    """Tasks that ended after the conversation's newest turn was accepted, and whose result nobody has collected."""
    rows = tx.all(
        f"SELECT {_COLUMNS} AND conversation_id = :conversation AND user_id = :user AND collected = 0"
        f" AND ended_at > {_LAST_TURN} ORDER BY ended_at",
        {"conversation": conversation_id, "user": user_id},
    )
    return [_record(row) for row in rows]


def finish(tx: Tx, task_id: str, status: str, *, result: Any, error: dict[str, Any] | None, now: int) -> None:
    """Write how a task has ended."""
    tx.execute(
        "UPDATE background_tasks SET status = :status, result = :result, error = :error, ended_at = :now"
        " WHERE tenant = :tenant AND id = :id",
        {
            "id": task_id, "status": status, "result": None if result is None else json.dumps(result),
            "error": None if error is None else json.dumps(error), "now": now,
        },
    )  # fmt: skip


def carry_on(tx: Tx, task_id: str, *, from_run: str, to_run: str) -> bool:
    """Let another run work on a task that has ended; False if it is not as it was."""
    return (
        tx.execute(
            "UPDATE background_tasks SET status = 'running', run_id = :to_run, result = NULL, error = NULL,"
            " ended_at = NULL, collected = 0 WHERE tenant = :tenant AND id = :id AND run_id = :from_run"
            " AND status <> 'running'",
            {"id": task_id, "from_run": from_run, "to_run": to_run},
        )
        == 1
    )


def collect(tx: Tx, task_id: str) -> None:
    """Note that the model has the result."""
    tx.execute("UPDATE background_tasks SET collected = 1 WHERE tenant = :tenant AND id = :id", {"id": task_id})


def erase(tx: Tx, conversation_id: str) -> None:
    """Remove the tasks of a conversation."""
    tx.execute(
        "DELETE FROM background_tasks WHERE tenant = :tenant AND conversation_id = :conversation",
        {"conversation": conversation_id},
    )
