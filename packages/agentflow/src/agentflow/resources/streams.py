"""Streams of events: iterated, left and re-entered. A stream ends with its terminal event or with an error."""

import uuid
from collections import deque
from collections.abc import AsyncIterator
from typing import Any, Generic, Self, TypeVar, cast

from pydantic import BaseModel
from pydantic_core import from_json

from agentflow.errors import (
    APIError,
    ConnectionFailedError,
    DecodeError,
    NotFoundError,
    RequestTimeoutError,
    StreamInterruptedError,
    TransportError,
    UnavailableError,
    api_error,
)
from agentflow.events import (
    BatchUpdate,
    ConversationUpdate,
    Event,
    FinalResponse,
    RunError,
    RunStarted,
    TextDelta,
    event_of,
)
from agentflow.transport.drivers import AsyncBody, AsyncTransport
from agentflow.transport.pipeline import backoff
from agentflow.transport.request import Request, Timeout
from agentflow.transport.sse import Splitter
from agentflow.types.cancellations import Cancellation
from agentflow.types.runs import RunResult

_MAX_RESUMES = 8
Ended = TypeVar("Ended", bound=BaseModel)
_LOST = (ConnectionFailedError, RequestTimeoutError, UnavailableError)


class AsyncEventStream:
    """What all streams do: read, and resume where they broke off.

    A dropped connection is resumed with `Last-Event-ID`, up to eight times in a row without a new event in between.
    """

    def __init__(self, transport: AsyncTransport, request: Request) -> None:
        self._transport = transport
        self._request = request
        self._body: AsyncBody | None = None
        self._splitter = Splitter()
        self._ready: deque[Event] = deque()
        self._last_id: str | None = None
        self._failures = 0
        self._finished = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        while not self._ready:
            if self._finished:
                raise StopAsyncIteration
            await self._fill()
        event = self._ready.popleft()
        if self._seen(event):
            self._finished = True
            self._ready.clear()
            await self._release()
        return event

    async def aclose(self) -> None:
        """Leave the stream and give its connection back. What it shows goes on."""
        self._finished = True
        self._ready.clear()
        await self._release()

    async def _release(self) -> None:
        body, self._body = self._body, None
        if body is not None:
            await body.aclose()

    async def _fill(self) -> None:
        """Read once; a lost connection is taken up again."""
        try:
            if self._body is None:
                await self._connect()
                return
            piece = await self._body.read()
        except _LOST as error:
            await self._lost(error)
            return
        if piece is None:
            await self._lost(StreamInterruptedError("the stream ended before its last event"))
            return
        for identity, data in self._splitter.feed(piece):
            event = event_of(_payload(data))
            if identity:
                self._last_id = identity.decode("utf-8", "replace")
            if self._fresh(event):
                self._ready.append(event)
                self._failures = 0

    async def _connect(self) -> None:
        request = self._next_request()
        self._splitter = Splitter()
        self._body = await self._transport.open(request)
        self._opened(self._body.headers)

    async def _lost(self, error: TransportError | APIError) -> None:
        await self._release()
        self._failures += 1
        if self._failures > _MAX_RESUMES:
            self._finished = True
            raise StreamInterruptedError(
                f"the stream broke off and could not be resumed: {error.message}",
                hint="What was read so far is not the whole answer.",
                request_id=error.request_id,
                attempts=self._failures,
            ) from error
        if self._failures > 1:
            await self._transport.sleep(backoff(self._failures - 1))

    def _next_request(self) -> Request:
        raise NotImplementedError

    def _opened(self, headers: dict[str, str]) -> None:
        """Note what the answer's headers say."""

    def _fresh(self, event: Event) -> bool:
        """Whether an event was not seen before."""
        raise NotImplementedError

    def _seen(self, event: Event) -> bool:
        """Note an event that is handed out; True if it is the last."""
        raise NotImplementedError

    def _resume_headers(self) -> dict[str, str]:
        return {"Last-Event-ID": self._last_id} if self._last_id is not None else {}


