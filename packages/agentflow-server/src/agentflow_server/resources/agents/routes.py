"""HTTP of the agents room."""

from typing import Annotated

from agentflow.types.agents import (
    Agent,
    AgentConfig,
    AgentConfigUpdate,
    AgentCreate,
    AgentPage,
    AgentStats,
    AgentUpdate,
)
from agentflow.types.knowledge_bases import AssignedKnowledgeBases, SearchRequest, SearchResult
from agentflow.types.prompt_blocks import PromptBlockPage
from fastapi import APIRouter, Query, Response

from agentflow_server.http.identity import CurrentCaller
from agentflow_server.http.pages import IdempotencyKey, Limit, Offset
from agentflow_server.resources.agents.service import AgentsService, agent_of, config_of


def router(service: AgentsService) -> APIRouter:
    """The room's routes."""
    routes = APIRouter(tags=["agents"])

    @routes.get("/agents")
    async def list_agents(
        caller: CurrentCaller,
        limit: Limit = 50,
        offset: Offset = 0,
        name: Annotated[str | None, Query(min_length=1, max_length=200)] = None,
    ) -> AgentPage:
        """The tenant's agents, oldest first; `name` finds one exactly."""
        return await service.list(caller, name=name, limit=limit, offset=offset)

    @routes.get("/agents/stats")
    async def stats(caller: CurrentCaller) -> AgentStats:
        """How many agents and tools there are."""
        return await service.stats(caller)

    @routes.post("/agents", status_code=201)
    async def create(caller: CurrentCaller, body: AgentCreate, idempotency_key: IdempotencyKey = None) -> Agent:
        """Add an agent."""
        return await service.create(caller, body, idempotency_key)

    @routes.get("/agent/{agent_id}")
    async def retrieve(caller: CurrentCaller, agent_id: str) -> Agent:
        """One agent."""
        return await service.retrieve(caller, agent_id)

    @routes.patch("/agent/{agent_id}")
    async def update(caller: CurrentCaller, agent_id: str, body: AgentUpdate) -> Agent:
        """Change an agent; what is left out stays."""
        return await service.update(caller, agent_id, body, agent_of)

    @routes.delete("/agent/{agent_id}", status_code=204)
    async def delete(caller: CurrentCaller, agent_id: str) -> Response:
        """Remove an agent."""
        await service.delete(caller, agent_id)
        return Response(status_code=204)

    @routes.get("/agent/{agent_id}/config")
    async def config(caller: CurrentCaller, agent_id: str) -> AgentConfig:
        """An agent's whole configuration."""
        return await service.config(caller, agent_id)

    @routes.patch("/agent/{agent_id}/config")
    async def update_config(caller: CurrentCaller, agent_id: str, body: AgentConfigUpdate) -> AgentConfig:
        """Change an agent's configuration; what is left out stays."""
        return await service.update(caller, agent_id, body, config_of)

    @routes.get("/agent/{agent_id}/context-blocks")
    async def context_blocks(caller: CurrentCaller, agent_id: str) -> PromptBlockPage:
        """The prompt blocks that runs of the agent are given, in their order."""
        found = await service.context_blocks(caller, agent_id)
        return PromptBlockPage(prompt_blocks=found, total=len(found), limit=len(found), offset=0)

    return routes


def knowledge_router(service: AgentsService) -> APIRouter:
    """An agent's knowledge bases."""
    routes = APIRouter(prefix="/agent/{agent_id}/knowledge-bases", tags=["knowledge_bases"])

    @routes.get("")
    async def list_knowledge(caller: CurrentCaller, agent_id: str) -> AssignedKnowledgeBases:
        """The knowledge bases that an agent searches by itself."""
        return await service.knowledge_bases(caller, agent_id)

    @routes.put("/{kb_id}")
    async def assign(caller: CurrentCaller, agent_id: str, kb_id: str) -> AssignedKnowledgeBases:
        """Give a knowledge base to an agent."""
        await service.assign(caller, agent_id, kb_id, assigned=True)
        return await service.knowledge_bases(caller, agent_id)

    @routes.delete("/{kb_id}", status_code=204)
    async def unassign(caller: CurrentCaller, agent_id: str, kb_id: str) -> Response:
        """Take a knowledge base from an agent."""
        await service.assign(caller, agent_id, kb_id, assigned=False)
        return Response(status_code=204)

    @routes.post("/search")
    async def search(caller: CurrentCaller, agent_id: str, body: SearchRequest) -> SearchResult:
        """Search all knowledge bases of an agent as one."""
        return await service.search_knowledge(caller, agent_id, body)

    return routes
