"""Follows one batch, or a job of another room, for one watcher: how it stands, then every change, until its end.

What is told is the state itself, so whoever comes late or comes back misses nothing. Of a long list of files only those
are told again that have changed; the last event has all of them.
"""

import asyncio
from collections.abc import Sequence, Set
from hashlib import blake2b
from typing import Any

from agentflow.errors import NotFoundError
from agentflow.types.batches import TERMINAL
from pydantic_core import to_json

from agentflow_server.eventlog import Reader, StoredEvent
from agentflow_server.http.identity import Caller
from agentflow_server.http.sse import state_frame
from agentflow_server.resources.batches.service import BatchesService

_PAUSE = 0.1


class Watch:
    """The state of one watcher: what it has been told.

    Args:
        last_id: the id of the last event that it saw in an earlier stream: the state's digest.
    """

    def __init__(
        self, service: BatchesService, caller: Caller, batch_id: str, reader: Reader, last_id: str | None
    ) -> None:
        self._service = service
        self._caller = caller
        self._batch_id = batch_id
        self._reader = reader
        self._last_id = last_id
        self._told: dict[str, Set[bytes]] = {"files": set(), "skipped": set()}
        self._next = 0.0
        self._ended = False

    async def first(self) -> bytes | None:
        """How it stands; nothing for a watcher who knows."""
        return await self._look()

    async def render(self, _: Sequence[StoredEvent]) -> bytes | None:
        """What has changed, at most ten times a second; None behind the end."""
        if self._ended:
            return None
        await asyncio.sleep(self._next - asyncio.get_running_loop().time())
        return await self._look()

    async def _look(self) -> bytes | None:
        self._next = asyncio.get_running_loop().time() + _PAUSE
        try:
            batch = await self._service.retrieve(self._caller, self._batch_id)
        except NotFoundError:  # it was removed: the watcher comes back, and is told so
            self._end()
            return None
        state = batch.model_dump(mode="json")
        id_ = blake2b(to_json(state), digest_size=12).hexdigest()
        if id_ == self._last_id and batch.status not in TERMINAL:
            self._news(state)
            return b""
        self._last_id = id_
        content = state if batch.status in TERMINAL else state | self._news(state)
        if batch.status in TERMINAL:
            self._end()
        return state_frame("batch_update", content, id_=id_, seq=None, timestamp=self._service.now())

    def _news(self, state: dict[str, Any]) -> dict[str, Any]:
        """What the lists of the state hold that was not told yet."""
        news: dict[str, Any] = {}
        for name in self._told.keys() & state.keys():
            items = {to_json(item): item for item in state[name]}
            news[name] = [item for written, item in items.items() if written not in self._told[name]]
            self._told[name] = items.keys()
        return news

    def _end(self) -> None:
        self._ended = True
        self._reader.ring()
