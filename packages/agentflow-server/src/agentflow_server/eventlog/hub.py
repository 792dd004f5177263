"""Wakes the readers of this process, and tells the other processes that there is something for theirs.

Carries events that are already on disk; loses nothing a reader cannot read again. A reader that falls behind by more
than its bound, or for which another process has written, goes to the table.
"""

import asyncio
from collections.abc import Callable, Sequence

from agentflow_server.eventlog.events import StoredEvent
from agentflow_server.storage.signals import Signals

MAX_BACKLOG = 4096
MAX_BACKLOG_BYTES = 1024 * 1024
Accept = Callable[[StoredEvent], bool]
_Key = tuple[str, str]


class Subscription:
    """One reader's place at the hub: a bounded backlog and a bell.

    Attributes:
        first, end: number of the first event that came since the last call of `wait`, wanted or not, and the number
            behind the last; None and 0 if none came.
        stale: the table holds events that the backlog does not.
    """

    __slots__ = ("_bell", "_bytes", "accept", "backlog", "end", "first", "stale")

    def __init__(self, accept: Accept | None) -> None:
        self.accept = accept
        self.backlog: list[StoredEvent] = []
        self.first: int | None = None
        self.end = 0
        self.stale = False
        self._bytes = 0
        self._bell = asyncio.Event()

    def deliver(self, events: Sequence[StoredEvent]) -> None:
        begin = events[0].seq
        if self.first is None:
            self.first = begin
        elif begin > self.end:
            self.wake()
            return
        self.end = max(self.end, events[-1].seq + 1)
        wanted = events if self.accept is None else [event for event in events if self.accept(event)]
        if not wanted:
            return
        self.backlog.extend(wanted)
        self._bytes += sum([len(event.data) for event in wanted])
        if len(self.backlog) > MAX_BACKLOG or self._bytes > MAX_BACKLOG_BYTES:
            self.stale = True
            self.backlog, self._bytes = [], 0
        self._bell.set()

    def wake(self) -> None:
        """Send the reader to the table."""
        self.stale = True
        self._bell.set()

    def ring(self) -> None:
        """Wake the reader with nothing new."""
        self._bell.set()

    def forget(self) -> None:
        """Begin anew: the reader is about to look at the table."""
        self.stale = False
        self.backlog, self._bytes = [], 0
        self.first, self.end = None, 0

    async def wait(self) -> tuple[int | None, int, list[StoredEvent]]:
        """What came since the last call (`first`, `end`, what of it is wanted); nothing when the bell was rung."""
        if not self.backlog:
            await self._bell.wait()
        self._bell.clear()
        taken = (self.first, self.end, self.backlog)
        self.first, self.end, self.backlog, self._bytes = None, 0, [], 0
        return taken


class Hub:
    """Readers by conversation."""

    def __init__(self, signals: Signals) -> None:
        self._signals = signals
        self._readers: dict[_Key, list[Subscription]] = {}
        self._heads: dict[_Key, int] = {}
        self._count = 0
        signals.on("events", self.wake)
        signals.on("changed", self._ring)

    @property
    def readers(self) -> int:
        """How many readers are subscribed."""
        return self._count

    @property
    def heads(self) -> dict[_Key, int]:
        """The conversations that are read here, and the number behind the last event known of each."""
        return self._heads

    def subscribe(self, tenant: str, conversation_id: str, accept: Accept | None = None) -> Subscription:
        subscription = Subscription(accept)
        key = (tenant, conversation_id)
        self._readers.setdefault(key, []).append(subscription)
        self._heads.setdefault(key, 0)
        self._count += 1
        return subscription

    def unsubscribe(self, tenant: str, conversation_id: str, subscription: Subscription) -> None:
        key = (tenant, conversation_id)
        readers = self._readers.get(key, [])
        if subscription in readers:
            readers.remove(subscription)
            self._count -= 1
        if not readers:
            self._readers.pop(key, None)
            self._heads.pop(key, None)

    def publish(self, tenant: str, conversation_id: str, events: Sequence[StoredEvent]) -> None:
        """Hand on events that this process has written."""
        if not events:
            return
        self._signals.send("events", tenant, conversation_id)
        key = (tenant, conversation_id)
        if key in self._heads:
            self._heads[key] = max(self._heads[key], events[-1].seq + 1)
        for subscription in self._readers.get(key, ()):
            subscription.deliver(events)

    def wake(self, tenant: str, conversation_id: str) -> None:
        """Send the readers of a conversation to the table: another process has written."""
        for subscription in self._readers.get((tenant, conversation_id), ()):
            subscription.wake()

    def wake_all(self) -> None:
        """The same for every conversation: signals may have been missed."""
        for tenant, conversation_id in list(self._readers):
            self.wake(tenant, conversation_id)

    def ring(self, tenant: str, conversation_id: str) -> None:
        """Wake the readers of a conversation, or of a batch, everywhere: something changed that is not in the log."""
        self._signals.send("changed", tenant, conversation_id)
        self._ring(tenant, conversation_id)

    def _ring(self, tenant: str, conversation_id: str) -> None:
        for subscription in self._readers.get((tenant, conversation_id), ()):
            subscription.ring()

    def ring_all(self) -> None:
        """Wake every reader: the server is shutting down."""
        for readers in self._readers.values():
            for subscription in readers:
                subscription.ring()
