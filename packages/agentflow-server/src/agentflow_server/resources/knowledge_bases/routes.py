"""HTTP of the knowledge_bases room. Uploads are read part by part and stored as they come."""

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from agentflow.errors import BadRequestError, ValidationError
from agentflow.types.knowledge_bases import (
    CrawlSettings,
    DocumentChunkPage,
    IngestJob,
    KnowledgeBase,
    KnowledgeBaseCreated,
    KnowledgeBasePage,
    KnowledgeBaseSettings,
    KnowledgeBaseUpdate,
    KnowledgeFilePage,
    SearchRequest,
    SearchResult,
)
from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError as Invalid

from agentflow_server.http.forms import Form, FormPart, clean_name
from agentflow_server.http.identity import Caller, CurrentCaller
from agentflow_server.http.pages import IdempotencyKey, Limit, Offset
from agentflow_server.resources.knowledge_bases.intake import Upload
from agentflow_server.resources.knowledge_bases.service import KnowledgeBasesService

Settings = TypeVar("Settings", bound=KnowledgeBaseSettings)
UPLOADS = (r"/api/v1/knowledge-bases", r"/api/v1/knowledge-bases/[^/]+/documents")
_MAX_FILES = 500
_FORM = {"content": {"multipart/form-data": {"schema": {"type": "object"}}}, "required": True}


def router(service: KnowledgeBasesService) -> APIRouter:
    """Knowledge bases, their files, and searches."""
    routes = APIRouter(prefix="/knowledge-bases", tags=["knowledge_bases"])

    @routes.get("")
    async def list_bases(caller: CurrentCaller, limit: Limit = 50, offset: Offset = 0) -> KnowledgeBasePage:
        """The tenant's knowledge bases, oldest first."""
        return await service.list(caller, limit=limit, offset=offset)

    @routes.post("", status_code=201, openapi_extra={"requestBody": _FORM})
    async def create(
        caller: CurrentCaller, request: Request, idempotency_key: IdempotencyKey = None
    ) -> KnowledgeBaseCreated:
        """Make a knowledge base of files: a form with the fields of `KnowledgeBaseSettings` and `files`."""
        async with _Received(service, caller) as received:
            await received.read(request)
            wanted = _checked(KnowledgeBaseSettings, received.fields)
            return await service.create(caller, wanted, received.taken(), idempotency_key)

    @routes.post("/create-from-url", status_code=201, openapi_extra={"requestBody": _FORM})
    async def create_from_url(
        caller: CurrentCaller, request: Request, idempotency_key: IdempotencyKey = None
    ) -> KnowledgeBaseCreated:
        """Make a knowledge base of a web site: a form or JSON with the fields of `CrawlSettings`."""
        wanted = _checked(CrawlSettings, await _fields(request))
        return await service.create(caller, wanted, (), idempotency_key)

    @routes.get("/{kb_id}")
    async def retrieve(caller: CurrentCaller, kb_id: str) -> KnowledgeBase:
        """One knowledge base."""
        return await service.retrieve(caller, kb_id)

    @routes.patch("/{kb_id}")
    async def update(caller: CurrentCaller, kb_id: str, body: KnowledgeBaseUpdate) -> KnowledgeBase:
        """Change a knowledge base; what is left out stays."""
        return await service.update(caller, kb_id, body)

    @routes.delete("/{kb_id}", status_code=204)
    async def delete(caller: CurrentCaller, kb_id: str) -> Response:
        """Remove a knowledge base with everything in it."""
        await service.delete(caller, kb_id)
        return Response(status_code=204)

    @routes.post("/{kb_id}/refresh", status_code=202)
    async def refresh(caller: CurrentCaller, kb_id: str) -> IngestJob:
        """Index all files again with the present settings."""
        return await service.refresh(caller, kb_id)

    _documents(routes, service)

    @routes.post("/jobs/{job_id}/cancel", status_code=202)
    async def cancel(caller: CurrentCaller, job_id: str) -> IngestJob:
        """Stop a job that brings files in."""
        return await service.cancel_job(caller, job_id)

    @routes.post("/{kb_id}/search")
    async def search(caller: CurrentCaller, kb_id: str, body: SearchRequest) -> SearchResult:
        """Search a knowledge base."""
        return await service.search(caller, kb_id, body)

    return routes


