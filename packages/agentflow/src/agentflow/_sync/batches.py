"""Generated from agentflow/resources/batches.py by tools/sync_generator.py: do not edit.

`client.batches`: the operations of `client.completions` on many items, done in the background."""

import json
import time
from collections.abc import Iterator, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from agentflow.errors import RequestTimeoutError
from agentflow._sync.completions import Item, item_of, response_format
from agentflow._sync.downloads import Download
from agentflow._sync.pages import Page
from agentflow._sync.runs import segment
from agentflow._sync.streams import BatchWatch, new_id
from agentflow.transport.drivers import SyncTransport
from agentflow.transport.request import Request, Timeout
from agentflow.transport.uploads import FilePart, FileSource, Multipart, Progress
from agentflow.types.batches import Batch, BatchOutput, BatchPage, BatchStatus
from agentflow.types.completions import CompletionRow

_BASE = "/api/v1/batches"
_NAMES = {"classify": "label"}
_MAX_IN_BODY = 2_000_000
_MAX_ITEMS_IN_BODY = 10_000
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0
OnProgress = Callable[[Batch], object]


class Batches:
    """Batches of the caller."""

    def __init__(self, transport: SyncTransport) -> None:
        self._transport = transport

    def submit(
        self,
        *,
        operation: str,
        items: Iterable[Item],
        model: str | None = None,
        webhook_url: str | None = None,
        webhook_secret: str | None = None,
        idempotency_key: str | None = None,
        timeout: Timeout | float | None = None,
        **fields: Any,
    ) -> Batch:
        """Hand in items; they are worked off in the background.

        Args:
            operation: `label`, `extract`, `summarize`, `enrich` or `run`, as in `client.completions`.
            items: texts or `{"content": …, "metadata": {…}}`; a list, or anything that gives them one by one: many
                are sent as they come, and never held together.
            webhook_url: told when the batch has ended. webhook_secret: what that message is signed with (`whsec_…`);
                without one the answer's `webhook.secret` has it, this once.
            fields: those of the operation, and `temperature`, `max_tokens`, `output_type`.

        Raises:
            ValidationError: a field does not hold. PermissionDeniedError: the model may not be used.
        """
        options = {**_fields(fields), "model": model, "webhook_url": webhook_url, "webhook_secret": webhook_secret}
        known = {name: value for name, value in options.items() if value is not None}
        name = _NAMES.get(operation, operation)
        few = _few(items)
        headers = {"Idempotency-Key": idempotency_key or new_id()}
        if few is not None:
            body = {"operation": name, **known, "items": few}
            request = Request("POST", _BASE, body=body, headers=headers, repeatable=True, timeout=timeout)
            return self._transport.call(request, Batch)
        lines = FilePart("file", _Lines(items), "items.jsonl", "application/x-ndjson")
        return self._upload(lines, name, known, headers, None, timeout)

    def submit_and_wait(
        self,
        *,
        operation: str,
        items: Iterable[Item],
        model: str | None = None,
        timeout: float | None = None,
        on_progress: OnProgress | None = None,
        **fields: Any,
    ) -> Batch:
        """Hand in items and wait until they are worked off. Arguments as for `submit` and `wait`."""
        batch = self.submit(operation=operation, items=items, model=model, **fields)
        return self.wait(batch.id, timeout=timeout, on_progress=on_progress)

    def upload_file(
        self,
        file: FileSource,
        *,
        operation: str,
        name: str | None = None,
        format: str | None = None,  # noqa: A002 - the wire's name
        model: str | None = None,
        webhook_url: str | None = None,
        webhook_secret: str | None = None,
        idempotency_key: str | None = None,
        progress: Progress | None = None,
        timeout: Timeout | float | None = None,
        **fields: Any,
    ) -> Batch:
        """Hand in a file of items: CSV with a header, a JSON array or object, JSON lines.

        A column or a field `content` is what is looked at; the others are the item's metadata.

        Args:
            file: a path, bytes, or a file that is open for reading bytes. name: its name, by default the path's.
            format: `csv`, `json` or `jsonl`; by default the name's ending tells.
            progress: called with the bytes sent so far, and with how many there are.

        Raises:
            PayloadTooLargeError: the file is too large. Otherwise as `submit`; what is wrong inside of the file shows
            as a batch that failed with the code `invalid_file`.
        """
        hook = {"webhook_url": webhook_url, "webhook_secret": webhook_secret}
        options = {**_fields(fields), **hook, "model": model, "format": format}
        known = {key: value for key, value in options.items() if value is not None}
        headers = {"Idempotency-Key": idempotency_key or new_id()}
        part = FilePart("file", file, name)
        return self._upload(part, _NAMES.get(operation, operation), known, headers, progress, timeout)

    def _upload(
        self,
        part: FilePart,
        operation: str,
        fields: Mapping[str, Any],
        headers: dict[str, str],
        progress: Progress | None,
        timeout: Timeout | float | None,
    ) -> Batch:
        texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in fields.items()}
        form = Multipart([part], {"operation": operation, **texts}, progress)
        request = Request("POST", "/api/v1/files", upload=form, headers=headers, repeatable=True, timeout=timeout)
        return self._transport.call(request, Batch)

    def retrieve(self, batch_id: str) -> Batch:
        """How a batch stands.

        Raises:
            NotFoundError: there is no such batch.
        """
        return self._transport.call(Request("GET", _path(batch_id), repeatable=True), Batch)

    def list(self, *, status: BatchStatus | None = None, limit: int = 50, offset: int = 0) -> Page[Batch]:
        """The caller's batches, newest first; iterating the page walks on through all.

        Args:
            limit: 1 to 100.
        """
        query = {"status": status, "limit": limit, "offset": offset}
        data = self._transport.call(Request("GET", _BASE, query, repeatable=True), BatchPage)

        def fetch(start: int) -> Page[Batch]:
            return self.list(status=status, limit=limit, offset=start)

        return Page(data, "batches", fetch)

    def wait(self, batch_id: str, *, timeout: float | None = None, on_progress: OnProgress | None = None) -> Batch:
        """Wait until a batch is completed, failed or cancelled.

        Args:
            timeout: seconds; None waits for ever. The batch goes on whatever happens here.
            on_progress: called with the batch whenever it was looked at.

        Raises:
            RequestTimeoutError: it has not ended in time. NotFoundError: there is no such batch.
        """
        until = None if timeout is None else time.monotonic() + timeout
        pause = _FIRST_PAUSE
        while True:
            batch = self.retrieve(batch_id)
            if on_progress is not None:
                on_progress(batch)
            if batch.done:
                return batch
            if until is not None and time.monotonic() + pause > until:
                raise RequestTimeoutError(
                    f"the batch {batch_id} is {batch.status} after {timeout:g} s: {batch.processed} of {batch.total}",
                    hint="It goes on; wait for it again.",
                )
            self._transport.sleep(pause)
            pause = min(_LONGEST_PAUSE, pause * 1.5)

    def watch(self, batch_id: str, *, last_event_id: str | None = None) -> BatchWatch[Batch]:
        """How a batch stands, and every change until its end; an iterator and a context manager.

        Args:
            last_event_id: an earlier watch's `last_event_id`: begin with the first change since.

        Raises:
            NotFoundError: there is no such batch (when the watch is read).
        """
        return BatchWatch(self._transport, _path(batch_id, "/events"), last_event_id, Batch)

    def output(
        self,
        batch_id: str,
        *,
        format: str = "json",  # noqa: A002 - the wire's name
        offset: int = 0,
        limit: int | None = None,
    ) -> Any:
        """Rows: a page of them (`json`: a `BatchOutput`, 1,000 items by default, 10,000 at most), or all as text.

        Args:
            format: `json`, `jsonl` or `csv`. offset: the first item. limit: how many items.

        Raises:
            NotFoundError: there is no such batch.
        """
        query = {"format": format, "offset": offset, "limit": limit}
        path = _path(batch_id, "/output")
        if format == "json":
            return self._transport.call(Request("GET", path, query, repeatable=True), BatchOutput)
        return (Download(self._transport, path, _plain(query)).read()).decode()

    def iter_output(self, batch_id: str, *, page_size: int = 1000) -> Iterator[CompletionRow[Any]]:
        """Every row, page by page, in the order of the items.

        Raises:
            NotFoundError: there is no such batch.
        """
        offset, total = 0, 1
        while offset < total:
            page: BatchOutput = self.output(batch_id, offset=offset, limit=page_size)
            for row in page.results:
                yield row
            offset, total = offset + page_size, page.total

    def download_output(
        self,
        batch_id: str,
        path: "str | Path",
        *,
        format: str | None = None,  # noqa: A002 - the wire's name
        progress: Progress | None = None,
    ) -> Path:
        """Write all rows to a file, as they arrive.

        Args:
            format: `jsonl` or `csv`; by default the path's ending tells.
            progress: called with the bytes that are there so far.

        Raises:
            NotFoundError: there is no such batch. OSError: the path cannot be written.
        """
        chosen = format or ("csv" if Path(path).suffix.lower() == ".csv" else "jsonl")
        download = Download(self._transport, _path(batch_id, "/output"), {"format": chosen})
        return download.save(path, progress=progress)

    def cancel(self, batch_id: str) -> Batch:
        """Stop a batch. Rows that are there stay.

        Raises:
            NotFoundError: there is no such batch.
        """
        return self._transport.call(Request("POST", _path(batch_id, "/cancel"), repeatable=True), Batch)

    def retry(self, batch_id: str) -> Batch:
        """Do again what failed, and what was never done because the batch failed or was cancelled.

        Raises:
            NotFoundError: there is no such batch. ConflictError: it has not ended, or there is nothing to repeat.
        """
        return self._transport.call(Request("POST", _path(batch_id, "/retry")), Batch)

    def delete(self, batch_id: str) -> None:
        """Remove a batch that has ended, with its rows.

        Raises:
            NotFoundError: there is no such batch. ConflictError: it has not ended.
        """
        self._transport.raw(Request("DELETE", _path(batch_id)))


