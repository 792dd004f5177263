"""Files of tenants: known by the hash of their content, so that the same bytes are kept once and cannot change.

Each room has its own. The database says which object of the store holds a blob, the store holds the bytes. Nothing is
lost and nothing stays behind, whenever a process dies: before bytes are stored there is a row that will have them
removed a day later; the transaction that writes the row which uses the blob takes that back; and the transaction that
ends a blob's last use notes that its object is to go.
"""

import asyncio
import hashlib
import logging
import os
import secrets
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from agentflow.errors import PayloadTooLargeError, UnavailableError

from agentflow_server.kit.clock import SECOND, Clock
from agentflow_server.storage.blobstore import BlobStore, on_disk, opened
from agentflow_server.storage.database import Database, Row, TenantDatabase, Tx
from agentflow_server.storage.errors import StorageUnavailableError

logger = logging.getLogger(__name__)
_DAY = 86_400
_WAITED = _DAY * SECOND
_AGAIN = 60 * SECOND
_PAUSE = 60.0
_AT_ONCE = 100
_STORED = "tenant = :tenant AND room = :room AND digest = :digest AND state = 'stored'"

InUse = Callable[[Tx, str], bool]


class BlobRef(NamedTuple):
    """A stored file.

    Attributes:
        digest: the SHA-256 of its bytes, in hex. size: how many they are. object: what waits to be used.
        known: the same bytes were there already.
    """

    digest: str
    size: int
    object: str
    known: bool = False


@dataclass(slots=True)
class Incoming:
    """A file that has arrived on this machine and is not kept yet."""

    path: Path
    digest: str = ""
    size: int = 0


@dataclass(frozen=True, slots=True)
class BlobStorage:
    """The blobs of every room, and what clears away after them."""

    db: Database
    clock: Clock
    store: BlobStore
    folder: Path
    """Where files arrive: on the disk of the data folder."""
    tasks: list[asyncio.Task[None]] = field(default_factory=list[asyncio.Task[None]])

    def room(self, name: str, in_use: InUse) -> "Blobs":
        """The blobs of a room.

        Args:
            in_use: whether a row of the transaction's tenant uses the blob with a digest.
        """
        return Blobs(self, name, in_use)

    async def begin(self) -> None:
        """Begin to clear away. An embedded server is alone: whatever is half done was left by a process that died."""
        alone = self.db.dialect == "sqlite"
        await asyncio.to_thread(self._clear_folder, 0 if alone else _DAY)
        if alone:
            await self.db.write(_abandon)
        self.tasks.append(asyncio.create_task(self._forever()))

    async def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def _forever(self) -> None:
        while True:
            try:
                await self.sweep()
            except StorageUnavailableError as error:
                logger.warning("files cannot be cleared away now", extra={"reason": error.message})
            await asyncio.sleep(_PAUSE)

    def _clear_folder(self, older: float) -> None:
        self.folder.mkdir(0o700, True, True)
        for left in self.folder.iterdir():
            with suppress(FileNotFoundError):  # another process has just taken it
                if time.time() - left.stat().st_mtime >= older:
                    left.unlink()

    async def sweep(self) -> None:
        """Remove what processes that died have left, and what could not be removed before. Over all tenants."""
        now = self.clock.micros()
        for row in await self.db.read(lambda tx: tx.all(_DUE, {"now": now})):
            await clear(self, row["tenant"])


_DUE = "SELECT DISTINCT tenant FROM blobs WHERE due_at <= :now"


def _abandon(tx: Tx) -> None:
    tx.execute("UPDATE blobs SET due_at = 0 WHERE due_at IS NOT NULL")


