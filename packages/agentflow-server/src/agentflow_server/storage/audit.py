"""The audit log of a tenant: who did what that matters for security, and who was refused. Entries are never changed.

Written by the door (http/audit.py) and by rooms in their own transactions; read by the system room.
"""

from dataclasses import dataclass

from agentflow_server.storage.database import Row, Tx

_COLUMNS = "id, at, actor, actor_kind, action, target, status, request_id FROM audit_log WHERE tenant = :tenant"


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One entry.

    Attributes:
        at: micros since the epoch. actor: the user's id. action: `<room>.<what>`. target: the path, or what it was
        done to. status: the HTTP status of the answer.
    """

    id: str
    at: int
    actor: str
    actor_kind: str
    action: str
    target: str
    status: int
    request_id: str | None


def _entry(row: Row) -> AuditEntry:
    return AuditEntry(
        row["id"], row["at"], row["actor"], row["actor_kind"], row["action"], row["target"], row["status"],
        row["request_id"],
    )  # fmt: skip


def append(tx: Tx, entry: AuditEntry) -> None:
    """Write an entry. `tx` is bound to the tenant."""
    tx.execute(
        "INSERT INTO audit_log (tenant, id, at, actor, actor_kind, action, target, status, request_id)"
        " VALUES (:tenant, :id, :at, :actor, :kind, :action, :target, :status, :request)",
        {
            "id": entry.id, "at": entry.at, "actor": entry.actor, "kind": entry.actor_kind, "action": entry.action,
            "target": entry.target, "status": entry.status, "request": entry.request_id,
        },
    )  # fmt: skip


def forget(tx: Tx, before: int) -> None:
    """Drop entries that are older than an instant."""
    tx.execute("DELETE FROM audit_log WHERE tenant = :tenant AND at < :before", {"before": before})


def page(tx: Tx, *, actor: str | None, action: str | None, limit: int, offset: int) -> tuple[list[AuditEntry], int]:
    """Entries, the newest first, and how many there are."""
    where, params = "", {"actor": actor, "action": action, "limit": limit, "offset": offset}
    if actor is not None:
        where += " AND actor = :actor"
    if action is not None:
        where += " AND action = :action"
    rows = tx.all(f"SELECT {_COLUMNS}{where} ORDER BY at DESC, id DESC LIMIT :limit OFFSET :offset", params)
    counted = tx.one(f"SELECT COUNT(*) AS n FROM audit_log WHERE tenant = :tenant{where}", params)  # noqa: S608 - constants
    return [_entry(row) for row in rows], 0 if counted is None else counted["n"]
