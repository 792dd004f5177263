"""The shape of a logged event: its envelope, encoded once, before it is stored.

The sequence number is known only inside the writing transaction, so it is put in front of bytes that are ready.
"""

from typing import Any, NamedTuple

from pydantic_core import to_json


class PartDraft(NamedTuple):
    """The durable piece of a conversation that an event carries: a message, a tool call, a system event.

    `thread` is empty for the conversation's own history, else the call id of the child run whose history it is.
    """

    kind: str
    thread: str
    run_id: str
    message_id: str
    visible: bool
    text: str
    data: str


class Draft(NamedTuple):
    """An event on its way into the log. `body` is what `encode` made."""

    type: str
    call_id: str
    root_call_id: str
    parent_call_id: str | None
    body: bytes
    part: PartDraft | None = None


class StoredEvent(NamedTuple):
    """An event that is on disk. `data` is its JSON, as every reader receives it."""

    seq: int
    type: str
    call_id: str
    root_call_id: str
    data: bytes

    def frame(self) -> bytes:
        """The event as a server-sent event (WHATWG HTML, section 9.2)."""
        return b"id: %d\ndata: %s\n\n" % (self.seq, self.data)


def encode(
    type_: str,
    *,
    call_id: str,
    parent_call_id: str | None,
    root_call_id: str,
    content: Any,
    timestamp: str,
    metadata: dict[str, Any] | None = None,
) -> bytes:
    """The envelope of an event as JSON, from behind the place where its sequence number goes."""
    return to_json(
        {
            "type": type_,
            "call_id": call_id,
            "parent_call_id": parent_call_id,
            "root_call_id": root_call_id,
            "content": content,
            "timestamp": timestamp,
            "metadata": metadata,
        }
    )[1:]


def stored(seq: int, draft: Draft) -> StoredEvent:
    """The event under its number."""
    return StoredEvent(seq, draft.type, draft.call_id, draft.root_call_id, b'{"seq":%d,%s' % (seq, draft.body))
