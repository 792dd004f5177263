"""Agents in the database. SQL of this room and nothing else; called by its service."""

import json
from dataclasses import dataclass
from typing import Any

from agentflow_server.storage import Row, Tx

_SUB_AGENTS = (
    "(SELECT COUNT(*) FROM agent_subagents AS edges WHERE edges.tenant = agents.tenant"
    " AND edges.parent_id = agents.id) AS sub_agents"
)
_COLUMNS = f"id, name, data, created_at, updated_at, {_SUB_AGENTS} FROM agents WHERE tenant = :tenant"


@dataclass(frozen=True, slots=True)
class AgentRecord:
    """An agent as it is stored; `data` holds its configuration, `sub_agents` how many it may call."""

    id: str
    name: str
    data: dict[str, Any]
    created_at: int
    updated_at: int
    sub_agents: int = 0


def _record(row: Row) -> AgentRecord:
    return AgentRecord(
        row["id"], row["name"], json.loads(row["data"]), row["created_at"], row["updated_at"], row["sub_agents"]
    )


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
    """Remove an agent, and who may call it; False if there is none."""
    tx.execute(
        "DELETE FROM agent_subagents WHERE tenant = :tenant AND (parent_id = :id OR child_id = :id)", {"id": agent_id}
    )
    return tx.execute("DELETE FROM agents WHERE tenant = :tenant AND id = :id", {"id": agent_id}) == 1


def has_tenant(tx: Tx) -> bool:
    """Whether the tenant is set up."""
    return tx.one("SELECT 1 AS ok FROM tenants WHERE tenant = :tenant") is not None


def add_tenant(tx: Tx, now: int) -> bool:
    """Note that the tenant exists; False if it was known."""
    return (
        tx.execute(
            "INSERT INTO tenants (tenant, created_at) VALUES (:tenant, :now) ON CONFLICT DO NOTHING", {"now": now}
        )
        == 1
    )
