"""HTTP of the tools room. Direct runs are in the runs room."""

from agentflow.types.tools import (
    Assign,
    McpServer,
    McpServerCreate,
    McpServerList,
    OpenApiImport,
    SetApproval,
    Tool,
    ToolCreate,
    ToolPage,
    ToolTest,
    ToolTestResult,
    ToolUpdate,
)
from fastapi import APIRouter, Response

from agentflow_server.http.identity import CurrentCaller
from agentflow_server.http.pages import IdempotencyKey, Limit, Offset
from agentflow_server.resources.tools.servers import McpServersService
from agentflow_server.resources.tools.service import ToolsService


def router(service: ToolsService, servers: McpServersService) -> APIRouter:  # noqa: C901 - a list of routes
    """The room's routes."""
    routes = APIRouter(tags=["tools"])

    @routes.get("/tools")
    async def list_all(caller: CurrentCaller, limit: Limit = 50, offset: Offset = 0) -> ToolPage:
        """All tools of the tenant, by name."""
        return await service.list(caller, None, limit=limit, offset=offset)

    @routes.get("/agent/{agent_id}/tools")
    async def list_tools(caller: CurrentCaller, agent_id: str, limit: Limit = 50, offset: Offset = 0) -> ToolPage:
        """An agent's tools."""
        return await service.list(caller, agent_id, limit=limit, offset=offset)

    @routes.post("/agent/{agent_id}/tools", status_code=201)
    async def create(
        caller: CurrentCaller, agent_id: str, body: ToolCreate, idempotency_key: IdempotencyKey = None
    ) -> Tool:
        """Define a tool and give it to the agent."""
        return await service.create(caller, agent_id, body, idempotency_key)

    @routes.post("/agent/{agent_id}/tools/test")
    async def test(caller: CurrentCaller, agent_id: str, body: ToolTest) -> ToolTestResult:
        """Run source once, without storing it."""
        return await service.test(caller, agent_id, body)

    @routes.post("/agent/{agent_id}/tools/openapi", status_code=201)
    async def import_openapi(caller: CurrentCaller, agent_id: str, body: OpenApiImport) -> ToolPage:
        """Make HTTP tools of operations of an OpenAPI document."""
        return await service.import_openapi(caller, agent_id, body)

    @routes.get("/agent/{agent_id}/tools/{tool_identifier}")
    async def retrieve(caller: CurrentCaller, agent_id: str, tool_identifier: str) -> Tool:
        """One of the agent's tools, by id or name."""
        return await service.retrieve(caller, agent_id, tool_identifier)

    @routes.patch("/agent/{agent_id}/tools/{tool_identifier}")
    async def update(caller: CurrentCaller, agent_id: str, tool_identifier: str, body: ToolUpdate) -> Tool:
        """Change a tool; what is left out stays."""
        return await service.update(caller, agent_id, tool_identifier, body)

    @routes.delete("/agent/{agent_id}/tools/{tool_identifier}", status_code=204)
    async def delete(caller: CurrentCaller, agent_id: str, tool_identifier: str) -> Response:
        """Take a tool from the agent; one that no agent has any more is gone."""
        await service.delete(caller, agent_id, tool_identifier)
        return Response(status_code=204)

    @routes.put("/agent/{agent_id}/tools/{tool_identifier}/assignment")
    async def assign(caller: CurrentCaller, agent_id: str, tool_identifier: str, body: Assign | None = None) -> Tool:
        """Give the agent a tool of the tenant."""
        return await service.assign(caller, agent_id, tool_identifier, body or Assign())

    @routes.delete("/agent/{agent_id}/tools/{tool_identifier}/assignment", status_code=204)
    async def unassign(caller: CurrentCaller, agent_id: str, tool_identifier: str) -> Response:
        """Take a tool from the agent; the tool itself stays."""
        await service.unassign(caller, agent_id, tool_identifier)
        return Response(status_code=204)

    @routes.put("/agent/{agent_id}/tools/{tool_identifier}/approval")
    async def set_approval(caller: CurrentCaller, agent_id: str, tool_identifier: str, body: SetApproval) -> Tool:
        """Whether the agent's calls of a tool need approval."""
        return await service.set_approval(caller, agent_id, tool_identifier, body)

    @routes.get("/agent/{agent_id}/mcp-servers")
    async def list_servers(caller: CurrentCaller, agent_id: str) -> McpServerList:
        """The MCP servers attached to the agent."""
        return await servers.list(caller, agent_id)

    @routes.post("/agent/{agent_id}/mcp-servers", status_code=201)
    async def attach(caller: CurrentCaller, agent_id: str, body: McpServerCreate) -> McpServer:
        """Attach an MCP server: its tools become the agent's."""
        return await servers.attach(caller, agent_id, body)

    @routes.post("/agent/{agent_id}/mcp-servers/{server_id}/refresh")
    async def refresh(caller: CurrentCaller, agent_id: str, server_id: str) -> McpServer:
        """Ask an MCP server again which tools it has."""
        return await servers.refresh(caller, agent_id, server_id)

    @routes.delete("/agent/{agent_id}/mcp-servers/{server_id}", status_code=204)
    async def detach(caller: CurrentCaller, agent_id: str, server_id: str) -> Response:
        """Take an MCP server and its tools from the agent."""
        await servers.detach(caller, agent_id, server_id)
        return Response(status_code=204)

    return routes
