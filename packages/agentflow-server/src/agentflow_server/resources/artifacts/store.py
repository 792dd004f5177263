"""Artifacts, their versions and their types in the database. SQL of this room and nothing else; called by its service.

An artifact belongs to the user in whose conversation it was made.
"""

import json
from dataclasses import dataclass
from typing import Any

from agentflow_server.storage import Row, Tx

_COLUMNS = (
    "id, user_id, conversation_id, run_id, type, title, content, state, version, created_at, updated_at"
    " FROM artifacts WHERE tenant = :tenant"
)
_LAST_TURN = (
    "COALESCE((SELECT MAX(runs.created_at) FROM runs WHERE runs.tenant = :tenant"
    " AND runs.conversation_id = :conversation AND runs.call_id = runs.root_call_id), 0)"
)


@dataclass(frozen=True, slots=True)
class ArtifactRecord:
    """An artifact as it is stored."""

    id: str
    user_id: str
    conversation_id: str
    run_id: str | None
    type: str
    title: str
    content: dict[str, Any]
    state: dict[str, Any]
    version: int
    created_at: int
    updated_at: int


@dataclass(frozen=True, slots=True)
class VersionRecord:
    """How an artifact stood after a change. `author` is `agent` or `user`."""

    artifact_id: str
    version: int
    author: str
    change: str
    title: str
    content: dict[str, Any]
    state: dict[str, Any]
    created_at: int


def _record(row: Row) -> ArtifactRecord:
    return ArtifactRecord(
        row["id"], row["user_id"], row["conversation_id"], row["run_id"], row["type"], row["title"],
        json.loads(row["content"]), json.loads(row["state"]), row["version"], row["created_at"], row["updated_at"],
    )  # fmt: skip


def _version(row: Row) -> VersionRecord:
    return VersionRecord(
        row["artifact_id"], row["version"], row["author"], row["change"], row["title"], json.loads(row["content"]),
        json.loads(row["state"]), row["created_at"],
    )  # fmt: skip


def _row(artifact: ArtifactRecord) -> dict[str, Any]:
    return {
        "id": artifact.id, "user": artifact.user_id, "conversation": artifact.conversation_id, "run": artifact.run_id,
        "type": artifact.type, "title": artifact.title, "content": json.dumps(artifact.content),
        "state": json.dumps(artifact.state), "version": artifact.version, "created": artifact.created_at,
        "now": artifact.updated_at,
    }  # fmt: skip


def insert(tx: Tx, artifact: ArtifactRecord, author: str) -> None:
    """Write a new artifact and its first version."""
    tx.execute(
        "INSERT INTO artifacts (tenant, id, user_id, conversation_id, run_id, type, title, content, state, version,"
        " created_at, updated_at) VALUES (:tenant, :id, :user, :conversation, :run, :type, :title, :content, :state,"
        " :version, :created, :now)",
        _row(artifact),
    )
    _keep(tx, artifact, author, "created")


def replace(tx: Tx, artifact: ArtifactRecord, author: str, change: str) -> bool:
    """Write an artifact's next version; False if it does not stand at the version before."""
    done = tx.execute(
        "UPDATE artifacts SET title = :title, content = :content, state = :state, version = :version,"
        " updated_at = :now WHERE tenant = :tenant AND id = :id AND version = :version - 1",
        _row(artifact),
    )
    if done == 1:
        _keep(tx, artifact, author, change)
    return done == 1


def _keep(tx: Tx, artifact: ArtifactRecord, author: str, change: str) -> None:
    tx.execute(
        "INSERT INTO artifact_versions (tenant, artifact_id, version, conversation_id, author, change, title, content,"
        " state, created_at) VALUES (:tenant, :id, :version, :conversation, :author, :change, :title, :content, :state,"
        " :now)",
        {**_row(artifact), "author": author, "change": change},
    )


