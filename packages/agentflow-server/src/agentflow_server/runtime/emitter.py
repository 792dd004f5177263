"""Puts a run's events into the log: text as it comes, without waiting; facts with the certainty that they are on disk.

Text is bounded: when too much of it is still on its way to the disk, the model is read no further until it has
arrived. The first failed write stops the run.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from pydantic_core import to_json

from agentflow_server.eventlog import Draft, EventLog, PartDraft, Scope, StoredEvent, encode
from agentflow_server.jobs import ledger
from agentflow_server.kit.clock import Clock, to_iso
from agentflow_server.runtime.context import RunContext
from agentflow_server.storage import Tx

_MAX_UNWRITTEN = 256


class Emitter:
    """Writes the events of one run."""

    def __init__(self, context: RunContext, log: EventLog, clock: Clock) -> None:
        run, job = context.run, context.job
        self._log = log
        self._clock = clock
        self._context = context
        self.scope = Scope(run.tenant, run.conversation_id, lambda tx: ledger.check_fence(tx, job))
        self._unwritten = 0
        self._last: Awaitable[list[StoredEvent]] | None = None
        self._failure: BaseException | None = None
        self._heads = {type_: self._head(type_) for type_ in ("delta", "reasoning_delta")}

    def _head(self, type_: str) -> bytes:
        ids = [self._context.run.call_id, self._context.parent_call_id, self._context.run.root_call_id]
        call, parent, root = (to_json(value) for value in ids)
        return b'"type":"%s","call_id":%s,"parent_call_id":%s,"root_call_id":%s,"content":' % (
            type_.encode(), call, parent, root,
        )  # fmt: skip

    def draft(
        self,
        type_: str,
        content: Any,
        *,
        call_id: str | None = None,
        parent_call_id: str | None = None,
        metadata: dict[str, Any] | None = None,
        part: PartDraft | None = None,
    ) -> Draft:
        """An event of this run; `call_id` names another unit than the run itself, a tool call for example."""
        run = self._context.run
        call = call_id or run.call_id
        parent = parent_call_id if call_id else self._context.parent_call_id
        body = encode(
            type_,
            call_id=call,
            parent_call_id=parent,
            root_call_id=run.root_call_id,
            content=content,
            timestamp=to_iso(self._clock.micros()),
            metadata=metadata,
        )
        return Draft(type_, call, run.root_call_id, parent, body, part)

    def send(
        self, drafts: Sequence[Draft], also: Callable[[Tx], None] | None = None
    ) -> Awaitable[list[StoredEvent]]:
        """Append events; await the result to know that they, and what `also` wrote, are on disk."""
        if self._failure is not None:
            raise self._failure
        return self._log.append(self.scope, drafts, also)

    async def text(self, text: str, type_: str = "delta") -> None:
        """Append a piece of text. Returns at once unless too much is still unwritten."""
        if self._failure is not None:
            raise self._failure
        run = self._context.run
        stamp = to_iso(self._clock.micros()).encode()
        body = b'%s%s,"timestamp":"%s","metadata":null}' % (self._heads[type_], to_json(text), stamp)
        draft = Draft(type_, run.call_id, run.root_call_id, self._context.parent_call_id, body)
        future = asyncio.ensure_future(self._log.append(self.scope, (draft,)))
        self._unwritten += 1
        future.add_done_callback(self._written)
        self._last = future
        if self._unwritten > _MAX_UNWRITTEN:
            await future

    def _written(self, done: "asyncio.Future[list[StoredEvent]]") -> None:
        self._unwritten -= 1
        if not done.cancelled() and (error := done.exception()) is not None:
            self._failure = self._failure or error
