"""Puts a run's events into the log: text as it comes, without waiting; facts with the certainty that they are on disk.

While one piece of text is on its way to the disk, what comes in the meantime is gathered and written as one: an idle
machine shows every token at once, a busy one shares the cost. When too much is gathered, the model is read no further.
The first failed write stops the run.
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

_MAX_GATHERED = 64 * 1024
_TEXT = ("delta", "reasoning_delta")
_Written = asyncio.Future[list[StoredEvent]]


class Emitter:
    """Writes the events of one run."""

    def __init__(self, context: RunContext, log: EventLog, clock: Clock) -> None:
        run, job = context.run, context.job
        self._log = log
        self._clock = clock
        self._context = context
        self.scope = Scope(run.tenant, run.conversation_id, lambda tx: ledger.check_fence(tx, job))
        self._in_flight: _Written | None = None
        self._gathered: list[tuple[str, str]] = []
        self._size = 0
        self._first_text: _Written | None = None
        self._failure: BaseException | None = None
        self._heads = {type_: self._head(type_) for type_ in _TEXT}

    def _head(self, type_: str) -> bytes:
        run = self._context.run
        call, parent, root = (
            to_json(value) for value in (run.call_id, self._context.plan.parent_call_id, run.root_call_id)
        )
        return b'"type":"%s","call_id":%s,"parent_call_id":%s,"root_call_id":%s,"content":' % (
            type_.encode(), call, parent, root,
        )  # fmt: skip

    def draft(
        self,
        type_: str,
        content: Any,
        *,
        call_id: str | None = None,
        metadata: dict[str, Any] | None = None,
        part: PartDraft | None = None,
    ) -> Draft:
        """An event of this run; `call_id` names a unit below the run, a tool call for example."""
        return draft(self._context, self._clock, type_, content, call_id=call_id, metadata=metadata, part=part)

    def send(
        self, drafts: Sequence[Draft], also: Callable[[Tx], None] | None = None, *, serial: bool = True
    ) -> Awaitable[list[StoredEvent]]:
        """Append events as `EventLog.append`; await the result to know that they are on disk."""
        if self._failure is not None:
            raise self._failure
        text = self._take_gathered()
        written = asyncio.ensure_future(self._log.append(self.scope, (*text, *drafts), also, serial=serial))
        if not text:
            return written
        self._first_text = self._first_text or written
        return _behind(written, len(text))

    def report(self, drafted: Draft) -> None:
        """Append an event without waiting for it."""
        asyncio.ensure_future(self.send((drafted,))).add_done_callback(self._note_failure)

    async def text(self, text: str, type_: str = "delta") -> None:
        """Append a piece of text. Returns at once unless too much is still unwritten."""
        if self._failure is not None:
            raise self._failure
        self._gathered.append((type_, text))
        self._size += len(text)
        if self._in_flight is None:
            self._write_gathered()
        elif self._size > _MAX_GATHERED:
            await asyncio.wait((self._in_flight,))

    def keep_text(self) -> None:
        """The text so far belongs to a completed model call."""
        if self._gathered:
            self._write_gathered()
        self._first_text = None

    async def discard_text(self, reason: str, since_seq: int | None = None) -> None:
        """Tell readers that the text since the last completed model call is void, if there was any."""
        if self._gathered:
            self._write_gathered()
        if since_seq is None and self._first_text is not None:
            since_seq = next(event.seq for event in await self._first_text if event.type in _TEXT)
        self._first_text = None
        if since_seq is not None:
            await self.send((self.draft("text_discarded", {"reason": reason, "since_seq": since_seq}),))

    def _take_gathered(self) -> list[Draft]:
        """What was gathered, neighbours of one kind joined into one event."""
        joined: list[tuple[str, list[str]]] = []
        for type_, text in self._gathered:
            if joined and joined[-1][0] == type_:
                joined[-1][1].append(text)
            else:
                joined.append((type_, [text]))
        self._gathered, self._size = [], 0
        return [self._text_draft(type_, "".join(texts)) for type_, texts in joined]

    def _text_draft(self, type_: str, text: str) -> Draft:
        run = self._context.run
        stamp = to_iso(self._clock.micros()).encode()
        body = b'%s%s,"timestamp":"%s","metadata":null}' % (self._heads[type_], to_json(text), stamp)
        return Draft(type_, run.call_id, run.root_call_id, self._context.plan.parent_call_id, body)

    def _write_gathered(self) -> None:
        written = asyncio.ensure_future(self._log.append(self.scope, self._take_gathered()))
        self._first_text = self._first_text or written
        self._in_flight = written
        written.add_done_callback(self._written)

    def _written(self, done: _Written) -> None:
        self._note_failure(done)
        if self._in_flight is done:
            self._in_flight = None
            if self._gathered and self._failure is None:
                self._write_gathered()

    def _note_failure(self, done: _Written) -> None:
        if not done.cancelled() and (error := done.exception()) is not None:
            self._failure = self._failure or error


async def _behind(written: _Written, count: int) -> list[StoredEvent]:
    return (await written)[count:]


def draft(
    context: RunContext,
    clock: Clock,
    type_: str,
    content: Any,
    *,
    call_id: str | None = None,
    metadata: dict[str, Any] | None = None,
    part: PartDraft | None = None,
) -> Draft:
    """An event of a run, on its way into the log; a unit below the run (`call_id`) has the run's unit as its parent."""
    run = context.run
    call = call_id or run.call_id
    parent = context.plan.parent_call_id if call == run.call_id else run.call_id
    body = encode(
        type_,
        call_id=call,
        parent_call_id=parent,
        root_call_id=run.root_call_id,
        content=content,
        timestamp=to_iso(clock.micros()),
        metadata=metadata,
    )
    return Draft(type_, call, run.root_call_id, parent, body, part)
