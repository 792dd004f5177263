"""Knowledge bases: made, filled, searched. Called by routes, by the agents room, by plans of runs and by the tool."""

import json
from collections.abc import AsyncIterable, Sequence
from dataclasses import replace
from typing import Any

from agentflow.errors import ConflictError, NotAvailableError, NotFoundError, PayloadTooLargeError, ValidationError
from agentflow.types.batches import Batch
from agentflow.types.knowledge_bases import (
    CrawlSettings,
    DocumentChunk,
    DocumentChunkPage,
    FileOutcome,
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

from agentflow_server.http.identity import Caller
from agentflow_server.jobs import Worker, ledger
from agentflow_server.kit.clock import Clock, to_datetime
from agentflow_server.kit.ids import new_id
from agentflow_server.resources.knowledge_bases import store
from agentflow_server.resources.knowledge_bases.embedders import NONE, Embedders
from agentflow_server.resources.knowledge_bases.finding import Finder
from agentflow_server.resources.knowledge_bases.intake import CRAWL, INGEST, REFRESH, Intake, Upload
from agentflow_server.resources.knowledge_bases.store import BaseRecord, Data, FileRecord, JobRecord
from agentflow_server.retrieval import pgvector
from agentflow_server.retrieval.index import SearchIndex
from agentflow_server.storage import Database, Tx
from agentflow_server.storage.blobs import BlobRef
from agentflow_server.storage.idempotency import once

_SMALL_BYTES = 2 * 1024 * 1024
_SMALL_FILES = 10
_PATIENCE = 20.0
_STAY = ("chunk_size", "overlap_percentage", "chunking_strategy", "name", "description", "tags")


class KnowledgeBasesService:
    """The knowledge_bases room.

    Args:
        max_file_bytes: largest file that is taken.
    """

    def __init__(
        self,
        db: Database,
        clock: Clock,
        worker: Worker,
        index: SearchIndex,
        embedders: Embedders,
        intake: Intake,
        finder: Finder,
        *,
        max_file_bytes: int,
    ) -> None:
        self._db = db
        self._clock = clock
        self._worker = worker
        self._blobs = intake.blobs
        self._index = index
        self._embedders = embedders
        self._intake = intake
        self._finder = finder
        self._max_file_bytes = max_file_bytes

    async def keep(self, caller: Caller, name: str, pieces: AsyncIterable[bytes]) -> BlobRef:
        """Store an uploaded file until a base takes it.

        Raises:
            PayloadTooLargeError: it is too large.
        """
        limit = self._max_file_bytes
        try:
            return await self._blobs.put(caller.tenant, pieces, max_bytes=limit)
        except PayloadTooLargeError:
            raise PayloadTooLargeError(
                f"files: {name} is larger than {limit:,} bytes", details={"limit": limit, "file": name},
                hint="Nothing of this upload was taken. Split the file, or leave it out.",
            ) from None  # fmt: skip

    async def drop(self, tenant: str, blobs: Sequence[BlobRef]) -> None:
        """Forget stored files that no base has taken."""
        await self._blobs.drop(tenant, blobs)

    async def list(self, caller: Caller, *, limit: int, offset: int) -> KnowledgeBasePage:
        """A page of the tenant's bases, oldest first."""

        def read(tx: Tx) -> tuple[list[KnowledgeBase], int]:
            found, total = store.page_of_bases(tx, limit=limit, offset=offset)
            return _base_models(tx, found), total

        bases, total = await self._db.tenant(caller.tenant).read(read)
        return KnowledgeBasePage(knowledge_bases=bases, total=total, limit=limit, offset=offset)

    async def retrieve(self, caller: Caller, kb: str) -> KnowledgeBase:
        return await self._db.tenant(caller.tenant).read(lambda tx: _base_model(tx, _required(tx, kb)))

    async def check(self, caller_tenant: str, ids: Sequence[str], field: str) -> None:
        """Make sure that all bases exist.

        Raises:
            ValidationError: one does not; names the field it stands in.
        """
        found = await self._db.tenant(caller_tenant).read(lambda tx: store.bases_by_id(tx, ids))
        if missing := [kb for kb in ids if kb not in found]:
            message = f"there is no knowledge base {missing[0]!r}"
            raise ValidationError(
                f"{field}: {message}",
                details=[{"field": field, "message": message}],
                hint="client.knowledge_bases.list() shows those there are; create_from_files(id=…) gives one your id.",
            )

    async def catalogue(self, tenant: str, ids: Sequence[str]) -> str | None:
        """A line for each of the bases: what a model is told that there is; None if there is none."""
        found = await self._db.tenant(tenant).read(lambda tx: store.bases_by_id(tx, ids))
        known = [(kb, found[kb].data["name"], found[kb].data.get("description")) for kb in ids if kb in found]
        lines = [f"- {name} ({kb})" + (f": {about}" if about else "") for kb, name, about in known]
        return "\n".join(lines) or None

    async def some(self, caller: Caller, ids: Sequence[str]) -> "list[KnowledgeBase]":
        """Those of the bases that exist, in the order of their ids."""

        def read(tx: Tx) -> "list[KnowledgeBase]":
            found = store.bases_by_id(tx, ids)
            return _base_models(tx, [found[kb] for kb in ids if kb in found])

        return await self._db.tenant(caller.tenant).read(read)

    async def create(
        self, caller: Caller, wanted: KnowledgeBaseSettings, uploads: Sequence[Upload], key: str | None = None
    ) -> KnowledgeBaseCreated:
        """Make a base and bring its first files in; waits for them if they are small.

        Raises:
            ConflictError: the id is taken. ValidationError: a setting does not hold.
        """
        crawl = isinstance(wanted, CrawlSettings)
        data = await self._settings(caller, wanted)
        now = self._clock.micros()
        base = BaseRecord(wanted.id or f"kb_{new_id()}", data, data["embedding_model"], 1, now, now)
        more: Data = {"url": data["website_url"], "max_depth": data["max_crawl_depth"],
                      "max_pages": data["max_crawl_pages"]} if crawl else {}  # fmt: skip

        def unit(tx: Tx) -> str:
            def work() -> str:
                if not store.insert_base(tx, base):
                    raise ConflictError(f"there is a knowledge base {base.id!r} already", details={"id": base.id})
                job = self._intake.begin(
                    tx, caller.tenant, caller.user_id, base.id, uploads, CRAWL if crawl else INGEST, more
                )
                return f"{base.id} {job.id}"

            body = f"{wanted.model_dump_json()} {_told(uploads)}"
            return once(tx, user_id=caller.user_id, key=key, body=body, now=now, work=work)

        kb, job_id = (await self._db.tenant(caller.tenant).write(unit)).split(" ")
        self._worker.ring()
        if not crawl and _small(uploads):
            await self._intake.wait(caller.tenant, job_id, _PATIENCE)
        return await self._created(caller, kb, job_id, len(uploads))

    async def _created(self, caller: Caller, kb: str, job_id: str, uploaded: int) -> KnowledgeBaseCreated:
        def read(tx: Tx) -> tuple[KnowledgeBase, IngestJob]:
            return _base_model(tx, _required(tx, kb)), _job_model(tx, _required_job(tx, job_id))

        base, job = await self._db.tenant(caller.tenant).read(read)
        ended = job.status in ("completed", "failed")
        message = {
            "completed": "The knowledge base is ready.",
            "failed": "No file could be read: see `files`.",
        }.get(job.status, f"The files are being read: ask for {job_id}.")
        if job.status == "completed" and job.failed:
            message = f"The knowledge base is ready; {job.failed} of {job.total} files could not be read: see `files`."
        return KnowledgeBaseCreated.model_validate(
            base.model_dump()
            | {
                "message": message, "files_uploaded": uploaded, "files": job.files,
                "status": job.status if ended else "processing", "job_id": None if ended else job_id,
            }
        )  # fmt: skip

    async def _settings(self, caller: Caller, wanted: KnowledgeBaseSettings) -> Data:
        data = wanted.model_dump(mode="json", exclude={"id", "vector_db_type"})
        return data | {"embedding_model": await self._embedder(caller, wanted.embedding_model)}

    async def _embedder(self, caller: Caller, wanted: str | None) -> str | None:
        try:
            return await self._embedders.chosen(caller.tenant, wanted)
        except (NotFoundError, NotAvailableError) as error:
            raise ValidationError(
                f"embedding_model: {error.message}",
                details=[{"field": "embedding_model", "message": error.message}],
                hint=error.hint,
            ) from None

    async def add(self, caller: Caller, kb: str, uploads: Sequence[Upload], key: str | None = None) -> IngestJob:
        """Queue files for a base; content that it has already is recognised and not read again.

        Raises:
            NotFoundError: there is no such base.
        """
        now = self._clock.micros()

        def unit(tx: Tx) -> IngestJob:
            _required(tx, kb)
            body = f"{kb} {_told(uploads)}"
            work = lambda: self._intake.begin(tx, caller.tenant, caller.user_id, kb, uploads).id  # noqa: E731
            job_id = once(tx, user_id=caller.user_id, key=key, body=body, now=now, work=work)
            return _job_model(tx, _required_job(tx, job_id))

        job = await self._db.tenant(caller.tenant).write(unit)
        self._worker.ring()
        return job

    async def refresh(self, caller: Caller, kb: str) -> IngestJob:
        """Read, cut and embed all files of a base again, with its present settings.

        Raises:
            NotFoundError: there is no such base.
        """

        def unit(tx: Tx) -> IngestJob:
            _required(tx, kb)
            job = self._intake.begin(tx, caller.tenant, caller.user_id, kb, (), REFRESH)
            for file in store.all_files(tx, kb):
                store.update_file(tx, replace(file, status="queued", job_id=job.id, updated_at=job.created_at))
            return _job_model(tx, job)

        job = await self._db.tenant(caller.tenant).write(unit)
        self._worker.ring()
        return job

    async def update(self, caller: Caller, kb: str, changes: KnowledgeBaseUpdate) -> KnowledgeBase:
        """Change a base. Another embedding model re-indexes it: vectors of two models are never mixed.

        Raises:
            NotFoundError: there is none. ValidationError: the embedding model cannot be used.
        """
        fields = changes.model_dump(mode="json", exclude_unset=True)
        if "embedding_model" in fields:
            fields["embedding_model"] = await self._embedder(caller, fields["embedding_model"])
        now = self._clock.micros()

        def unit(tx: Tx) -> bool:
            base = _required(tx, kb)
            changed = {name: value for name, value in fields.items() if value is not None or name not in _STAY[:4]}
            store.update_base(tx, replace(base, data=base.data | changed, updated_at=now))
            return "embedding_model" in fields and fields["embedding_model"] != base.embedder

        if await self._db.tenant(caller.tenant).write(unit):
            await self.refresh(caller, kb)
        return await self.retrieve(caller, kb)

    async def delete(self, caller: Caller, kb: str) -> None:
        """Remove a base with everything in it.

        Raises:
            NotFoundError: there is none.
        """

        def unit(tx: Tx) -> None:
            _required(tx, kb)
            digests = {file.digest for file in store.all_files(tx, kb)}
            self._index.remove(tx, kb)
            store.delete_base(tx, kb)
            for digest in digests:
                self._blobs.release(tx, digest)

        await self._db.tenant(caller.tenant).write(unit)
        await self._blobs.clear(caller.tenant)

    async def files(self, caller: Caller, kb: str, *, limit: int, offset: int) -> KnowledgeFilePage:
        """A page of a base's files, oldest first."""

        def read(tx: Tx) -> "tuple[list[FileRecord], int]":
            _required(tx, kb)
            return store.page_of_files(tx, kb, limit=limit, offset=offset)

        found, total = await self._db.tenant(caller.tenant).read(read)
        return KnowledgeFilePage(files=[_file_model(file) for file in found], total=total, limit=limit, offset=offset)

    async def documents(self, caller: Caller, kb: str, file_id: str, *, limit: int, offset: int) -> DocumentChunkPage:
        """A page of a file's passages, in their order.

        Raises:
            NotFoundError: there is no such base or file.
        """

        def read(tx: Tx) -> DocumentChunkPage:
            file = _required_file(tx, kb, file_id)
            found = self._index.of_file(tx, kb, file_id, offset, offset + limit - 1)
            chunks = [
                DocumentChunk(
                    id=f"{file_id}:{one.position}", file_id=file_id, position=one.position, title=one.title,
                    headings=list(one.headings), content=one.text, page=one.page,
                )
                for one in found
            ]  # fmt: skip
            return DocumentChunkPage(documents=chunks, total=file.chunks, limit=limit, offset=offset)

        return await self._db.tenant(caller.tenant).read(read)

    async def delete_document(self, caller: Caller, kb: str, file_id: str) -> None:
        """Remove a file and its passages.

        Raises:
            NotFoundError: there is no such base or file.
        """

        def unit(tx: Tx) -> None:
            file = _required_file(tx, kb, file_id)
            self._index.remove(tx, kb, file_id)
            store.delete_file(tx, kb, file_id)
            store.touch(tx, kb, self._clock.micros())
            self._blobs.release(tx, file.digest)

        await self._db.tenant(caller.tenant).write(unit)
        await self._blobs.clear(caller.tenant)

    async def search(self, caller: Caller, kb: str, request: SearchRequest) -> SearchResult:
        """Search one base.

        Raises:
            NotFoundError: there is none.
        """
        await self._db.tenant(caller.tenant).read(lambda tx: _required(tx, kb))
        return await self.search_many(caller.tenant, caller.user_id, [kb], request)

    async def search_many(
        self, tenant: str, user_id: str, ids: Sequence[str], request: SearchRequest, **origin: Any
    ) -> SearchResult:
        """Search several bases as one; those that do not exist (any more) give nothing.

        Args:
            origin: `agent_id`, `run_id` of whoever asks, for the models' bills.
        """
        bases = await self._db.tenant(tenant).read(lambda tx: store.bases_by_id(tx, ids))
        return await self._finder.find(tenant, user_id, list(bases.values()), request, **origin)

    async def batch(self, caller: Caller, job_id: str) -> Batch | None:
        """A job as the batches room shows it: a batch whose items are files."""
        job = await self._db.tenant(caller.tenant).read(
            lambda tx: None if (found := store.job_by_id(tx, job_id)) is None else _job_model(tx, found)
        )
        if job is None:
            return None
        counts = {"id": job.job_id, "processed": job.completed + job.failed, "succeeded": job.completed}
        return Batch.model_validate(job.model_dump() | counts)

    async def cancel_job(self, caller: Caller, job_id: str) -> IngestJob:
        """Stop a job; what is in the base stays, files that wait are left out.

        Raises:
            NotFoundError: there is no such job.
        """
        now = self._clock.micros()

        def unit(tx: Tx) -> IngestJob:
            job = _required_job(tx, job_id)
            if job.status in ("queued", "processing"):
                ledger.request_cancel(tx, caller.tenant, job_id, now)
                store.update_job(tx, job_id, "cancelled", job.data, now)
                for file in store.files_of_job(tx, job_id):
                    if file.status in store.WAITING:
                        self._index.remove(tx, job.kb_id, file.id)
                        told: Data = {"error": "the job was cancelled", "error_code": "cancelled"}
                        store.update_file(tx, replace(file, status="failed", chunks=0, data=file.data | told))
                store.touch(tx, job.kb_id, now)
            return _job_model(tx, _required_job(tx, job_id))

        found = await self._db.tenant(caller.tenant).write(unit)
        self._worker.cancel(caller.tenant, job_id)
        self._intake.tell(caller.tenant, job_id)
        return found


def _told(uploads: Sequence[Upload]) -> str:
    """What is sent, for telling a request that is sent again from another one."""
    return json.dumps(sorted((one.name, one.blob.digest, json.dumps(one.metadata, sort_keys=True)) for one in uploads))


def _small(uploads: Sequence[Upload]) -> bool:
    return len(uploads) <= _SMALL_FILES and sum(one.blob.size for one in uploads) <= _SMALL_BYTES


def _required(tx: Tx, kb: str) -> BaseRecord:
    base = store.base_by_id(tx, kb)
    if base is None:
        raise NotFoundError(
            f"there is no knowledge base {kb!r}", hint="client.knowledge_bases.list() shows those there are."
        )
    return base


def _required_file(tx: Tx, kb: str, file_id: str) -> FileRecord:
    _required(tx, kb)
    file = store.file_by_id(tx, kb, file_id)
    if file is None:
        raise NotFoundError(f"the knowledge base {kb!r} has no document {file_id!r}")
    return file


def _required_job(tx: Tx, job_id: str) -> JobRecord:
    job = store.job_by_id(tx, job_id)
    if job is None:
        raise NotFoundError(f"there is no job {job_id!r}")
    return job


def _base_model(tx: Tx, base: BaseRecord) -> KnowledgeBase:
    return _base_models(tx, [base])[0]


def _base_models(tx: Tx, bases: Sequence[BaseRecord]) -> list[KnowledgeBase]:
    vectors = "pgvector" if pgvector.is_there(tx) else "embedded"
    return [_described(tx, base, vectors) for base in bases]


def _described(tx: Tx, base: BaseRecord, vectors: str) -> KnowledgeBase:
    files, chunks, waiting = store.counts(tx, base.id)
    data = base.data
    configuration = {name: data[name] for name in ("chunk_size", "overlap_percentage", "chunking_strategy")}
    configuration["vector_db_type"] = vectors
    configuration["embedding_model"] = base.embedder or NONE
    return KnowledgeBase(
        id=base.id, name=data["name"], description=data.get("description"), tags=data.get("tags") or [],
        status="processing" if waiting else "ready", source_type="url" if "website_url" in data else "files",
        website_url=data.get("website_url"), file_count=files, chunk_count=chunks, configuration=configuration,
        retrieval_mode="hybrid" if base.embedder else "keyword", created_at=to_datetime(base.created_at),
        updated_at=to_datetime(base.updated_at),
    )  # fmt: skip


def _file_model(file: FileRecord) -> KnowledgeFile:
    data = file.data
    return KnowledgeFile(
        id=file.id, kb_id=file.kb_id, name=file.name, status=file.status, size=file.size,
        media_type=data.get("media_type"), title=data.get("title"), pages=data.get("pages"), chunk_count=file.chunks,
        error=data.get("error") if file.status == "failed" else None,
        error_code=data.get("error_code") if file.status == "failed" else None,
        warnings=data.get("warnings") or [], metadata=data.get("metadata") or {},
        created_at=to_datetime(file.created_at), updated_at=to_datetime(file.updated_at),
    )  # fmt: skip


def _job_model(tx: Tx, job: JobRecord) -> IngestJob:
    files = [
        FileOutcome(
            id=file.id, name=file.name, status=file.status, chunk_count=file.chunks,
            error=file.data.get("error") if file.status == "failed" else None,
            error_code=file.data.get("error_code") if file.status == "failed" else None,
        )
        for file in store.files_of_job(tx, job.id)
    ]  # fmt: skip
    files += [
        FileOutcome(id=one["id"], name=one["name"], status="unchanged", chunk_count=one["chunks"])
        for one in job.data.get("unchanged", ())
    ]
    done = sum(file.status in ("completed", "unchanged") for file in files)
    failed = sum(file.status == "failed" for file in files)
    begun = any(file.status not in ("queued", "unchanged") for file in files)
    status = "processing" if job.status == "queued" and begun else job.status
    skipped = [f"{one['url']}: {one['reason']}" for one in job.data.get("skipped", ())]
    return IngestJob(
        job_id=job.id, kb_id=job.kb_id, operation=job.kind, status=status, total=len(files), completed=done,
        failed=failed, files_queued=len(files) - done - failed, files=files,
        progress=(done + failed) / len(files) if files else float(job.status == "completed"),
        reason="; ".join(skipped[:20]) if job.status == "failed" and skipped else None,
        created_at=to_datetime(job.created_at), updated_at=to_datetime(job.updated_at), skipped=skipped,
    )  # fmt: skip
