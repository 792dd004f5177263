"""Reads the log from any number and follows it. Used by every route that shows events and by whoever waits for an end.

Order of things: subscribe, read the table, then listen; so nothing falls between, and what comes twice is dropped by
its number.
"""

from itertools import islice

from agentflow_server.eventlog.events import StoredEvent
from agentflow_server.eventlog.hub import Accept, Hub
from agentflow_server.eventlog.packing import unpacked
from agentflow_server.eventlog.runs import RunHeader
from agentflow_server.storage import Database, Tx

_PAGE = 500
_READ = (
    "SELECT seq, type, call_id, root_call_id, data FROM events WHERE tenant = :tenant"
    " AND conversation_id = :conversation AND seq > :after ORDER BY seq LIMIT :limit"
)


def read_events(tx: Tx, conversation_id: str, after: int, limit: int = _PAGE) -> list[StoredEvent]:
    """The events behind number `after`, in order. `tx` is bound to the tenant."""
    rows = tx.all(_READ, {"conversation": conversation_id, "after": after, "limit": limit})
    return list(islice((event for event in unpacked(rows) if event.seq > after), limit))


class Reader:
    """One reader's way through a conversation's events. Close it when done."""

    def __init__(self, db: Database, hub: Hub, tenant: str, conversation_id: str, accept: Accept | None) -> None:
        self._db = db.tenant(tenant)
        self._hub = hub
        self._tenant = tenant
        self._conversation_id = conversation_id
        self._accept = accept
        self._position: int | None = 0
        self._from_table = True
        self._subscription = hub.subscribe(tenant, conversation_id, accept)

    def start_after(self, seq: int) -> None:
        """Begin behind this number; what is already stored is read from the table."""
        self._position = seq + 1
        self._from_table = True

    def start_now(self, seq: int | None = None) -> None:
        """Begin with what comes from the subscription on, events with this number or higher.

        Without a number the table is never read: what another process writes only rings the reader.
        """
        self._position = seq
        self._from_table = False

    def ring(self) -> None:
        """Make a waiting `next` return what it has, possibly nothing."""
        self._subscription.ring()

    async def next(self) -> list[StoredEvent]:
        """Wait for events; an empty list means the reader was rung."""
        subscription = self._subscription
        while True:
            if subscription.stale and self._position is None:
                subscription.forget()
                return []
            if self._from_table or subscription.stale:
                page = await self._page()
                if page:
                    return page
                continue
            first, end, events = await subscription.wait()
            if subscription.stale:
                continue
            if first is None or self._position is None:
                return events
            if first > self._position:  # another process wrote what lies between
                self._from_table = True
                continue
            fresh = [event for event in events if event.seq >= self._position]
            self._position = max(self._position, end)
            if fresh or not events:
                return fresh

    async def _page(self) -> list[StoredEvent]:
        """Read on in the table; what is published meanwhile stays with the subscription."""
        self._subscription.forget()
        position = self._position or 0
        events = await self._db.scan(lambda tx: read_events(tx, self._conversation_id, position - 1))
        self._from_table = len(events) == _PAGE
        if events:
            self._position = events[-1].seq + 1
        accept = self._accept
        return events if accept is None else [event for event in events if accept(event)]

    def close(self) -> None:
        self._hub.unsubscribe(self._tenant, self._conversation_id, self._subscription)


class Tail:
    """The reading side of the log."""

    def __init__(self, db: Database, hub: Hub) -> None:
        self._db = db
        self.hub = hub

    def open(self, tenant: str, conversation_id: str, accept: Accept | None = None) -> Reader:
        """A reader of one conversation that sees the events `accept` lets through."""
        return Reader(self._db, self.hub, tenant, conversation_id, accept)


def milestones(tx: Tx, conversation_id: str) -> list[StoredEvent]:
    """Where the units of a conversation began and ended. `tx` is bound to the tenant."""
    rows = tx.all(
        "SELECT seq, type, call_id, root_call_id, data FROM events WHERE tenant = :tenant"
        " AND conversation_id = :conversation AND type IN ('start', 'end', 'error') ORDER BY seq",
        {"conversation": conversation_id},
    )
    return list(unpacked(rows))


def read_run(tx: Tx, run: RunHeader) -> list[StoredEvent]:
    """All events of a run and what it caused. `tx` is bound to the tenant."""
    rows = tx.all(
        "SELECT seq, type, call_id, root_call_id, data FROM events WHERE tenant = :tenant"
        " AND conversation_id = :conversation AND seq >= :first AND root_call_id = :root ORDER BY seq",
        {"conversation": run.conversation_id, "first": run.first_seq, "root": run.root_call_id},
    )
    return list(unpacked(rows))


def last_of(tx: Tx, conversation_id: str, call_id: str, type_: str) -> StoredEvent | None:
    """The newest event of a type that a unit told. `tx` is bound to the tenant."""
    row = tx.one(
        "SELECT seq, type, call_id, root_call_id, data FROM events WHERE tenant = :tenant"
        " AND conversation_id = :conversation AND call_id = :call AND type = :type ORDER BY seq DESC LIMIT 1",
        {"conversation": conversation_id, "call": call_id, "type": type_},
    )
    return next(unpacked([row])) if row else None


def end_of(run: RunHeader) -> Accept:
    """Accepts the event that a run ends with, and no other."""
    call_id = run.call_id

    def accept(event: StoredEvent) -> bool:
        return event.call_id == call_id and event.type in ("end", "error")

    return accept


def head(tx: Tx, conversation_id: str) -> int:
    """The number the next event of a conversation will have."""
    row = tx.one(
        "SELECT next_seq FROM event_heads WHERE tenant = :tenant AND conversation_id = :conversation",
        {"conversation": conversation_id},
    )
    return row["next_seq"] if row else 0


def hold(tx: Tx, conversation_id: str) -> int:
    """The same; until this unit ends, nobody else writes to the conversation.

    Units that hold it first see what those before them wrote, at any isolation level; serializable ones that began
    beside them are run again, because the row changes.
    """
    row = tx.one(
        "INSERT INTO event_heads (tenant, conversation_id, next_seq) VALUES (:tenant, :conversation, 0)"
        " ON CONFLICT (tenant, conversation_id) DO UPDATE SET next_seq = event_heads.next_seq RETURNING next_seq",
        {"conversation": conversation_id},
    )
    assert row is not None
    return row["next_seq"]
