"""Run headers: what a run is, where it stands, how it ended. Written by the runtime, read by the runs room."""

import json
from dataclasses import dataclass
from typing import Any

from agentflow_server.storage import Row, Tx

TERMINAL = frozenset({"completed", "failed", "cancelled"})
_COLUMNS = (
    "id, conversation_id, message_id, agent_id, user_id, call_id, root_call_id, parent_run_id, status, body_hash,"
    " plan, result, error, first_seq, created_at, updated_at FROM runs WHERE tenant = :tenant"
)
_INSERT = (
    "INSERT INTO runs (tenant, id, conversation_id, message_id, agent_id, user_id, call_id, root_call_id,"
    " parent_run_id, status, body_hash, plan, first_seq, created_at, updated_at) VALUES (:tenant, :id, :conversation,"
    " :message, :agent, :user, :call, :root, :parent, :status, :hash, :plan, :first, :now, :now)"
)


@dataclass(frozen=True, slots=True)
class RunHeader:
    """One run. `plan` is JSON as it was frozen at the start; `first_seq` is the number of its first event."""

    tenant: str
    id: str
    conversation_id: str
    message_id: str
    agent_id: str
    user_id: str
    call_id: str
    root_call_id: str
    parent_run_id: str | None
    status: str
    body_hash: str
    plan: str
    result: dict[str, Any] | None
    error: dict[str, Any] | None
    first_seq: int
    created_at: int
    updated_at: int

    @property
    def ended(self) -> bool:
        return self.status in TERMINAL

    @property
    def is_root(self) -> bool:
        return self.call_id == self.root_call_id


def header_of(tenant: str, row: Row) -> RunHeader:
    """The header in a row."""
    return RunHeader(
        tenant, row["id"], row["conversation_id"], row["message_id"], row["agent_id"], row["user_id"],
        row["call_id"], row["root_call_id"], row["parent_run_id"], row["status"], row["body_hash"], row["plan"],
        json.loads(row["result"]) if row["result"] else None, json.loads(row["error"]) if row["error"] else None,
        row["first_seq"], row["created_at"], row["updated_at"],
    )  # fmt: skip


def insert(tx: Tx, run: RunHeader) -> None:
    """Write a new header."""
    tx.execute(
        _INSERT,
        {
            "tenant": run.tenant, "id": run.id, "conversation": run.conversation_id, "message": run.message_id,
            "agent": run.agent_id, "user": run.user_id, "call": run.call_id, "root": run.root_call_id,
            "parent": run.parent_run_id, "status": run.status, "hash": run.body_hash, "plan": run.plan,
            "first": run.first_seq, "now": run.created_at,
        },
    )  # fmt: skip


def _one(tx: Tx, tenant: str, where: str, params: dict[str, Any]) -> RunHeader | None:
    row = tx.one(f"SELECT {_COLUMNS} AND {where}", {"tenant": tenant, **params})
    return header_of(tenant, row) if row else None


def by_id(tx: Tx, tenant: str, run_id: str) -> RunHeader | None:
    return _one(tx, tenant, "id = :id", {"id": run_id})


def by_call(tx: Tx, tenant: str, call_id: str) -> RunHeader | None:
    return _one(tx, tenant, "call_id = :call", {"call": call_id})


def by_message(tx: Tx, tenant: str, conversation_id: str, message_id: str) -> RunHeader | None:
    return _one(
        tx, tenant, "conversation_id = :conversation AND message_id = :message",
        {"conversation": conversation_id, "message": message_id},
    )  # fmt: skip


def active_in(tx: Tx, tenant: str, conversation_id: str) -> list[RunHeader]:
    """The runs of a conversation that have not ended, oldest first."""
    rows = tx.all(
        f"SELECT {_COLUMNS} AND conversation_id = :conversation"
        " AND status IN ('queued', 'running', 'waiting') ORDER BY created_at, id",
        {"tenant": tenant, "conversation": conversation_id},
    )
    return [header_of(tenant, row) for row in rows]


def terminal_seq(tx: Tx, run: RunHeader) -> int | None:
    """The number of the event that ended a run, or None while it goes on."""
    row = tx.one(
        "SELECT MAX(seq) AS seq FROM events WHERE tenant = :tenant AND conversation_id = :conversation"
        " AND seq >= :first"
        " AND call_id = :call AND type IN ('end', 'error')",
        {"tenant": run.tenant, "conversation": run.conversation_id, "first": run.first_seq, "call": run.call_id},
    )
    return row["seq"] if row else None


def descendants(tx: Tx, run: RunHeader) -> list[str]:
    """Ids of the runs below this one that have not ended."""
    rows = tx.all(
        "SELECT id, parent_run_id FROM runs WHERE tenant = :tenant AND conversation_id = :conversation"
        " AND root_call_id = :root AND status IN ('queued', 'running', 'waiting')",
        {"tenant": run.tenant, "conversation": run.conversation_id, "root": run.root_call_id},
    )
    found = {run.id}
    below: list[str] = []
    pending = [(row["id"], row["parent_run_id"]) for row in rows]
    while fresh := [identity for identity, parent in pending if parent in found and identity not in found]:
        found.update(fresh)
        below.extend(fresh)
    return below


def count_live(tx: Tx, tenant: str, user_id: str | None, limit: int) -> int:
    """How many runs of a tenant, or of one of its users, are queued or running.

    Counts to `limit` and no further.
    """
    whose = "" if user_id is None else " AND user_id = :user"
    row = tx.one(
        "SELECT COUNT(*) AS n FROM (SELECT 1 AS one FROM runs WHERE tenant = :tenant"  # noqa: S608 - constants
        f" AND status IN ('queued', 'running'){whose} LIMIT :limit) AS live",
        {"tenant": tenant, "user": user_id, "limit": limit},
    )
    return 0 if row is None else row["n"]


def set_status(tx: Tx, run: RunHeader, status: str, now: int) -> None:
    """Move a run that has not ended to another status."""
    tx.execute(
        "UPDATE runs SET status = :status, updated_at = :now WHERE tenant = :tenant AND id = :id",
        {"tenant": run.tenant, "id": run.id, "status": status, "now": now},
    )


def finish(
    tx: Tx, run: RunHeader, status: str, now: int, *, result: dict[str, Any] | None, error: dict[str, Any] | None
) -> None:
    """Write how a run ended."""
    tx.execute(
        "UPDATE runs SET status = :status, result = :result, error = :error, updated_at = :now"
        " WHERE tenant = :tenant AND id = :id",
        {
            "tenant": run.tenant, "id": run.id, "status": status, "now": now,
            "result": json.dumps(result) if result is not None else None,
            "error": json.dumps(error) if error is not None else None,
        },
    )  # fmt: skip
