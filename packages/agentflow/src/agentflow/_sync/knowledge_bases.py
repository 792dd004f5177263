"""Generated from agentflow/resources/knowledge_bases.py by tools/sync_generator.py: do not edit.

`client.knowledge_bases`: documents that agents look things up in; `client.agents.knowledge_bases`: an agent's."""

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from agentflow.errors import ConflictError, NotFoundError, RequestTimeoutError
from agentflow._sync.pages import Page
from agentflow._sync.streams import BatchWatch, new_id
from agentflow.transport.drivers import SyncTransport
from agentflow.transport.request import Request, Timeout
from agentflow.transport.uploads import FilePart, Multipart, NamedFile, Progress
from agentflow.types.knowledge_bases import (
    AssignedKnowledgeBases,
    CrawlSettings,
    DocumentChunk,
    DocumentChunkPage,
    IngestJob,
    KnowledgeBase,
    KnowledgeBaseCreated,
    KnowledgeBasePage,
    KnowledgeBaseSettings,
    KnowledgeBaseUpdate,
    KnowledgeFile,
    KnowledgeFilePage,
    SearchRequest,
    SearchResult,
)

_ROOT = "/api/v1/knowledge-bases"


class KnowledgeBases:
    """Knowledge bases of the tenant."""

    def __init__(self, transport: SyncTransport) -> None:
        self._transport = transport

    def list(self, *, limit: int = 50, offset: int = 0) -> Page[KnowledgeBase]:
        """A page of knowledge bases, oldest first; iterating it walks on through all.

        Args:
            limit: 1 to 100.
        """
        query = {"limit": limit, "offset": offset}
        data = self._transport.call(Request("GET", _ROOT, query, repeatable=True), KnowledgeBasePage)

        def fetch(start: int) -> Page[KnowledgeBase]:
            return self.list(limit=limit, offset=start)

        return Page(data, "knowledge_bases", fetch)

    def retrieve(self, kb_id: str) -> KnowledgeBase:
        """One knowledge base.

        Raises:
            NotFoundError: there is no such knowledge base.
        """
        return self._transport.call(Request("GET", _path(kb_id), repeatable=True), KnowledgeBase)

    def by_name(self, name: str) -> KnowledgeBase:
        """The knowledge base of this name. Resolve names once and keep the id: everything else goes by ids.

        Raises:
            NotFoundError: none has this name. ConflictError: several have it.
        """
        found = [kb for kb in self.list(limit=100) if kb.name == name]
        if not found:
            hint = "client.knowledge_bases.list() shows those there are."
            raise NotFoundError(f"there is no knowledge base named {name!r}", hint=hint)
        if len(found) > 1:
            ids = ", ".join(kb.id for kb in found)
            raise ConflictError(f"{len(found)} knowledge bases are named {name!r}: {ids}", hint="Use an id.")
        return found[0]

    def create_from_files(
        self,
        *,
        name: str,
        files: Sequence[NamedFile],
        description: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        progress: Progress | None = None,
        timeout: Timeout | float | None = None,
        idempotency_key: str | None = None,
        **settings: Any,
    ) -> KnowledgeBaseCreated:
        """Make a knowledge base of files. Waits for small ones; otherwise the answer has a `job_id` to `wait` for.

        Args:
            files: paths, bytes or open files; a pair `(name, source)` gives one a name.
            metadata: of all these files, for `metadata_filters`.
            progress: called with the bytes sent so far, and how many there are.
            settings: `id`, `tags`, `chunk_size`, `overlap_percentage`, `chunking_strategy`, `embedding_model`, as in
                `KnowledgeBaseSettings`.

        Raises:
            ConflictError: the id is taken. ValidationError: a setting does not hold. PayloadTooLargeError: a file is.
        """
        given = {"name": name, "description": description, **settings}
        wanted = KnowledgeBaseSettings.model_validate({key: value for key, value in given.items() if value is not None})
        upload = Multipart(_parts(files), _fields(wanted.wire(), metadata), progress)
        request = Request(
            "POST", _ROOT, upload=upload, headers=_key(idempotency_key), repeatable=True, timeout=timeout
        )  # fmt: skip
        return self._transport.call(request, KnowledgeBaseCreated)

    def create_from_url(
        self, *, name: str, website_url: str, idempotency_key: str | None = None, **settings: Any
    ) -> KnowledgeBaseCreated:
        """Make a knowledge base of a web site; the answer has a `job_id` to `wait` for.

        Args:
            settings: `description`, `max_crawl_depth` (2), `max_crawl_pages` (20), and as for `create_from_files`.

        Raises:
            ConflictError, ValidationError: as for `create_from_files`.
        """
        given = {"name": name, "website_url": website_url, **settings}
        body = CrawlSettings.model_validate({key: value for key, value in given.items() if value is not None}).wire()
        request = Request(
            "POST", f"{_ROOT}/create-from-url", body=body, headers=_key(idempotency_key), repeatable=True
        )  # fmt: skip
        return self._transport.call(request, KnowledgeBaseCreated)

    def upload_documents(
        self,
        kb_id: str,
        *,
        files: Sequence[NamedFile],
        metadata: Mapping[str, Any] | None = None,
        progress: Progress | None = None,
        timeout: Timeout | float | None = None,
        idempotency_key: str | None = None,
    ) -> IngestJob:
        """Add files to a knowledge base; a file takes the place of one of its name, the same content is recognised.

        Args:
            files, metadata, progress: as for `create_from_files`.

        Raises:
            NotFoundError: there is no such knowledge base.
        """
        upload = Multipart(_parts(files), _fields({}, metadata), progress)
        request = Request(
            "POST", f"{_path(kb_id)}/documents", upload=upload, headers=_key(idempotency_key), repeatable=True,
            timeout=timeout,
        )  # fmt: skip
        return self._transport.call(request, IngestJob)

    def job(self, job_id: str) -> IngestJob:
        """How far a job is, file by file.

        Raises:
            NotFoundError: there is no such job.
        """
        return self._transport.call(Request("GET", _job_path(job_id), repeatable=True), IngestJob)

    def watch(self, job_id: str, *, last_event_id: str | None = None) -> BatchWatch[IngestJob]:
        """How far a job is, and every change until its end; an iterator and a context manager.

        The first update has all files, the next ones those that have changed, the last one all again.

        Args:
            last_event_id: an earlier watch's `last_event_id`: begin with the first change since.

        Raises:
            NotFoundError: there is no such job (when the watch is read).
        """
        return BatchWatch(self._transport, f"{_job_path(job_id)}/events", last_event_id, IngestJob)

    def cancel_job(self, job_id: str) -> IngestJob:
        """Stop a job; files that are in the base stay.

        Raises:
            NotFoundError: there is no such job.
        """
        request = Request("POST", f"{_ROOT}/jobs/{quote(job_id, safe='')}/cancel", repeatable=True)
        return self._transport.call(request, IngestJob)

    def wait(self, job_id: str, *, timeout: float | None = 600.0) -> IngestJob:
        """Until a job has ended, whatever its end: look at `status` and `files`.

        Args:
            timeout: seconds; None waits for ever.

        Raises:
            NotFoundError: there is no such job. RequestTimeoutError: it takes longer.
        """
        started = time.monotonic()
        pause = 0.05
        while True:
            job = self.job(job_id)
            if job.status in ("completed", "failed", "cancelled"):
                return job
            if timeout is not None and time.monotonic() - started > timeout:
                raise RequestTimeoutError(f"the job {job_id} is {job.status} after {timeout:g} s")
            self._transport.sleep(pause)
            pause = min(pause * 1.5, 2.0)

    def update(self, kb_id: str, **changes: Any) -> KnowledgeBase:
        """Change a knowledge base; another `embedding_model` indexes all of it again.

        Args:
            changes: fields of `KnowledgeBaseUpdate`.

        Raises:
            NotFoundError: there is no such knowledge base. ValidationError: a change does not hold.
        """
        body = KnowledgeBaseUpdate.model_validate(changes).wire()
        return self._transport.call(Request("PATCH", _path(kb_id), body=body, repeatable=True), KnowledgeBase)

    def delete(self, kb_id: str) -> None:
        """Remove a knowledge base with everything in it.

        Raises:
            NotFoundError: there is no such knowledge base.
        """
        self._transport.raw(Request("DELETE", _path(kb_id)))

    def refresh(self, kb_id: str) -> IngestJob:
        """Read, cut and embed all files again with the present settings.

        Raises:
            NotFoundError: there is no such knowledge base.
        """
        return self._transport.call(Request("POST", f"{_path(kb_id)}/refresh"), IngestJob)

    def files(self, kb_id: str, *, limit: int = 50, offset: int = 0) -> Page[KnowledgeFile]:
        """A page of a knowledge base's files, oldest first.

        Raises:
            NotFoundError: there is no such knowledge base.
        """
        request = Request("GET", f"{_path(kb_id)}/documents", {"limit": limit, "offset": offset}, repeatable=True)
        data = self._transport.call(request, KnowledgeFilePage)

        def fetch(start: int) -> Page[KnowledgeFile]:
            return self.files(kb_id, limit=limit, offset=start)

        return Page(data, "files", fetch)

    def documents(self, kb_id: str, file_id: str, *, limit: int = 50, offset: int = 0) -> Page[DocumentChunk]:
        """A page of a file's passages, in their order.

        Raises:
            NotFoundError: there is no such knowledge base or file.
        """
        path = f"{_path(kb_id)}/documents/{quote(file_id, safe='')}/chunks"
        request = Request("GET", path, {"limit": limit, "offset": offset}, repeatable=True)
        data = self._transport.call(request, DocumentChunkPage)

        def fetch(start: int) -> Page[DocumentChunk]:
            return self.documents(kb_id, file_id, limit=limit, offset=start)

        return Page(data, "documents", fetch)

    def delete_document(self, kb_id: str, file_id: str) -> None:
        """Remove a file and its passages.

        Raises:
            NotFoundError: there is no such knowledge base or file.
        """
        path = f"{_path(kb_id)}/documents/{quote(file_id, safe='')}"
        self._transport.raw(Request("DELETE", path))

    def search(self, kb_id: str, *, query: str, limit: int = 10, **options: Any) -> SearchResult:
        """Search a knowledge base.

        Args:
            limit: most passages, 1 to 100. options: fields of `SearchOptions`, `search_type` among them.

        Raises:
            NotFoundError: there is no such knowledge base. ValidationError: an option does not hold.
        """
        return self._transport.call(_search(f"{_path(kb_id)}/search", query, limit, options), SearchResult)


