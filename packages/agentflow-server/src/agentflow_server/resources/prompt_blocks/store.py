"""Prompt blocks in the database. SQL of this room and nothing else; called by its service."""

import json
from dataclasses import dataclass
from typing import Any

from agentflow_server.storage import Row, Tx

_COLUMNS = "name, data, version, created_at, updated_at FROM prompt_blocks WHERE tenant = :tenant"


@dataclass(frozen=True, slots=True)
class BlockRecord:
    """A static block, or what a tenant has changed of a dynamic one. `data` holds the fields."""

    name: str
    data: dict[str, Any]
    version: int
    created_at: int
    updated_at: int


def _record(row: Row) -> BlockRecord:
    return BlockRecord(row["name"], json.loads(row["data"]), row["version"], row["created_at"], row["updated_at"])


def every(tx: Tx) -> list[BlockRecord]:
    """The tenant's blocks; the service bounds how many there can be."""
    return [_record(row) for row in tx.all(f"SELECT {_COLUMNS}")]


def by_name(tx: Tx, name: str) -> BlockRecord | None:
    row = tx.one(f"SELECT {_COLUMNS} AND name = :name", {"name": name})
    return _record(row) if row else None


def count(tx: Tx) -> int:
    """How many there are."""
    row = tx.one("SELECT COUNT(*) AS n FROM prompt_blocks WHERE tenant = :tenant")
    return row["n"] if row else 0


def insert(tx: Tx, block: BlockRecord) -> bool:
    """Write a new block; False if its name is taken."""
    return (
        tx.execute(
            "INSERT INTO prompt_blocks (tenant, name, data, version, created_at, updated_at)"
            " VALUES (:tenant, :name, :data, :version, :created, :updated) ON CONFLICT DO NOTHING",
            _params(block),
        )
        == 1
    )


def replace(tx: Tx, block: BlockRecord) -> None:
    """Write a block, in place of the one of this name if there is one."""
    tx.execute(
        "INSERT INTO prompt_blocks (tenant, name, data, version, created_at, updated_at)"
        " VALUES (:tenant, :name, :data, :version, :created, :updated) ON CONFLICT (tenant, name)"
        " DO UPDATE SET data = :data, version = :version, updated_at = :updated",
        _params(block),
    )


def _params(block: BlockRecord) -> dict[str, Any]:
    return {
        "name": block.name,
        "data": json.dumps(block.data),
        "version": block.version,
        "created": block.created_at,
        "updated": block.updated_at,
    }


def delete(tx: Tx, name: str) -> bool:
    """Remove a block; False if there is none."""
    return tx.execute("DELETE FROM prompt_blocks WHERE tenant = :tenant AND name = :name", {"name": name}) == 1
