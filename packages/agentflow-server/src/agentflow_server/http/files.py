"""Files over HTTP: whole or by range (RFC 9110, section 14), with the digest of their bytes (RFC 9530). For routes."""

import re
from base64 import b64encode
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from urllib.parse import quote

from agentflow.errors import BadRequestError
from fastapi import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Send

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


def file_response(
    request: Request,
    read: Callable[[int, int], AsyncGenerator[bytes, None]],
    *,
    size: int,
    sha256: str,
    media_type: str,
    name: str,
) -> Response:
    """A file, or the one range of it that is asked for. It is given to be saved, never to be shown by a browser.

    Args:
        read: the bytes from a start up to an end (not included). size: of the whole file. sha256: in hex.

    Raises:
        BadRequestError: the range lies behind the end (416).
    """
    etag = f'"{sha256}"'
    headers = {
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name)}",
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "ETag": etag,
        "Repr-Digest": f"sha-256=:{b64encode(bytes.fromhex(sha256)).decode()}:",
        "X-Content-Type-Options": "nosniff",
    }
    start, end = 0, size
    wanted = _wanted(request, etag)
    status = 206 if wanted else 200
    if wanted:
        start, end = _span(wanted, size)
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    headers["Content-Length"] = str(end - start)
    return _Streamed(read(start, end), status, headers, media_type)


class _Streamed(StreamingResponse):
    """Closes what it reads from also when its client has gone."""

    def __init__(self, pieces: AsyncGenerator[bytes, None], status: int, headers: dict[str, str], type_: str) -> None:
        super().__init__(pieces, status, headers, type_)
        self._pieces = pieces

    async def stream_response(self, send: Send) -> None:
        async with aclosing(self._pieces):
            await super().stream_response(send)


def _wanted(request: Request, etag: str) -> re.Match[str] | None:
    """The range to give; None for the whole file: no range, several, or one of another version."""
    if request.headers.get("if-range", etag) != etag:
        return None
    found = _RANGE.fullmatch(request.headers.get("range", "").replace(" ", ""))
    return found if found and any(found.groups()) else None


def _span(wanted: re.Match[str], size: int) -> tuple[int, int]:
    first, last = wanted.groups()
    if not first:
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(size, int(last) + 1 if last else size)
    if start >= end:
        raise BadRequestError(f"the range {wanted.group()} lies outside the {size} bytes of the file", status=416)
    return start, end
