"""Tools, their assignments and MCP servers in the database. SQL of this room, and nothing else."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from agentflow_server.storage import Row, Tx

_TOOL = (
    "tools.id, tools.name, tools.kind, tools.data, tools.sealed, tools.server_id, tools.created_at, tools.updated_at"
)
_ASSIGNED = (
    f"SELECT {_TOOL}, a.require_approval, a.approval_timeout_ms FROM tool_assignments a JOIN tools"  # noqa: S608
    " ON tools.tenant = a.tenant AND tools.id = a.tool_id WHERE a.tenant = :tenant AND a.agent_id = :agent"
)
_SERVER = "s.id, s.name, s.data, s.sealed, s.created_at, s.updated_at FROM mcp_servers s"


@dataclass(frozen=True, slots=True)
class ToolRecord:
    """A tool's definition as it is stored. `sealed` holds its credentials, `server_id` the MCP server it is of."""

    id: str
    name: str
    kind: str
    data: dict[str, Any]
    sealed: str | None
    server_id: str | None
    created_at: int
    updated_at: int


@dataclass(frozen=True, slots=True)
class Assignment:
    """A tool as one agent has it. `approval_timeout` is in seconds."""

    tool: ToolRecord
    require_approval: bool
    approval_timeout: float


@dataclass(frozen=True, slots=True)
class ServerRecord:
    """An MCP server as it is stored."""

    id: str
    name: str
    data: dict[str, Any]
    sealed: str | None
    created_at: int
    updated_at: int


def _tool(row: Row) -> ToolRecord:
    return ToolRecord(
        row["id"], row["name"], row["kind"], json.loads(row["data"]), row["sealed"], row["server_id"],
        row["created_at"], row["updated_at"],
    )  # fmt: skip


def _assignment(row: Row) -> Assignment:
    return Assignment(_tool(row), bool(row["require_approval"]), row["approval_timeout_ms"] / 1000)


def agent_exists(tx: Tx, agent_id: str) -> bool:
    """Whether the tenant has this agent."""
    return tx.one("SELECT 1 AS ok FROM agents WHERE tenant = :tenant AND id = :id", {"id": agent_id}) is not None


def agent_named(tx: Tx, name: str) -> str | None:
    """The id of the agent of this name, or None."""
    row = tx.one("SELECT id FROM agents WHERE tenant = :tenant AND name = :name", {"name": name})
    return row["id"] if row else None


def insert(tx: Tx, tool: ToolRecord) -> bool:
    """Write a new tool; False if its name is taken."""
    return (
        tx.execute(
            "INSERT INTO tools (tenant, id, name, kind, data, sealed, server_id, created_at, updated_at) VALUES"
            " (:tenant, :id, :name, :kind, :data, :sealed, :server, :created, :updated) ON CONFLICT DO NOTHING",
            _params(tool),
        )
        == 1
    )


def update(tx: Tx, tool: ToolRecord) -> None:
    """Replace a tool's definition; its id and name stay."""
    tx.execute(
        "UPDATE tools SET kind = :kind, data = :data, sealed = :sealed, updated_at = :updated"
        " WHERE tenant = :tenant AND id = :id",
        _params(tool),
    )


def _params(tool: ToolRecord) -> dict[str, Any]:
    return {
        "id": tool.id, "name": tool.name, "kind": tool.kind, "data": json.dumps(tool.data), "sealed": tool.sealed,
        "server": tool.server_id, "created": tool.created_at, "updated": tool.updated_at,
    }  # fmt: skip


def delete(tx: Tx, tool_id: str) -> None:
    """Remove a tool and its assignments."""
    for table, column in (("tool_assignments", "tool_id"), ("tools", "id")):
        tx.execute(f"DELETE FROM {table} WHERE tenant = :tenant AND {column} = :id", {"id": tool_id})  # noqa: S608


def find(tx: Tx, identifier: str) -> ToolRecord | None:
    """A tool of the tenant by id or name."""
    row = tx.one(
        f"SELECT {_TOOL} FROM tools WHERE tenant = :tenant AND (id = :key OR name = :key)"  # noqa: S608 - constants
        " ORDER BY CASE WHEN id = :key THEN 0 ELSE 1 END",
        {"key": identifier},
    )
    return _tool(row) if row else None


