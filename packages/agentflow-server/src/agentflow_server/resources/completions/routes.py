"""HTTP of the completions room: one route an operation, answered within the request."""

from typing import Any

from agentflow.types.completions import (
    Answer,
    Completion,
    EnrichRequest,
    ExtractRequest,
    Label,
    LabelRequest,
    RunRequest,
    SummarizeRequest,
    Summary,
)
from fastapi import APIRouter

from agentflow_server.http.identity import CurrentCaller
from agentflow_server.resources.completions.service import CompletionsService


def router(service: CompletionsService) -> APIRouter:
    """The room's routes."""
    routes = APIRouter(prefix="/completions", tags=["completions"])

    @routes.post("/label", response_model=Completion[Label])
    async def label(caller: CurrentCaller, body: LabelRequest) -> Completion[Any]:
        """Put each item into categories."""
        return await service.complete(caller, body, body.items)

    @routes.post("/extract", response_model=Completion[Any])
    async def extract(caller: CurrentCaller, body: ExtractRequest) -> Completion[Any]:
        """Read a structure out of each item."""
        return await service.complete(caller, body, body.items)

    @routes.post("/summarize", response_model=Completion[Summary])
    async def summarize(caller: CurrentCaller, body: SummarizeRequest) -> Completion[Any]:
        """Summarise each item."""
        return await service.complete(caller, body, body.items)

    @routes.post("/enrich", response_model=Completion[dict[str, Any]])
    async def enrich(caller: CurrentCaller, body: EnrichRequest) -> Completion[Any]:
        """Fill in fields for each item."""
        return await service.complete(caller, body, body.items)

    @routes.post("/run", response_model=Completion[Answer])
    async def run(caller: CurrentCaller, body: RunRequest) -> Completion[Any]:
        """Ask one's own question of each item."""
        return await service.complete(caller, body, body.items)

    return routes
