"""HTTP of the attachments room."""

from typing import Any

from agentflow.errors import ValidationError
from agentflow.types.attachments import Attachment, AttachmentPage
from fastapi import APIRouter, Request, Response

from agentflow_server.http.files import file_response
from agentflow_server.http.forms import Form, FormPart
from agentflow_server.http.identity import CurrentCaller
from agentflow_server.http.pages import IdempotencyKey, Limit, Offset
from agentflow_server.resources.attachments.service import AttachmentsService

UPLOADS = "/api/v1/attachments"
_FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                }
            }
        },
    }
}
_FILE: dict[int | str, dict[str, Any]] = {
    200: {"description": "the file", "content": {"application/octet-stream": {}}},
    206: {"description": "the range that was asked for", "content": {"application/octet-stream": {}}},
}


def router(service: AttachmentsService) -> APIRouter:
    """The room's routes."""
    routes = APIRouter(prefix="/attachments", tags=["attachments"])

    @routes.post("", status_code=201, openapi_extra=_FORM)
    async def upload(request: Request, caller: CurrentCaller, idempotency_key: IdempotencyKey = None) -> Attachment:
        """Upload a file: a form with the field `file`."""
        part = await _file(Form(request))
        return await service.upload(
            caller, part.pieces(), name=part.filename, declared=part.media_type, key=idempotency_key
        )

    @routes.get("")
    async def list_attachments(caller: CurrentCaller, limit: Limit = 50, offset: Offset = 0) -> AttachmentPage:
        """The caller's files, newest first."""
        return await service.list(caller, limit=limit, offset=offset)

    @routes.get("/{attachment_id}")
    async def retrieve(caller: CurrentCaller, attachment_id: str) -> Attachment:
        """What is known of a file."""
        return await service.retrieve(caller, attachment_id)

    @routes.get("/{attachment_id}/content", response_model=None, responses=_FILE)
    async def content(request: Request, caller: CurrentCaller, attachment_id: str) -> Response:
        """A file's bytes; `Range` and `If-Range` are honoured."""
        found = await service.content(caller, attachment_id)
        return file_response(
            request,
            lambda start, end: service.read(caller, found, start, end),
            size=found.size,
            sha256=found.digest,
            media_type=found.media_type,
            name=found.name,
        )

    @routes.delete("/{attachment_id}", status_code=204)
    async def delete(caller: CurrentCaller, attachment_id: str) -> Response:
        """Remove a file."""
        await service.delete(caller, attachment_id)
        return Response(status_code=204)

    return routes


async def _file(form: Form) -> FormPart:
    async for part in form.parts():
        if part.name == "file" and part.filename is not None:
            return part
        raise ValidationError(
            f"{part.name}: is not a field of this form; a file in the field `file` is needed",
            details=[{"field": part.name, "message": "is not known"}],
        )
    raise ValidationError("file: is missing", details=[{"field": "file", "message": "is missing"}])
