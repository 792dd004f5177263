"""HTTP of the system room. Health and readiness need no credentials."""

from typing import Annotated

from agentflow.types.system import AuditPage, Health, Principal, Readiness, SystemInfo
from fastapi import APIRouter, Query, Request, Response

from agentflow_server.http.identity import AdminCaller, CurrentCaller
from agentflow_server.http.pages import Limit, Offset
from agentflow_server.resources.system.service import SystemService

Text = Annotated[str | None, Query(min_length=1, max_length=255)]


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
        """Versions, features, limits, and how to sign in. Needs no credentials."""
        return await service.info()

    @routes.get("/api/v1/system/me")
    async def me(caller: CurrentCaller) -> Principal:
        """Who the caller is to the server."""
        return service.me(caller)

    @routes.get("/api/v1/system/audit")
    async def audit(
        caller: AdminCaller, limit: Limit = 50, offset: Offset = 0, actor: Text = None, action: Text = None
    ) -> AuditPage:
        """The tenant's audit log, the newest entries first. For admins."""
        return await service.audit(caller, actor=actor, action=action, limit=limit, offset=offset)

    @routes.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics(request: Request) -> Response:
        """Metrics for Prometheus: to programs of this machine, or to whoever has the token for them."""
        peer = request.client.host if request.client else ""
        body = await service.metrics(peer, request.headers.get("authorization"))
        return Response(body, media_type="text/plain; version=0.0.4; charset=utf-8")

    return routes
