"""Looks once a second for what no signal told of. Only where several processes share a database; started by app.py."""

import asyncio
import logging

from agentflow_server.eventlog.hub import Hub
from agentflow_server.kit.clock import SharedClock
from agentflow_server.storage import Database
from agentflow_server.storage.errors import StorageUnavailableError

logger = logging.getLogger(__name__)
_EVERY = 1.0
_NOW = "SELECT (EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::bigint AS now"
_HEADS = (
    "SELECT heads.tenant, heads.conversation_id, heads.next_seq FROM event_heads AS heads"
    " JOIN unnest(:tenants::text[], :conversations::text[]) AS wanted (tenant, conversation_id)"
    " ON heads.tenant = wanted.tenant AND heads.conversation_id = wanted.conversation_id"
)


class CatchUp:
    """Keeps the readers of this process, and its clock, in step with the database."""

    def __init__(self, db: Database, hub: Hub, clock: object) -> None:
        self._db = db
        self._hub = hub
        self._clock = clock
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, if the database is one that is shared."""
        if self._db.dialect == "postgresql":
            self._task = asyncio.create_task(self._forever())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _forever(self) -> None:
        while True:
            await asyncio.sleep(_EVERY)
            try:
                await self._look()
            except StorageUnavailableError as error:
                logger.warning("readers wait for the database", extra={"reason": error.message})

    async def _look(self) -> None:
        """Wake the readers of every conversation that has more events than they have heard of."""
        heads = self._hub.heads
        tenants, conversations = [key[0] for key in heads], [key[1] for key in heads]
        wanted = {"tenants": tenants, "conversations": conversations}
        row, rows = await self._db.read(lambda tx: (tx.one(_NOW), tx.all(_HEADS, wanted) if tenants else []))
        if isinstance(self._clock, SharedClock) and row is not None:
            self._clock.set(row["now"])
        for found in rows:
            key = (found["tenant"], found["conversation_id"])
            if found["next_seq"] > heads.get(key, found["next_seq"]):
                heads[key] = found["next_seq"]
                self._hub.wake(*key)
