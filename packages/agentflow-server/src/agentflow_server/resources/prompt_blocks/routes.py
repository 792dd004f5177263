"""HTTP of the prompt_blocks room."""

from agentflow.types.prompt_blocks import (
    PromptBlock,
    PromptBlockCreate,
    PromptBlockPage,
    PromptBlockPreview,
    PromptBlockPreviewRequest,
    PromptBlockUpdate,
)
from fastapi import APIRouter, Response

from agentflow_server.http.identity import CurrentCaller
from agentflow_server.http.pages import IdempotencyKey, Limit, Offset
from agentflow_server.resources.prompt_blocks.service import PromptBlocksService


def router(service: PromptBlocksService) -> APIRouter:
    """The room's routes."""
    routes = APIRouter(prefix="/prompt-blocks", tags=["prompt_blocks"])

    @routes.get("")
    async def list_blocks(caller: CurrentCaller, limit: Limit = 50, offset: Offset = 0) -> PromptBlockPage:
        """The tenant's blocks in their order, the server's own among them."""
        return await service.list(caller, limit=limit, offset=offset)

    @routes.post("", status_code=201)
    async def create(
        caller: CurrentCaller, body: PromptBlockCreate, idempotency_key: IdempotencyKey = None
    ) -> PromptBlock:
        """Add a static block."""
        return await service.create(caller, body, idempotency_key)

    @routes.get("/{name}")
    async def retrieve(caller: CurrentCaller, name: str) -> PromptBlock:
        """One block."""
        return await service.retrieve(caller, name)

    @routes.patch("/{name}")
    async def update(caller: CurrentCaller, name: str, body: PromptBlockUpdate) -> PromptBlock:
        """Change a block; what is left out stays."""
        return await service.update(caller, name, body)

    @routes.delete("/{name}", status_code=204)
    async def delete(caller: CurrentCaller, name: str) -> Response:
        """Remove a static block."""
        await service.delete(caller, name)
        return Response(status_code=204)

    @routes.post("/{name}/preview")
    async def preview(caller: CurrentCaller, name: str, body: PromptBlockPreviewRequest) -> PromptBlockPreview:
        """A block as the model would see it; nothing is stored."""
        return await service.preview(caller, name, body)

    @routes.post("/{name}/invalidate-cache")
    async def invalidate_cache(caller: CurrentCaller, name: str) -> PromptBlock:
        """Forget every kept text of a block."""
        return await service.invalidate(caller, name)

    return routes
