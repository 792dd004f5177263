"""HTTP of the cached results room."""

from typing import Annotated

from agentflow.types.cached_results import CachedResult, CachedResultPage
from fastapi import APIRouter, Query

from agentflow_server.http.identity import CurrentCaller
from agentflow_server.http.pages import Limit, Offset
from agentflow_server.resources.cached_results.service import CachedResultsService


def router(service: CachedResultsService) -> APIRouter:
    """The room's routes."""
    routes = APIRouter(prefix="/conversations/{conversation_id}/cached-results", tags=["cached_results"])

    @routes.get("")
    async def list_results(
        caller: CurrentCaller, conversation_id: str, limit: Limit = 50, offset: Offset = 0
    ) -> CachedResultPage:
        """What is kept of a conversation's large tool results, the newest first, without the results themselves."""
        return await service.list(caller, conversation_id, limit=limit, offset=offset)

    @routes.get("/{cache_id}")
    async def retrieve(
        caller: CurrentCaller,
        conversation_id: str,
        cache_id: str,
        offset: Offset = 0,
        limit: Annotated[int | None, Query(ge=1, description="characters; all of them by default")] = None,
    ) -> CachedResult:
        """A result, whole or a piece of it."""
        return await service.retrieve(caller, conversation_id, cache_id, offset=offset, limit=limit)

    return routes