class AgentKnowledgeBases:
    """The knowledge bases of an agent, which it searches by itself with the tool `search_knowledge`."""

    def __init__(self, transport: SyncTransport) -> None:
        self._transport = transport

    def list(self, agent_id: str) -> list[KnowledgeBase]:
        """The agent's knowledge bases.

        Raises:
            NotFoundError: there is no such agent.
        """
        request = Request("GET", _agent_path(agent_id), repeatable=True)
        return (self._transport.call(request, AssignedKnowledgeBases)).knowledge_bases

    def assign(self, agent_id: str, kb_id: str) -> AssignedKnowledgeBases:
        """Give a knowledge base to an agent.

        Raises:
            NotFoundError: there is no such agent or knowledge base.
        """
        request = Request("PUT", f"{_agent_path(agent_id)}/{quote(kb_id, safe='')}", repeatable=True)
        return self._transport.call(request, AssignedKnowledgeBases)

    def unassign(self, agent_id: str, kb_id: str) -> None:
        """Take a knowledge base from an agent.

        Raises:
            NotFoundError: there is no such agent.
        """
        request = Request("DELETE", f"{_agent_path(agent_id)}/{quote(kb_id, safe='')}", repeatable=True)
        self._transport.raw(request)

    def search(self, agent_id: str, *, query: str, limit: int = 10, **options: Any) -> SearchResult:
        """Search all knowledge bases of an agent as one; arguments as for `client.knowledge_bases.search`.

        Raises:
            NotFoundError: there is no such agent. ValidationError: an option does not hold.
        """
        return self._transport.call(_search(f"{_agent_path(agent_id)}/search", query, limit, options), SearchResult)