def by_id(tx: Tx, artifact_id: str, user_id: str) -> ArtifactRecord | None:
    row = tx.one(f"SELECT {_COLUMNS} AND id = :id AND user_id = :user", {"id": artifact_id, "user": user_id})
    return _record(row) if row else None


def page(
    tx: Tx, user_id: str, *, conversation_id: str | None, type_: str | None, limit: int, offset: int
) -> tuple[list[ArtifactRecord], int]:
    """A page of a user's artifacts, the newest first, and how many match."""
    where = " AND user_id = :user"
    where += " AND conversation_id = :conversation" if conversation_id else ""
    where += " AND type = :type" if type_ else ""
    key = {"user": user_id, "conversation": conversation_id, "type": type_, "limit": limit, "offset": offset}
    rows = tx.all(f"SELECT {_COLUMNS}{where} ORDER BY created_at DESC, id DESC LIMIT :limit OFFSET :offset", key)
    total = tx.one(f"SELECT COUNT(*) AS n FROM artifacts WHERE tenant = :tenant{where}", key)  # noqa: S608
    return [_record(row) for row in rows], total["n"] if total else 0


def versions(tx: Tx, artifact_id: str, *, limit: int, offset: int) -> tuple[list[VersionRecord], int]:
    """A page of an artifact's versions, the newest first, and how many there are."""
    key = {"id": artifact_id, "limit": limit, "offset": offset}
    rows = tx.all(
        "SELECT artifact_id, version, author, change, title, content, state, created_at FROM artifact_versions"
        " WHERE tenant = :tenant AND artifact_id = :id ORDER BY version DESC LIMIT :limit OFFSET :offset",
        key,
    )
    count = "SELECT COUNT(*) AS n FROM artifact_versions WHERE tenant = :tenant AND artifact_id = :id"
    total = tx.one(count, key)
    return [_version(row) for row in rows], total["n"] if total else 0


def changed_by_user(tx: Tx, conversation_id: str, user_id: str) -> list[VersionRecord]:
    """What people changed after the conversation's newest turn was accepted, oldest first."""
    rows = tx.all(
        "SELECT v.artifact_id, v.version, v.author, v.change, v.title, v.content, v.state, v.created_at"  # noqa: S608
        " FROM artifact_versions AS v JOIN artifacts ON artifacts.tenant = v.tenant AND artifacts.id = v.artifact_id"
        " WHERE v.tenant = :tenant AND v.conversation_id = :conversation AND artifacts.user_id = :user"
        f" AND v.author = 'user' AND v.created_at > {_LAST_TURN} ORDER BY v.created_at, v.version",
        {"conversation": conversation_id, "user": user_id},
    )
    return [_version(row) for row in rows]


def types(tx: Tx) -> dict[str, dict[str, Any]]:
    """The types the tenant has defined, by name."""
    rows = tx.all("SELECT name, data FROM artifact_types WHERE tenant = :tenant ORDER BY name")
    return {row["name"]: json.loads(row["data"]) for row in rows}


def put_type(tx: Tx, name: str, data: dict[str, Any], now: int) -> None:
    """Define a type of the tenant, or define it anew."""
    tx.execute(
        "INSERT INTO artifact_types (tenant, name, data, created_at, updated_at)"
        " VALUES (:tenant, :name, :data, :now, :now)"
        " ON CONFLICT (tenant, name) DO UPDATE SET data = :data, updated_at = :now",
        {"name": name, "data": json.dumps(data), "now": now},
    )


def delete_type(tx: Tx, name: str) -> bool:
    """Remove a type of the tenant; False if there is none."""
    return tx.execute("DELETE FROM artifact_types WHERE tenant = :tenant AND name = :name", {"name": name}) == 1


def erase(tx: Tx, conversation_id: str) -> None:
    """Remove the artifacts of a conversation."""
    for table in ("artifact_versions", "artifacts"):
        tx.execute(
            f"DELETE FROM {table} WHERE tenant = :tenant AND conversation_id = :conversation",  # noqa: S608
            {"conversation": conversation_id},
        )
