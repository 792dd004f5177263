"""A file that the server sends: read in pieces, and taken up again where it broke off (RFC 9110, section 14)."""

import hashlib
import os
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO, Any, Self

from agentflow.errors import (
    APIError,
    ConnectionFailedError,
    DecodeError,
    RequestTimeoutError,
    StreamInterruptedError,
    TransportError,
    UnavailableError,
)
from agentflow.transport.drivers import AsyncBody, AsyncTransport
from agentflow.transport.pipeline import backoff
from agentflow.transport.request import Request
from agentflow.transport.uploads import PIECE, Progress

_MAX_RESUMES = 8
_LOST = (ConnectionFailedError, RequestTimeoutError, UnavailableError)


class AsyncDownload:
    """A file on its way: iterate its bytes, `read` them all, or `save` them. Nothing is asked before that.

    Attributes:
        size: bytes of the whole file; None before it is opened, or if the server does not say.
        media_type: as the server says; None before it is opened.
    """

    def __init__(self, transport: AsyncTransport, path: str, query: "dict[str, Any] | None" = None) -> None:
        self._transport = transport
        self._path = path
        self._query = query or {}
        self._body: AsyncBody | None = None
        self._etag: str | None = None
        self._wanted_digest: str | None = None
        self._digest = hashlib.sha256()
        self._position = 0
        self._skip = 0
        self._failures = 0
        self._opened = False
        self.size: int | None = None
        self.media_type: str | None = None

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def open(self) -> None:
        """Ask for the file; `size` and `media_type` are known from then on.

        Raises:
            NotFoundError: there is no such file. TransportError: no answer came.
        """
        if self._body is None:
            await self._connect()

    async def aclose(self) -> None:
        """Give the connection back."""
        body, self._body = self._body, None
        if body is not None:
            await body.aclose()

    async def read(self) -> bytes:
        """The whole file.

        Raises:
            StreamInterruptedError: it broke off and could not be taken up again. DecodeError: it arrived damaged.
        """
        return b"".join([piece async for piece in self])

    async def save(self, path: str | os.PathLike[str], *, progress: Progress | None = None) -> Path:
        """Write the file to a path, through a `.part` beside it that a later call goes on with.

        Args:
            progress: called with the bytes that are there so far, and with how many there will be.

        Raises:
            OSError: the path cannot be written. Otherwise as `read`.
        """
        await self.open()
        part = _Part(Path(path), self._etag if self._resumable else None)
        try:
            kept = await self._transport.blocking(part.open, self._digest, self.size)
            if kept:
                await self.aclose()
                self._position = kept
            async for piece in self:
                await self._transport.blocking(part.write, piece)
                if progress is not None:
                    progress(self._position, self.size)
        except BaseException as error:
            await self._transport.blocking(part.leave, isinstance(error, DecodeError))
            raise
        await self._transport.blocking(part.finish)
        return Path(path)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            while (piece := await self._next()) is not None:
                yield piece
        finally:
            await self.aclose()

    async def _next(self) -> bytes | None:
        """The next piece; None when the whole file is there."""
        while True:
            if self.size is not None and self._position >= self.size:
                self._check()
                return None
            try:
                await self.open()
                assert self._body is not None
                piece = await self._body.read()
            except _LOST as error:
                await self._lost(error)
                continue
            if piece is None and self.size is not None and self._position < self.size:
                await self._lost(StreamInterruptedError("the file ended before its last byte"))
            elif piece is None:
                self._check()
                return None
            elif fresh := self._taken(piece):
                return fresh

    def _taken(self, piece: bytes) -> bytes:
        """What of a piece was not there before."""
        skipped = min(self._skip, len(piece))
        self._skip -= skipped
        fresh = piece[skipped:]
        if fresh:
            self._position += len(fresh)
            self._digest.update(fresh)
            self._failures = 0
        return fresh

    async def _connect(self) -> None:
        headers = {"Accept": "*/*", "Accept-Encoding": "identity"}
        if self._position:
            headers.update({"Range": f"bytes={self._position}-", "If-Range": self._etag or ""})
        request = Request("GET", self._path, self._query, headers=headers, repeatable=True, download=True)
        body = await self._transport.open(request)
        etag = body.headers.get("etag")
        if self._opened and etag != self._etag:
            await body.aclose()
            raise StreamInterruptedError(
                "the file changed while it was being read", hint="Read it again from its start."
            )
        self._skip = 0 if body.status == 206 else self._position
        self._body = body
        if not self._opened:
            length = body.headers.get("content-length", "")
            self.size = int(length) if length.isdigit() else None
            self.media_type = body.headers.get("content-type")
            self._etag = etag
            self._wanted_digest = body.headers.get("repr-digest")
            self._opened = True

    @property
    def _resumable(self) -> bool:
        """Whether the server names this very version of the file (a strong `ETag`)."""
        return self._etag is not None and self._etag.startswith('"')

    async def _lost(self, error: TransportError | APIError) -> None:
        await self.aclose()
        self._failures += 1
        if not self._opened:
            raise error
        if self._failures > _MAX_RESUMES or (self._position and not self._resumable):
            raise StreamInterruptedError(
                f"the file broke off after {self._position} bytes: {error.message}",
                request_id=error.request_id,
                attempts=self._failures,
            ) from error
        if self._failures > 1:
            await self._transport.sleep(backoff(self._failures - 1))

    def _check(self) -> None:
        """Compare with the digest the server gave (RFC 9530), if it gave one."""
        wanted = self._wanted_digest
        if wanted and wanted.startswith("sha-256="):
            found = b64encode(self._digest.digest()).decode()
            if wanted != f"sha-256=:{found}:":
                raise DecodeError("the file arrived damaged: its digest is not the one the server gave")


class _Part:
    """The file that is being written, beside its final place. Its name holds the version's tag, so that only the same
    bytes are gone on with.
    """

    def __init__(self, path: Path, etag: str | None) -> None:
        version = hashlib.sha256(etag.encode()).hexdigest()[:16] if etag else "once"
        self._path = path
        self._part = path.with_name(f".{path.name}.{version}.part")
        self._resumable = etag is not None
        self._file: IO[bytes] | None = None

    def open(self, digest: Any, size: int | None) -> int:
        """Open it; returns how many bytes are there already, which `digest` has then seen."""
        self._file = self._part.open("ab" if self._resumable else "wb")
        kept = self._file.tell()
        if size is None or kept > size:
            self._file.truncate(0)
            return 0
        with self._part.open("rb") as written:
            while piece := written.read(PIECE):
                digest.update(piece)
        return kept

    def write(self, piece: bytes) -> None:
        """Add bytes."""
        assert self._file is not None
        self._file.write(piece)

    def finish(self) -> None:
        """Put the whole file in its place."""
        assert self._file is not None
        self._file.close()
        self._part.replace(self._path)

    def leave(self, damaged: bool) -> None:
        """Stop; what is there is kept for the next time, unless it cannot be used."""
        if self._file is not None:
            self._file.close()
        if damaged or not self._resumable:
            self._part.unlink(missing_ok=True)
