"""Where the bytes of blobs are kept: a folder, or any store that speaks S3. Opened by ground.py, used by blobs.py.

An object is written once, whole or not at all, under a name that nobody else will ever use; so a process that wakes up
late cannot remove, or write over, what another one has stored.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol, TypeVar
from urllib.parse import urlsplit

from agentflow_server.kit.settings import Settings, SettingsError
from agentflow_server.storage.errors import StorageUnavailableError

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig, S3Config, S3Store

T = TypeVar("T")
PIECE = 256 * 1024
_PART = 8 * 1024 * 1024
_PARTS_AT_ONCE = 2
_PATIENCE = timedelta(seconds=15)


class BlobStore(Protocol):
    """Where bytes are kept under names."""

    async def add(self, name: str, source: Path) -> None:
        """Store a file of this machine; it may be moved away. When this returns, the bytes are safe."""
        ...

    async def has(self, name: str) -> bool:
        """Whether there is such an object."""
        ...

    def read(self, name: str, start: int, end: int) -> AsyncGenerator[bytes, None]:
        """The bytes from `start` up to `end` (not included, and behind `start`), in pieces.

        Raises:
            FileNotFoundError: there is no such object.
        """
        ...

    async def remove(self, name: str) -> None:
        """Forget an object; does nothing if there is none."""
        ...


class FolderStore:
    """Objects as files below a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def add(self, name: str, source: Path) -> None:
        await on_disk(_move, source, self._folder / name)

    async def has(self, name: str) -> bool:
        return await asyncio.to_thread((self._folder / name).is_file)

    async def read(self, name: str, start: int, end: int) -> AsyncGenerator[bytes, None]:
        with await opened(asyncio.to_thread((self._folder / name).open, "rb")) as file:
            file.seek(start)
            left = end - start
            while left > 0 and (piece := await asyncio.to_thread(file.read, min(PIECE, left))):
                left -= len(piece)
                yield piece

    async def remove(self, name: str) -> None:
        await on_disk((self._folder / name).unlink, True)


class S3BlobStore:
    """Objects in a bucket.

    Args:
        store: the bucket, and the prefix of every name in it.
    """

    def __init__(self, store: "S3Store") -> None:
        self._store = store

    async def add(self, name: str, source: Path) -> None:
        try:
            with _translated("write to"):
                await self._store.put_async(name, source, chunk_size=_PART, max_concurrency=_PARTS_AT_ONCE)
        except FileNotFoundError as error:
            raise StorageUnavailableError("the bucket of the server's file store does not exist") from error

    async def has(self, name: str) -> bool:
        try:
            with _translated("read from"):
                await self._store.head_async(name)
        except FileNotFoundError:
            return False
        return True

    async def read(self, name: str, start: int, end: int) -> AsyncGenerator[bytes, None]:
        with _translated("read from"):
            found = await self._store.get_async(name, options={"range": (start, end)})
            async for piece in found.stream(min_chunk_size=PIECE):
                yield bytes(piece)

    async def remove(self, name: str) -> None:
        with _translated("delete from"):
            await self._store.delete_async(name)


async def on_disk(fn: Callable[..., T], *args: object) -> T:
    """Call something that writes, in a thread.

    Raises:
        StorageUnavailableError: the disk is full or cannot be written.
    """
    try:
        return await asyncio.to_thread(fn, *args)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else type(error).__name__
        raise StorageUnavailableError(f"the server cannot write files now: {reason}", retry_after=5.0) from error


async def opened(opening: Coroutine[None, None, BinaryIO]) -> BinaryIO:
    """The file that a thread opens. It is closed again if the wait for it is cancelled: nobody else could."""
    task = asyncio.ensure_future(opening)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        task.add_done_callback(_close)
        raise


def _close(opening: "asyncio.Task[BinaryIO]") -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


@contextmanager
def _translated(what: str) -> Generator[None]:
    """A failure of the store as an error of ours. It names no address and no key: callers see it."""
    from obstore.exceptions import BaseError

    try:
        yield
    except BaseError as error:
        raise StorageUnavailableError(
            f"the server cannot {what} its file store now ({type(error).__name__})", retry_after=5.0
        ) from error


def open_store(settings: Settings) -> BlobStore:
    """The store that `AGENTFLOW_BLOBS_URL` names; the data folder by default. Nothing is asked of it yet.

    Raises:
        SettingsError: the URL cannot be used, or the library for it is not installed.
    """
    if settings.blobs_url is None:
        return FolderStore(settings.data / "blobs")
    url = urlsplit(settings.blobs_url)
    if url.scheme != "s3" or not url.netloc or url.query or url.fragment or "@" in url.netloc:
        raise SettingsError("AGENTFLOW_BLOBS_URL: must be s3://bucket or s3://bucket/prefix")
    try:
        from obstore.exceptions import BaseError
        from obstore.store import S3Store
    except ImportError:
        raise SettingsError(
            "AGENTFLOW_BLOBS_URL: needs a library for S3; install it with: pip install 'agentflow-server[s3]'"
        ) from None
    client: ClientConfig = {"connect_timeout": "5s"}
    config: S3Config = {}
    if (endpoint := settings.blobs_endpoint) is not None:
        config["endpoint"] = endpoint
        client["allow_http"] = endpoint.startswith("http:")
    retries: RetryConfig = {"max_retries": 3, "retry_timeout": _PATIENCE}
    prefix = url.path.strip("/") or None
    try:
        store = S3Store(url.netloc, prefix=prefix, config=config, client_options=client, retry_config=retries)
    except (BaseError, ValueError) as error:
        raise SettingsError(f"AGENTFLOW_BLOBS_URL: {error}") from None
    return S3BlobStore(store)


def _move(source: Path, target: Path) -> None:
    """Give a file its place, also when the power fails right after: its bytes first, then the entry in the folder."""
    with source.open("rb") as file:
        os.fsync(file.fileno())
    target.parent.mkdir(0o700, parents=True, exist_ok=True)
    source.replace(target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
