"""HTTP of the system room. Health and readiness need no credentials."""

from agentflow.types.system import Health, Readiness, SystemInfo
from fastapi import APIRouter

from agentflow_server.resources.system.service import SystemService


def router(service: SystemService) -> APIRouter:
    """The room's routes, with their whole paths."""
    routes = APIRouter(tags=["system"])

    @routes.get("/health")
    async def health() -> Health:
        """The process is alive."""
        return service.health()

    @routes.get("/ready")
    async def ready() -> Readiness:
        """Whether the server can take work; 503 when not."""
        return await service.ready()

    @routes.get("/")
    @routes.get("/api/v1/system")
    async def info() -> SystemInfo:
        """Versions, features and limits."""
        return await service.info()

    return routes
