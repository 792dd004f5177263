"""Wakes the readers of this process. Carries events that are already on disk; loses nothing a reader cannot read again.

A reader that falls behind by more than its bound is cut loose from memory and goes back to the table.
"""

import asyncio
from collections.abc import Callable, Sequence

from agentflow_server.eventlog.events import StoredEvent

MAX_BACKLOG = 4096
Accept = Callable[[StoredEvent], bool]


class Subscription:
    """One reader's place at the hub: a bounded backlog and a bell."""

    __slots__ = ("_bell", "accept", "backlog", "overflowed")

    def __init__(self, accept: Accept | None) -> None:
        self.accept = accept
        self.backlog: list[StoredEvent] = []
        self.overflowed = False
        self._bell = asyncio.Event()

    def deliver(self, events: Sequence[StoredEvent]) -> None:
        wanted = events if self.accept is None else [event for event in events if self.accept(event)]
        if not wanted:
            return
        if len(self.backlog) + len(wanted) > MAX_BACKLOG:
            self.overflowed = True
            self.backlog.clear()
        else:
            self.backlog.extend(wanted)
        self._bell.set()

    def ring(self) -> None:
        """Wake the reader with nothing new."""
        self._bell.set()

    async def wait(self) -> list[StoredEvent]:
        """What came since the last call; empty when the bell was rung for another reason."""
        if not self.backlog:
            await self._bell.wait()
        self._bell.clear()
        taken, self.backlog = self.backlog, []
        return taken


class Hub:
    """Readers by conversation."""

    def __init__(self) -> None:
        self._readers: dict[tuple[str, str], list[Subscription]] = {}
        self._count = 0

    @property
    def readers(self) -> int:
        """How many readers are subscribed."""
        return self._count

    def subscribe(self, tenant: str, conversation_id: str, accept: Accept | None = None) -> Subscription:
        subscription = Subscription(accept)
        self._readers.setdefault((tenant, conversation_id), []).append(subscription)
        self._count += 1
        return subscription

    def unsubscribe(self, tenant: str, conversation_id: str, subscription: Subscription) -> None:
        readers = self._readers.get((tenant, conversation_id), [])
        if subscription in readers:
            readers.remove(subscription)
            self._count -= 1
        if not readers:
            self._readers.pop((tenant, conversation_id), None)

    def publish(self, tenant: str, conversation_id: str, events: Sequence[StoredEvent]) -> None:
        for subscription in self._readers.get((tenant, conversation_id), ()):
            subscription.deliver(events)

    def ring(self, tenant: str, conversation_id: str) -> None:
        """Wake the readers of a conversation: something about it changed that is not in the log."""
        for subscription in self._readers.get((tenant, conversation_id), ()):
            subscription.ring()

    def ring_all(self) -> None:
        """Wake every reader: the server is shutting down."""
        for readers in self._readers.values():
            for subscription in readers:
                subscription.ring()
