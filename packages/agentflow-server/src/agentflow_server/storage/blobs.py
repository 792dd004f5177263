"""Files of tenants: stored under the hash of their content, so that the same bytes are kept once and cannot change.

A port: `FolderBlobs` keeps them in the data folder. A blob is on disk, whole, before its digest is given out. Which row
uses a blob is known by the rooms; they delete it when no row of the tenant uses it any more.
"""

import asyncio
import hashlib
import os
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

from agentflow.errors import PayloadTooLargeError

_PIECE = 256 * 1024
_STALE_SECONDS = 86_400


class BlobRef(NamedTuple):
    """A stored file: the SHA-256 of its bytes, in hex, and how many they are."""

    digest: str
    size: int


class Blobs(Protocol):
    """Where files are kept."""

    async def put(self, tenant: str, pieces: AsyncIterable[bytes], *, max_bytes: int) -> BlobRef:
        """Store a file; nothing is kept of one that is too large or breaks off.

        Raises:
            PayloadTooLargeError: it has more than `max_bytes`.
        """
        ...

    def read(self, tenant: str, digest: str, *, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes, None]:
        """The bytes from `start` up to `end` (not included), in pieces.

        Raises:
            FileNotFoundError: the tenant has no such file.
        """
        ...

    def local(self, tenant: str, digest: str) -> AbstractAsyncContextManager[Path]:
        """The file on a disk of this machine, to be read only, for as long as the context lasts.

        Raises:
            FileNotFoundError: the tenant has no such file.
        """
        ...

    async def delete(self, tenant: str, digest: str) -> None:
        """Forget a file; does nothing if there is none."""
        ...

    def discard(self, tenant: str, digest: str) -> None:
        """The same at once, for use inside the transaction that forgets the file's last row: so nobody can begin to
        use it in between.
        """
        ...


class FolderBlobs:
    """Files below a folder: `<folder>/<hash of the tenant>/<first two digits>/<digest>`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._prepared = False

    def _path(self, tenant: str, digest: str) -> Path:
        if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
            raise FileNotFoundError(digest)
        return self._folder / hashlib.sha256(tenant.encode()).hexdigest()[:32] / digest[:2] / digest

    async def put(self, tenant: str, pieces: AsyncIterable[bytes], *, max_bytes: int) -> BlobRef:
        incoming = self._folder / "incoming" / secrets.token_hex(16)
        await asyncio.to_thread(self._prepare, incoming.parent)
        digest, size = hashlib.sha256(), 0
        try:
            with await asyncio.to_thread(incoming.open, "xb") as file:
                async for piece in pieces:
                    size += len(piece)
                    _check_size(size, max_bytes)
                    digest.update(piece)
                    await asyncio.to_thread(file.write, piece)
                await asyncio.to_thread(_sync, file.fileno(), file.flush)
            name = digest.hexdigest()
            await asyncio.to_thread(_move, incoming, self._path(tenant, name))
        except BaseException:
            incoming.unlink(missing_ok=True)
            raise
        return BlobRef(name, size)

    async def read(
        self, tenant: str, digest: str, *, start: int = 0, end: int | None = None
    ) -> AsyncGenerator[bytes, None]:
        with self._path(tenant, digest).open("rb") as file:  # in a thread, one cancelled meanwhile would stay open
            file.seek(start)
            left = None if end is None else end - start
            while left is None or left > 0:
                piece = await asyncio.to_thread(file.read, _PIECE if left is None else min(_PIECE, left))
                if not piece:
                    break
                if left is not None:
                    left -= len(piece)
                yield piece

    def _prepare(self, folder: Path) -> None:
        """Make the folder of files that are arriving; once, rid it of what processes that died have left there."""
        folder.mkdir(0o700, True, True)
        if not self._prepared:
            self._prepared = True
            for left in folder.iterdir():
                if time.time() - left.stat().st_mtime > _STALE_SECONDS:
                    left.unlink(missing_ok=True)

    @asynccontextmanager
    async def local(self, tenant: str, digest: str) -> AsyncGenerator[Path]:
        path = self._path(tenant, digest)
        if not await asyncio.to_thread(path.is_file):
            raise FileNotFoundError(digest)
        yield path

    async def delete(self, tenant: str, digest: str) -> None:
        await asyncio.to_thread(self.discard, tenant, digest)

    def discard(self, tenant: str, digest: str) -> None:
        self._path(tenant, digest).unlink(missing_ok=True)


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise PayloadTooLargeError(f"the file is larger than {limit} bytes", details={"limit": limit})


def _sync(descriptor: int, flush: object) -> None:
    assert callable(flush)
    flush()
    os.fsync(descriptor)


def _move(source: Path, target: Path) -> None:
    target.parent.mkdir(0o700, parents=True, exist_ok=True)
    source.replace(target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
