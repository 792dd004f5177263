"""HTTP of the sub-agents room. The route that runs one stands in the runs room."""

from agentflow.types.subagents import Subagent, SubagentAssignment, SubagentCreate, SubagentPage, SubagentUpdate
from fastapi import APIRouter, Response

from agentflow_server.http.identity import CurrentCaller
from agentflow_server.http.pages import IdempotencyKey, Limit, Offset
from agentflow_server.resources.subagents.service import SubagentsService


def router(service: SubagentsService) -> APIRouter:
    """The room's routes."""
    routes = APIRouter(prefix="/agent/{agent_id}/subagents", tags=["subagents"])

    @routes.get("")
    async def list_subagents(
        caller: CurrentCaller, agent_id: str, limit: Limit = 50, offset: Offset = 0
    ) -> SubagentPage:
        """The agents this one may call, in the order they were assigned."""
        return await service.list(caller, agent_id, limit=limit, offset=offset)

    @routes.post("", status_code=201)
    async def create(
        caller: CurrentCaller, agent_id: str, body: SubagentCreate, idempotency_key: IdempotencyKey = None
    ) -> Subagent:
        """Add an agent that this one may call."""
        return await service.create(caller, agent_id, body, idempotency_key)

    @routes.get("/{subagent_id}")
    async def retrieve(caller: CurrentCaller, agent_id: str, subagent_id: str) -> Subagent:
        """One sub-agent."""
        return await service.retrieve(caller, agent_id, subagent_id)

    @routes.patch("/{subagent_id}")
    async def update(caller: CurrentCaller, agent_id: str, subagent_id: str, body: SubagentUpdate) -> Subagent:
        """Change a sub-agent; what is left out stays."""
        return await service.update(caller, agent_id, subagent_id, body)

    @routes.delete("/{subagent_id}", status_code=204)
    async def delete(caller: CurrentCaller, agent_id: str, subagent_id: str) -> Response:
        """Remove a sub-agent for good."""
        await service.delete(caller, agent_id, subagent_id)
        return Response(status_code=204)

    @routes.put("/{subagent_id}/assignment")
    async def assign(caller: CurrentCaller, agent_id: str, subagent_id: str, body: SubagentAssignment) -> Subagent:
        """Let this agent call one that exists."""
        return await service.assign(caller, agent_id, subagent_id, body)

    @routes.delete("/{subagent_id}/assignment", status_code=204)
    async def unassign(caller: CurrentCaller, agent_id: str, subagent_id: str) -> Response:
        """Take a sub-agent from this agent; it stays an agent."""
        await service.unassign(caller, agent_id, subagent_id)
        return Response(status_code=204)

    return routes
