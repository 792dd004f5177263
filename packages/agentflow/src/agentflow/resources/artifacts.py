"""`client.artifacts`: typed things that agents make and people act on."""

from typing import Any

from agentflow.resources.downloads import AsyncDownload
from agentflow.resources.pages import AsyncPage
from agentflow.resources.runs import segment
from agentflow.transport.drivers import AsyncTransport
from agentflow.transport.request import Request
from agentflow.types.artifacts import (
    Artifact,
    ArtifactActionRequest,
    ArtifactContentUpdate,
    ArtifactPage,
    ArtifactStateUpdate,
    ArtifactType,
    ArtifactTypeDefinition,
    ArtifactTypes,
    ArtifactVersion,
    ArtifactVersionPage,
)

_BASE = "/api/v1/artifacts"


class AsyncArtifacts:
    """Artifacts of the caller, and their types."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def types(self) -> "list[ArtifactType]":
        """Every type there is: built in, written in code, the tenant's own."""
        return (await self._transport.call(Request("GET", f"{_BASE}/types", repeatable=True), ArtifactTypes)).types

    async def define_type(self, name: str, **definition: Any) -> ArtifactType:
        """Define a type of the tenant, or define it anew.

        Args:
            name: small letters, digits and `_`.
            definition: `label`, `description`, `content_schema` (JSON Schema), `initial_state`, `actions`
                (`{name: {"from": [...], "to": ..., "label": ...}}`), … as in `ArtifactTypeDefinition`.

        Raises:
            ConflictError: the name is the server's own. ValidationError: the schema is not one.
        """
        body = ArtifactTypeDefinition.model_validate(definition).model_dump(mode="json", by_alias=True)
        request = Request("PUT", f"{_BASE}/types/{segment(name)}", body=body, repeatable=True)
        return await self._transport.call(request, ArtifactType)

    async def delete_type(self, name: str) -> None:
        """Remove a type of the tenant; its artifacts stay readable.

        Raises:
            NotFoundError: there is no such type. ConflictError: it is the server's own.
        """
        await self._transport.raw(Request("DELETE", f"{_BASE}/types/{segment(name)}"))

    async def retrieve(self, artifact_id: str) -> Artifact:
        """One artifact.

        Raises:
            NotFoundError: there is no such artifact.
        """
        return await self._transport.call(Request("GET", _path(artifact_id), repeatable=True), Artifact)

    async def list(
        self,
        conversation_id: str | None = None,
        *,
        artifact_type: str | None = None,
        limit: int = 50,
        offset: int = 0,
    ) -> AsyncPage[Artifact]:
        """A page of artifacts, the newest first; iterating it walks on through all.

        Args:
            conversation_id: only those of this conversation.
        """
        query = {
            "conversation_id": conversation_id,
            "artifact_type": artifact_type,
            "limit": limit,
            "offset": offset,
        }
        data = await self._transport.call(Request("GET", _BASE, query, repeatable=True), ArtifactPage)

        async def fetch(start: int) -> AsyncPage[Artifact]:
            return await self.list(conversation_id, artifact_type=artifact_type, limit=limit, offset=start)

        return AsyncPage(data, "artifacts", fetch)

    async def versions(self, artifact_id: str, *, limit: int = 50, offset: int = 0) -> AsyncPage[ArtifactVersion]:
        """A page of an artifact's versions, the newest first. Raises as `retrieve`."""
        query = {"limit": limit, "offset": offset}
        request = Request("GET", _path(artifact_id, "/versions"), query, repeatable=True)
        data = await self._transport.call(request, ArtifactVersionPage)

        async def fetch(start: int) -> AsyncPage[ArtifactVersion]:
            return await self.versions(artifact_id, limit=limit, offset=start)

        return AsyncPage(data, "versions", fetch)

    async def update_content(
        self,
        artifact_id: str,
        content: dict[str, Any] | None = None,
        *,
        title: str | None = None,
        expected_version: int | None = None,
    ) -> Artifact:
        """Change the content.

        Args:
            content: a JSON merge patch (RFC 7396): fields left out stay, None removes one.
            expected_version: the version the change is made to; without it the last one to write wins.

        Raises:
            ConflictError: it has another version; `details` holds the current one. ValidationError: the content would
                not fit its type.
        """
        body = ArtifactContentUpdate(content=content or {}, title=title, expected_version=expected_version)
        return await self._change("PATCH", _path(artifact_id, "/content"), body)

    async def update_state(
        self, artifact_id: str, state: dict[str, Any], *, expected_version: int | None = None
    ) -> Artifact:
        """Change the state: a merge patch. Its `status` must be one that an action leads to from here.

        Raises:
            ConflictError: no action leads there, or it has another version. ValidationError: there is no such status.
        """
        body = ArtifactStateUpdate(state=state, expected_version=expected_version)
        return await self._change("PATCH", _path(artifact_id, "/state"), body)

    async def act(
        self,
        artifact_id: str,
        action: str,
        *,
        data: dict[str, Any] | None = None,
        expected_version: int | None = None,
    ) -> Artifact:
        """Do an action of its type, `send` for example: it moves the state. The agent is told on its next turn.

        Args:
            data: merged into the state.

        Raises:
            ConflictError: the state does not allow it, or it has another version. ValidationError: there is no such
                action.
        """
        body = ArtifactActionRequest(data=data or {}, expected_version=expected_version)
        return await self._change("POST", _path(artifact_id, f"/actions/{segment(action)}"), body)

    async def _change(
        self,
        method: str,
        path: str,
        body: ArtifactContentUpdate | ArtifactStateUpdate | ArtifactActionRequest,
    ) -> Artifact:
        repeatable = body.expected_version is not None
        return await self._transport.call(Request(method, path, body=body.wire(), repeatable=repeatable), Artifact)

    def download(self, artifact_id: str) -> AsyncDownload:
        """The artifact as a file: a document as text, an email as a message, a table as CSV, others as JSON.

        Iterate its bytes, `read` or `save` them; errors as `retrieve` come then.
        """
        return AsyncDownload(self._transport, _path(artifact_id, "/download"))


def _path(artifact_id: str, rest: str = "") -> str:
    return f"{_BASE}/{segment(artifact_id)}{rest}"
