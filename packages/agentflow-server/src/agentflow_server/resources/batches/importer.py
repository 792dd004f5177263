"""Reads uploaded files into chunks: the handler of `batch_import` jobs.

No item is asked about before the whole file was read, so a file that is damaged at its end costs nothing. A reading
that was interrupted is gone on with.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from agentflow_server.jobs import Job, Settled, Worker, ledger
from agentflow_server.kit.clock import Clock
from agentflow_server.kit.settings import Settings
from agentflow_server.resources.batches import store
from agentflow_server.resources.batches.files import FileProblemError, ItemFile
from agentflow_server.resources.batches.runner import BatchRunner
from agentflow_server.resources.batches.store import BatchRecord, Chunk
from agentflow_server.storage import Database, Tx
from agentflow_server.storage.blobs import BlobStorage

KIND = "batch_import"
QUEUE = "batch_imports"
CHUNK_ITEMS = 250
CHUNK_BYTES = 1_000_000
_CHUNKS_AT_ONCE = 8


class Chunker:
    """Puts lines of items together to chunks.

    Args:
        size: most items of a chunk.
    """

    def __init__(self, size: int = CHUNK_ITEMS) -> None:
        self._size = size
        self._lines: list[bytes] = []
        self._bytes = 0
        self._number = 0
        self.items = 0

    def add(self, lines: Sequence[bytes]) -> list[Chunk]:
        """Take items; the chunks that are full."""
        full: list[Chunk] = []
        for line in lines:
            self._lines.append(line)
            self._bytes += len(line)
            if len(self._lines) == self._size or self._bytes >= CHUNK_BYTES:
                full += self.rest()
        return full

    def rest(self) -> list[Chunk]:
        """What is left, as a chunk."""
        if not self._lines:
            return []
        chunk = Chunk(self._number, self.items, len(self._lines), b"\n".join(self._lines))
        self._number += 1
        self.items += chunk.size
        self._lines, self._bytes = [], 0
        return [chunk]


class Importer:
    """Reads files."""

    def __init__(
        self, db: Database, clock: Clock, settings: Settings, worker: Worker, blobs: BlobStorage, runner: BatchRunner
    ) -> None:
        self._db = db
        self._clock = clock
        self._max_items = settings.batch_max_items
        self._worker = worker
        self.blobs = blobs.room("batches", store.awaits_file)
        self._runner = runner

    def register(self) -> None:
        """Let the worker read files."""
        self._worker.register(KIND, self.handle, queue=QUEUE, concurrency=2)

    async def handle(self, job: Job) -> Settled:
        """Read a file, from where an earlier reading broke off."""
        db, batch_id = self._db.tenant(job.tenant), job.payload["batch_id"]
        batch, (chunks, _) = await db.read(lambda tx: (store.by_id(tx, batch_id), store.stored(tx, batch_id)))
        error: dict[str, Any] | None = None
        total = 0
        if batch is not None and batch.status == "queued" and batch.file is not None:
            try:
                total = await self._read(job, batch, batch.file, chunks)
            except FileProblemError as problem:
                error = {"code": "invalid_file", "message": str(problem)}
            except FileNotFoundError:
                error = {"code": "invalid_file", "message": "the uploaded file is gone"}

        def unit(tx: Tx) -> None:
            ledger.settle(tx, job, "done", self._clock.micros())
            if error is not None:
                self._runner.end(tx, job.tenant, batch_id, "failed", error)
            elif total:
                store.begin(tx, batch_id, total)
            self._runner.dispatch(tx, job.tenant)
            self.blobs.release(tx, job.payload["digest"])

        await db.write(unit)
        self._runner.tell(job.tenant, batch_id)
        await self.blobs.clear(job.tenant)
        return Settled.BY_HANDLER

    async def _read(self, job: Job, batch: BatchRecord, file: dict[str, Any], skip: int) -> int:
        """Write the file's items; `skip` chunks are there already. Returns how many items there are."""
        items = ItemFile(file["format"], self._max_items)
        chunker = Chunker()
        ready: list[Chunk] = []
        async for piece in self.blobs.read(job.tenant, file["digest"]):
            ready += chunker.add(await asyncio.to_thread(items.feed, piece))
            if len(ready) >= _CHUNKS_AT_ONCE:
                await self._write(job, batch.id, ready, skip)
                ready = []
        ready += [*chunker.add(items.finish()), *chunker.rest()]
        await self._write(job, batch.id, ready, skip)
        return chunker.items

    async def _write(self, job: Job, batch_id: str, chunks: Sequence[Chunk], skip: int) -> None:
        fresh = [chunk for chunk in chunks if chunk.number >= skip]
        if not fresh:
            return

        def unit(tx: Tx) -> None:
            ledger.check_fence(tx, job)
            store.add_chunks(tx, batch_id, fresh)

        await self._db.tenant(job.tenant).write(unit)