def _path(kb_id: str) -> str:
    return f"{_ROOT}/{quote(kb_id, safe='')}"


def _job_path(job_id: str) -> str:
    return f"/api/v1/batches/{quote(job_id, safe='')}"


def _agent_path(agent_id: str) -> str:
    return f"/api/v1/agent/{quote(agent_id, safe='')}/knowledge-bases"


def _key(given: str | None) -> dict[str, str]:
    return {"Idempotency-Key": given or new_id()}


def _parts(files: Sequence[NamedFile]) -> Sequence[FilePart]:
    pairs = (one if isinstance(one, tuple) else (None, one) for one in files)
    return [FilePart("files", source, name) for name, source in pairs]


def _fields(settings: Mapping[str, Any], metadata: Mapping[str, Any] | None) -> dict[str, str | None]:
    """Settings as texts of a form."""
    fields = {name: ",".join(value) if isinstance(value, list) else str(value) for name, value in settings.items()}
    return {**fields, "metadata": json.dumps(metadata) if metadata else None}


def _search(path: str, query: str, limit: int, options: Mapping[str, Any]) -> Request:
    given = {name: value for name, value in options.items() if value is not None}
    body = SearchRequest.model_validate({"query": query, "limit": limit, **given}).wire()
    return Request("POST", path, body=body, repeatable=True)