async def clear(storage: BlobStorage, tenant: str) -> None:
    """Remove the objects of a tenant whose time has come. One that cannot be removed now is tried again later."""
    db, now = storage.db.tenant(tenant), storage.clock.micros()
    take = (
        "UPDATE blobs SET state = 'leaving', due_at = :later WHERE tenant = :tenant AND object IN (SELECT object"
        " FROM blobs WHERE tenant = :tenant AND due_at <= :now ORDER BY due_at LIMIT :limit) RETURNING room, object"
    )
    key = {"now": now, "later": now + _AGAIN, "limit": _AT_ONCE}
    forget = "DELETE FROM blobs WHERE tenant = :tenant AND object = :object AND state = 'leaving'"
    while rows := await db.write(lambda tx: tx.all(take, key)):
        for row in rows:
            try:
                await storage.store.remove(_name(row["room"], tenant, row["object"]))
            except StorageUnavailableError as error:
                logger.warning("a file could not be removed", extra={"reason": error.message})
                return
        gone = [{"object": row["object"]} for row in rows]
        await db.write(lambda tx, gone=gone: tx.executemany(forget, gone))


class Blobs:
    """The blobs of one room."""

    def __init__(self, storage: BlobStorage, room: str, in_use: InUse) -> None:
        self._storage = storage
        self._room = room
        self._in_use = in_use

    def _db(self, tenant: str) -> TenantDatabase:
        return self._storage.db.tenant(tenant)

    @asynccontextmanager
    async def receive(self, pieces: AsyncIterable[bytes], *, max_bytes: int) -> AsyncGenerator[Incoming]:
        """Take a file in; at the end of the block it is gone, unless it was kept.

        Raises:
            PayloadTooLargeError: it has more than `max_bytes`.
        """
        path = self._storage.folder / secrets.token_hex(16)
        incoming, digest = Incoming(path), hashlib.sha256()
        try:
            with await opened(on_disk(path.open, "xb")) as file:
                async for piece in pieces:
                    incoming.size += len(piece)
                    if incoming.size > max_bytes:
                        raise PayloadTooLargeError(
                            f"the file is larger than {max_bytes} bytes", details={"limit": max_bytes}
                        )
                    digest.update(piece)
                    await on_disk(file.write, piece)
            incoming.digest = digest.hexdigest()
            yield incoming
        finally:
            path.unlink(missing_ok=True)

    async def keep(self, tenant: str, incoming: Incoming) -> BlobRef:
        """Store a file. It waits for `use` or `drop`, for a day at most; until it is used it cannot be read.

        Raises:
            UnavailableError: the store cannot be used.
        """
        ref = BlobRef(incoming.digest, incoming.size, f"{incoming.digest}-{secrets.token_hex(4)}")
        ref = ref._replace(known=await self._db(tenant).write(lambda tx: self._announce(tx, ref)))
        try:
            await self._storage.store.add(_name(self._room, tenant, ref.object), incoming.path)
        except BaseException:
            await asyncio.shield(self._db(tenant).write(lambda tx: self._give_up(tx, ref)))
            raise
        return ref

    async def put(self, tenant: str, pieces: AsyncIterable[bytes], *, max_bytes: int) -> BlobRef:
        """Take a file in and store it.

        Raises:
            PayloadTooLargeError: it has more than `max_bytes`. UnavailableError: the store cannot be used.
        """
        async with self.receive(pieces, max_bytes=max_bytes) as incoming:
            return await self.keep(tenant, incoming)

    def _key(self, digest: str, **more: object) -> dict[str, object]:
        return {"room": self._room, "digest": digest, "now": self._storage.clock.micros(), **more}

    def _announce(self, tx: Tx, ref: BlobRef) -> bool:
        """Say which object is about to come. Whether its bytes are there already."""
        tx.execute(
            "INSERT INTO blobs (tenant, object, room, digest, size, state, due_at)"
            " VALUES (:tenant, :object, :room, :digest, :size, 'arriving', :until)",
            self._key(ref.digest, object=ref.object, size=ref.size, until=self._storage.clock.micros() + _WAITED),
        )
        return self._is_there(tx, ref.digest)

    def _is_there(self, tx: Tx, digest: str) -> bool:
        return tx.one(f"SELECT 1 AS ok FROM blobs WHERE {_STORED}", self._key(digest)) is not None  # noqa: S608 - constants

    def _give_up(self, tx: Tx, ref: BlobRef) -> int:
        return tx.execute(
            "UPDATE blobs SET state = 'leaving', due_at = :now"
            " WHERE tenant = :tenant AND object = :object AND state = 'arriving'",
            self._key(ref.digest, object=ref.object),
        )

    def use(self, tx: Tx, ref: BlobRef) -> None:
        """Let a blob stay: part of the transaction that writes the row which uses it. If the same bytes are there
        already, the row uses those.

        Raises:
            UnavailableError: it has waited for too long, and may be gone.
        """
        keep = (
            "UPDATE blobs SET state = 'stored', due_at = NULL"
            " WHERE tenant = :tenant AND object = :object AND state = 'arriving'"
        )
        if not (self._give_up(tx, ref) if self._is_there(tx, ref.digest) else tx.execute(keep, {"object": ref.object})):
            raise UnavailableError("the upload took more than a day and was given up; send it again", retry_after=1.0)

    def release(self, tx: Tx, digest: str) -> None:
        """Let a blob go if no row uses it any more; part of the transaction that removed one. `clear` follows it."""
        if not self._in_use(tx, digest):
            tx.execute(f"UPDATE blobs SET state = 'leaving', due_at = :now WHERE {_STORED}", self._key(digest))  # noqa: S608

    async def drop(self, tenant: str, refs: Iterable[BlobRef]) -> None:
        """Remove those that were not used, or not needed."""
        kept = list(refs)

        def unit(tx: Tx) -> bool:
            given_up = sum([self._give_up(tx, ref) for ref in kept])
            return given_up > 0 or any(ref.known for ref in kept)

        if kept and await self._db(tenant).write(unit):
            await self.clear(tenant)

    async def clear(self, tenant: str) -> None:
        """Remove now what `release` has let go of."""
        await clear(self._storage, tenant)

    async def has(self, tenant: str, digest: str) -> bool:
        """Whether the tenant has such a file, and its bytes are there."""
        found = await self._find(tenant, digest)
        return found is not None and await self._storage.store.has(_name(self._room, tenant, found["object"]))

    async def read(
        self, tenant: str, digest: str, *, start: int = 0, end: int | None = None
    ) -> AsyncGenerator[bytes, None]:
        """The bytes from `start` up to `end` (not included), in pieces.

        Raises:
            FileNotFoundError: the tenant has no such file.
        """
        found = await self._find(tenant, digest)
        if found is None:
            raise FileNotFoundError(digest)
        size: int = found["size"]
        stop = size if end is None else min(end, size)
        if start < stop:
            async for piece in self._storage.store.read(_name(self._room, tenant, found["object"]), start, stop):
                yield piece

    @asynccontextmanager
    async def local(self, tenant: str, digest: str) -> AsyncGenerator[Path]:
        """A copy of the file on this machine, for as long as the context lasts.

        Raises:
            FileNotFoundError: the tenant has no such file.
        """
        handle, name = await asyncio.to_thread(tempfile.mkstemp, prefix="agentflow-file-")
        path = Path(name)
        try:
            with os.fdopen(handle, "wb") as copy:
                async for piece in self.read(tenant, digest):
                    await on_disk(copy.write, piece)
            yield path
        finally:
            await asyncio.to_thread(path.unlink, True)

    async def _find(self, tenant: str, digest: str) -> Row | None:
        select = f"SELECT object, size FROM blobs WHERE {_STORED}"  # noqa: S608 - constants
        return await self._db(tenant).read(lambda tx: tx.one(select, self._key(digest)))


def _name(room: str, tenant: str, object_: str) -> str:
    """Where the store keeps an object. Tenants are told apart by a hash: their names may hold any character."""
    return f"{room}/{hashlib.sha256(tenant.encode()).hexdigest()[:32]}/{object_[:2]}/{object_}"
