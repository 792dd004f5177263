"""A batch and its rows as callers read them: JSON, JSON lines, CSV."""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from typing import Any

from agentflow.types.batches import Batch, BatchError, Webhook
from agentflow.types.runs import Usage
from pydantic_core import from_json, to_json

from agentflow_server.kit.clock import to_datetime
from agentflow_server.resources.batches.store import BatchRecord

_NANO = 1_000_000_000


def wire(record: BatchRecord, secret: str | None = None) -> Batch:
    """A batch; `secret` is shown in the answer that creates it alone."""
    processed = record.succeeded + record.failed
    hook = record.webhook
    return Batch(
        id=record.id,
        operation=record.operation,
        status=record.status,
        model=record.model,
        total=record.total,
        processed=processed,
        succeeded=record.succeeded,
        failed=record.failed,
        progress=round(processed / record.total, 6) if record.total else 0.0,
        usage=Usage(
            input_tokens=record.input_tokens,
            cached_input_tokens=record.cached_input_tokens,
            output_tokens=record.output_tokens,
            total_tokens=record.input_tokens + record.output_tokens,
        ),
        cost=None if record.cost is None else record.cost / _NANO,
        error=BatchError(**record.error) if record.error else None,
        webhook=Webhook(
            url=hook["url"],
            secret=secret,
            status=hook["status"],
            attempts=hook["attempts"],
            last_error=hook.get("last_error"),
        )
        if hook
        else None,
        created_at=to_datetime(record.created_at),
        started_at=None if record.started_at is None else to_datetime(record.started_at),
        finished_at=None if record.finished_at is None else to_datetime(record.finished_at),
    )


def json_page(record: BatchRecord, rows: Iterable[bytes], offset: int, limit: int) -> bytes:
    """A page of rows; they are stored as JSON, and put together as they are."""
    head = to_json({"id": record.id, "status": record.status, "offset": offset, "limit": limit, "total": record.total})
    return b'%s,"results":[%s]}' % (head[:-1], b",".join(rows))


def json_lines(rows: Sequence[bytes]) -> bytes:
    """Rows, one a line."""
    return b"\n".join(rows) + b"\n" if rows else b""


class CsvWriter:
    """Rows as CSV (RFC 4180).

    Args:
        columns: values of the result that have a column each; None for one column with the result as JSON.
    """

    def __init__(self, columns: Sequence[str] | None) -> None:
        self._columns = columns

    def head(self) -> bytes:
        """The names of the columns."""
        return self._line(["index", "success", *(self._columns or ("result",)), "error_code", "error_message"])

    def rows(self, rows: Iterable[bytes]) -> bytes:
        """Lines for rows."""
        return b"".join(self._line(self._cells(from_json(row))) for row in rows)

    def _cells(self, row: dict[str, Any]) -> list[Any]:
        result, error = row.get("result"), row.get("error") or {}
        if self._columns is None:
            values = [_cell(result)]
        else:
            values = [_cell(result.get(name)) if isinstance(result, dict) else "" for name in self._columns]
        return [row["index"], _cell(row["success"]), *values, error.get("code", ""), error.get("message", "")]

    def _line(self, cells: Sequence[Any]) -> bytes:
        buffer = io.StringIO()
        csv.writer(buffer).writerow(cells)
        return buffer.getvalue().encode()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
