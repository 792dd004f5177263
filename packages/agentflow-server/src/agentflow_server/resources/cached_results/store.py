"""Cached results in the database. SQL of this room and nothing else; called by its service.

An entry belongs to a user and a conversation. One whose time is over is as good as gone.
"""

from dataclasses import dataclass

from agentflow_server.storage import Row, Tx

_COLUMNS = (
    "id, conversation_id, user_id, run_id, tool_name, summary, content, size, created_at, expires_at"
    " FROM cached_results WHERE tenant = :tenant AND conversation_id = :conversation AND user_id = :user"
    " AND expires_at > :now"
)


@dataclass(frozen=True, slots=True)
class CachedRecord:
    """An entry as it is stored; `size` is in characters."""

    id: str
    conversation_id: str
    user_id: str
    run_id: str
    tool_name: str
    summary: str
    content: str
    size: int
    created_at: int
    expires_at: int


def _record(row: Row) -> CachedRecord:
    return CachedRecord(
        row["id"], row["conversation_id"], row["user_id"], row["run_id"], row["tool_name"], row["summary"],
        row["content"], row["size"], row["created_at"], row["expires_at"],
    )  # fmt: skip


def insert(tx: Tx, entry: CachedRecord) -> None:
    """Write an entry, and forget those of the tenant whose time is over."""
    tx.execute("DELETE FROM cached_results WHERE tenant = :tenant AND expires_at <= :now", {"now": entry.created_at})
    tx.execute(
        "INSERT INTO cached_results (tenant, conversation_id, id, user_id, run_id, tool_name, summary, content, size,"
        " created_at, expires_at) VALUES (:tenant, :conversation, :id, :user, :run, :tool, :summary, :content, :size,"
        " :now, :expires) ON CONFLICT DO NOTHING",
        {
            "conversation": entry.conversation_id, "id": entry.id, "user": entry.user_id, "run": entry.run_id,
            "tool": entry.tool_name, "summary": entry.summary, "content": entry.content, "size": entry.size,
            "now": entry.created_at, "expires": entry.expires_at,
        },
    )  # fmt: skip


def by_id(tx: Tx, conversation_id: str, cache_id: str, user_id: str, now: int) -> CachedRecord | None:
    key = {"conversation": conversation_id, "id": cache_id, "user": user_id, "now": now}
    row = tx.one(f"SELECT {_COLUMNS} AND id = :id", key)
    return _record(row) if row else None


def page(
    tx: Tx, conversation_id: str, user_id: str, now: int, *, limit: int, offset: int
) -> tuple[list[CachedRecord], int]:
    """A page of a conversation's entries, the newest first, and how many there are."""
    key = {"conversation": conversation_id, "user": user_id, "now": now, "limit": limit, "offset": offset}
    columns = _COLUMNS.replace("content,", "'' AS content,", 1)
    rows = tx.all(f"SELECT {columns} ORDER BY created_at DESC, id DESC LIMIT :limit OFFSET :offset", key)
    total = tx.one(f"SELECT COUNT(*) AS n {_COLUMNS[_COLUMNS.index('FROM') :]}", key)
    return [_record(row) for row in rows], total["n"] if total else 0


def erase(tx: Tx, conversation_id: str) -> None:
    """Remove the entries of a conversation."""
    tx.execute(
        "DELETE FROM cached_results WHERE tenant = :tenant AND conversation_id = :conversation",
        {"conversation": conversation_id},
    )
