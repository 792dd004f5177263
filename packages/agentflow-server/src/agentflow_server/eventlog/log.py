"""Appends to the log. Called by the runtime alone; everybody else reads through `Tail`.

A conversation's events are numbered from 0 without gaps. The number is taken inside the transaction that stores the
event, and readers hear of it only after that transaction is on disk.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from agentflow_server.eventlog.events import Draft, StoredEvent, stored
from agentflow_server.eventlog.hub import Hub
from agentflow_server.storage import Database, Tx

_ALLOCATE = (
    "INSERT INTO event_heads (tenant, conversation_id, next_seq) VALUES (:tenant, :conversation, :count) "
    "ON CONFLICT (tenant, conversation_id) DO UPDATE SET next_seq = event_heads.next_seq + :count RETURNING next_seq"
)
_INSERT = (
    "INSERT INTO events (tenant, conversation_id, seq, type, call_id, root_call_id, data) "
    "VALUES (:tenant, :conversation, :seq, :type, :call, :root, :data)"
)
_INSERT_PART = (
    "INSERT INTO parts (tenant, conversation_id, seq, kind, thread, run_id, message_id, call_id, parent_call_id,"
    " root_call_id, visible, text, data, created_at) VALUES (:tenant, :conversation, :seq, :kind, :thread, :run,"
    " :message, :call, :parent, :root, :visible, :text, :data, :now)"
)


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose log is written, and the check that the writer still owns the run (it raises if not)."""

    tenant: str
    conversation_id: str
    guard: Callable[[Tx], None] | None = None


class EventLog:
    """The writing side of the log."""

    def __init__(self, db: Database, hub: Hub, now: Callable[[], int]) -> None:
        self._db = db
        self._hub = hub
        self._now = now

    def append(
        self, scope: Scope, drafts: Sequence[Draft], also: Callable[[Tx], None] | None = None, *, serial: bool = True
    ) -> Awaitable[list[StoredEvent]]:
        """Store the events as one unit, together with what `also` writes; tell the readers once it is on disk.

        With `serial=False`, what `also` reads is held by the job of the guard or by the conversation.

        Appends of one caller keep their order; awaiting the result is needed only to know that it is durable. A caller
        that is cancelled while it waits does not keep the readers from hearing of what was written.
        """

        def unit(tx: Tx) -> list[StoredEvent]:
            events = self.record(tx, scope, drafts)
            if also is not None:
                also(tx)
            return events

        order = (scope.tenant, scope.conversation_id)
        future = asyncio.ensure_future(
            self._db.write(unit, tenant=scope.tenant, order=order, serial=serial and also is not None)
        )
        future.add_done_callback(lambda done: self._committed(scope, done))
        return asyncio.shield(future)

    def record(self, tx: Tx, scope: Scope, drafts: Sequence[Draft]) -> list[StoredEvent]:
        """Store the events inside a unit that the caller writes; the caller publishes them after its commit."""
        if scope.guard is not None:
            scope.guard(tx)
        if not drafts:
            return []
        key = {"tenant": scope.tenant, "conversation": scope.conversation_id}
        row = tx.one(_ALLOCATE, {**key, "count": len(drafts)})
        assert row is not None
        first: int = row["next_seq"] - len(drafts)
        events = [stored(first + index, draft) for index, draft in enumerate(drafts)]
        tx.executemany(
            _INSERT,
            [
                {**key, "seq": e.seq, "type": e.type, "call": e.call_id, "root": e.root_call_id, "data": e.data}
                for e in events
            ],
        )
        for event, draft in zip(events, drafts, strict=True):
            if draft.part is not None:
                part = draft.part
                tx.execute(
                    _INSERT_PART,
                    {
                        **key, "seq": event.seq, "kind": part.kind, "thread": part.thread, "run": part.run_id,
                        "message": part.message_id,
                        "call": draft.call_id, "parent": draft.parent_call_id, "root": draft.root_call_id,
                        "visible": int(part.visible), "text": part.text, "data": part.data, "now": self._now(),
                    },
                )  # fmt: skip
        return events

    def publish(self, scope: Scope, events: Sequence[StoredEvent]) -> None:
        """Hand events that are on disk to the readers of this process."""
        self._hub.publish(scope.tenant, scope.conversation_id, events)

    def _committed(self, scope: Scope, done: "asyncio.Future[list[StoredEvent]]") -> None:
        if not done.cancelled() and done.exception() is None:
            self.publish(scope, done.result())
