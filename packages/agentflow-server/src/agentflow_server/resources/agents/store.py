"""Agents in the database. SQL of this room and nothing else; called by its service."""

import json
from dataclasses import dataclass
from typing import Any

from agentflow_server.storage import Row, Tx

_COLUMNS = "id, name, data, created_at, updated_at FROM agents WHERE tenant = :tenant"


@dataclass(frozen=True, slots=True)
class AgentRecord:
    """An agent as it is stored; `data` holds its configuration."""

    id: str
    name: str
    data: dict[str, Any]
    created_at: int
    updated_at: int


def _record(row: Row) -> AgentRecord:
    return AgentRecord(row["id"], row["name"], json.loads(row["data"]), row["created_at"], row["updated_at"])


def insert(tx: Tx, agent: AgentRecord) -> bool:
    """Write a new agent; False if its name is taken."""
    return (
        tx.execute(
            "INSERT INTO agents (tenant, id, name, data, created_at, updated_at)"
            " VALUES (:tenant, :id, :name, :data, :now, :now) ON CONFLICT DO NOTHING",
            {"id": agent.id, "name": agent.name, "data": json.dumps(agent.data), "now": agent.created_at},
        )
        == 1
    )


def by_id(tx: Tx, agent_id: str) -> AgentRecord | None:
    row = tx.one(f"SELECT {_COLUMNS} AND id = :id", {"id": agent_id})
    return _record(row) if row else None


def by_name(tx: Tx, name: str) -> AgentRecord | None:
    row = tx.one(f"SELECT {_COLUMNS} AND name = :name", {"name": name})
    return _record(row) if row else None


def page(tx: Tx, *, name: str | None, limit: int, offset: int) -> tuple[list[AgentRecord], int]:
    """A page of agents by age, and how many there are; `name` must match exactly."""
    where = " AND name = :name" if name is not None else ""
    key = {"name": name, "limit": limit, "offset": offset}
    rows = tx.all(f"SELECT {_COLUMNS}{where} ORDER BY created_at, id LIMIT :limit OFFSET :offset", key)
    total = tx.one(f"SELECT COUNT(*) AS n FROM agents WHERE tenant = :tenant{where}", key)  # noqa: S608
    return [_record(row) for row in rows], total["n"] if total else 0


def update(tx: Tx, agent: AgentRecord) -> bool:
    """Replace an agent's name and configuration; False if another agent has the name."""
    key = {"id": agent.id, "name": agent.name, "data": json.dumps(agent.data), "now": agent.updated_at}
    if tx.one("SELECT 1 AS taken FROM agents WHERE tenant = :tenant AND name = :name AND id <> :id", key):
        return False
    tx.execute(
        "UPDATE agents SET name = :name, data = :data, updated_at = :now WHERE tenant = :tenant AND id = :id", key
    )
    return True


def delete(tx: Tx, agent_id: str) -> bool:
    """Remove an agent; False if there is none."""
    return tx.execute("DELETE FROM agents WHERE tenant = :tenant AND id = :id", {"id": agent_id}) == 1


def add_tenant(tx: Tx, now: int) -> bool:
    """Note that the tenant exists; False if it was known."""
    return (
        tx.execute(
            "INSERT INTO tenants (tenant, created_at) VALUES (:tenant, :now) ON CONFLICT DO NOTHING", {"now": now}
        )
        == 1
    )
