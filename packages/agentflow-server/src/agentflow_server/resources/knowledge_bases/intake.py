"""Brings files into a knowledge base: read, cut, embed, index. The job's handler; started by the service.

A passage is written in the same transaction as the count of its file, so a job that was killed goes on where it was:
nothing twice, nothing left out. The file that a new version takes the place of is searched until the new one is whole.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import Any

from agentflow_server.eventlog import Tail
from agentflow_server.jobs import NewJob, Worker, ledger
from agentflow_server.jobs.ledger import Job
from agentflow_server.kit.clock import Clock
from agentflow_server.kit.ids import new_id
from agentflow_server.resources.knowledge_bases import store
from agentflow_server.resources.knowledge_bases.crawl import Crawler, CrawlReport, WebPage
from agentflow_server.resources.knowledge_bases.embedders import Embedders
from agentflow_server.resources.knowledge_bases.store import BaseRecord, Data, FileRecord, JobRecord
from agentflow_server.retrieval.chunk import Passage, chunk
from agentflow_server.retrieval.embedding import EmbeddingUnavailableError
from agentflow_server.retrieval.index import Entry, SearchIndex, embedded_text
from agentflow_server.retrieval.parse import Document, ParseError, Parser
from agentflow_server.retrieval.parse.detect import MEDIA_TYPES
from agentflow_server.storage import Database, Tx
from agentflow_server.storage.blobs import BlobRef, BlobStorage

INGEST, CRAWL, REFRESH = "kb_ingest", "kb_crawl", "kb_refresh"
_QUEUE = "knowledge"
_SHEETS = MEDIA_TYPES["xlsx"]  # each has a name of its own
_AT_ONCE = 64
_TRIES = 5
_ALWAYS = 1_000_000
_ENDINGS = {"text/html": ".html", "application/xhtml+xml": ".html", "application/pdf": ".pdf", "text/markdown": ".md"}


@dataclass(frozen=True, slots=True)
class Upload:
    """A stored file that is to be brought in. `metadata`: the sender's own, for filters."""

    name: str
    blob: BlobRef
    metadata: Data = field(default_factory=dict[str, Any])


class FileGoneError(Exception):
    """The file was deleted while it was being brought in."""


