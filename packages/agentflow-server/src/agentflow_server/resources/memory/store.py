"""Memory in the database. SQL of this room and nothing else; called by its service, its index and its follower.

A block belongs to a user; `agent_id` is empty for what every agent may know. Vectors are kept by the text they stand
for, many in a row, so that a changed block keeps those of its unchanged entries.
"""

from dataclasses import dataclass, replace
from typing import Any

from agentflow_server.storage import Row, Tx

_COLUMNS = (
    "id, user_id, agent_id, block_type, content, created_at, updated_at FROM memory_blocks"
    " WHERE tenant = :tenant AND user_id = :user"
)
_ONE = " AND agent_id = :agent AND block_type = :type"


@dataclass(frozen=True, slots=True)
class BlockRecord:
    """A block as it is stored."""

    id: str
    user_id: str
    agent_id: str
    block_type: str
    content: str
    created_at: int
    updated_at: int


@dataclass(frozen=True, slots=True)
class Pending:
    """A conversation whose news are to be consolidated: parts behind number `upto`, when `due_at` has come."""

    user_id: str
    conversation_id: str
    agent_id: str
    upto: int
    due_at: int
    attempts: int


def _record(row: Row) -> BlockRecord:
    return BlockRecord(
        row["id"], row["user_id"], row["agent_id"], row["block_type"], row["content"], row["created_at"],
        row["updated_at"],
    )  # fmt: skip


def one(tx: Tx, user_id: str, agent_id: str, block_type: str) -> BlockRecord | None:
    row = tx.one(f"SELECT {_COLUMNS}{_ONE}", {"user": user_id, "agent": agent_id, "type": block_type})
    return _record(row) if row else None


def of_user(tx: Tx, user_id: str) -> list[BlockRecord]:
    """All blocks of a user, those for every agent first."""
    return [_record(row) for row in tx.all(f"SELECT {_COLUMNS} ORDER BY agent_id, block_type DESC", {"user": user_id})]


def cores(tx: Tx, user_id: str, agent_id: str) -> list[BlockRecord]:
    """The core blocks an agent is shown: the user's, then the agent's own."""
    rows = tx.all(
        f"SELECT {_COLUMNS} AND agent_id IN ('', :agent) AND block_type = 'core' ORDER BY agent_id",
        {"user": user_id, "agent": agent_id},
    )
    return [_record(row) for row in rows]


def versions(tx: Tx, user_id: str) -> dict[tuple[str, str], int]:
    """When each block of a user was changed last, by (agent, type)."""
    rows = tx.all(
        "SELECT agent_id, block_type, updated_at FROM memory_blocks WHERE tenant = :tenant AND user_id = :user",
        {"user": user_id},
    )
    return {(row["agent_id"], row["block_type"]): row["updated_at"] for row in rows}


def put(tx: Tx, block: BlockRecord) -> None:
    """Write a block, or replace its content."""
    tx.execute(
        "INSERT INTO memory_blocks (tenant, user_id, agent_id, block_type, id, created_at, updated_at, content)"
        " VALUES (:tenant, :user, :agent, :type, :id, :created, :updated, :content)"
        " ON CONFLICT (tenant, user_id, agent_id, block_type) DO UPDATE"
        " SET content = excluded.content, updated_at = excluded.updated_at",
        {
            "user": block.user_id, "agent": block.agent_id, "type": block.block_type, "id": block.id,
            "created": block.created_at, "updated": block.updated_at, "content": block.content,
        },
    )  # fmt: skip


def delete(tx: Tx, user_id: str, agent_id: str, block_type: str) -> bool:
    """Remove a block; False if there is none."""
    sql = f"DELETE FROM memory_blocks WHERE tenant = :tenant AND user_id = :user{_ONE}"  # noqa: S608 - constants
    return tx.execute(sql, {"user": user_id, "agent": agent_id, "type": block_type}) == 1


def erase(tx: Tx, user_id: str) -> int:
    """Remove everything this room holds of a user; returns how many blocks there were."""
    key = {"user": user_id}
    tx.execute("DELETE FROM memory_vectors WHERE tenant = :tenant AND user_id = :user", key)
    tx.execute("DELETE FROM memory_pending WHERE tenant = :tenant AND user_id = :user", key)
    return tx.execute("DELETE FROM memory_blocks WHERE tenant = :tenant AND user_id = :user", key)


def vectors(tx: Tx, user_id: str, embedder: str, after: int) -> list[tuple[int, bytes, bytes]]:
    """The user's vectors behind row `after`: (row, keys, vectors)."""
    rows = tx.all(
        "SELECT seq, keys, vectors FROM memory_vectors WHERE tenant = :tenant AND user_id = :user"
        " AND embedder = :embedder AND seq > :after ORDER BY seq",
        {"user": user_id, "embedder": embedder, "after": after},
    )
    return [(row["seq"], bytes(row["keys"]), bytes(row["vectors"])) for row in rows]


