"""HTTP of the batches room."""

from collections.abc import AsyncGenerator
from typing import Annotated

from agentflow.errors import ValidationError
from agentflow.types.batches import Batch, BatchOutput, BatchPage, BatchRequest, BatchStatus, OutputFormat
from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse

from agentflow_server.http.forms import Form, FormPart
from agentflow_server.http.identity import Caller, CurrentCaller
from agentflow_server.http.pages import IdempotencyKey, Limit, Offset
from agentflow_server.http.sse import EventStream, Streams
from agentflow_server.resources.batches.service import BatchesService, Upload
from agentflow_server.resources.batches.watch import Watch

UPLOADS = "/api/v1/files"
_MAX_FIELD = 1_000_000
_MEDIA = {"jsonl": "application/x-ndjson", "csv": "text/csv; charset=utf-8"}
_UPLOAD_FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "operation"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "operation": {"type": "string", "enum": ["run", "label", "extract", "summarize", "enrich"]},
                        "format": {"type": "string", "enum": ["csv", "json", "jsonl"]},
                    },
                    "additionalProperties": {"type": "string"},
                }
            }
        },
    }
}


def router(service: BatchesService, streams: Streams) -> APIRouter:
    """The room's routes."""
    routes = APIRouter(tags=["batches"])

    @routes.post("/batches", status_code=202)
    async def submit(caller: CurrentCaller, body: BatchRequest, idempotency_key: IdempotencyKey = None) -> Batch:
        """Take a batch; it is worked off in the background."""
        return await service.submit(caller, body.operation, body, body.items, body, idempotency_key)

    @routes.post("/files", status_code=202, openapi_extra=_UPLOAD_FORM)
    async def upload(caller: CurrentCaller, request: Request, idempotency_key: IdempotencyKey = None) -> Batch:
        """Take a batch whose items are in a file: CSV with a header, a JSON array or object, JSON lines."""
        return await service.take_file(caller, await _received(service, caller, request), idempotency_key)

    @routes.get("/batches")
    async def list_batches(
        caller: CurrentCaller, status: BatchStatus | None = None, limit: Limit = 50, offset: Offset = 0
    ) -> BatchPage:
        """The caller's batches, newest first."""
        return await service.list(caller, status=status, limit=limit, offset=offset)

    @routes.get("/batches/{batch_id}")
    async def retrieve(caller: CurrentCaller, batch_id: str) -> Batch:
        """How a batch stands; also a job that reads documents into a knowledge base."""
        return await service.retrieve(caller, batch_id)

    @routes.get("/batches/{batch_id}/events", response_model=None)
    async def events(
        caller: CurrentCaller, batch_id: str, last_event_id: Annotated[str | None, Header()] = None
    ) -> Response:
        """How a batch stands, then every change until its end, as server-sent events; also of a job as above."""
        await service.retrieve(caller, batch_id)
        streams.enter()
        reader = service.watch(caller, batch_id)
        follow = Watch(service, caller, batch_id, reader, last_event_id)
        return EventStream(reader, streams, is_last=None, headers={}, render=follow.render, first=follow.first)

    @routes.get("/batches/{batch_id}/output", response_model=BatchOutput)
    async def output(
        caller: CurrentCaller,
        batch_id: str,
        format_: Annotated[OutputFormat, Query(alias="format")] = "json",
        offset: Offset = 0,
        limit: Annotated[int | None, Query(ge=1, le=1_000_000, description="how many items; 1,000 for json")] = None,
    ) -> Response:
        """The rows: a page as JSON (10,000 items at most), or all of them as JSON lines or CSV."""
        if format_ == "json":
            page = await service.page(caller, batch_id, offset, min(limit or 1_000, 10_000))
            return Response(page, media_type="application/json")
        batch, rows = await service.rows(caller, batch_id, format_, offset, limit)
        headers = {"Content-Disposition": f'attachment; filename="{batch.id}.{format_}"'}
        if batch.done and batch.finished_at is not None:
            headers["ETag"] = f'"{batch.id}-{batch.finished_at.timestamp()}-{format_}-{offset}-{limit}"'
        return StreamingResponse(rows, media_type=_MEDIA[format_], headers=headers)

    _changes(routes, service)
    return routes


async def _received(service: BatchesService, caller: Caller, request: Request) -> Upload:
    """The file, stored, and the texts beside it."""
    blob, name, start = None, None, b""
    fields: dict[str, str] = {}
    async for part in Form(request).parts():
        if part.filename is None and part.name != "file":
            fields[part.name] = await part.text(_MAX_FIELD)
            continue
        if blob is not None:
            raise ValidationError("file: one file makes one batch, and there are more")
        seen = bytearray()

        async def pieces(part: FormPart = part, seen: bytearray = seen) -> AsyncGenerator[bytes, None]:
            async for piece in part.pieces():
                if len(seen) < 64:
                    seen.extend(piece[:64])
                yield piece

        name = part.filename
        blob = await service.keep(caller, pieces())
        start = bytes(seen)
    if blob is None:
        raise ValidationError("file: the form has none", details=[{"field": "file", "message": "is missing"}])
    return Upload(blob, name, start, fields)


def _changes(routes: APIRouter, service: BatchesService) -> None:
    @routes.post("/batches/{batch_id}/cancel", status_code=202)
    async def cancel(caller: CurrentCaller, batch_id: str) -> Batch:
        """Stop a batch; the rows that are there stay."""
        return await service.cancel(caller, batch_id)

    @routes.post("/batches/{batch_id}/retry", status_code=202)
    async def retry(caller: CurrentCaller, batch_id: str) -> Batch:
        """Do again what failed or was not done."""
        return await service.retry(caller, batch_id)

    @routes.delete("/batches/{batch_id}", status_code=204)
    async def delete(caller: CurrentCaller, batch_id: str) -> Response:
        """Remove a batch that has ended, with its rows."""
        await service.delete(caller, batch_id)
        return Response(status_code=204)
