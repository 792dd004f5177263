"""The two drivers that do what the pipeline says, on httpx2: one that waits, one that awaits. Both are thin."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, ParamSpec, Protocol, TypeVar

import httpx2

from agentflow.errors import ConnectionFailedError, DecodeError, RequestTimeoutError, TransportError
from agentflow.transport.pipeline import (
    Answer,
    Failure,
    Pause,
    Renew,
    Renewed,
    Result,
    Send,
    connection_failure,
    pipeline,
)
from agentflow.transport.request import RawResponse, Request, Timeout
from agentflow.transport.tls import shared_context
from agentflow.transport.uploads import Multipart

M = TypeVar("M")
P = ParamSpec("P")
R = TypeVar("R")
_LIMITS = httpx2.Limits(max_connections=1000, max_keepalive_connections=100, keepalive_expiry=60.0)
_NOT_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.UnsupportedProtocol)


class Credentials(Protocol):
    """Where the headers come from that say who calls. Used from many threads at once."""

    def headers(self) -> Mapping[str, str] | None:
        """The headers for the next request, at once; None if they must be renewed first."""
        ...

    def renew(self, refused: Mapping[str, str] | None) -> Mapping[str, str] | None:
        """Get new headers in place of those the server has refused; None if there are no others. May take its time."""
        ...


class Config:
    """What both drivers need to know."""

    def __init__(
        self,
        endpoint: str,
        credentials: Credentials,
        timeout: Timeout,
        max_retries: int,
        headers: Mapping[str, str],
    ) -> None:
        self.endpoint = endpoint.rstrip("/")
        self.credentials = credentials
        self.timeout = timeout
        self.max_retries = max_retries
        self.fixed_headers = {"Accept": "application/json, text/event-stream", **headers}

    def verify(self) -> Any:
        return shared_context() if self.endpoint.startswith("https:") else False

    def failure(self, error: httpx2.HTTPError | httpx2.InvalidURL, timeout: Timeout) -> Failure:
        """What an exception of httpx2 means."""
        sent = not isinstance(error, _NOT_SENT)
        if isinstance(error, httpx2.TimeoutException) and sent:
            return Failure(RequestTimeoutError(f"{self.endpoint} did not answer within {timeout.total:g} s"), sent)
        return Failure(connection_failure(self.endpoint, error), sent)

    def build(
        self, client: "httpx2.AsyncClient | httpx2.Client", step: Send, send: Callable[[Multipart], Any]
    ) -> httpx2.Request:
        request, timeout = step.request, step.timeout
        headers = dict(step.headers)
        content = request.content()
        if request.upload is not None:
            content = send(request.upload)
            headers["Content-Type"] = request.upload.media_type
            if request.upload.length is not None:
                headers["Content-Length"] = str(request.upload.length)
        elif content is not None:
            headers["Content-Type"] = "application/json"
        read = timeout.idle if request.stream or request.download else timeout.total
        limits = httpx2.Timeout(connect=timeout.connect, read=read, write=timeout.total, pool=timeout.connect)
        return client.build_request(
            request.method,
            f"{self.endpoint}{request.path}",
            params=request.params() or None,
            content=content,
            headers=headers,
            timeout=limits,
        )


def decode(model: type[M], response: RawResponse) -> M:
    """The model in an answer.

    Raises:
        DecodeError: the answer is not what the API promises.
    """
    try:
        value = model.model_validate_json(response.content)  # type: ignore[attr-defined]  # a pydantic model class
    except ValueError as error:
        raise DecodeError(
            f"the answer is not a {model.__name__}: {str(error)[:500]}",
            request_id=response.request_id,
            attempts=response.attempts,
        ) from None
    value._response = response
    return value


class AsyncTransport:
    """Sends requests from an event loop."""

    def __init__(self, config: Config, client: httpx2.AsyncClient | None = None) -> None:
        self.config = config
        self._client = client
        self._owned = client is None
        self._renewal: asyncio.Task[Mapping[str, str] | None] | None = None
        self._renewed: Mapping[str, str] | None = None

    def _http(self) -> httpx2.AsyncClient:
        if self._client is None:
            self._client = httpx2.AsyncClient(verify=self.config.verify(), limits=_LIMITS, follow_redirects=False)
        return self._client

    async def call(self, request: Request, model: type[M]) -> M:
        """Send a request and decode its answer."""
        return decode(model, await self.raw(request))

    async def raw(self, request: Request) -> RawResponse:
        """Send a request; the answer as it came."""
        answer, attempts, _ = await self._run(request)
        return RawResponse(answer.status, dict(answer.headers), answer.content or b"", attempts)

    async def open(self, request: Request) -> "AsyncBody":
        """Send a request whose answer is a stream."""
        answer, attempts, response = await self._run(request)
        assert response is not None
        return AsyncBody(response, self.config.endpoint, attempts, dict(answer.headers))

    async def _run(self, request: Request) -> tuple[Answer, int, httpx2.Response | None]:
        config = self.config
        timeout = Timeout.of(request.timeout, config.timeout)
        steps = pipeline(
            request,
            headers=config.fixed_headers,
            credentials=config.credentials.headers(),
            timeout=timeout,
            max_retries=config.max_retries,
        )
        result: Result = None
        response: httpx2.Response | None = None
        try:
            while True:
                step = steps.send(result)
                if isinstance(step, Pause):
                    await self.sleep(step.seconds)
                    result = None
                elif isinstance(step, Renew):
                    result = Renewed(await self._renew(step.refused))
                else:
                    result, response = await self._send(step)
        except StopIteration as done:
            return (*done.value, response)

    async def _renew(self, refused: Mapping[str, str] | None) -> Mapping[str, str] | None:
        """In a thread, and once for all tasks that wait for it."""
        if self._renewal is None or self._renewal.done() or self._renewed != refused:
            self._renewed = refused
            self._renewal = asyncio.create_task(asyncio.to_thread(self.config.credentials.renew, refused))
        return await asyncio.shield(self._renewal)

    async def _send(self, step: Send) -> tuple[Result, httpx2.Response | None]:
        http = self._http()
        try:
            async with asyncio.timeout(step.timeout.total):
                response = await http.send(self.config.build(http, step, self._sent), stream=True)
                headers = {name.lower(): value for name, value in response.headers.items()}
                if step.request.kept_open(response.status_code, headers.get("content-type", "")):
                    return Answer(response.status_code, headers, None), response
                try:
                    content = await response.aread()
                finally:
                    await response.aclose()
            return Answer(response.status_code, headers, content), None
        except TimeoutError:
            return Failure(RequestTimeoutError(_late(self.config, step)), True), None
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            return self.config.failure(error, step.timeout), None

    async def _sent(self, upload: Multipart) -> AsyncIterator[bytes]:
        pieces, sent = upload.pieces(), 0
        while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
            yield piece
            sent += len(piece)
            if upload.progress is not None:
                upload.progress(sent, upload.length)

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)

    async def blocking(self, function: Callable[P, R], *arguments: P.args, **options: P.kwargs) -> R:
        """Call something that waits for a disk, without holding up the event loop."""
        return await asyncio.to_thread(function, *arguments, **options)

    async def aclose(self) -> None:
        """Close the connections, if they are ours."""
        if self._client is not None and self._owned:
            await self._client.aclose()
            self._client = None


class SyncTransport:
    """Sends requests from a thread; one transport may be used from many."""

    def __init__(self, config: Config, client: httpx2.Client | None = None) -> None:
        import threading

        self.config = config
        self._client = client
        self._owned = client is None
        self._lock = threading.Lock()

    def _http(self) -> httpx2.Client:
        if self._client is None:
            with self._lock:
                if self._client is None:
                    self._client = httpx2.Client(verify=self.config.verify(), limits=_LIMITS, follow_redirects=False)
        return self._client

    def call(self, request: Request, model: type[M]) -> M:
        """Send a request and decode its answer."""
        return decode(model, self.raw(request))

    def raw(self, request: Request) -> RawResponse:
        """Send a request; the answer as it came."""
        answer, attempts, _ = self._run(request)
        return RawResponse(answer.status, dict(answer.headers), answer.content or b"", attempts)

    def open(self, request: Request) -> "SyncBody":
        """Send a request whose answer is a stream."""
        answer, attempts, response = self._run(request)
        assert response is not None
        return SyncBody(response, self.config.endpoint, attempts, dict(answer.headers))

    def _run(self, request: Request) -> tuple[Answer, int, httpx2.Response | None]:
        config = self.config
        timeout = Timeout.of(request.timeout, config.timeout)
        steps = pipeline(
            request,
            headers=config.fixed_headers,
            credentials=config.credentials.headers(),
            timeout=timeout,
            max_retries=config.max_retries,
        )
        result: Result = None
        response: httpx2.Response | None = None
        try:
            while True:
                step = steps.send(result)
                if isinstance(step, Pause):
                    self.sleep(step.seconds)
                    result = None
                elif isinstance(step, Renew):
                    result = Renewed(config.credentials.renew(step.refused))
                else:
                    result, response = self._send(step)
        except StopIteration as done:
            return (*done.value, response)

    def _send(self, step: Send) -> tuple[Result, httpx2.Response | None]:
        http = self._http()
        deadline = None if step.timeout.total is None else time.monotonic() + step.timeout.total
        try:
            response = http.send(self.config.build(http, step, self._sent), stream=True)
            headers = {name.lower(): value for name, value in response.headers.items()}
            if step.request.kept_open(response.status_code, headers.get("content-type", "")):
                return Answer(response.status_code, headers, None), response
            pieces: list[bytes] = []
            try:
                for piece in response.iter_bytes():
                    pieces.append(piece)
                    if deadline is not None and time.monotonic() > deadline:
                        return Failure(RequestTimeoutError(_late(self.config, step)), True), None
            finally:
                response.close()
            return Answer(response.status_code, headers, b"".join(pieces)), None
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            return self.config.failure(error, step.timeout), None

    def _sent(self, upload: Multipart) -> Iterator[bytes]:
        sent = 0
        for piece in upload.pieces():
            yield piece
            sent += len(piece)
            if upload.progress is not None:
                upload.progress(sent, upload.length)

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)

    def blocking(self, function: Callable[P, R], *arguments: P.args, **options: P.kwargs) -> R:
        """Call something that waits for a disk."""
        return function(*arguments, **options)

    def close(self) -> None:
        """Close the connections, if they are ours."""
        if self._client is not None and self._owned:
            self._client.close()
            self._client = None


def _late(config: Config, step: Send) -> str:
    return f"{config.endpoint} did not answer within {step.timeout.total:g} s"


class AsyncBody:
    """The bytes of a stream as they come."""

    def __init__(self, response: httpx2.Response, endpoint: str, attempts: int, headers: dict[str, str]) -> None:
        self._response = response
        self._endpoint = endpoint
        self._pieces: AsyncIterator[bytes] = response.aiter_bytes()
        self.headers = headers
        self.attempts = attempts
        self.status = response.status_code

    async def read(self) -> bytes | None:
        """The next piece; None at the end.

        Raises:
            TransportError: the connection broke, or fell silent.
        """
        try:
            return await anext(self._pieces, None)
        except httpx2.HTTPError as error:
            raise _broken(self._endpoint, error) from None

    async def aclose(self) -> None:
        """Give the connection back."""
        await self._response.aclose()


class SyncBody:
    """The bytes of a stream as they come."""

    def __init__(self, response: httpx2.Response, endpoint: str, attempts: int, headers: dict[str, str]) -> None:
        self._response = response
        self._endpoint = endpoint
        self._pieces: Iterator[bytes] = response.iter_bytes()
        self.headers = headers
        self.attempts = attempts
        self.status = response.status_code

    def read(self) -> bytes | None:
        """The next piece; None at the end.

        Raises:
            TransportError: the connection broke, or fell silent.
        """
        try:
            return next(self._pieces, None)
        except httpx2.HTTPError as error:
            raise _broken(self._endpoint, error) from None

    def close(self) -> None:
        """Give the connection back."""
        self._response.close()


def _broken(endpoint: str, error: httpx2.HTTPError) -> TransportError:
    if isinstance(error, httpx2.TimeoutException):
        return RequestTimeoutError(f"the stream from {endpoint} fell silent")
    return ConnectionFailedError(f"the stream from {endpoint} broke off: {error or type(error).__name__}")
