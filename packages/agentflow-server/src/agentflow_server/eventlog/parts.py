"""The durable pieces of a conversation: what histories, timelines and prompts are made of.

A part shares the number of the event that carried it. Read by the runtime (prompts) and the conversations room.
"""

from typing import NamedTuple

from agentflow_server.storage import Row, Tx

_COLUMNS = (
    "seq, kind, thread, run_id, message_id, call_id, parent_call_id, root_call_id, visible, text, data, created_at"
    " FROM parts WHERE tenant = :tenant AND conversation_id = :conversation"
)


class Part(NamedTuple):
    """A stored part. `data` is JSON; `text` is what a person may read of it."""

    seq: int
    kind: str
    thread: str
    run_id: str
    message_id: str
    call_id: str
    parent_call_id: str | None
    root_call_id: str
    visible: bool
    text: str
    data: str
    created_at: int


def _part(row: Row) -> Part:
    return Part(
        row["seq"], row["kind"], row["thread"], row["run_id"], row["message_id"], row["call_id"],
        row["parent_call_id"], row["root_call_id"], bool(row["visible"]), row["text"], row["data"], row["created_at"],
    )  # fmt: skip


def parts_of(tx: Tx, conversation_id: str, *, after: int = -1, thread: str | None = None) -> list[Part]:
    """The parts behind number `after`: of one thread (`""` is the conversation's own), or all of them."""
    sql = f"SELECT {_COLUMNS} AND seq > :after"
    if thread is not None:
        sql += " AND thread = :thread"
    rows = tx.all(sql + " ORDER BY seq", {"conversation": conversation_id, "after": after, "thread": thread})
    return [_part(row) for row in rows]


def last_part(tx: Tx, conversation_id: str, kind: str, thread: str) -> Part | None:
    """The newest part of a kind in a thread."""
    row = tx.one(
        f"SELECT {_COLUMNS} AND kind = :kind AND thread = :thread ORDER BY seq DESC LIMIT 1",
        {"conversation": conversation_id, "kind": kind, "thread": thread},
    )
    return _part(row) if row else None


def visible_parts(tx: Tx, conversation_id: str, *, limit: int, offset: int) -> tuple[list[Part], int]:
    """A page of the messages a person sees, oldest first, and how many there are."""
    key = {"conversation": conversation_id, "limit": limit, "offset": offset}
    rows = tx.all(f"SELECT {_COLUMNS} AND visible = 1 ORDER BY seq LIMIT :limit OFFSET :offset", key)
    count = tx.one(
        "SELECT COUNT(*) AS n FROM parts WHERE tenant = :tenant AND conversation_id = :conversation AND visible = 1",
        key,
    )
    return [_part(row) for row in rows], count["n"] if count else 0