class AsyncStream(AsyncEventStream):
    """A run's events as they happen; an iterator and a context manager.

    Attributes:
        run_id, conversation_id: known once the server has accepted the run.
        message_id, call_id: known at once.
    """

    def __init__(self, transport: AsyncTransport, request: Request, *, verbose: bool = False) -> None:
        super().__init__(transport, request)
        body: dict[str, Any] = request.body or {}
        self._verbose = verbose
        self._last_seq = -1
        self._final: Event | None = None
        self.run_id: str | None = None
        self.conversation_id: str | None = body.get("conversation_id")
        self.message_id: str | None = body.get("message_id")
        self.call_id: str | None = body.get("call_id")

    def _next_request(self) -> Request:
        if self.run_id is None:
            return self._request
        return Request(
            "GET",
            f"/api/v1/runs/{self.run_id}/stream",
            {"verbose": True} if self._verbose else {},
            headers=self._resume_headers(),
            repeatable=True,
            stream=True,
            timeout=self._request.timeout,
        )

    def _opened(self, headers: dict[str, str]) -> None:
        self.run_id = headers.get("x-run-id", self.run_id)
        self.conversation_id = headers.get("x-conversation-id", self.conversation_id)
        self.call_id = headers.get("x-call-id", self.call_id)

    def _fresh(self, event: Event) -> bool:
        seq = event.raw.get("seq")
        if not isinstance(seq, int):
            return True
        if seq <= self._last_seq:
            return False
        self._last_seq = seq
        return True

    def _seen(self, event: Event) -> bool:
        if isinstance(event, TextDelta):
            return False
        if isinstance(event, RunStarted) and self.run_id is None:
            self.run_id, self.conversation_id = event.run_id, event.conversation_id
        if isinstance(event, FinalResponse | RunError) or self._is_own_end(event):
            self._final = event
            return True
        return False

    def _is_own_end(self, event: Event) -> bool:
        """Whether a run below another one, a sub-agent's, has ended."""
        return event.type in ("end", "error") and event.call_id is not None and event.call_id == self.call_id

    async def result(self) -> RunResult:
        """Read to the end.

        Raises:
            APIError: the run failed. StreamInterruptedError: the stream could not be resumed.
        """
        async for _ in self:
            pass
        if self._final is None:
            raise StreamInterruptedError("the stream was closed before its last event")
        if self._final.type == "error":
            raise run_failure(self._final)
        return result_of(self._final)

    async def text(self) -> AsyncIterator[str]:
        """Only the pieces of the answer.

        Raises:
            APIError: the run failed.
        """
        async for event in self:
            if isinstance(event, TextDelta):
                yield event.text
            elif event is self._final and event.type == "error":
                raise run_failure(event)

    async def cancel(self) -> Cancellation:
        """Cancel the run. The stream still ends with its last event, whose `finish_reason` is `cancelled`."""
        path = f"runs/{self.run_id}" if self.run_id else f"calls/{self.call_id}"
        attempt = 0
        while True:
            try:
                request = Request("POST", f"/api/v1/cancellations/{path}", repeatable=True)
                return await self._transport.call(request, Cancellation)
            except NotFoundError:
                attempt += 1
                if attempt > 3 or self._body is None:
                    raise
                await self._transport.sleep(0.1 * attempt)


class AsyncWatch(AsyncEventStream):
    """Snapshots of a conversation, one for every change. Ends when the conversation is deleted."""

    def __init__(self, transport: AsyncTransport, conversation_id: str, last_event_id: str | None) -> None:
        super().__init__(transport, Request("GET", f"/api/v1/conversations/{conversation_id}/watch"))
        self._last_id = last_event_id

    def _next_request(self) -> Request:
        return _watched(self._request.path, self._resume_headers())

    def _fresh(self, event: Event) -> bool:
        return isinstance(event, ConversationUpdate)

    def _seen(self, event: Event) -> bool:
        content = event.content
        return isinstance(content, dict) and bool(content.get("deleted"))


class AsyncBatchWatch(AsyncEventStream, Generic[Ended]):
    """How a batch or a job stands, then every change; ends with its end. An iterator and a context manager."""

    def __init__(self, transport: AsyncTransport, path: str, last_event_id: str | None, ended: type[Ended]) -> None:
        super().__init__(transport, Request("GET", path))
        self._last_id = last_event_id
        self._ended = ended
        self._final: Event | None = None

    @property
    def last_event_id(self) -> str | None:
        """Where a later watch may go on: the id of the last update that was read."""
        return self._last_id

    async def __anext__(self) -> BatchUpdate:
        return cast("BatchUpdate", await super().__anext__())

    def __aiter__(self) -> AsyncIterator[BatchUpdate]:
        return self

    async def result(self) -> Ended:
        """Read to the end; what the batch or the job then is.

        Raises:
            NotFoundError: it was removed. StreamInterruptedError: the stream could not be resumed.
        """
        async for _ in self:
            pass
        if self._final is None:
            raise StreamInterruptedError("the watch was closed before its last event")
        return self._ended.model_validate(self._final.content)

    def _next_request(self) -> Request:
        return _watched(self._request.path, self._resume_headers())

    def _fresh(self, event: Event) -> bool:
        return isinstance(event, BatchUpdate)

    def _seen(self, event: Event) -> bool:
        if isinstance(event, BatchUpdate) and event.done:
            self._final = event
        return self._final is not None


def _watched(path: str, headers: dict[str, str]) -> Request:
    return Request("GET", path, headers=headers, repeatable=True, stream=True, timeout=Timeout(total=None))


def new_id() -> str:
    """An id of the client's own making."""
    return str(uuid.uuid4())


def result_of(event: Event) -> RunResult:
    """The result in a run's last event."""
    try:
        return RunResult.model_validate(event.content)
    except ValueError as error:
        raise DecodeError(f"the last event is not a result: {str(error)[:500]}") from None


def run_failure(event: Event) -> APIError:
    """The error in a run's last event."""
    content: dict[str, Any] = event.content if isinstance(event.content, dict) else {}
    return api_error(int(content.get("status") or 500), {"error": content})


def _payload(data: bytes) -> dict[str, Any]:
    try:
        payload = from_json(data)
    except ValueError:
        raise DecodeError(f"the server sent an event that is not JSON: {data[:200]!r}") from None
    if not isinstance(payload, dict):
        raise DecodeError(f"the server sent an event that is not an object: {data[:200]!r}")
    return payload
