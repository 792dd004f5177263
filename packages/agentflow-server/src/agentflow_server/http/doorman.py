"""The outermost layer of the app: gives every request an id, refuses bodies that are too large, and
what is more than the process can take.

Plain ASGI, so that it costs next to nothing and never stands between a stream and its reader.
"""

import logging
import re
import time
from collections.abc import Sequence
from typing import Any

from agentflow.errors import PayloadTooLargeError, UnavailableError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agentflow_server.http.capacity import Capacity, Place
from agentflow_server.http.envelope import error_response
from agentflow_server.kit import logs, telemetry
from agentflow_server.kit.ids import new_id

logger = logging.getLogger("agentflow_server.access")
_ALWAYS = {"/health", "/ready", "/metrics"}
_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")


class Doorman:
    """Wraps the app.

    Args:
        capacity: how much is taken in at once. What probes and counts the process is let in always.
        max_body: largest request body in bytes.
        uploads: paths, as regular expressions, whose forms with files are let through: those routes read them piece by
            piece and have bounds of their own.
    """

    def __init__(self, app: ASGIApp, capacity: Capacity, max_body: int, uploads: Sequence[str] = ()) -> None:
        self._app = app
        self._capacity = capacity
        self._max_body = max_body
        self._uploads = re.compile("|".join(uploads) or r"(?!)")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers: dict[bytes, bytes] = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"")
        request_id = given.decode("ascii") if _REQUEST_ID.fullmatch(given) else new_id()
        scope.setdefault("state", {})["request_id"] = request_id
        logs.bind(request_id=request_id)
        began = time.monotonic()
        parent = headers.get(b"traceparent")
        with telemetry.request_span(scope["method"], request_id, parent.decode("latin-1") if parent else None) as span:
            status = await self._answer(scope, receive, send, headers, request_id)
            route = _route(scope)
            span.update_name(f"{scope['method']} {route}")
            span.set_attributes({"http.route": route, "http.response.status_code": status})
        telemetry.requests.labels(scope["method"], route, status).observe(time.monotonic() - began)
        logger.debug("request", extra={"method": scope["method"], "path": scope["path"], "status": status})

    async def _answer(
        self, scope: Scope, receive: Receive, send: Send, headers: dict[bytes, bytes], request_id: str
    ) -> int:
        upload = self._is_upload(scope, headers)
        place = Place(self._capacity, upload=upload)
        body = _Body(receive, None if upload else self._max_body, place)
        status = 0

        async def stamped(message: Message) -> None:
            nonlocal status
            if body.refusal is not None and status == 0:
                return
            if message["type"] == "http.response.start":
                status = message["status"]
                added = await _noted(scope["state"], status)
                message = {**message, "headers": [*message["headers"], (b"x-request-id", request_id.encode()), *added]}
            await send(message)

        try:
            if scope["path"] not in _ALWAYS:
                body.enter(headers.get(b"content-length", b"0"))
            if body.refusal is None:
                await self._app(scope, body.receive, stamped)
        finally:
            place.leave()
        if body.refusal is not None and status == 0:
            status = body.refusal.status
            response = error_response(body.refusal, request_id)
            response.headers["x-request-id"] = request_id
            await response(scope, receive, send)
        return status

    def _is_upload(self, scope: Scope, headers: dict[bytes, bytes]) -> bool:
        form = headers.get(b"content-type", b"").lower().startswith(b"multipart/form-data")
        return form and scope["method"] == "POST" and self._uploads.fullmatch(scope["path"]) is not None


async def _noted(state: dict[str, Any], status: int) -> list[tuple[bytes, bytes]]:
    """Put the request into the audit log if identity has said so; the headers that tell the caller's rate limit."""
    note = state.pop("note", None)
    if note is not None:
        await note(status)
    standing = state.get("standing")
    return standing.headers() if standing is not None else []


def _route(scope: Scope) -> str:
    """The path of the route that answered, with its parameters' names."""
    path: str = getattr(scope.get("route"), "path", "none")
    return path if path.startswith("/api") or not scope["path"].startswith("/api/v1/") else f"/api/v1{path}"


class _Body:
    """Counts the body as it is read; from a limit on, the app sees the client as gone, who is told the `refusal`.

    Args:
        limit: most bytes; None for a form with files, which is never held whole.
    """

    def __init__(self, receive: Receive, limit: int | None, place: Place) -> None:
        self._receive = receive
        self._limit = limit
        self._place = place
        self._read = 0
        self.refusal: PayloadTooLargeError | UnavailableError | None = None

    def enter(self, length: bytes) -> None:
        """Begin; `length` is what the sender says of the body's."""
        try:
            self._place.enter()
            if length.isdigit():
                self._check(int(length))
        except (PayloadTooLargeError, UnavailableError) as error:
            self.refusal = error

    def _check(self, size: int) -> None:
        if self._limit is not None and size > self._limit:
            raise PayloadTooLargeError(
                f"the request body is larger than {self._limit} bytes", details={"limit": self._limit}
            )

    async def receive(self) -> Message:
        message = await self._receive()
        if self._limit is not None and message["type"] == "http.request":
            size = len(message.get("body", b""))
            self._read += size
            try:
                self._check(self._read)
                self._place.hold(size)
            except (PayloadTooLargeError, UnavailableError) as error:
                self.refusal = error
                return {"type": "http.disconnect"}
        return message