def by_ids(tx: Tx, ids: Sequence[str]) -> list[ToolRecord]:
    """The tools of these ids that there are."""
    found = (tx.one(f"SELECT {_TOOL} FROM tools WHERE tenant = :tenant AND id = :id", {"id": one}) for one in ids)  # noqa: S608
    return [_tool(row) for row in found if row is not None]


def of_kind(tx: Tx, kind: str) -> list[ToolRecord]:
    """The tools of one kind."""
    rows = tx.all(f"SELECT {_TOOL} FROM tools WHERE tenant = :tenant AND kind = :kind", {"kind": kind})  # noqa: S608
    return [_tool(row) for row in rows]


def of_server(tx: Tx, server_id: str) -> list[ToolRecord]:
    """The tools an MCP server has brought."""
    rows = tx.all(
        f"SELECT {_TOOL} FROM tools WHERE tenant = :tenant AND server_id = :server ORDER BY name",  # noqa: S608
        {"server": server_id},
    )
    return [_tool(row) for row in rows]


def page(tx: Tx, *, limit: int, offset: int) -> tuple[list[ToolRecord], int]:
    """A page of the tenant's tools by name, and how many there are."""
    rows = tx.all(
        f"SELECT {_TOOL} FROM tools WHERE tenant = :tenant ORDER BY name LIMIT :limit OFFSET :offset",  # noqa: S608
        {"limit": limit, "offset": offset},
    )
    total = tx.one("SELECT COUNT(*) AS n FROM tools WHERE tenant = :tenant")
    return [_tool(row) for row in rows], total["n"] if total else 0


def assigned(tx: Tx, agent_id: str) -> list[Assignment]:
    """An agent's tools, in the order they were assigned."""
    rows = tx.all(f"{_ASSIGNED} ORDER BY a.position, tools.name", {"agent": agent_id})
    return [_assignment(row) for row in rows]


def assignment(tx: Tx, agent_id: str, identifier: str) -> Assignment | None:
    """One of an agent's tools, by id or name."""
    row = tx.one(
        f"{_ASSIGNED} AND (tools.id = :key OR tools.name = :key) ORDER BY CASE WHEN tools.id = :key THEN 0 ELSE 1 END",
        {"agent": agent_id, "key": identifier},
    )
    return _assignment(row) if row else None


def agents_of(tx: Tx, tool_id: str) -> list[str]:
    """Ids of the agents that have a tool."""
    rows = tx.all(
        "SELECT agent_id FROM tool_assignments WHERE tenant = :tenant AND tool_id = :id ORDER BY agent_id",
        {"id": tool_id},
    )
    return [row["agent_id"] for row in rows]


def names_of(tx: Tx, agent_ids: Sequence[str]) -> dict[str, list[str]]:
    """The names of the tools of each of these agents, in order."""
    found: dict[str, list[str]] = {agent_id: [] for agent_id in agent_ids}
    for agent_id in agent_ids:
        rows = tx.all(
            "SELECT tools.name FROM tool_assignments a JOIN tools ON tools.tenant = a.tenant AND tools.id = a.tool_id"
            " WHERE a.tenant = :tenant AND a.agent_id = :agent ORDER BY a.position, tools.name",
            {"agent": agent_id},
        )
        found[agent_id] = [row["name"] for row in rows]
    return found


def count(tx: Tx) -> int:
    """How many tools the tenant has."""
    row = tx.one("SELECT COUNT(*) AS n FROM tools WHERE tenant = :tenant")
    return row["n"] if row else 0


def assign(tx: Tx, agent_id: str, tool_id: str, *, require_approval: bool, approval_timeout: float) -> bool:
    """Give an agent a tool behind those it has; False if it has it already, which then stays as it is."""
    params = {"agent": agent_id, "tool": tool_id, "approval": int(require_approval), "ms": int(approval_timeout * 1000)}
    return (
        tx.execute(
            "INSERT INTO tool_assignments (tenant, agent_id, tool_id, position, require_approval, approval_timeout_ms)"
            " VALUES (:tenant, :agent, :tool, (SELECT COALESCE(MAX(position), 0) + 1 FROM tool_assignments"
            " WHERE tenant = :tenant AND agent_id = :agent), :approval, :ms) ON CONFLICT DO NOTHING",
            params,
        )
        == 1
    )


