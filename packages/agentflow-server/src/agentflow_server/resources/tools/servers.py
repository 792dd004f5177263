"""MCP servers: attached to agents, their tools kept as tools of the tenant. Called by this room's routes."""

from dataclasses import replace
from typing import Any

from agentflow.errors import ConflictError, NotFoundError
from agentflow.types.tools import Assign, Credentials, McpServer, McpServerCreate, McpServerList

from agentflow_server.connectors.errors import ConnectorError
from agentflow_server.connectors.mcp import McpTool
from agentflow_server.definitions import NAME
from agentflow_server.http.identity import Caller
from agentflow_server.kit.clock import Clock, to_datetime
from agentflow_server.kit.ids import new_id
from agentflow_server.resources.tools import store
from agentflow_server.resources.tools.resolver import ToolMaker
from agentflow_server.resources.tools.service import APPROVAL_TIMEOUT, assign, invalid, require_agent, shown_for
from agentflow_server.resources.tools.store import ServerRecord, ToolRecord
from agentflow_server.runtime.structured import schema_problem
from agentflow_server.storage import Database, Tx


class McpServersService:
    """The MCP servers of the tools room."""

    def __init__(self, db: Database, clock: Clock, maker: ToolMaker) -> None:
        self._db = db
        self._clock = clock
        self._maker = maker

    async def attach(self, caller: Caller, agent_id: str, wanted: McpServerCreate) -> McpServer:
        """Connect to a server and give its tools to an agent. One of this name is replaced, for every agent it is of.

        Raises:
            NotFoundError: no such agent. ValidationError: the server cannot be reached or has not the wanted tools.
            NotAvailableError: it is a command, and no admin has allowed those.
        """
        await self._db.tenant(caller.tenant).read(lambda tx: require_agent(tx, agent_id))
        now = self._clock.micros()
        data = wanted.model_dump(mode="json", exclude={"name", "credentials", "env"}, exclude_none=True)
        secret = wanted.credentials if wanted.command is None else Credentials(headers=wanted.env)
        sealed = self._maker.seal(caller.tenant, f"mcp:{wanted.name}", secret)
        record = ServerRecord(new_id(), wanted.name, data, sealed, now, now)
        tools = await self._offered(caller.tenant, record)

        def unit(tx: Tx) -> McpServer:
            server = store.save_server(tx, record)
            store.attach(tx, agent_id, server.id)
            self._take_in(tx, server, tools)
            return _shown(tx, agent_id, server)

        return await self._db.tenant(caller.tenant).write(unit)

    async def list(self, caller: Caller, agent_id: str) -> McpServerList:
        """The servers attached to an agent.

        Raises:
            NotFoundError: no such agent.
        """

        def unit(tx: Tx) -> McpServerList:
            require_agent(tx, agent_id)
            return McpServerList(servers=[_shown(tx, agent_id, one) for one in store.servers_of(tx, agent_id)])

        return await self._db.tenant(caller.tenant).read(unit)

    async def refresh(self, caller: Caller, agent_id: str, identifier: str) -> McpServer:
        """Ask a server again which tools it has; those that are gone are removed.

        Raises:
            NotFoundError: the agent has no such server. ValidationError: it cannot be reached.
        """
        db = self._db.tenant(caller.tenant)
        server = await db.read(lambda tx: _required(tx, agent_id, identifier))
        tools = await self._offered(caller.tenant, server)

        def unit(tx: Tx) -> McpServer:
            self._take_in(tx, server, tools)
            return _shown(tx, agent_id, server)

        return await db.write(unit)

    async def detach(self, caller: Caller, agent_id: str, identifier: str) -> None:
        """Take a server and its tools from an agent; a server that no agent has any more is forgotten.

        Raises:
            NotFoundError: the agent has no such server.
        """

        def unit(tx: Tx) -> None:
            server = _required(tx, agent_id, identifier)
            store.detach(tx, agent_id, server.id)
            if not store.attached_to(tx, server.id):
                store.delete_server(tx, server.id)

        await self._db.tenant(caller.tenant).write(unit)

    async def _offered(self, tenant: str, server: ServerRecord) -> "list[McpTool]":
        """The tools the server has, of those that are wanted."""
        field = "url" if server.data.get("url") else "command"
        try:
            found = await self._maker.mcp.tools(self._maker.target(tenant, server))
        except ConnectorError as error:
            raise invalid(field, str(error)) from None
        wanted: list[str] | None = server.data.get("tools")
        if wanted is None:
            return [tool for tool in found if schema_problem(tool.parameters) is None]
        by_name = {tool.name: tool for tool in found}
        if missing := [name for name in wanted if name not in by_name]:
            raise invalid("tools", f"the server has no tool {missing[0]!r}")
        return [by_name[name] for name in wanted]

    def _take_in(self, tx: Tx, server: ServerRecord, tools: "list[McpTool]") -> None:
        """Write the server's tools: those it had keep their ids, those it has no more are removed."""
        had = {record.data["mcp"]["tool"]: record for record in store.of_server(tx, server.id)}
        now = self._clock.micros()
        data = server.data
        for tool in tools:
            definition: dict[str, Any] = {
                "description": tool.description[:10_000],
                "parameters": {"type": "object", **tool.parameters},
                "mcp": {"server_id": server.id, "server": server.name, "tool": tool.name},
                "execution_timeout": data["timeout"],
                "idempotent": tool.idempotent,
                "max_retries": 1 if tool.idempotent else 0,
                "require_approval": data["require_approval"],
                "approval_timeout": data.get("approval_timeout", APPROVAL_TIMEOUT),
            }
            known = had.pop(tool.name, None)
            if known is not None:
                store.update(tx, replace(known, data=definition, updated_at=now))
            else:
                known = _new(tx, server, tool.name, definition, now)
            for agent_id in store.attached_to(tx, server.id):
                assign(tx, agent_id, known, Assign(), again=False)
        for gone in had.values():
            store.delete(tx, gone.id)


def _new(tx: Tx, server: ServerRecord, name: str, data: dict[str, Any], now: int) -> ToolRecord:
    """Write a tool under its own name, or with the server's in front if that is taken or is no name."""
    own = "".join(char if char.isascii() and (char.isalnum() or char == "_") else "_" for char in name)[:64]
    for candidate in (own, f"{server.name}_{own}"[:64], *(f"{server.name}_{own}"[:61] + f"_{n}" for n in range(2, 10))):
        if not NAME.fullmatch(candidate):
            continue
        record = ToolRecord(new_id(), candidate, "mcp", data, None, server.id, now, now)
        if store.insert(tx, record):
            return record
    raise ConflictError(f"the names for the tool {name!r} of {server.name} are taken")


def _required(tx: Tx, agent_id: str, identifier: str) -> ServerRecord:
    require_agent(tx, agent_id)
    for server in store.servers_of(tx, agent_id):
        if identifier in (server.id, server.name):
            return server
    raise NotFoundError(f"the agent has no MCP server {identifier!r}")


def _shown(tx: Tx, agent_id: str, server: ServerRecord) -> McpServer:
    data = server.data
    tools = [shown_for(item) for item in store.assigned(tx, agent_id) if item.tool.server_id == server.id]
    return McpServer(
        id=server.id,
        name=server.name,
        transport="stdio" if data.get("command") else "streamable_http",
        url=data.get("url"),
        command=data.get("command"),
        args=data.get("args", []),
        timeout=data["timeout"],
        has_credentials=server.sealed is not None,
        tools=tools,
        created_at=to_datetime(server.created_at),
        updated_at=to_datetime(server.updated_at),
    )
