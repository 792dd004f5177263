"""Rows of batches: what is asked, the items in chunks, and a result an item.

A chunk is `pending`, `running` (a job of the ledger has it), `done`, or `stopped` with its batch. A result is final
when its row is there; the batch's counters change in the same transaction.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from agentflow_server.storage import Row, Tx


class BatchRecord(NamedTuple):
    """A stored batch. `file` is the digest of an uploaded file that is still to be read."""

    id: str
    user_id: str
    operation: str
    model: str
    status: str
    spec: dict[str, Any]
    file: dict[str, Any] | None
    webhook: dict[str, Any] | None
    error: dict[str, Any] | None
    total: int
    succeeded: int
    failed: int
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    cost: int | None
    created_at: int
    started_at: int | None
    finished_at: int | None


class Chunk(NamedTuple):
    """Neighbouring items, one JSON object a line."""

    number: int
    first: int
    size: int
    items: bytes


class Tally(NamedTuple):
    """What a group of results adds to its batch. `cost` is in billionths of a US dollar."""

    succeeded: int
    failed: int
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    cost: int | None


_JSON = ("spec", "file", "webhook", "error")
_COLUMNS = BatchRecord._fields
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM batches WHERE tenant = :tenant"  # noqa: S608 - constants


def _record(row: Row) -> BatchRecord:
    values = {name: row[name] for name in _COLUMNS}
    values.update({name: json.loads(values[name]) if values[name] else None for name in _JSON})
    return BatchRecord(**values)


def insert(tx: Tx, record: BatchRecord) -> None:
    """Write a batch."""
    values: dict[str, Any] = record._asdict()
    values.update({name: None if values[name] is None else json.dumps(values[name]) for name in _JSON})
    names = ", ".join(_COLUMNS)
    places = ", ".join(f":{name}" for name in _COLUMNS)
    tx.execute(f"INSERT INTO batches (tenant, {names}) VALUES (:tenant, {places})", values)  # noqa: S608 - constants


def by_id(tx: Tx, batch_id: str) -> BatchRecord | None:
    """A batch of the tenant."""
    row = tx.one(f"{_SELECT} AND id = :id", {"id": batch_id})
    return _record(row) if row else None


def awaits_file(tx: Tx, digest: str) -> bool:
    """Whether a batch of the tenant is still to read a file with these bytes."""
    found = "SELECT 1 AS ok FROM batches WHERE tenant = :tenant AND status = 'queued' AND file LIKE :file LIMIT 1"
    return tx.one(found, {"file": f"%{digest}%"}) is not None


def page(tx: Tx, user_id: str, status: str | None, limit: int, offset: int) -> tuple[list[BatchRecord], int]:
    """A user's batches, newest first, and how many there are."""
    which = " AND user_id = :user" + (" AND status = :status" if status else "")
    params: dict[str, Any] = {"user": user_id, **({"status": status} if status else {})}
    rows = tx.all(
        f"{_SELECT}{which} ORDER BY created_at DESC, id DESC LIMIT :limit OFFSET :offset",
        {**params, "limit": limit, "offset": offset},
    )
    counted = tx.one(f"SELECT COUNT(*) AS n FROM batches WHERE tenant = :tenant{which}", params)  # noqa: S608
    return [_record(row) for row in rows], counted["n"] if counted else 0


def add_chunks(tx: Tx, batch_id: str, chunks: Iterable[Chunk]) -> None:
    """Write items."""
    tx.executemany(
        "INSERT INTO batch_chunks (tenant, batch_id, number, first, size, status, items)"
        " VALUES (:tenant, :batch, :number, :first, :size, 'pending', :items)",
        [{"batch": batch_id, **chunk._asdict()} for chunk in chunks],
    )


def stored(tx: Tx, batch_id: str) -> tuple[int, int]:
    """How many chunks and items of a batch are there."""
    row = tx.one(
        "SELECT COUNT(*) AS chunks, COALESCE(SUM(size), 0) AS items FROM batch_chunks"
        " WHERE tenant = :tenant AND batch_id = :batch",
        {"batch": batch_id},
    )
    return (row["chunks"], int(row["items"])) if row else (0, 0)


def begin(tx: Tx, batch_id: str, total: int) -> bool:
    """All items are there: let the batch be worked on. False if it has ended in the meantime."""
    return (
        tx.execute(
            "UPDATE batches SET status = 'processing', total = :total, file = NULL"
            " WHERE tenant = :tenant AND id = :id AND status = 'queued'",
            {"id": batch_id, "total": total},
        )
        == 1
    )


