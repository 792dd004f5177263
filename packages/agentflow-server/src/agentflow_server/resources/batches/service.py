"""Takes batches in, tells how they stand, gives their rows out, stops and repeats them. Called by routes."""

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agentflow.errors import ConflictError, NotFoundError, PayloadTooLargeError, ValidationError
from agentflow.types.batches import TERMINAL, Batch, BatchPage, WebhookFields
from agentflow.types.completions import CompletionItem, Spec
from pydantic import ValidationError as FieldError
from pydantic_core import from_json, to_json

from agentflow_server.eventlog import Reader, Tail
from agentflow_server.http.identity import Caller
from agentflow_server.jobs import NewJob, Worker, ledger
from agentflow_server.kit.clock import Clock, to_iso
from agentflow_server.kit.ids import new_id
from agentflow_server.kit.settings import Settings
from agentflow_server.resources.batches import importer, store
from agentflow_server.resources.batches.files import FORMATS, format_of
from agentflow_server.resources.batches.importer import CHUNK_ITEMS, Chunker
from agentflow_server.resources.batches.output import CsvWriter, json_lines, json_page, wire
from agentflow_server.resources.batches.runner import BatchRunner
from agentflow_server.resources.batches.store import BatchRecord
from agentflow_server.resources.batches.webhooks import Webhooks
from agentflow_server.resources.completions.service import SPECS, CompletionsService, prepare
from agentflow_server.storage import Database, Tx
from agentflow_server.storage.blobs import BlobRef, Blobs
from agentflow_server.storage.idempotency import once

