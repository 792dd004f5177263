"""Packs the text of ended runs: its many small events become a few compressed rows, a twentieth of the disk.

Nothing is lost: `unpacked` gives `Tail` back every event, byte for byte, under its number. The runtime says which runs
have ended. What a process that dies has not packed yet stays as it is.
"""

import asyncio
import logging
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import NamedTuple

from agentflow_server.eventlog import runs
from agentflow_server.eventlog.events import StoredEvent
from agentflow_server.eventlog.runs import RunHeader
from agentflow_server.storage import Database, Row, Tx
from agentflow_server.storage.errors import StorageUnavailableError

logger = logging.getLogger(__name__)
PACKED = "packed"
_MAX_WAITING = 10_000
_AT_ONCE = 2_000
_LARGEST = 500
_WORTH_IT = 8
_TEXTS = (
    "SELECT seq, type, call_id, root_call_id, data FROM events WHERE tenant = :tenant"
    " AND conversation_id = :conversation AND root_call_id = :root AND seq > :after"
    " AND type IN ('delta', 'reasoning_delta') AND NOT EXISTS (SELECT 1 FROM runs WHERE tenant = :tenant"
    " AND conversation_id = :conversation AND root_call_id = :root AND status IN ('queued', 'running', 'waiting'))"
    " ORDER BY seq LIMIT :limit"
)
_REPLACE = (
    "UPDATE events SET type = 'packed', call_id = '', data = :data WHERE tenant = :tenant"
    " AND conversation_id = :conversation AND seq = :last AND type IN ('delta', 'reasoning_delta')"
)
_REMOVE = (
    "DELETE FROM events WHERE tenant = :tenant AND conversation_id = :conversation AND seq >= :first AND seq < :last"
)


class Pack(NamedTuple):
    """Events from number `first` to `last`, which is the number of the row that holds them all."""

    first: int
    last: int
    data: bytes


def _packed(events: list[StoredEvent]) -> Pack:
    """Events that follow each other, as one row."""
    lines = b"\n".join(b"%s\n%s\n%s" % (event.type.encode(), event.call_id.encode(), event.data) for event in events)
    return Pack(events[0].seq, events[-1].seq, zlib.compress(lines))


def unpacked(rows: Iterable[Row]) -> Iterator[StoredEvent]:
    """The events in rows of the log."""
    for row in rows:
        if row["type"] != PACKED:
            yield StoredEvent(row["seq"], row["type"], row["call_id"], row["root_call_id"], bytes(row["data"]))
            continue
        lines = zlib.decompress(row["data"]).split(b"\n")
        first = row["seq"] + 1 - len(lines) // 3
        for seq, (type_, call_id, data) in enumerate(zip(*[iter(lines)] * 3, strict=True), first):
            yield StoredEvent(seq, type_.decode(), call_id.decode(), row["root_call_id"], data)


def _packs(events: Iterable[StoredEvent]) -> list[Pack]:
    """What is worth packing of these events, which are in order."""
    found: list[Pack] = []
    group: list[StoredEvent] = []
    for event in (*events, None):
        if group and (event is None or event.seq != group[-1].seq + 1 or len(group) == _LARGEST):
            if len(group) >= _WORTH_IT:
                found.append(_packed(group))
            group = []
        if event is not None:
            group.append(event)
    return found


class Packer:
    """Packs in the background, one run after another. Started by app.py."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._ended: asyncio.Queue[RunHeader] = asyncio.Queue(_MAX_WAITING)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._forever())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def add(self, run: RunHeader) -> None:
        """A run has ended; what it caused may go on."""
        with suppress(asyncio.QueueFull):
            self._ended.put_nowait(run)

    async def _forever(self) -> None:
        while True:
            run = await self._ended.get()
            try:
                await self.pack(run)
            except StorageUnavailableError as error:
                logger.warning("a run stays unpacked", extra={"run": run.id, "reason": error.message})

    async def pack(self, run: RunHeader) -> None:
        """Pack what belongs to a run's root, unless something below it still goes on."""
        key = {"conversation": run.conversation_id, "root": run.root_call_id}
        db = self._db.tenant(run.tenant)
        root = run if run.is_root else await db.read(lambda tx: runs.by_call(tx, run.tenant, run.root_call_id))
        if root is None:  # the conversation was deleted meanwhile
            return
        after = root.first_seq - 1
        while True:
            wanted = {**key, "after": after, "limit": _AT_ONCE}
            rows = await db.scan(lambda tx, wanted=wanted: tx.all(_TEXTS, wanted))
            found = await asyncio.to_thread(_packs, list(unpacked(rows)))
            if found:
                await self._db.write(lambda tx, found=found: _replace(tx, run, found), tenant=run.tenant, serial=False)
            if len(rows) < _AT_ONCE:
                return
            after = rows[-1]["seq"]


def _replace(tx: Tx, run: RunHeader, found: Iterable[Pack]) -> None:
    for one in found:
        where = {"tenant": run.tenant, "conversation": run.conversation_id, "first": one.first, "last": one.last}
        if tx.execute(_REPLACE, {**where, "data": one.data}):  # none if the conversation was deleted meanwhile
            tx.execute(_REMOVE, where)