def running(tx: Tx) -> int:
    """How many chunks of the tenant are being worked on."""
    row = tx.one("SELECT COUNT(*) AS n FROM batch_chunks WHERE tenant = :tenant AND status = 'running'")
    return row["n"] if row else 0


def next_pending(tx: Tx) -> tuple[str, int] | None:
    """The chunk whose turn it is: the first pending one of the batch that has waited longest."""
    row = tx.one(
        "SELECT b.id AS batch_id, (SELECT MIN(c.number) FROM batch_chunks c WHERE c.tenant = :tenant"
        " AND c.batch_id = b.id AND c.status = 'pending') AS number FROM batches b WHERE b.tenant = :tenant"
        " AND b.status = 'processing' AND EXISTS (SELECT 1 FROM batch_chunks c WHERE c.tenant = :tenant"
        " AND c.batch_id = b.id AND c.status = 'pending') ORDER BY b.turn, b.created_at LIMIT 1"
    )
    return (row["batch_id"], row["number"]) if row else None


def take(tx: Tx, batch_id: str, number: int, job_id: str, now: int) -> bool:
    """Give a chunk to a job; False if it is taken. Results of it that failed before are forgotten: it is a retry."""
    params = {"batch": batch_id, "number": number, "job": job_id, "now": now}
    row = tx.one(
        "UPDATE batch_chunks SET status = 'running', job_id = :job WHERE tenant = :tenant AND batch_id = :batch"
        " AND number = :number AND status = 'pending' RETURNING first, size, failed",
        params,
    )
    if row is None:
        return False
    if row["failed"]:
        tx.execute(
            "DELETE FROM batch_results WHERE tenant = :tenant AND batch_id = :batch AND item >= :first"
            " AND item < :end AND success = 0",
            {"batch": batch_id, "first": row["first"], "end": row["first"] + row["size"]},
        )
        tx.execute(
            "UPDATE batch_chunks SET failed = 0 WHERE tenant = :tenant AND batch_id = :batch AND number = :number",
            params,
        )
    tx.execute(
        "UPDATE batches SET turn = :now, started_at = COALESCE(started_at, :now)"
        " WHERE tenant = :tenant AND id = :batch",
        params,
    )
    return True


def chunk(tx: Tx, batch_id: str, number: int, job_id: str) -> Chunk | None:
    """The items of a chunk, if the job still has it."""
    row = tx.one(
        "SELECT number, first, size, items FROM batch_chunks WHERE tenant = :tenant AND batch_id = :batch"
        " AND number = :number AND status = 'running' AND job_id = :job",
        {"batch": batch_id, "number": number, "job": job_id},
    )
    return Chunk(row["number"], row["first"], row["size"], bytes(row["items"])) if row else None


def finished_items(tx: Tx, batch_id: str, part: Chunk) -> set[int]:
    """Which items of a chunk have their result."""
    rows = tx.all(
        "SELECT item FROM batch_results WHERE tenant = :tenant AND batch_id = :batch AND item >= :first"
        " AND item < :end",
        {"batch": batch_id, "first": part.first, "end": part.first + part.size},
    )
    return {row["item"] for row in rows}


def add_results(tx: Tx, batch_id: str, rows: Sequence[tuple[int, bool, bytes]], tally: Tally) -> bool:
    """Write results and count them; False, and nothing is written, if the batch is not being worked on any more."""
    counted = tx.execute(
        "UPDATE batches SET succeeded = succeeded + :succeeded, failed = failed + :failed,"
        " input_tokens = input_tokens + :input_tokens, output_tokens = output_tokens + :output_tokens,"
        " cached_input_tokens = cached_input_tokens + :cached_input_tokens,"
        " cost = COALESCE(cost + CAST(:cost AS BIGINT), CAST(:cost AS BIGINT), cost)"
        " WHERE tenant = :tenant AND id = :batch AND status = 'processing'",
        {"batch": batch_id, **tally._asdict()},
    )
    if counted != 1:
        return False
    tx.executemany(
        "INSERT INTO batch_results (tenant, batch_id, item, success, data)"
        " VALUES (:tenant, :batch, :item, :success, :data)",
        [{"batch": batch_id, "item": item, "success": int(success), "data": data} for item, success, data in rows],
    )
    return True


