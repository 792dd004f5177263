"""HTTP of the models room."""

from agentflow.types.models import Model, ModelList
from fastapi import APIRouter

from agentflow_server.http.identity import CurrentCaller
from agentflow_server.resources.models.service import ModelsService


def router(service: ModelsService) -> APIRouter:
    """The room's routes."""
    routes = APIRouter(prefix="/models", tags=["models"])

    @routes.get("")
    async def list_models(caller: CurrentCaller) -> ModelList:
        """The catalogue: windows, abilities, prices, and which models are configured."""
        return await service.list()

    @routes.get("/{model_id:path}")
    async def retrieve(caller: CurrentCaller, model_id: str) -> Model:
        """One model."""
        return await service.retrieve(model_id)

    return routes
