"""Conversations in the database. SQL of this room and nothing else; called by its service and its followers.

A conversation belongs to a user: whoever else asks for it is told that there is none.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agentflow_server.storage import Row, Tx

_ACTIVE = (
    "EXISTS (SELECT 1 FROM runs WHERE runs.tenant = conversations.tenant AND runs.conversation_id = conversations.id"
    " AND runs.call_id = runs.root_call_id AND runs.status IN ('queued', 'running', 'waiting')) AS active"
)
_COLUMNS = (
    "id, user_id, agent_id, title, source, source_ref_id, metadata, message_count, created_at, updated_at, "
    f"{_ACTIVE} FROM conversations WHERE tenant = :tenant"
)


@dataclass(frozen=True, slots=True)
class ConversationRecord:
    """A conversation as it is stored. `active` says whether a run of it has not ended."""

    id: str
    user_id: str
    agent_id: str
    title: str | None
    source: str | None
    source_ref_id: str | None
    metadata: dict[str, Any]
    message_count: int
    created_at: int
    updated_at: int
    active: bool = False


@dataclass(frozen=True, slots=True)
class Filters:
    """What a listing is narrowed to. `user_id` None means every user's."""

    user_id: str | None
    agent_id: str | None = None
    source: str | None = None
    exclude_source: str | None = None
    source_ref_id: str | None = None
    text: str | None = None


def _record(row: Row) -> ConversationRecord:
    return ConversationRecord(
        row["id"], row["user_id"], row["agent_id"], row["title"], row["source"], row["source_ref_id"],
        json.loads(row["metadata"]), row["message_count"], row["created_at"], row["updated_at"], bool(row["active"]),
    )  # fmt: skip


def insert(tx: Tx, conversation: ConversationRecord) -> bool:
    """Write a new conversation; False if its id is taken (by whomever)."""
    return (
        tx.execute(
            "INSERT INTO conversations (tenant, id, user_id, agent_id, title, source, source_ref_id, metadata,"
            " message_count, created_at, updated_at) VALUES (:tenant, :id, :user, :agent, :title, :source, :ref,"
            " :metadata, :count, :now, :now) ON CONFLICT DO NOTHING",
            {
                "id": conversation.id, "user": conversation.user_id, "agent": conversation.agent_id,
                "title": conversation.title, "source": conversation.source, "ref": conversation.source_ref_id,
                "metadata": json.dumps(conversation.metadata), "count": conversation.message_count,
                "now": conversation.created_at,
            },
        )
        == 1
    )  # fmt: skip


def by_id(tx: Tx, conversation_id: str, user_id: str) -> ConversationRecord | None:
    row = tx.one(
        f"SELECT {_COLUMNS} AND id = :id AND user_id = :user",
        {"id": conversation_id, "user": user_id},
    )
    return _record(row) if row else None


def owner(tx: Tx, conversation_id: str) -> str | None:
    """Whose conversation it is, or None if there is none."""
    row = tx.one("SELECT user_id FROM conversations WHERE tenant = :tenant AND id = :id", {"id": conversation_id})
    return row["user_id"] if row else None


def page(tx: Tx, filters: Filters, *, limit: int, offset: int) -> tuple[list[ConversationRecord], int]:
    """A page of conversations, the most recently used first, and how many match."""
    where, params = _where(filters)
    rows = tx.all(
        f"SELECT {_COLUMNS}{where} ORDER BY updated_at DESC, id DESC LIMIT :limit OFFSET :offset",
        {**params, "limit": limit, "offset": offset},
    )
    total = tx.one(f"SELECT COUNT(*) AS n FROM conversations WHERE tenant = :tenant{where}", params)  # noqa: S608
    return [_record(row) for row in rows], total["n"] if total else 0


_CONDITIONS = {
    "user_id": "user_id = :user_id",
    "agent_id": "agent_id = :agent_id",
    "source": "source = :source",
    "exclude_source": "(source IS NULL OR source <> :exclude_source)",
    "source_ref_id": "source_ref_id = :source_ref_id",
    "text": "(LOWER(title) LIKE :text ESCAPE '\\' OR EXISTS (SELECT 1 FROM parts WHERE parts.tenant ="
    " conversations.tenant AND parts.conversation_id = conversations.id AND parts.visible = 1"
    " AND LOWER(parts.text) LIKE :text ESCAPE '\\'))",
}


def _where(filters: Filters) -> tuple[str, Mapping[str, Any]]:
    given = {name: getattr(filters, name) for name in _CONDITIONS if getattr(filters, name) is not None}
    if "text" in given:
        escaped = given["text"].lower().replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        given["text"] = f"%{escaped}%"
    return "".join(f" AND {_CONDITIONS[name]}" for name in given), given


def update(tx: Tx, conversation_id: str, *, title: str | None, metadata: dict[str, Any], now: int) -> None:
    """Replace the title and the metadata."""
    tx.execute(
        "UPDATE conversations SET title = :title, metadata = :metadata, updated_at = :now"
        " WHERE tenant = :tenant AND id = :id",
        {"id": conversation_id, "title": title, "metadata": json.dumps(metadata), "now": now},
    )


def name(tx: Tx, conversation_id: str, title: str) -> None:
    """Give a conversation a title unless it has one."""
    tx.execute(
        "UPDATE conversations SET title = :title WHERE tenant = :tenant AND id = :id AND title IS NULL",
        {"id": conversation_id, "title": title},
    )


def touch(tx: Tx, tenant: str, conversation_id: str, *, messages: int, now: int) -> None:
    """Note that the conversation was used, and that it has so many more messages."""
    tx.execute(
        "UPDATE conversations SET message_count = message_count + :messages, updated_at = :now"
        " WHERE tenant = :tenant AND id = :id",
        {"tenant": tenant, "id": conversation_id, "messages": messages, "now": now},
    )


def delete(tx: Tx, conversation_id: str) -> None:
    """Remove the row of a conversation."""
    tx.execute("DELETE FROM conversations WHERE tenant = :tenant AND id = :id", {"id": conversation_id})
