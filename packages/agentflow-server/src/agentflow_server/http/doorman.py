"""The outermost layer of the app: gives every request an id and refuses bodies that are too large.

Plain ASGI, so that it costs next to nothing and never stands between a stream and its reader.
"""

import logging
import re
from collections.abc import Sequence
from typing import Any

from agentflow.errors import PayloadTooLargeError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agentflow_server.http.envelope import error_response
from agentflow_server.kit.ids import new_id

logger = logging.getLogger("agentflow_server.access")
_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")


class Doorman:
    """Wraps the app.

    Args:
        max_body: largest request body in bytes.
        uploads: paths, as regular expressions, whose forms with files are let through: those routes read them piece by
            piece and have bounds of their own.
    """

    def __init__(self, app: ASGIApp, max_body: int, uploads: Sequence[str] = ()) -> None:
        self._app = app
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
        body = _Body(receive, None if self._is_upload(scope, headers) else self._max_body)
        status = 0

        async def stamped(message: Message) -> None:
            nonlocal status
            if body.overflown and status == 0:
                return
            if message["type"] == "http.response.start":
                status = message["status"]
                added = await _noted(scope["state"], status)
                message = {**message, "headers": [*message["headers"], (b"x-request-id", request_id.encode()), *added]}
            await send(message)

        length = headers.get(b"content-length", b"0")
        if body.limit is not None and length.isdigit() and int(length) > body.limit:
            body.overflown = True
        else:
            await self._app(scope, body.receive, stamped)
        if body.overflown and status == 0:
            status = 413
            limit = self._max_body
            error = PayloadTooLargeError(f"the request body is larger than {limit} bytes", details={"limit": limit})
            response = error_response(error, request_id)
            response.headers["x-request-id"] = request_id
            await response(scope, receive, send)
        logger.debug(
            "request",
            extra={"method": scope["method"], "path": scope["path"], "status": status, "request_id": request_id},
        )

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


class _Body:
    """Counts the body as it is read; from the limit on, the app sees the client as gone."""

    def __init__(self, receive: Receive, limit: int | None) -> None:
        self._receive = receive
        self._read = 0
        self.limit = limit
        self.overflown = False

    async def receive(self) -> Message:
        message = await self._receive()
        if self.limit is not None and message["type"] == "http.request":
            self._read += len(message.get("body", b""))
            if self._read > self.limit:
                self.overflown = True
                return {"type": "http.disconnect"}
        return message
