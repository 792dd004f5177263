"""Works batches off: the handler of `batch_chunk` jobs. A result counts when it is on disk, and is not asked for again.

Each tenant has a bounded number of chunks in the ledger at a time; when one is done, the next is put behind those of
other tenants. So a large batch holds up nobody, and memory does not grow with it.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from agentflow.errors import (
    APIError,
    ModelInterruptedError,
    ModelRateLimitedError,
    ModelTimeoutError,
    ModelUnavailableError,
    RateLimitedError,
)
from agentflow.types.completions import CompletionItem, Spec
from pydantic_core import from_json, to_json

from agentflow_server.eventlog import Hub
from agentflow_server.gateway import Attribution
from agentflow_server.jobs import Job, LeaseLostError, NewJob, Settled, Worker, ledger
from agentflow_server.kit.clock import Clock
from agentflow_server.kit.ids import new_id
from agentflow_server.kit.settings import Settings
from agentflow_server.resources.batches import store
from agentflow_server.resources.batches.store import BatchRecord, Chunk, Tally
from agentflow_server.resources.batches.webhooks import Webhooks
from agentflow_server.resources.completions.service import (
    FATAL,
    SPECS,
    CompletionsService,
    Prepared,
    Row,
    failed,
    prepare,
)
from agentflow_server.storage import Database, Tx
from agentflow_server.storage.errors import StorageUnavailableError

KIND = "batch_chunk"
QUEUE = "batches"
SIDE_BY_SIDE = 16
_PATIENT = (ModelRateLimitedError, ModelUnavailableError, ModelTimeoutError, ModelInterruptedError, RateLimitedError)
_NANO = 1_000_000_000
_LONGEST_PAUSE = 60.0


class _BatchEndedError(Exception):
    """The batch was cancelled, or failed elsewhere: nothing more is to be done for it."""


@dataclass(slots=True)
class _Work:
    """A chunk in hand."""

    job: Job
    batch: BatchRecord
    chunk: Chunk
    done: set[int]


class BatchRunner:
    """Runs chunks."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        settings: Settings,
        worker: Worker,
        completions: CompletionsService,
        webhooks: Webhooks,
        hub: Hub,
    ) -> None:
        self._db = db
        self._clock = clock
        self._settings = settings
        self._worker = worker
        self._completions = completions
        self._webhooks = webhooks
        self._hub = hub
        self._window = max(1, settings.batch_tenant_concurrency // SIDE_BY_SIDE)
        self._side_by_side = min(SIDE_BY_SIDE, settings.batch_tenant_concurrency)

    def register(self) -> None:
        """Let the worker run chunks."""
        at_once = max(1, self._settings.batch_concurrency // SIDE_BY_SIDE)
        self._worker.register(KIND, self.handle, queue=QUEUE, concurrency=at_once)

    def tell(self, tenant: str, batch_id: str) -> None:
        """Let whoever watches a batch look at it again, in every process."""
        self._hub.ring(tenant, batch_id)

    def dispatch(self, tx: Tx, tenant: str) -> None:
        """Put the tenant's next chunks into the ledger, up to its window. Part of whatever makes room for them."""
        now = self._clock.micros()
        free = self._window - store.running(tx)
        while free > 0 and (found := store.next_pending(tx)) is not None:
            batch_id, number = found
            job = NewJob(
                tenant=tenant,
                kind=KIND,
                queue=QUEUE,
                payload={"batch_id": batch_id, "chunk": number},
                id=new_id(),
                max_attempts=1_000_000,
            )
            now += 1
            if store.take(tx, batch_id, number, job.id, now):
                ledger.enqueue(tx, job, self._clock.micros())
            free -= 1

    def end(self, tx: Tx, tenant: str, batch_id: str, status: str, error: dict[str, Any] | None = None) -> bool:
        """End a batch: stop its chunks, make room for others, tell who wants to know. False if it had ended."""
        now = self._clock.micros()
        jobs = store.end(tx, batch_id, status, now, error)
        if jobs is None:
            return False
        for job_id in jobs:
            ledger.request_cancel(tx, tenant, job_id, now)
        self._webhooks.enqueue(tx, tenant, batch_id)
        self.dispatch(tx, tenant)
        return True

    async def handle(self, job: Job) -> Settled:
        """Work a chunk off, or what is left of it."""
        work = await self._load(job)
        if work is None:
            await self._settle(job, "done")
            return Settled.BY_HANDLER
        results = _Results(self._db, work, self.tell)
        try:
            fatal = await self._ask_all(work, results)
        except _BatchEndedError:
            await self._settle(job, "cancelled")
            return Settled.BY_HANDLER
        except asyncio.CancelledError:
            with contextlib.suppress(_BatchEndedError, LeaseLostError):
                await asyncio.shield(results.flush())
            raise
        await self._finish(work, fatal)
        return Settled.BY_HANDLER

    async def _load(self, job: Job) -> _Work | None:
        batch_id, number = job.payload["batch_id"], job.payload["chunk"]

        def look(tx: Tx) -> _Work | None:
            batch = store.by_id(tx, batch_id)
            chunk = store.chunk(tx, batch_id, number, job.id)
            if batch is None or chunk is None or batch.status != "processing":
                return None
            return _Work(job, batch, chunk, store.finished_items(tx, batch_id, chunk))

        return await self._db.tenant(job.tenant).scan(look)

    async def _settle(self, job: Job, status: str) -> None:
        def unit(tx: Tx) -> None:
            ledger.settle(tx, job, status, self._clock.micros())
            self.dispatch(tx, job.tenant)

        await self._db.tenant(job.tenant).write(unit)

    async def _finish(self, work: _Work, fatal: APIError | None) -> None:
        job, batch_id = work.job, work.batch.id

        def unit(tx: Tx) -> None:
            ledger.check_fence(tx, job)
            if fatal is not None:
                self.end(tx, job.tenant, batch_id, "failed", {"code": fatal.code, "message": fatal.message})
            else:
                store.finish_chunk(tx, batch_id, work.chunk)
                if store.is_worked_off(tx, batch_id):
                    self.end(tx, job.tenant, batch_id, "completed")
            ledger.settle(tx, job, "done", self._clock.micros())
            self.dispatch(tx, job.tenant)

        await self._db.tenant(job.tenant).write(unit)
        self.tell(job.tenant, batch_id)

    async def _ask_all(self, work: _Work, results: "_Results") -> APIError | None:
        """Ask about every item that has no result yet; returns what makes the whole batch fail, if anything does."""
        spec = SPECS[work.batch.operation].model_validate(work.batch.spec)
        prepared = prepare(spec)
        attribution = Attribution(work.job.tenant, work.batch.user_id, run_id=work.batch.id, purpose="batch")
        lines = iter(_open_items(work))
        fatal: list[APIError] = []

        async def ask_some() -> None:
            for index, line in lines:
                answer = await self._row(prepared, spec, work.batch.model, index, line, attribution)
                if isinstance(answer, APIError):
                    fatal.append(answer)
                if fatal or isinstance(answer, APIError):
                    return
                await results.add(answer)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(self._side_by_side, work.chunk.size)):
                group.create_task(_unwrapped(ask_some(), results))
        if results.failure is not None:
            raise results.failure
        await results.flush()
        return fatal[0] if fatal else None

    async def _row(
        self, prepared: Prepared, spec: Spec, model: str, index: int, line: bytes, attribution: Attribution
    ) -> Row | APIError:
        """The row of an item, or why nothing more can be asked. While its provider is busy it is tried again."""
        tried = 0
        while True:
            item = CompletionItem.model_construct(**from_json(line))
            answer = await self._completions.attempt(prepared, spec, model, index, item, attribution)
            if not isinstance(answer, APIError) or isinstance(answer, FATAL):
                return answer
            tried += 1
            if not isinstance(answer, _PATIENT) or tried > self._settings.batch_item_retries:
                return failed(index, answer.code, answer.message)
            await asyncio.sleep(min(_LONGEST_PAUSE, answer.retry_after or 2.0**tried))


class _Results:
    """Writes results in groups: while one group is on its way to the disk, the next is gathered."""

    def __init__(self, db: Database, work: _Work, tell: Callable[[str, str], None]) -> None:
        self._db = db.tenant(work.job.tenant)
        self._work = work
        self._tell = tell
        self._gathered: list[Row] = []
        self._in_flight: asyncio.Task[None] | None = None
        self._next: asyncio.Task[None] | None = None
        self.failure: BaseException | None = None

    async def add(self, row: Row) -> None:
        """Take a result; returns when it is on disk. Raises what made writing fail."""
        self._gathered.append(row)
        if self._next is None:
            self._next = asyncio.create_task(self._write_after(self._in_flight))
        await asyncio.shield(self._next)

    async def flush(self) -> None:
        """Wait until everything is on disk. Raises what made writing fail."""
        while (task := self._next or self._in_flight) is not None:
            await asyncio.shield(task)

    async def _write_after(self, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait((before,))
        rows, self._gathered = self._gathered, []
        self._in_flight, self._next = self._next, None
        try:
            await self._write(rows)
        finally:
            if self._in_flight is asyncio.current_task():
                self._in_flight = None

    async def _write(self, rows: Sequence[Row]) -> None:
        work = self._work
        data = [(row.index, row.success, to_json(row, exclude_none=True)) for row in rows]
        tally = _tally(rows)

        def unit(tx: Tx) -> None:
            ledger.check_fence(tx, work.job)
            if not store.add_results(tx, work.batch.id, data, tally):
                raise _BatchEndedError

        await self._db.write(unit)
        self._tell(work.job.tenant, work.batch.id)


async def _unwrapped(work: Any, results: _Results) -> None:
    """Let a task of the group end quietly where writing failed: that one failure is handed on, not a bundle of them."""
    try:
        await work
    except (_BatchEndedError, LeaseLostError, StorageUnavailableError) as error:
        results.failure = results.failure or error


def _open_items(work: _Work) -> Iterator[tuple[int, bytes]]:
    for place, line in enumerate(work.chunk.items.split(b"\n")):
        index = work.chunk.first + place
        if index not in work.done:
            yield index, line


def _tally(rows: Sequence[Row]) -> Tally:
    succeeded = sum(row.success for row in rows)
    costs = [row.cost for row in rows if row.cost is not None]
    return Tally(
        succeeded,
        len(rows) - succeeded,
        sum(row.usage.input_tokens for row in rows),
        sum(row.usage.cached_input_tokens for row in rows),
        sum(row.usage.output_tokens for row in rows),
        round(sum(costs) * _NANO) if costs else None,
    )