class _Lines:
    """Items as a file of JSON lines, made while it is read."""

    def __init__(self, items: Iterable[Item]) -> None:
        self._items = iter(items)
        self._rest = b""

    def read(self, size: int = -1) -> bytes:
        """At most so many bytes; none at the end."""
        if size == 0:
            return b""
        pieces, length = [self._rest], len(self._rest)
        while size < 0 or length < size:
            item = next(self._items, None)
            if item is None:
                break
            line = json.dumps(item_of(item), ensure_ascii=False).encode() + b"\n"
            pieces.append(line)
            length += len(line)
        data = b"".join(pieces)
        end = len(data) if size < 0 else size
        self._rest = data[end:]
        return data[:end]


def _few(items: Iterable[Item]) -> Sequence[dict[str, Any]] | None:
    """The items as the wire has them if they are few enough to stand in the request; None if they are not."""
    if not isinstance(items, Sequence) or len(items) > _MAX_ITEMS_IN_BODY:
        return None
    wire = [item_of(item) for item in items]
    size = sum(len(str(item.get("content", ""))) + len(str(item.get("metadata", ""))) + 40 for item in wire)
    return wire if size * 2 < _MAX_IN_BODY else None


def _fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The operation's fields as the wire has them."""
    wire = dict(fields)
    if "output_type" in wire:
        wire["response_format"] = response_format(wire.pop("output_type"))
    if "fields" in wire:
        wire["fields"] = [
            field.model_dump(exclude_unset=True) if hasattr(field, "model_dump") else field for field in wire["fields"]
        ]
    return wire


def _plain(query: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in query.items() if value is not None}


def _path(batch_id: str, rest: str = "") -> str:
    return f"{_BASE}/{segment(batch_id)}{rest}"
