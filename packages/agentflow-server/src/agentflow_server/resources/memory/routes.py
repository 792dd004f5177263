"""HTTP of the memory room."""

from datetime import datetime
from typing import Annotated

from agentflow.types.memory import (
    Erasure,
    MemoryBlock,
    MemoryBlockType,
    MemoryListScope,
    MemoryPage,
    MemoryRecallPage,
    MemoryRecallRequest,
    MemoryUpdate,
    UserExport,
)
from fastapi import APIRouter, Query, Response

from agentflow_server.http.identity import CurrentCaller
from agentflow_server.http.pages import IdempotencyKey, Limit, Offset
from agentflow_server.resources.memory.service import MemoryService

AgentId = Annotated[str | None, Query(min_length=1, max_length=200, description="the agent's own memory")]


def router(service: MemoryService) -> APIRouter:
    """The room's routes."""
    routes = APIRouter(prefix="/memory", tags=["memory"])

    @routes.get("")
    async def list_blocks(
        caller: CurrentCaller,
        scope: MemoryListScope = "user",
        agent_id: AgentId = None,
        limit: Limit = 50,
        offset: Offset = 0,
    ) -> MemoryPage:
        """The caller's blocks; `scope` is `user`, `agent` or `all`."""
        return await service.list(caller, scope, agent_id, limit=limit, offset=offset)

    @routes.delete("")
    async def erase(caller: CurrentCaller, everything: bool = False) -> Erasure:
        """Erase the caller's memory; with `everything`, all that any resource holds about the caller."""
        return await service.erase(caller, everything=everything)

    @routes.post("/recall")
    async def recall(caller: CurrentCaller, body: MemoryRecallRequest) -> MemoryRecallPage:
        """The entries that fit a question best, by words and meaning."""
        return await service.recall(caller, body)

    @routes.get("/export")
    async def export(caller: CurrentCaller) -> UserExport:
        """Everything the server holds about the caller."""
        return await service.export(caller)

    @routes.get("/{block_type}")
    async def get(caller: CurrentCaller, block_type: MemoryBlockType, agent_id: AgentId = None) -> MemoryBlock:
        """One block."""
        return await service.get(caller, block_type, agent_id)

    @routes.put("/{block_type}")
    async def update(
        caller: CurrentCaller, block_type: MemoryBlockType, body: MemoryUpdate, idempotency_key: IdempotencyKey = None
    ) -> MemoryBlock:
        """Replace a block's text if it is still the expected one; create it if none is expected."""
        return await service.update(caller, block_type, body, idempotency_key)

    @routes.delete("/{block_type}", status_code=204)
    async def delete(
        caller: CurrentCaller,
        block_type: MemoryBlockType,
        agent_id: AgentId = None,
        expected_updated_at: datetime | None = None,
    ) -> Response:
        """Remove a block."""
        await service.delete(caller, block_type, agent_id, expected_updated_at)
        return Response(status_code=204)

    return routes
