"""HTTP of the artifacts room."""

from typing import Annotated
from urllib.parse import quote

from agentflow.types.artifacts import (
    Artifact,
    ArtifactActionRequest,
    ArtifactContentUpdate,
    ArtifactPage,
    ArtifactStateUpdate,
    ArtifactType,
    ArtifactTypeDefinition,
    ArtifactTypes,
    ArtifactVersionPage,
    TypeName,
)
from fastapi import APIRouter, Query, Response

from agentflow_server.http.identity import CurrentCaller
from agentflow_server.http.pages import Limit, Offset
from agentflow_server.resources.artifacts.service import ArtifactsService

Text = Annotated[str | None, Query(min_length=1, max_length=200)]


def router(service: ArtifactsService) -> APIRouter:  # noqa: C901 - a list of routes
    """The room's routes."""
    routes = APIRouter(prefix="/artifacts", tags=["artifacts"])

    @routes.get("/types")
    async def types(caller: CurrentCaller) -> ArtifactTypes:
        """Every type of artifacts there is."""
        return await service.list_types(caller)

    @routes.put("/types/{name}")
    async def define(caller: CurrentCaller, name: TypeName, body: ArtifactTypeDefinition) -> ArtifactType:
        """Define a type of the tenant, or define it anew."""
        return await service.define(caller, name, body)

    @routes.delete("/types/{name}", status_code=204)
    async def delete_type(caller: CurrentCaller, name: TypeName) -> Response:
        """Remove a type of the tenant."""
        await service.delete_type(caller, name)
        return Response(status_code=204)

    @routes.get("")
    async def list_artifacts(
        caller: CurrentCaller,
        limit: Limit = 50,
        offset: Offset = 0,
        conversation_id: Text = None,
        artifact_type: Text = None,
    ) -> ArtifactPage:
        """The caller's artifacts, the newest first."""
        return await service.list(
            caller, conversation_id=conversation_id, type_=artifact_type, limit=limit, offset=offset
        )

    @routes.get("/{artifact_id}")
    async def retrieve(caller: CurrentCaller, artifact_id: str) -> Artifact:
        """One artifact."""
        return await service.retrieve(caller, artifact_id)

    @routes.get("/{artifact_id}/versions")
    async def versions(
        caller: CurrentCaller, artifact_id: str, limit: Limit = 50, offset: Offset = 0
    ) -> ArtifactVersionPage:
        """How it stood after each change, the newest first."""
        return await service.versions(caller, artifact_id, limit=limit, offset=offset)

    @routes.patch("/{artifact_id}/content")
    async def update_content(caller: CurrentCaller, artifact_id: str, body: ArtifactContentUpdate) -> Artifact:
        """Change the content: a JSON merge patch."""
        return await service.update_content(caller, artifact_id, body)

    @routes.patch("/{artifact_id}/state")
    async def update_state(caller: CurrentCaller, artifact_id: str, body: ArtifactStateUpdate) -> Artifact:
        """Change the state: a JSON merge patch."""
        return await service.update_state(caller, artifact_id, body)

    @routes.post("/{artifact_id}/actions/{action}")
    async def act(caller: CurrentCaller, artifact_id: str, action: str, body: ArtifactActionRequest) -> Artifact:
        """Do an action of its type."""
        return await service.act(caller, artifact_id, action, body)

    @routes.get("/{artifact_id}/download", response_model=None)
    async def download(caller: CurrentCaller, artifact_id: str) -> Response:
        """The artifact as a file."""
        name, file = await service.download(caller, artifact_id)
        headers = {
            "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name)}",
            "X-Content-Type-Options": "nosniff",
        }
        return Response(file.content, media_type=file.media_type, headers=headers)

    return routes