def set_approval(tx: Tx, agent_id: str, tool_id: str, *, require_approval: bool, approval_timeout: float) -> None:
    """Change whether an agent's calls of a tool need approval."""
    tx.execute(
        "UPDATE tool_assignments SET require_approval = :approval, approval_timeout_ms = :ms"
        " WHERE tenant = :tenant AND agent_id = :agent AND tool_id = :tool",
        {"agent": agent_id, "tool": tool_id, "approval": int(require_approval), "ms": int(approval_timeout * 1000)},
    )


def unassign(tx: Tx, agent_id: str, tool_id: str | None) -> bool:
    """Take a tool from an agent (all of them: None); False if it has none."""
    one = "" if tool_id is None else " AND tool_id = :tool"
    sql = f"DELETE FROM tool_assignments WHERE tenant = :tenant AND agent_id = :agent{one}"  # noqa: S608 - constants
    return tx.execute(sql, {"agent": agent_id, "tool": tool_id}) > 0


def _server(row: Row) -> ServerRecord:
    return ServerRecord(
        row["id"], row["name"], json.loads(row["data"]), row["sealed"], row["created_at"], row["updated_at"]
    )


def save_server(tx: Tx, server: ServerRecord) -> ServerRecord:
    """Write an MCP server, in place of the one of this name if there is one; returns it as it is stored."""
    known = server_named(tx, server.name)
    params = {
        "id": known.id if known else server.id, "name": server.name, "data": json.dumps(server.data),
        "sealed": server.sealed, "now": server.updated_at,
    }  # fmt: skip
    tx.execute(
        "INSERT INTO mcp_servers (tenant, id, name, data, sealed, created_at, updated_at) VALUES (:tenant, :id, :name,"
        " :data, :sealed, :now, :now) ON CONFLICT (tenant, name) DO UPDATE SET data = :data, sealed = :sealed,"
        " updated_at = :now",
        params,
    )
    return replace(server, id=params["id"])


def server_named(tx: Tx, identifier: str) -> ServerRecord | None:
    """An MCP server of the tenant by id or name."""
    row = tx.one(f"SELECT {_SERVER} WHERE s.tenant = :tenant AND (s.id = :key OR s.name = :key)", {"key": identifier})
    return _server(row) if row else None


def servers_of(tx: Tx, agent_id: str) -> list[ServerRecord]:
    """The MCP servers attached to an agent."""
    rows = tx.all(
        f"SELECT {_SERVER} JOIN mcp_attachments a ON a.tenant = s.tenant AND a.server_id = s.id"
        " WHERE s.tenant = :tenant AND a.agent_id = :agent ORDER BY s.name",
        {"agent": agent_id},
    )
    return [_server(row) for row in rows]


def attach(tx: Tx, agent_id: str, server_id: str) -> None:
    """Attach a server to an agent."""
    tx.execute(
        "INSERT INTO mcp_attachments (tenant, agent_id, server_id) VALUES (:tenant, :agent, :server)"
        " ON CONFLICT DO NOTHING",
        {"agent": agent_id, "server": server_id},
    )


def attached_to(tx: Tx, server_id: str) -> list[str]:
    """Ids of the agents a server is attached to."""
    rows = tx.all(
        "SELECT agent_id FROM mcp_attachments WHERE tenant = :tenant AND server_id = :server", {"server": server_id}
    )
    return [row["agent_id"] for row in rows]


def detach(tx: Tx, agent_id: str, server_id: str) -> None:
    """Detach a server from an agent, and take its tools from it."""
    key = {"agent": agent_id, "server": server_id}
    tx.execute("DELETE FROM mcp_attachments WHERE tenant = :tenant AND agent_id = :agent AND server_id = :server", key)
    tx.execute(
        "DELETE FROM tool_assignments WHERE tenant = :tenant AND agent_id = :agent AND tool_id IN"
        " (SELECT id FROM tools WHERE tenant = :tenant AND server_id = :server)",
        key,
    )


def delete_server(tx: Tx, server_id: str) -> None:
    """Remove a server, its tools and their assignments."""
    for tool in of_server(tx, server_id):
        delete(tx, tool.id)
    tx.execute("DELETE FROM mcp_servers WHERE tenant = :tenant AND id = :id", {"id": server_id})