Lookup = Callable[[Caller, str], Awaitable[Batch | None]]
_ROWS_AT_ONCE = 1_000
_MIN_CHUNK = 16
_JSON_FIELDS = frozenset({"fields", "response_format"})
_RENAMED = {"template": "user_prompt_template"}


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that has arrived, and the texts that came with it."""

    blob: BlobRef
    name: str | None
    start: bytes
    fields: Mapping[str, str]


class BatchesService:
    """The batches room.

    Args:
        lookups: where to ask for ids with a prefix that other rooms give to jobs of their own.
    """

    def __init__(
        self,
        db: Database,
        clock: Clock,
        settings: Settings,
        worker: Worker,
        blobs: Blobs,
        completions: CompletionsService,
        runner: BatchRunner,
        webhooks: Webhooks,
        tail: Tail,
        lookups: Mapping[str, Lookup] | None = None,
    ) -> None:
        self._db = db
        self._clock = clock
        self._settings = settings
        self._worker = worker
        self._blobs = blobs
        self._completions = completions
        self._runner = runner
        self._webhooks = webhooks
        self._tail = tail
        self._lookups = dict(lookups or {})

    async def submit(
        self, caller: Caller, operation: str, request: Spec, items: Sequence[CompletionItem], hook: WebhookFields,
        key: str | None,
    ) -> Batch:  # fmt: skip
        """Take a batch whose items stand in the request.

        Raises:
            ValidationError, PermissionDeniedError, PayloadTooLargeError: it cannot be done.
        """
        limit = self._settings.batch_max_items
        if len(items) > limit:
            raise PayloadTooLargeError(
                f"items: there are {len(items)}; at most {limit} are taken", details={"limit": limit}
            )
        record, secret = await self._new(caller, operation, request, hook)
        window = max(1, self._settings.batch_tenant_concurrency // _MIN_CHUNK)
        chunker = Chunker(max(_MIN_CHUNK, min(CHUNK_ITEMS, -(-len(items) // window))))
        chunks = [*chunker.add([to_json(item) for item in items]), *chunker.rest()]

        def write(tx: Tx) -> None:
            store.insert(tx, record._replace(status="processing", total=len(items)))
            store.add_chunks(tx, record.id, chunks)
            self._runner.dispatch(tx, caller.tenant)

        body = to_json([operation, request, hook], fallback=str).decode()
        return await self._accept(caller, record, secret, key, body, write)

    async def keep(self, caller: Caller, pieces: AsyncIterable[bytes]) -> BlobRef:
        """Store an uploaded file until a batch takes it.

        Raises:
            PayloadTooLargeError: it is too large.
        """
        return await self._blobs.put(caller.tenant, pieces, max_bytes=self._settings.batch_max_file_bytes)

    async def take_file(self, caller: Caller, upload: Upload, key: str | None) -> Batch:
        """Take a batch whose items stand in a file.

        Raises:
            ValidationError, PermissionDeniedError: it cannot be done; the file is not kept.
        """
        try:
            operation, spec, hook, format_ = _form(upload)
            record, secret = await self._new(caller, operation, spec, hook)
            return await self._import(caller, upload, record, secret, format_, key)
        finally:
            await self._blobs.drop(caller.tenant, [upload.blob])

    async def _import(
        self, caller: Caller, upload: Upload, record: BatchRecord, secret: str | None, format_: str, key: str | None
    ) -> Batch:
        file = {"digest": upload.blob.digest, "format": format_}

        def write(tx: Tx) -> None:
            self._blobs.use(tx, upload.blob)
            store.insert(tx, record._replace(file=file))
            job = NewJob(
                tenant=caller.tenant,
                kind=importer.KIND,
                queue=importer.QUEUE,
                payload={"batch_id": record.id, "digest": upload.blob.digest},
                max_attempts=1_000_000,
            )
            ledger.enqueue(tx, job, self._clock.micros())

        body = to_json([upload.blob.digest, sorted(upload.fields.items())]).decode()
        return await self._accept(caller, record, secret, key, body, write)

    async def _new(
        self, caller: Caller, operation: str, request: Spec, hook: WebhookFields
    ) -> tuple[BatchRecord, str | None]:
        model = await self._completions.model(caller, request.model)
        prepare(request)
        webhook, secret = await self._webhooks.prepare(caller.tenant, hook.webhook_url, hook.webhook_secret)
        spec = request.model_dump(mode="json", include=set(SPECS[operation].model_fields), exclude_none=True)
        now = self._clock.micros()
        record = BatchRecord(
            new_id(), caller.user_id, operation, model, "queued", spec, None, webhook, None, 0, 0, 0, 0, 0, 0, None,
            now, None, None,
        )  # fmt: skip
        return record, secret

    async def _accept(
        self,
        caller: Caller,
        record: BatchRecord,
        secret: str | None,
        key: str | None,
        body: str,
        write: Callable[[Tx], None],
    ) -> Batch:
        now = self._clock.micros()

        def work(tx: Tx) -> str:
            write(tx)
            return record.id

        def unit(tx: Tx) -> BatchRecord:
            batch_id = once(tx, user_id=caller.user_id, key=key, body=body, now=now, work=lambda: work(tx))
            found = store.by_id(tx, batch_id)
            if found is None:
                raise _unknown(batch_id)
            return found

        stored = await self._db.tenant(caller.tenant).write(unit)
        self._worker.ring()
        shown = secret if stored.id == record.id else self._webhooks.secret_of(caller.tenant, stored)
        return wire(stored, shown)

    async def retrieve(self, caller: Caller, batch_id: str) -> Batch:
        """How a batch stands, or a job of another room.

        Raises:
            NotFoundError: the caller has no such batch.
        """
        for prefix, look in self._lookups.items():
            if batch_id.startswith(prefix):
                found = await look(caller, batch_id)
                if found is None:
                    raise _unknown(batch_id)
                return found
        return wire(await self._record(caller, batch_id))

    def now(self) -> str:
        """The time as the wire writes it."""
        return to_iso(self._clock.micros())

    def watch(self, caller: Caller, batch_id: str) -> Reader:
        """A reader that is rung whenever a batch, or a job of another room, has changed."""
        reader = self._tail.open(caller.tenant, batch_id)
        reader.start_now()
        return reader

    async def _record(self, caller: Caller, batch_id: str) -> BatchRecord:
        record = await self._db.tenant(caller.tenant).read(lambda tx: store.by_id(tx, batch_id))
        if record is None or record.user_id != caller.user_id:
            raise _unknown(batch_id)
        return record

    async def list(self, caller: Caller, *, status: str | None, limit: int, offset: int) -> BatchPage:
        """The caller's batches, newest first."""
        records, total = await self._db.tenant(caller.tenant).read(
            lambda tx: store.page(tx, caller.user_id, status, limit, offset)
        )
        return BatchPage(batches=[wire(record) for record in records], total=total, limit=limit, offset=offset)

    async def cancel(self, caller: Caller, batch_id: str) -> Batch:
        """Stop a batch; what has its row keeps it. Does nothing to one that has ended.

        Raises:
            NotFoundError: the caller has no such batch.
        """
        await self._record(caller, batch_id)

        def unit(tx: Tx) -> tuple[BatchRecord | None, "list[str]"]:
            jobs = store.running_jobs(tx, batch_id)
            self._runner.end(tx, caller.tenant, batch_id, "cancelled")
            return store.by_id(tx, batch_id), jobs

        record, jobs = await self._db.tenant(caller.tenant).write(unit)
        for job_id in jobs:
            self._worker.cancel(caller.tenant, job_id)
        self._worker.ring()
        self._runner.tell(caller.tenant, batch_id)
        if record is None:
            raise _unknown(batch_id)
        return wire(record)

    async def retry(self, caller: Caller, batch_id: str) -> Batch:
        """Do again what failed, and what was never done because the batch failed or was cancelled.

        Raises:
            NotFoundError: the caller has no such batch. ConflictError: it has not ended, or there is nothing to repeat.
        """
        await self._record(caller, batch_id)

        def unit(tx: Tx) -> BatchRecord | None:
            record = store.by_id(tx, batch_id)
            if record is None:
                return None
            if record.status not in TERMINAL:
                raise ConflictError(f"the batch is {record.status}: it can be repeated when it has ended")
            if record.total == 0 or not store.reopen(tx, batch_id):
                raise ConflictError("the batch has nothing to repeat")
            self._runner.dispatch(tx, caller.tenant)
            return store.by_id(tx, batch_id)

        record = await self._db.tenant(caller.tenant).write(unit)
        self._worker.ring()
        if record is None:
            raise _unknown(batch_id)
        return wire(record)

    async def delete(self, caller: Caller, batch_id: str) -> None:
        """Remove a batch that has ended, with its rows.

        Raises:
            NotFoundError: the caller has no such batch. ConflictError: it has not ended.
        """
        record = await self._record(caller, batch_id)
        if record.status not in TERMINAL:
            raise ConflictError(f"the batch is {record.status}: cancel it first")
        await self._db.tenant(caller.tenant).write(lambda tx: store.delete(tx, batch_id))

    async def page(self, caller: Caller, batch_id: str, offset: int, limit: int) -> bytes:
        """Rows as a page of JSON.

        Raises:
            NotFoundError: the caller has no such batch.
        """
        record = await self._record(caller, batch_id)
        rows = await self._db.tenant(caller.tenant).scan(lambda tx: store.results(tx, batch_id, offset, offset + limit))
        return json_page(record, rows, offset, limit)

    async def rows(
        self, caller: Caller, batch_id: str, format_: str, offset: int, limit: int | None
    ) -> tuple[Batch, AsyncIterator[bytes]]:
        """The batch, and its rows as JSON lines or CSV, read as they are sent.

        Raises:
            NotFoundError: the caller has no such batch.
        """
        record = await self._record(caller, batch_id)
        stop = record.total if limit is None else min(record.total, offset + limit)
        return wire(record), self._written(caller.tenant, record, format_, offset, stop)

    async def _written(
        self, tenant: str, record: BatchRecord, format_: str, offset: int, stop: int
    ) -> AsyncGenerator[bytes, None]:
        table: CsvWriter | None = None
        if format_ == "csv":
            table = CsvWriter(prepare(SPECS[record.operation].model_validate(record.spec)).columns)
            yield table.head()
        for start in range(offset, stop, _ROWS_AT_ONCE):
            end = min(stop, start + _ROWS_AT_ONCE)
            rows = await self._db.tenant(tenant).scan(
                lambda tx, start=start, end=end: store.results(tx, record.id, start, end)
            )
            if rows:
                yield table.rows(rows) if table is not None else json_lines(rows)


