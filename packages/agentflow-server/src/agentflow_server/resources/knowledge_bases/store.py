"""Rows of knowledge bases, their files and the jobs that bring files in. Passages and vectors are the index's."""
# ruff: noqa: S608 - statements are put together from constants

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from agentflow_server.storage import Row, Tx

Data = dict[str, Any]
WAITING = ("queued", "processing")
_FILE = "id, kb_id, name, digest, size, status, data, job_id, chunks, created_at, updated_at"
_KEY = "tenant = :tenant AND kb_id = :kb"


@dataclass(frozen=True, slots=True)
class BaseRecord:
    """A knowledge base. `embedder`: whose vectors it has; None for words only. `revision`: changes with its vectors."""

    id: str
    data: Data
    embedder: str | None
    revision: int
    created_at: int
    updated_at: int


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file of a base. `data`: what reading it told, or why it failed; the file it takes the place of."""

    id: str
    kb_id: str
    name: str
    digest: str
    size: int
    status: str
    created_at: int
    data: Data = field(default_factory=dict[str, Any])
    job_id: str | None = None
    chunks: int = 0
    updated_at: int = 0


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A job as its readers see it."""

    id: str
    kb_id: str
    kind: str
    status: str
    data: Data
    created_at: int
    updated_at: int


def insert_base(tx: Tx, base: BaseRecord) -> bool:
    """Add a base; False if its id is taken."""
    return (
        tx.execute(
            "INSERT INTO knowledge_bases (tenant, id, data, embedder, revision, created_at, updated_at)"
            " VALUES (:tenant, :id, :data, :embedder, :revision, :created, :updated) ON CONFLICT DO NOTHING",
            _base_params(base),
        )
        == 1
    )


def update_base(tx: Tx, base: BaseRecord) -> None:
    tx.execute(
        "UPDATE knowledge_bases SET data = :data, embedder = :embedder, revision = :revision, updated_at = :updated"
        " WHERE tenant = :tenant AND id = :id",
        _base_params(base),
    )


def touch(tx: Tx, kb: str, now: int) -> None:
    """The base's passages have changed."""
    tx.execute(
        "UPDATE knowledge_bases SET revision = revision + 1, updated_at = :now WHERE tenant = :tenant AND id = :kb",
        {"kb": kb, "now": now},
    )


def base_by_id(tx: Tx, kb: str) -> BaseRecord | None:
    row = tx.one("SELECT * FROM knowledge_bases WHERE tenant = :tenant AND id = :kb", {"kb": kb})
    return _base(row) if row else None


def bases_by_id(tx: Tx, ids: Sequence[str]) -> dict[str, BaseRecord]:
    found = [base_by_id(tx, kb) for kb in ids]
    return {base.id: base for base in found if base is not None}


def page_of_bases(tx: Tx, *, limit: int, offset: int) -> tuple[list[BaseRecord], int]:
    total = tx.one("SELECT COUNT(*) AS n FROM knowledge_bases WHERE tenant = :tenant")
    rows = tx.all(
        "SELECT * FROM knowledge_bases WHERE tenant = :tenant ORDER BY created_at, id LIMIT :limit OFFSET :offset",
        {"limit": limit, "offset": offset},
    )
    return [_base(row) for row in rows], total["n"] if total else 0


def delete_base(tx: Tx, kb: str) -> bool:
    """Remove a base with its files and jobs; the index's rows are the index's to remove."""
    for table in ("kb_files", "kb_jobs"):
        tx.execute(f"DELETE FROM {table} WHERE {_KEY}", {"kb": kb})
    return tx.execute("DELETE FROM knowledge_bases WHERE tenant = :tenant AND id = :kb", {"kb": kb}) == 1


def counts(tx: Tx, kb: str) -> tuple[int, int, int]:
    """Files, passages, and files that wait to be indexed."""
    row = tx.one(
        "SELECT COUNT(*) AS files, COALESCE(SUM(chunks), 0) AS chunks,"
        " COALESCE(SUM(CASE WHEN status IN ('queued', 'processing') THEN 1 ELSE 0 END), 0) AS waiting"
        f" FROM kb_files WHERE {_KEY}",
        {"kb": kb},
    )
    return (row["files"], int(row["chunks"]), int(row["waiting"])) if row else (0, 0, 0)


def insert_file(tx: Tx, file: FileRecord) -> None:
    tx.execute(
        "INSERT INTO kb_files (tenant, kb_id, id, name, digest, size, status, data, job_id, chunks, created_at,"
        " updated_at) VALUES (:tenant, :kb, :id, :name, :digest, :size, :status, :data, :job, :chunks, :created,"
        " :updated)",
        _file_params(file),
    )


def update_file(tx: Tx, file: FileRecord) -> None:
    tx.execute(
        "UPDATE kb_files SET status = :status, data = :data, job_id = :job, chunks = :chunks, updated_at = :updated"
        f" WHERE {_KEY} AND id = :id",
        _file_params(file),
    )


