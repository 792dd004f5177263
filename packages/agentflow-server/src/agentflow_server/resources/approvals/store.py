"""Approvals in the database. SQL of this room and nothing else; called by its service, its gate and its follower.

An approval belongs to the user whose run waits for it: whoever else asks for it is told that there is none.
"""

import json
from dataclasses import dataclass
from typing import Any

from agentflow_server.storage import Row, Tx

_COLUMNS = (
    "id, status, agent_id, user_id, conversation_id, run_id, call_id, resolved_by, created_at, expires_at, resolved_at,"
    " tool_id, tool_name, arguments, modified_arguments, schema, reason FROM approvals WHERE tenant = :tenant"
)
STATUSES = ("pending", "approved", "denied", "expired", "cancelled")


@dataclass(frozen=True, slots=True)
class ApprovalRecord:
    """An approval as it is stored. `schema` is what changed arguments must fit."""

    id: str
    status: str
    agent_id: str
    user_id: str
    conversation_id: str
    run_id: str
    call_id: str
    resolved_by: str | None
    created_at: int
    expires_at: int
    resolved_at: int | None
    tool_id: str
    tool_name: str
    arguments: dict[str, Any]
    modified_arguments: dict[str, Any] | None
    schema: dict[str, Any]
    reason: str | None


def _record(row: Row) -> ApprovalRecord:
    changed = row["modified_arguments"]
    return ApprovalRecord(
        row["id"], row["status"], row["agent_id"], row["user_id"], row["conversation_id"], row["run_id"],
        row["call_id"], row["resolved_by"], row["created_at"], row["expires_at"], row["resolved_at"], row["tool_id"],
        row["tool_name"], json.loads(row["arguments"]), json.loads(changed) if changed else None,
        json.loads(row["schema"]), row["reason"],
    )  # fmt: skip


def insert(tx: Tx, tenant: str, approval: ApprovalRecord) -> bool:
    """Write a request; False if it is there already."""
    return (
        tx.execute(
            "INSERT INTO approvals (tenant, id, status, agent_id, user_id, conversation_id, run_id, call_id,"
            " created_at, expires_at, tool_id, tool_name, arguments, schema) VALUES (:tenant, :id, 'pending', :agent,"
            " :user, :conversation, :run, :call, :created, :expires, :tool, :name, :arguments, :schema)"
            " ON CONFLICT DO NOTHING",
            {
                "tenant": tenant, "id": approval.id, "agent": approval.agent_id, "user": approval.user_id,
                "conversation": approval.conversation_id, "run": approval.run_id, "call": approval.call_id,
                "created": approval.created_at, "expires": approval.expires_at, "tool": approval.tool_id,
                "name": approval.tool_name, "arguments": json.dumps(approval.arguments),
                "schema": json.dumps(approval.schema),
            },
        )
        == 1
    )  # fmt: skip


def by_id(tx: Tx, tenant: str, approval_id: str) -> ApprovalRecord | None:
    row = tx.one(f"SELECT {_COLUMNS} AND id = :id", {"tenant": tenant, "id": approval_id})
    return _record(row) if row else None


def resolve(
    tx: Tx,
    tenant: str,
    approval_id: str,
    status: str,
    now: int,
    *,
    by: str | None = None,
    reason: str | None = None,
    modified: dict[str, Any] | None = None,
) -> bool:
    """Decide a pending approval; False if it was decided before."""
    return (
        tx.execute(
            "UPDATE approvals SET status = :status, resolved_by = :by, resolved_at = :now, reason = :reason,"
            " modified_arguments = :modified WHERE tenant = :tenant AND id = :id AND status = 'pending'",
            {
                "tenant": tenant, "id": approval_id, "status": status, "by": by, "now": now, "reason": reason,
                "modified": None if modified is None else json.dumps(modified),
            },
        )
        == 1
    )  # fmt: skip


def cancel_of_run(tx: Tx, tenant: str, run_id: str, now: int) -> None:
    """Cancel what a run that has ended was still waiting for."""
    tx.execute(
        "UPDATE approvals SET status = 'cancelled', resolved_at = :now"
        " WHERE tenant = :tenant AND run_id = :run AND status = 'pending'",
        {"tenant": tenant, "run": run_id, "now": now},
    )


def page(
    tx: Tx, user_id: str, *, status: str | None, tool_name: str | None, limit: int, offset: int
) -> tuple[list[ApprovalRecord], int]:
    """A page of a user's approvals, the newest first, and how many match."""
    where = " AND user_id = :user"
    where += " AND status = :status" if status is not None else ""
    where += " AND tool_name = :name" if tool_name is not None else ""
    params = {"user": user_id, "status": status, "name": tool_name, "limit": limit, "offset": offset}
    rows = tx.all(f"SELECT {_COLUMNS}{where} ORDER BY created_at DESC, id DESC LIMIT :limit OFFSET :offset", params)
    total = tx.one(f"SELECT COUNT(*) AS n FROM approvals WHERE tenant = :tenant{where}", params)  # noqa: S608
    return [_record(row) for row in rows], total["n"] if total else 0


def counts(tx: Tx, user_id: str) -> dict[str, int]:
    """How many approvals of a user there are of each status."""
    rows = tx.all(
        "SELECT status, COUNT(*) AS n FROM approvals WHERE tenant = :tenant AND user_id = :user GROUP BY status",
        {"user": user_id},
    )
    return {row["status"]: row["n"] for row in rows}


def statistics(tx: Tx, user_id: str, tool: str | None) -> list[Row]:
    """Counts and times of each tool (by id or name, or all), one row a tool and status."""
    one = " AND (tool_id = :tool OR tool_name = :tool)" if tool is not None else ""
    return tx.all(
        "SELECT tool_id, tool_name, status, COUNT(*) AS n, COUNT(modified_arguments) AS modified,"  # noqa: S608
        " SUM(resolved_at - created_at) AS micros FROM approvals"
        f" WHERE tenant = :tenant AND user_id = :user{one} GROUP BY tool_id, tool_name, status ORDER BY tool_name",
        {"user": user_id, "tool": tool},
    )


def remove_expired(tx: Tx, user_id: str) -> int:
    """Remove a user's expired approvals; returns how many there were."""
    return tx.execute(
        "DELETE FROM approvals WHERE tenant = :tenant AND user_id = :user AND status = 'expired'", {"user": user_id}
    )