def _form(upload: Upload) -> tuple[str, Spec, WebhookFields, str]:
    """What the texts beside a file ask for.

    Raises:
        ValidationError: a field does not hold.
    """
    fields: dict[str, Any] = {_RENAMED.get(name, name): text for name, text in upload.fields.items() if text != ""}
    operation = fields.pop("operation", None)
    if operation not in SPECS:
        raise _invalid("operation", f"must be one of {', '.join(SPECS)}")
    format_ = fields.pop("format", None) or format_of(upload.name, upload.start)
    if format_ not in FORMATS:
        raise _invalid("format", f"must be one of {', '.join(FORMATS)}")
    hook = {name: fields.pop(name) for name in ("webhook_url", "webhook_secret") if name in fields}
    try:
        for name in _JSON_FIELDS & fields.keys():
            fields[name] = _json(name, fields[name])
        if "categories" in fields:
            text: str = fields["categories"]
            listed = text.lstrip().startswith("[")
            fields["categories"] = _json("categories", text) if listed else [part.strip() for part in text.split(",")]
        return operation, SPECS[operation].model_validate(fields), WebhookFields.model_validate(hook), format_
    except FieldError as error:
        details = [
            {"field": ".".join(str(step) for step in one["loc"]) or "body", "message": one["msg"]}
            for one in error.errors(include_url=False, include_input=False)
        ]
        raise ValidationError(f"{details[0]['field']}: {details[0]['message']}", details=details) from None


def _json(field: str, text: str) -> Any:
    try:
        return from_json(text)
    except ValueError:
        raise _invalid(field, "is not JSON") from None


def _unknown(batch_id: str) -> NotFoundError:
    return NotFoundError(f"there is no batch {batch_id!r}")


def _invalid(field: str, message: str) -> ValidationError:
    return ValidationError(f"{field}: {message}", details=[{"field": field, "message": message}])
