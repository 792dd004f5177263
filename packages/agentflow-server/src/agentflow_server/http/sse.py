"""Writes events to HTTP as they are in the log (server-sent events, WHATWG HTML section 9.2).

Ready bytes go straight to the socket; a comment line keeps an idle connection open; a client that leaves is noticed.
A stream that is cut short by a shutdown has no terminal event, so its reader knows to come back.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from agentflow.errors import UnavailableError
from pydantic_core import to_json
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from agentflow_server.eventlog import Reader, StoredEvent

RETRY = b"retry: 5000\n\n"
_KEEP_ALIVE = b": keep-alive\n\n"


def state_frame(type_: str, content: Any, *, id_: str | None, seq: int | None, timestamp: str) -> bytes:
    """An event that is not in the log: how something stands, in the envelope of all events."""
    envelope = dict.fromkeys(("type", "call_id", "parent_call_id", "root_call_id"))
    told = {"type": type_, "content": content, "seq": seq, "timestamp": timestamp, "metadata": None}
    body = b"data: %s\n\n" % to_json({**envelope, **told})
    return body if id_ is None else b"id: %s\n%s" % (id_.encode(), body)


class Streams:
    """The open streams of this process, and their bound.

    Args:
        limit: how many may be open. keep_alive: seconds of silence after which a comment is sent.
    """

    def __init__(self, limit: int, keep_alive: float) -> None:
        self.limit = limit
        self.keep_alive = keep_alive
        self.open = 0
        self.closing = False

    def enter(self) -> None:
        """Take a place.

        Raises:
            UnavailableError: all are taken.
        """
        if self.open >= self.limit:
            raise UnavailableError(
                f"the server has its {self.limit} event streams open", retry_after=2.0, hint="Try again shortly."
            )
        self.open += 1


class EventStream(Response):
    """A response that follows a reader of the log.

    Args:
        is_last: whether the stream ends behind this event. None: it never ends by itself.
        render: makes the bytes for what the reader brought (nothing, when it was rung), in place of the events' own
            frames; None ends the stream.
        first: makes the bytes to send before the reader is asked.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        reader: Reader,
        streams: Streams,
        *,
        is_last: Callable[[StoredEvent], bool] | None,
        headers: Mapping[str, str],
        render: Callable[[Sequence[StoredEvent]], Awaitable[bytes | None]] | None = None,
        first: Callable[[], Awaitable[bytes | None]] | None = None,
    ) -> None:
        super().__init__(None, 200, {"Cache-Control": "no-store", "X-Accel-Buffering": "no", **headers})
        del self.headers["content-length"]
        self._reader = reader
        self._streams = streams
        self._is_last = is_last
        self._render = render
        self._first = first
        self._gone = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        watch = asyncio.create_task(self._watch(receive))
        bell = _Bell(self._reader, self._streams.keep_alive)
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            head = await self._first() if self._first is not None else None
            await send({"type": "http.response.body", "body": RETRY + (head or b""), "more_body": True})
            while not (self._gone or self._streams.closing):
                events, last = self._until_last(await self._reader.next())
                body = await self._body(events)
                if body is None:
                    break
                if body:
                    bell.spoken()
                    await send({"type": "http.response.body", "body": body, "more_body": True})
                elif bell.due():
                    await send({"type": "http.response.body", "body": _KEEP_ALIVE, "more_body": True})
                if last:
                    break
            if not self._gone:
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            bell.stop()
            watch.cancel()
            self._reader.close()
            self._streams.open -= 1

    def _until_last(self, events: Sequence[StoredEvent]) -> tuple[Sequence[StoredEvent], bool]:
        """The events up to the last one of the stream, if it is among them: others may have come behind it."""
        if self._is_last is not None:
            for place, event in enumerate(events, 1):
                if self._is_last(event):
                    return events[:place], True
        return events, False

    async def _body(self, events: Sequence[StoredEvent]) -> bytes | None:
        if self._render is not None:
            return await self._render(events)
        return b"".join([event.frame() for event in events])

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        self._reader.ring()


class _Bell:
    """Rings the reader when nothing was sent for a while; costs nothing while events flow."""

    def __init__(self, reader: Reader, every: float) -> None:
        self._reader = reader
        self._every = every
        self._loop = asyncio.get_running_loop()
        self._last = self._loop.time()
        self._timer = self._loop.call_later(every, self._ring)

    def spoken(self) -> None:
        self._last = self._loop.time()

    def due(self) -> bool:
        if self._loop.time() - self._last < self._every * 0.9:
            return False
        self._last = self._loop.time()
        return True

    def _ring(self) -> None:
        silent = self._loop.time() - self._last
        if silent >= self._every * 0.9:
            self._reader.ring()
            silent = 0.0
        self._timer = self._loop.call_later(self._every - silent, self._ring)

    def stop(self) -> None:
        self._timer.cancel()