def finish_chunk(tx: Tx, batch_id: str, part: Chunk) -> None:
    """A chunk has all its results. Its items are kept only if some failed: for a retry."""
    params = {"batch": batch_id, "number": part.number, "first": part.first, "end": part.first + part.size}
    row = tx.one(
        "SELECT COUNT(*) AS n FROM batch_results WHERE tenant = :tenant AND batch_id = :batch AND item >= :first"
        " AND item < :end AND success = 0",
        params,
    )
    failed = row["n"] if row else 0
    emptied = "" if failed else ", items = :empty"
    tx.execute(
        f"UPDATE batch_chunks SET status = 'done', failed = :failed, job_id = NULL{emptied}"  # noqa: S608 - constants
        " WHERE tenant = :tenant AND batch_id = :batch AND number = :number",
        {**params, "failed": failed, **({} if failed else {"empty": b""})},
    )


def is_worked_off(tx: Tx, batch_id: str) -> bool:
    """Whether no chunk of a batch is left to do."""
    row = tx.one(
        "SELECT 1 AS ok FROM batch_chunks WHERE tenant = :tenant AND batch_id = :batch AND status <> 'done' LIMIT 1",
        {"batch": batch_id},
    )
    return row is None


def end(tx: Tx, batch_id: str, status: str, now: int, error: dict[str, Any] | None = None) -> list[str] | None:
    """End a batch, and stop its chunks; returns the jobs that were working on it, None if it had ended before."""
    ended = tx.execute(
        "UPDATE batches SET status = :status, finished_at = :now, error = :error WHERE tenant = :tenant AND id = :batch"
        " AND status IN ('queued', 'processing')",
        {"batch": batch_id, "status": status, "now": now, "error": json.dumps(error) if error else None},
    )
    if ended != 1:
        return None
    jobs = running_jobs(tx, batch_id)
    tx.execute(
        "UPDATE batch_chunks SET status = 'stopped' WHERE tenant = :tenant AND batch_id = :batch"
        " AND status IN ('running', 'pending')",
        {"batch": batch_id},
    )
    return jobs


def running_jobs(tx: Tx, batch_id: str) -> list[str]:
    """The jobs that work on a batch."""
    rows = tx.all(
        "SELECT job_id FROM batch_chunks WHERE tenant = :tenant AND batch_id = :batch AND status = 'running'",
        {"batch": batch_id},
    )
    return [row["job_id"] for row in rows]


def reopen(tx: Tx, batch_id: str) -> bool:
    """Let what failed, and what was never done, be done again; False if there is nothing of the kind."""
    params = {"batch": batch_id}
    chunks = tx.execute(
        "UPDATE batch_chunks SET status = 'pending', job_id = NULL WHERE tenant = :tenant AND batch_id = :batch"
        " AND (status = 'stopped' OR failed > 0)",
        params,
    )
    if chunks == 0:
        return False
    tx.execute(
        "UPDATE batch_chunks SET failed = 1 WHERE tenant = :tenant AND batch_id = :batch AND status = 'pending'", params
    )
    tx.execute(
        "UPDATE batches SET status = 'processing', failed = 0, error = NULL, finished_at = NULL"
        " WHERE tenant = :tenant AND id = :batch",
        params,
    )
    return True


def results(tx: Tx, batch_id: str, start: int, stop: int) -> list[bytes]:
    """The rows of the items from `start` up to `stop` (not included), as JSON."""
    rows = tx.all(
        "SELECT data FROM batch_results WHERE tenant = :tenant AND batch_id = :batch AND item >= :start"
        " AND item < :stop ORDER BY item",
        {"batch": batch_id, "start": start, "stop": stop},
    )
    return [bytes(row["data"]) for row in rows]


def set_webhook(tx: Tx, batch_id: str, webhook: dict[str, Any]) -> None:
    """Keep how the telling goes."""
    tx.execute(
        "UPDATE batches SET webhook = :webhook WHERE tenant = :tenant AND id = :batch",
        {"batch": batch_id, "webhook": json.dumps(webhook)},
    )


def delete(tx: Tx, batch_id: str) -> None:
    """Remove a batch with its items and results."""
    for table, column in (("batch_results", "batch_id"), ("batch_chunks", "batch_id"), ("batches", "id")):
        tx.execute(
            f"DELETE FROM {table} WHERE tenant = :tenant AND {column} = :batch",  # noqa: S608 - constants
            {"batch": batch_id},
        )