def last_vectors(tx: Tx, user_id: str, embedder: str) -> int:
    """The number of the user's newest row of vectors, -1 if there is none."""
    row = tx.one(
        "SELECT MAX(seq) AS seq FROM memory_vectors WHERE tenant = :tenant AND user_id = :user"
        " AND embedder = :embedder",
        {"user": user_id, "embedder": embedder},
    )
    return -1 if row is None or row["seq"] is None else row["seq"]


def add_vectors(tx: Tx, user_id: str, embedder: str, keys: bytes, values: bytes) -> None:
    """Add a row of vectors."""
    tx.execute(
        "INSERT INTO memory_vectors (tenant, user_id, embedder, seq, keys, vectors)"
        " VALUES (:tenant, :user, :embedder, :seq, :keys, :vectors)",
        {
            "user": user_id, "embedder": embedder, "seq": last_vectors(tx, user_id, embedder) + 1, "keys": keys,
            "vectors": values,
        },
    )  # fmt: skip


def drop_vectors(tx: Tx, user_id: str, embedder: str, upto: int) -> None:
    """Remove the user's vectors up to row `upto`, and those of every other embedder."""
    tx.execute(
        "DELETE FROM memory_vectors WHERE tenant = :tenant AND user_id = :user"
        " AND (embedder <> :embedder OR seq <= :upto)",
        {"user": user_id, "embedder": embedder, "upto": upto},
    )


def note_pending(tx: Tx, tenant: str, pending: Pending) -> None:
    """Note that a conversation has news; one that was noted before is due later."""
    tx.execute(
        "INSERT INTO memory_pending (tenant, user_id, conversation_id, agent_id, upto, due_at)"
        " VALUES (:tenant, :user, :conversation, :agent, :upto, :due)"
        " ON CONFLICT (tenant, user_id, conversation_id) DO UPDATE SET due_at = excluded.due_at, attempts = 0",
        {
            "tenant": tenant, "user": pending.user_id, "conversation": pending.conversation_id,
            "agent": pending.agent_id, "upto": pending.upto, "due": pending.due_at,
        },
    )  # fmt: skip


def pending(tx: Tx, user_id: str) -> list[Pending]:
    """The user's conversations that have news, the longest waiting first."""
    rows = tx.all(
        "SELECT conversation_id, agent_id, upto, due_at, attempts FROM memory_pending"
        " WHERE tenant = :tenant AND user_id = :user ORDER BY due_at, conversation_id",
        {"user": user_id},
    )
    return [
        Pending(user_id, row["conversation_id"], row["agent_id"], row["upto"], row["due_at"], row["attempts"])
        for row in rows
    ]


def still_pending(tx: Tx, entry: Pending) -> bool:
    """Whether a conversation's news are as they were read: not consolidated by somebody else, nor erased."""
    sql = f"SELECT 1 AS ok FROM memory_pending{_PENDING} AND upto = :upto"  # noqa: S608
    return tx.one(sql, _key(entry)) is not None


def advance_pending(tx: Tx, entry: Pending, upto: int) -> Pending:
    """Note that the parts up to number `upto` have been consolidated; returns what is left."""
    sql = f"UPDATE memory_pending SET upto = :next, attempts = 0{_PENDING} AND upto = :upto"  # noqa: S608
    tx.execute(sql, {**_key(entry), "next": upto})
    return replace(entry, upto=upto, attempts=0)


def postpone_pending(tx: Tx, entry: Pending, due_at: int, *, failed: bool) -> None:
    """Try a conversation again later, unless it is due later anyhow."""
    sql = f"UPDATE memory_pending SET due_at = :due, attempts = attempts + :failed{_PENDING} AND due_at <= :due"  # noqa: S608
    tx.execute(sql, {**_key(entry), "due": due_at, "failed": int(failed)})


def drop_pending(tx: Tx, entry: Pending) -> None:
    """A conversation has no more news; unless it has been used again in the meantime."""
    sql = f"DELETE FROM memory_pending{_PENDING} AND due_at = :due"  # noqa: S608
    tx.execute(sql, {**_key(entry), "due": entry.due_at})


_PENDING = " WHERE tenant = :tenant AND user_id = :user AND conversation_id = :conversation"


def _key(entry: Pending) -> dict[str, Any]:
    return {"user": entry.user_id, "conversation": entry.conversation_id, "upto": entry.upto}