def _documents(routes: APIRouter, service: KnowledgeBasesService) -> None:
    """The routes of a base's files."""

    @routes.get("/{kb_id}/documents")
    async def files(caller: CurrentCaller, kb_id: str, limit: Limit = 50, offset: Offset = 0) -> KnowledgeFilePage:
        """The files of a knowledge base, oldest first."""
        return await service.files(caller, kb_id, limit=limit, offset=offset)

    @routes.post("/{kb_id}/documents", status_code=202, openapi_extra={"requestBody": _FORM})
    async def upload(
        caller: CurrentCaller, kb_id: str, request: Request, idempotency_key: IdempotencyKey = None
    ) -> IngestJob:
        """Queue files: a form with `files`, and `metadata` (a JSON object) for all of them."""
        await service.retrieve(caller, kb_id)
        async with _Received(service, caller) as received:
            await received.read(request)
            if unknown := sorted(received.fields):
                raise _invalid(unknown[0], "the form has `files` and `metadata` only")
            return await service.add(caller, kb_id, received.taken(), idempotency_key)

    @routes.get("/{kb_id}/documents/{file_id}/chunks")
    async def documents(
        caller: CurrentCaller, kb_id: str, file_id: str, limit: Limit = 50, offset: Offset = 0
    ) -> DocumentChunkPage:
        """The passages of a file, in their order."""
        return await service.documents(caller, kb_id, file_id, limit=limit, offset=offset)

    @routes.delete("/{kb_id}/documents/{file_id}", status_code=204)
    async def delete_document(caller: CurrentCaller, kb_id: str, file_id: str) -> Response:
        """Remove a file and its passages."""
        await service.delete_document(caller, kb_id, file_id)
        return Response(status_code=204)


class _Received:
    """The parts of a form, files stored; what no base has taken in the end is forgotten."""

    def __init__(self, service: KnowledgeBasesService, caller: Caller) -> None:
        self._service = service
        self._caller = caller
        self._files: list[Upload] = []
        self._metadata: dict[str, Any] = {}
        self.fields: dict[str, Any] = {}

    async def __aenter__(self) -> "_Received":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._service.drop(self._caller.tenant, [file.blob for file in self._files])

    async def read(self, request: Request) -> None:
        async for part in Form(request).parts():
            if part.name == "files":
                await self._file(part)
            elif part.name == "metadata":
                self._metadata = _object(await part.text())
            else:
                self.fields[part.name] = _parsed(part.name, await part.text())
        if not self._files:
            raise _invalid("files", "at least one file is needed")

    async def _file(self, part: FormPart) -> None:
        if len(self._files) == _MAX_FILES:
            raise _invalid("files", f"at most {_MAX_FILES} files can be sent at once")
        if not (part.filename or "").strip():
            raise _invalid("files", "a file needs a name")
        name = clean_name(part.filename)
        self._files.append(Upload(name, await self._service.keep(self._caller, name, part.pieces())))

    def taken(self) -> list[Upload]:
        return [Upload(file.name, file.blob, self._metadata) for file in self._files]


async def _fields(request: Request) -> dict[str, Any]:
    if request.headers.get("content-type", "").startswith("application/json"):
        try:
            body = await request.json()
        except ValueError:
            raise BadRequestError("the request body is not valid JSON") from None
        return body if isinstance(body, dict) else {}
    form = await request.form()
    return {name: _parsed(name, value) for name, value in form.items() if isinstance(value, str)}


def _parsed(name: str, text: str) -> Any:
    """A field of a form; tags are separated by commas."""
    return [tag.strip() for tag in text.split(",") if tag.strip()] if name == "tags" else text


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise _invalid("metadata", "must be a JSON object")
    return found


def _checked(model: type[Settings], fields: Mapping[str, Any]) -> Settings:
    try:
        return model.model_validate(fields)
    except Invalid as error:
        raise RequestValidationError([{**item, "loc": ("body", *item["loc"])} for item in error.errors()]) from None


def _invalid(field: str, message: str) -> ValidationError:
    return ValidationError(f"{field}: {message}", details=[{"field": field, "message": message}])
