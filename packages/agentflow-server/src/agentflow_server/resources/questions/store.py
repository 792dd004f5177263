"""Questions in the database. SQL of this room and nothing else. They belong to the user whose run waits for them."""

import json
from dataclasses import dataclass
from typing import Any

from agentflow_server.storage import Row, Tx

_COLUMNS = (
    "id, status, agent_id, user_id, conversation_id, run_id, call_id, resolved_by, created_at, expires_at, resolved_at,"
    " items, answers FROM questions WHERE tenant = :tenant"
)


@dataclass(frozen=True, slots=True)
class QuestionRecord:
    """A request as it is stored."""

    id: str
    status: str
    agent_id: str
    user_id: str
    conversation_id: str
    run_id: str
    call_id: str
    created_at: int
    expires_at: int
    resolved_at: int | None
    items: list[dict[str, Any]]
    answers: dict[str, Any] | None


def _record(row: Row) -> QuestionRecord:
    answers = row["answers"]
    return QuestionRecord(
        row["id"], row["status"], row["agent_id"], row["user_id"], row["conversation_id"], row["run_id"],
        row["call_id"], row["created_at"], row["expires_at"], row["resolved_at"], json.loads(row["items"]),
        json.loads(answers) if answers else None,
    )  # fmt: skip


def insert(tx: Tx, tenant: str, question: QuestionRecord) -> bool:
    """Write a request; False if it is there already."""
    return (
        tx.execute(
            "INSERT INTO questions (tenant, id, status, agent_id, user_id, conversation_id, run_id, call_id,"
            " created_at, expires_at, items) VALUES (:tenant, :id, 'pending', :agent, :user, :conversation, :run,"
            " :call, :created, :expires, :items) ON CONFLICT DO NOTHING",
            {
                "tenant": tenant, "id": question.id, "agent": question.agent_id, "user": question.user_id,
                "conversation": question.conversation_id, "run": question.run_id, "call": question.call_id,
                "created": question.created_at, "expires": question.expires_at, "items": json.dumps(question.items),
            },
        )
        == 1
    )  # fmt: skip


def by_id(tx: Tx, tenant: str, question_id: str) -> QuestionRecord | None:
    row = tx.one(f"SELECT {_COLUMNS} AND id = :id", {"tenant": tenant, "id": question_id})
    return _record(row) if row else None


def resolve(
    tx: Tx, tenant: str, question_id: str, status: str, now: int, *, by: str | None, answers: dict[str, Any] | None
) -> bool:
    """Close a pending request; False if it was closed before."""
    return (
        tx.execute(
            "UPDATE questions SET status = :status, resolved_by = :by, resolved_at = :now, answers = :answers"
            " WHERE tenant = :tenant AND id = :id AND status = 'pending'",
            {
                "tenant": tenant, "id": question_id, "status": status, "by": by, "now": now,
                "answers": None if answers is None else json.dumps(answers),
            },
        )
        == 1
    )  # fmt: skip


def cancel_of_run(tx: Tx, tenant: str, run_id: str, now: int) -> None:
    """Cancel what a run that has ended was still waiting for."""
    tx.execute(
        "UPDATE questions SET status = 'cancelled', resolved_at = :now"
        " WHERE tenant = :tenant AND run_id = :run AND status = 'pending'",
        {"tenant": tenant, "run": run_id, "now": now},
    )


def page(tx: Tx, user_id: str, *, status: str | None, limit: int, offset: int) -> tuple[list[QuestionRecord], int]:
    """A page of a user's questions, the newest first, and how many match."""
    where = " AND user_id = :user" + (" AND status = :status" if status is not None else "")
    params = {"user": user_id, "status": status, "limit": limit, "offset": offset}
    rows = tx.all(f"SELECT {_COLUMNS}{where} ORDER BY created_at DESC, id DESC LIMIT :limit OFFSET :offset", params)
    total = tx.one(f"SELECT COUNT(*) AS n FROM questions WHERE tenant = :tenant{where}", params)  # noqa: S608
    return [_record(row) for row in rows], total["n"] if total else 0