def file_by_id(tx: Tx, kb: str, file_id: str) -> FileRecord | None:
    row = tx.one(f"SELECT {_FILE} FROM kb_files WHERE {_KEY} AND id = :id", {"kb": kb, "id": file_id})
    return _file(row) if row else None


def file_by_digest(tx: Tx, kb: str, digest: str) -> FileRecord | None:
    """A file of this content that is in the base or on its way."""
    row = tx.one(
        f"SELECT {_FILE} FROM kb_files WHERE {_KEY} AND digest = :digest AND status <> 'failed' LIMIT 1",
        {"kb": kb, "digest": digest},
    )
    return _file(row) if row else None


def files_by_name(tx: Tx, kb: str, name: str) -> list[FileRecord]:
    rows = tx.all(f"SELECT {_FILE} FROM kb_files WHERE {_KEY} AND name = :name", {"kb": kb, "name": name})
    return [_file(row) for row in rows]


def files_of_job(tx: Tx, job_id: str) -> list[FileRecord]:
    rows = tx.all(
        f"SELECT {_FILE} FROM kb_files WHERE tenant = :tenant AND job_id = :job ORDER BY created_at, id",
        {"job": job_id},
    )
    return [_file(row) for row in rows]


def all_files(tx: Tx, kb: str) -> list[FileRecord]:
    rows = tx.all(f"SELECT {_FILE} FROM kb_files WHERE {_KEY} ORDER BY created_at, id", {"kb": kb})
    return [_file(row) for row in rows]


def page_of_files(tx: Tx, kb: str, *, limit: int, offset: int) -> tuple[list[FileRecord], int]:
    rows = tx.all(
        f"SELECT {_FILE} FROM kb_files WHERE {_KEY} ORDER BY created_at, id LIMIT :limit OFFSET :offset",
        {"kb": kb, "limit": limit, "offset": offset},
    )
    return [_file(row) for row in rows], counts(tx, kb)[0]


def delete_file(tx: Tx, kb: str, file_id: str) -> None:
    tx.execute(f"DELETE FROM kb_files WHERE {_KEY} AND id = :id", {"kb": kb, "id": file_id})


def uses_digest(tx: Tx, digest: str) -> bool:
    """Whether a file of the tenant still has this content."""
    return (
        tx.one("SELECT 1 AS ok FROM kb_files WHERE tenant = :tenant AND digest = :digest", {"digest": digest})
        is not None
    )


def insert_job(tx: Tx, job: JobRecord) -> None:
    tx.execute(
        "INSERT INTO kb_jobs (tenant, id, kb_id, kind, status, data, created_at, updated_at)"
        " VALUES (:tenant, :id, :kb, :kind, :status, :data, :created, :updated)",
        {
            "id": job.id, "kb": job.kb_id, "kind": job.kind, "status": job.status, "data": json.dumps(job.data),
            "created": job.created_at, "updated": job.updated_at,
        },
    )  # fmt: skip


def update_job(tx: Tx, job_id: str, status: str, data: Data, now: int) -> None:
    tx.execute(
        "UPDATE kb_jobs SET status = :status, data = :data, updated_at = :now WHERE tenant = :tenant AND id = :id",
        {"id": job_id, "status": status, "data": json.dumps(data), "now": now},
    )


def job_by_id(tx: Tx, job_id: str) -> JobRecord | None:
    row = tx.one("SELECT * FROM kb_jobs WHERE tenant = :tenant AND id = :id", {"id": job_id})
    if row is None:
        return None
    return JobRecord(
        row["id"], row["kb_id"], row["kind"], row["status"], json.loads(row["data"]), row["created_at"],
        row["updated_at"],
    )  # fmt: skip


def _base(row: Row) -> BaseRecord:
    return BaseRecord(
        row["id"], json.loads(row["data"]), row["embedder"], row["revision"], row["created_at"], row["updated_at"]
    )


def _base_params(base: BaseRecord) -> Data:
    return {
        "id": base.id, "data": json.dumps(base.data), "embedder": base.embedder, "revision": base.revision,
        "created": base.created_at, "updated": base.updated_at,
    }  # fmt: skip


def _file(row: Row) -> FileRecord:
    return FileRecord(
        row["id"], row["kb_id"], row["name"], row["digest"], row["size"], row["status"], row["created_at"],
        json.loads(row["data"]), row["job_id"], row["chunks"], row["updated_at"],
    )  # fmt: skip


def _file_params(file: FileRecord) -> Data:
    return {
        "kb": file.kb_id, "id": file.id, "name": file.name, "digest": file.digest, "size": file.size,
        "status": file.status, "data": json.dumps(file.data), "job": file.job_id, "chunks": file.chunks,
        "created": file.created_at, "updated": file.updated_at,
    }  # fmt: skip
