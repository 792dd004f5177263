"""Which agent may call which: the edges between them. SQL of this room and nothing else; called by its service."""

from typing import NamedTuple

from agentflow_server.storage import Row, Tx

_COLUMNS = (
    "agents.id, agents.name, agents.data, edges.background FROM agent_subagents AS edges JOIN agents"
    " ON agents.tenant = edges.tenant AND agents.id = edges.child_id"
    " WHERE edges.tenant = :tenant AND edges.parent_id = :parent"
)


class Edge(NamedTuple):
    """A sub-agent of one parent. `data` is its configuration as JSON; `background`: it may be called non-blocking."""

    child_id: str
    name: str
    data: str
    background: bool


def _edge(row: Row) -> Edge:
    return Edge(row["id"], row["name"], row["data"], bool(row["background"]))


def link(tx: Tx, parent_id: str, child_id: str, *, background: bool, now: int) -> None:
    """Let a parent call a child, or change how it may."""
    tx.execute(
        "INSERT INTO agent_subagents (tenant, parent_id, child_id, background, created_at)"
        " VALUES (:tenant, :parent, :child, :background, :now)"
        " ON CONFLICT (tenant, parent_id, child_id) DO UPDATE SET background = :background",
        {"parent": parent_id, "child": child_id, "background": int(background), "now": now},
    )


def unlink(tx: Tx, parent_id: str, child_id: str) -> bool:
    """Take a child from a parent; False if it was not assigned."""
    return (
        tx.execute(
            "DELETE FROM agent_subagents WHERE tenant = :tenant AND parent_id = :parent AND child_id = :child",
            {"parent": parent_id, "child": child_id},
        )
        == 1
    )


def edge(tx: Tx, parent_id: str, child_id: str) -> Edge | None:
    row = tx.one(f"SELECT {_COLUMNS} AND edges.child_id = :child", {"parent": parent_id, "child": child_id})
    return _edge(row) if row else None


def children(tx: Tx, parent_id: str) -> list[Edge]:
    """A parent's sub-agents in the order they were assigned."""
    return [
        _edge(row)
        for row in tx.all(f"SELECT {_COLUMNS} ORDER BY edges.created_at, edges.child_id", {"parent": parent_id})
    ]


def all_edges(tx: Tx) -> list[tuple[str, str]]:
    """Every (parent, child) of the tenant."""
    rows = tx.all("SELECT parent_id, child_id FROM agent_subagents WHERE tenant = :tenant")
    return [(row["parent_id"], row["child_id"]) for row in rows]


def agent_named(tx: Tx, name: str) -> str | None:
    """The id of the agent with a name."""
    row = tx.one("SELECT id FROM agents WHERE tenant = :tenant AND name = :name", {"name": name})
    return row["id"] if row else None