class Intake:
    """The way into knowledge bases."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        worker: Worker,
        tail: Tail,
        blobs: BlobStorage,
        parser: Parser,
        index: SearchIndex,
        embedders: Embedders,
        crawler: Crawler,
    ) -> None:
        self._db = db
        self._clock = clock
        self._worker = worker
        self._tail = tail
        self.blobs = blobs.room("knowledge_bases", store.uses_digest)
        self._parser = parser
        self._index = index
        self._embedders = embedders
        self._crawler = crawler
        worker.register(INGEST, self.handle, queue=_QUEUE, concurrency=2)
        worker.register(CRAWL, self.handle, queue=_QUEUE, concurrency=2)
        worker.register(REFRESH, self.handle, queue=_QUEUE, concurrency=2)

    def begin(
        self, tx: Tx, tenant: str, user_id: str, kb: str, uploads: Sequence[Upload], kind: str = INGEST,
        more: Data | None = None,
    ) -> JobRecord:  # fmt: skip
        """Write a job and its files; to be followed by `Worker.ring`. Content that is there already is passed over."""
        now = self._clock.micros()
        job = JobRecord(f"{kind}_{new_id()}", kb, kind, "queued", {"unchanged": [], **(more or {})}, now, now)
        for upload in uploads:
            self._add_file(tx, kb, job, upload)
        store.insert_job(tx, job)
        payload = {"kb": kb, "user": user_id}
        ledger.enqueue(tx, NewJob(tenant, kind, _QUEUE, payload, job.id, max_attempts=_ALWAYS), now)
        return job

    def _add_file(self, tx: Tx, kb: str, job: JobRecord, upload: Upload) -> None:
        self.blobs.use(tx, upload.blob)
        known = store.file_by_digest(tx, kb, upload.blob.digest)
        if known is not None:
            self._recognise(tx, job, known, upload)
            return
        before = store.files_by_name(tx, kb, upload.name)
        now = self._clock.micros()
        data: Data = {"metadata": upload.metadata, "replaces": [file.id for file in before]}
        name, blob = upload.name, upload.blob
        file = FileRecord(new_id(), kb, name, blob.digest, blob.size, "queued", now, data, job.id, 0, now)
        store.insert_file(tx, file)

    def _recognise(self, tx: Tx, job: JobRecord, known: FileRecord, upload: Upload) -> None:
        """Note content that is there already; metadata that came with it is taken over."""
        if known.name == upload.name:
            if known.job_id == job.id:  # a crawl that was interrupted comes by again
                return
            if upload.metadata and upload.metadata != known.data.get("metadata"):
                store.update_file(tx, replace(known, data=known.data | {"metadata": upload.metadata}))
        entry = {"id": known.id, "name": upload.name, "chunks": known.chunks}
        job.data["unchanged"] = [one for one in job.data["unchanged"] if one["name"] != upload.name] + [entry]

    async def wait(self, tenant: str, job_id: str, seconds: float) -> None:
        """Until a job has ended, in whatever process, but not longer."""
        reader = self._tail.open(tenant, job_id)
        reader.start_now()
        try:
            async with asyncio.timeout(seconds):
                while not await self._has_ended(tenant, job_id) and not self._worker.stopping:
                    await reader.next()
        except TimeoutError:
            pass
        finally:
            reader.close()

    async def _has_ended(self, tenant: str, job_id: str) -> bool:
        record = await self._db.tenant(tenant).read(lambda tx: store.job_by_id(tx, job_id))
        return record is None or record.status not in ("queued", "processing")

    def tell(self, tenant: str, job_id: str) -> None:
        """Let whoever watches a job look at it again, in every process."""
        self._tail.hub.ring(tenant, job_id)

    async def handle(self, job: Job) -> None:
        """Do a job, or what is left of it."""
        try:
            await self._handle(job)
        finally:
            self.tell(job.tenant, job.id)

    async def _handle(self, job: Job) -> None:
        db = self._db.tenant(job.tenant)
        kb: str = job.payload["kb"]
        base = await db.read(lambda tx: store.base_by_id(tx, kb))
        record = await db.read(lambda tx: store.job_by_id(tx, job.id))
        if base is None or record is None or record.status == "cancelled":
            return
        tries = await self._tried(job)
        if job.kind == REFRESH and not record.data.get("begun"):
            base = await self._empty(job, base, record)
        if job.kind == CRAWL and not record.data.get("crawled"):
            if tries > _TRIES:
                told = f"reading the site was broken off {tries} times"
                await self._crawled(job, record, [(record.data["url"], told)])
            else:
                await self._crawl(job, base, record)
        for file in await db.scan(lambda tx: store.files_of_job(tx, job.id)):
            if file.status in store.WAITING:
                await self._file(job, base, file, tries if file.status == "processing" else 0)
        await self._finish(job)

    async def _tried(self, job: Job) -> int:
        """How often the job was taken up where it is now: it gets no further, or takes the process with it."""

        def unit(tx: Tx) -> int:
            ledger.check_fence(tx, job)
            record = store.job_by_id(tx, job.id)
            if record is None:
                return 0
            files = store.files_of_job(tx, job.id)
            place = [len(files), sum(file.chunks for file in files), sum(file.status == "failed" for file in files)]
            place += [sum(file.status == "completed" for file in files)]
            before = record.data.get("tried", {})
            tries = before["times"] + 1 if before.get("place") == place else 0
            data = record.data | {"tried": {"place": place, "times": tries}}
            store.update_job(tx, job.id, record.status, data, record.updated_at)
            return tries

        return await self._db.tenant(job.tenant).write(unit)

    async def _finish(self, job: Job) -> None:
        def unit(tx: Tx) -> None:
            ledger.check_fence(tx, job)
            record = store.job_by_id(tx, job.id)
            if record is None or record.status == "cancelled":
                return
            files = store.files_of_job(tx, job.id)
            failed = bool(files) and all(file.status == "failed" for file in files)
            nothing = job.kind == CRAWL and not files and not record.data["unchanged"]
            status = "failed" if (failed or nothing) and not record.data["unchanged"] else "completed"
            store.update_job(tx, job.id, status, record.data, self._clock.micros())

        await self._db.tenant(job.tenant).write(unit)

    async def _write(self, job: Job, change: Callable[[Tx], object]) -> None:
        """Write as the owner of the job, who is refused when another worker has taken it over."""

        def unit(tx: Tx) -> None:
            ledger.check_fence(tx, job)
            change(tx)

        await self._db.tenant(job.tenant).write(unit)
        self.tell(job.tenant, job.id)

    async def _empty(self, job: Job, base: BaseRecord, record: JobRecord) -> BaseRecord:
        """Throw the base's passages away and queue all its files again, with the embedder it shall have."""
        now = self._clock.micros()
        fresh = replace(base, embedder=base.data.get("embedding_model"), revision=base.revision + 1, updated_at=now)

        def change(tx: Tx) -> None:
            self._index.remove(tx, base.id)
            store.update_base(tx, fresh)
            for file in store.all_files(tx, base.id):
                store.update_file(tx, replace(file, status="queued", job_id=job.id, chunks=0, updated_at=now))
            store.update_job(tx, job.id, "processing", record.data | {"begun": True}, now)

        await self._write(job, change)
        return fresh

    async def _crawl(self, job: Job, base: BaseRecord, record: JobRecord) -> None:
        report = CrawlReport()
        data = record.data
        pages = self._crawler.pages(
            data["url"], max_depth=data["max_depth"], max_pages=data["max_pages"], report=report
        )
        async for page in pages:
            await self._add_page(job, base.id, page)
        await self._crawled(job, record, report.skipped[:200])

    async def _crawled(self, job: Job, record: JobRecord, left_out: Sequence[tuple[str, str]]) -> None:
        skipped = [{"url": url, "reason": reason} for url, reason in left_out]

        def change(tx: Tx) -> None:
            now = store.job_by_id(tx, job.id)
            known = now.data if now is not None else record.data
            store.update_job(
                tx, job.id, "processing", known | {"crawled": True, "skipped": skipped}, self._clock.micros()
            )

        await self._write(job, change)

    async def _add_page(self, job: Job, kb: str, page: WebPage) -> None:
        async def content() -> AsyncGenerator[bytes, None]:
            yield page.content

        blob = await self.blobs.put(job.tenant, content(), max_bytes=len(page.content) + 1)
        metadata: Data = {"url": page.url, "media_type": page.media_type}

        def change(tx: Tx) -> None:
            record = store.job_by_id(tx, job.id)
            if record is not None:
                self._add_file(tx, kb, record, Upload(page.url, blob, metadata))
                store.update_job(tx, job.id, "processing", record.data, self._clock.micros())

        try:
            await self._write(job, change)
        finally:
            await self.blobs.drop(job.tenant, [blob])

    async def _file(self, job: Job, base: BaseRecord, file: FileRecord, tries: int) -> None:
        """Bring one file in; a file that cannot be read fails alone, also one that breaks off whoever reads it."""
        if tries > _TRIES:
            told = f"bringing it in was broken off {tries} times; the server's log says why"
            await self._fail(job, file, told, "crashed")
            return
        try:
            await self._write(job, lambda tx: self._change(tx, file, status="processing"))
            async with self.blobs.local(job.tenant, file.digest) as path:
                document = await self._parser.parse(path, _file_name(file))
            passages = await asyncio.to_thread(_passages, document, base.data)
            title = _title(document, file)
            await self._add_passages(job, base, file, title, passages)
            told = {
                "media_type": document.media_type, "title": title, "pages": document.pages,
                "warnings": document.warnings, "about": document.metadata,
            }  # fmt: skip
            await self._settle(job, file, "completed", told)
        except ParseError as error:
            await self._fail(job, file, error.message, error.code)
        except FileNotFoundError:
            await self._fail(job, file, "the stored file is missing", "missing")
        except EmbeddingUnavailableError as error:
            if job.attempts < _TRIES:
                raise
            await self._fail(job, file, str(error), "embedding_unavailable")
        except FileGoneError:
            return

    async def _add_passages(
        self, job: Job, base: BaseRecord, file: FileRecord, title: str, passages: list[Passage]
    ) -> None:
        embedder = self._embedders.of(base.embedder, job.tenant, job.payload["user"])
        if embedder is None and base.embedder is not None:
            raise EmbeddingUnavailableError(f"{base.embedder}, with which this knowledge base is embedded, is not here")
        for start in range(file.chunks, len(passages), _AT_ONCE):
            some = passages[start : start + _AT_ONCE]
            entries = [Entry(one.text, title, one.headings, one.page) for one in some]
            texts = [embedded_text(one.title, one.headings, one.text) for one in entries]
            vectors = await embedder.embed(texts) if embedder is not None else None

            def change(tx: Tx, start: int = start, entries: list[Entry] = entries, vectors: Any = vectors) -> None:
                self._still_ours(tx, job, base, file)
                self._index.add(tx, base.id, file.id, start, entries, vectors)
                self._change(tx, file, chunks=start + len(entries))
                store.touch(tx, base.id, self._clock.micros())

            await self._write(job, change)

    def _still_ours(self, tx: Tx, job: Job, base: BaseRecord, file: FileRecord) -> None:
        """The base still has the embedder we used, and no later job has taken the file over."""
        current, now = store.base_by_id(tx, base.id), store.file_by_id(tx, base.id, file.id)
        if current is None or now is None or current.embedder != base.embedder or now.job_id != job.id:
            raise FileGoneError(file.id)

    def _change(self, tx: Tx, file: FileRecord, *, data: Data | None = None, **fields: Any) -> FileRecord:
        current = store.file_by_id(tx, file.kb_id, file.id)
        if current is None or current.job_id != file.job_id:  # or a later job has taken it over
            raise FileGoneError(file.id)
        changed = replace(current, data=current.data | (data or {}), updated_at=self._clock.micros(), **fields)
        store.update_file(tx, changed)
        return changed

    async def _fail(self, job: Job, file: FileRecord, error: str, code: str) -> None:
        with suppress(FileGoneError):
            await self._settle(job, file, "failed", {"error": error, "error_code": code})

    async def _settle(self, job: Job, file: FileRecord, status: str, told: Data) -> None:
        """Let the file take the place of its older versions; one that failed only of those that failed too."""

        def unit(tx: Tx) -> None:
            ledger.check_fence(tx, job)
            changed = self._change(tx, file, status=status, data=told)
            named = [store.file_by_id(tx, file.kb_id, old) for old in changed.data.get("replaces", ())]
            before = [old for old in named if old is not None and status in ("completed", old.status)]
            for old in before:
                self._index.remove(tx, file.kb_id, old.id)
                store.delete_file(tx, file.kb_id, old.id)
                self.blobs.release(tx, old.digest)
            store.touch(tx, file.kb_id, self._clock.micros())

        await self._db.tenant(job.tenant).write(unit)
        self.tell(job.tenant, job.id)
        await self.blobs.clear(job.tenant)


def _file_name(file: FileRecord) -> str:
    """The name that tells the reader what the file is; of a page, its type does."""
    media_type = file.data.get("metadata", {}).get("media_type", "")
    return f"page{_ENDINGS.get(media_type, '.txt')}" if "url" in file.data.get("metadata", {}) else file.name


def _passages(document: Document, settings: Data) -> list[Passage]:
    return chunk(
        document, size=settings["chunk_size"], overlap=settings["overlap_percentage"],
        strategy=settings["chunking_strategy"],
    )  # fmt: skip


def _title(document: Document, file: FileRecord) -> str:
    first = document.blocks[0] if document.blocks and document.media_type != _SHEETS else None
    heading = first.text if first is not None and first.kind == "heading" else None
    return (document.title or heading or PurePath(file.name).stem).replace("\0", "")[:300]
