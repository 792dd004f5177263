"""Files of tenants: known by the hash of their content, so that the same bytes are kept once and cannot change.

Each room has its own. The database says which object of the store holds a blob, the store holds the bytes. Nothing is
lost and nothing stays behind, whenever a process dies: before bytes are stored there is a row that will have them
removed; a blob that was stored is held for whoever sent it until a row of the room uses it, or the hold runs out; and
the transaction that ends a blob's last use notes that its object is to go.
"""

import asyncio
import hashlib
import logging
import os
import secrets
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from agentflow.errors import PayloadTooLargeError, UnavailableError

from agentflow_server.kit.clock import SECOND, Clock
from agentflow_server.kit.ids import new_id
from agentflow_server.storage.blobstore import BlobStore, on_disk
from agentflow_server.storage.database import Database, Row, TenantDatabase, Tx
from agentflow_server.storage.errors import StorageUnavailableError

logger = logging.getLogger(__name__)
_DAY = 86_400
_HELD = _DAY * SECOND
_AGAIN = 60 * SECOND
_PAUSE = 60.0
_AT_ONCE = 100
_STORED = "tenant = :tenant AND room = :room AND digest = :digest AND state = 'stored'"

InUse = Callable[[Tx, str], bool]


class BlobRef(NamedTuple):
    """A stored file: the SHA-256 of its bytes, in hex, how many they are, and the hold its sender has on it."""

    digest: str
    size: int
    hold: str = ""


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
    in_use: dict[str, InUse] = field(default_factory=dict[str, InUse])
    tasks: list[asyncio.Task[None]] = field(default_factory=list[asyncio.Task[None]])

    def room(self, name: str, in_use: InUse) -> "Blobs":
        """The blobs of a room.

        Args:
            in_use: whether a row of the transaction's tenant uses the blob with a digest.
        """
        self.in_use[name] = in_use
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
            if time.time() - left.stat().st_mtime >= older:
                left.unlink(missing_ok=True)

    async def sweep(self) -> None:
        """Remove what processes that died have left, and what could not be removed before. Over all tenants."""
        now = self.clock.micros()
        held = await self.db.read(lambda tx: tx.all(_EXPIRED, {"now": now, "limit": _AT_ONCE}))
        for row in held:
            if (in_use := self.in_use.get(row["room"])) is not None:
                await Blobs(self, row["room"], in_use).expire(row["tenant"], row["digest"])
        for row in await self.db.read(lambda tx: tx.all(_DUE, {"now": self.clock.micros()})):
            await clear(self, row["tenant"])


_EXPIRED = "SELECT DISTINCT tenant, room, digest FROM blob_holds WHERE until <= :now LIMIT :limit"
_DUE = "SELECT DISTINCT tenant FROM blobs WHERE due_at <= :now"


def _abandon(tx: Tx) -> None:
    tx.execute("UPDATE blob_holds SET until = 0")
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
            with await on_disk(path.open, "xb") as file:
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
        """Store a file, unless its bytes are there already. It is held until `use` or `drop`, for a day at most.

        Raises:
            UnavailableError: the store cannot be used.
        """
        ref = BlobRef(incoming.digest, incoming.size, new_id())
        object_ = f"{ref.digest}-{secrets.token_hex(4)}"
        if not await self._db(tenant).write(lambda tx: self._announce(tx, ref, object_)):
            return ref
        try:
            await self._storage.store.add(_name(self._room, tenant, object_), incoming.path)
            await self._db(tenant).write(lambda tx: self._arrived(tx, ref, object_))
        except BaseException:
            await asyncio.shield(self._db(tenant).write(lambda tx: self._give_up(tx, ref, object_)))
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

    def _announce(self, tx: Tx, ref: BlobRef, object_: str) -> bool:
        """Hold a blob; and if it is not there, say which object is about to come. False if there is nothing to do."""
        until = self._storage.clock.micros() + _HELD
        key = self._key(ref.digest, hold=ref.hold, object=object_, size=ref.size, until=until)
        tx.execute(
            "INSERT INTO blob_holds (tenant, id, room, digest, until) VALUES (:tenant, :hold, :room, :digest, :until)",
            key,
        )
        if tx.one(f"SELECT 1 AS ok FROM blobs WHERE {_STORED}", key) is not None:  # noqa: S608 - constants
            return False
        tx.execute(
            "INSERT INTO blobs (tenant, object, room, digest, size, state, due_at)"
            " VALUES (:tenant, :object, :room, :digest, :size, 'arriving', :until)",
            key,
        )
        return True

    def _arrived(self, tx: Tx, ref: BlobRef, object_: str) -> None:
        """The object is there; if another one with the same bytes was quicker, ours is to go."""
        key = self._key(ref.digest, object=object_)
        there = tx.one(f"SELECT 1 AS ok FROM blobs WHERE {_STORED}", key) is not None  # noqa: S608 - constants
        state = "state = 'leaving', due_at = :now" if there else "state = 'stored', due_at = NULL"
        if not tx.execute(
            f"UPDATE blobs SET {state} WHERE tenant = :tenant AND object = :object AND state = 'arriving'",  # noqa: S608
            key,
        ):
            raise _late()

    def _give_up(self, tx: Tx, ref: BlobRef, object_: str) -> None:
        key = self._key(ref.digest, object=object_, hold=ref.hold)
        tx.execute("UPDATE blobs SET due_at = :now WHERE tenant = :tenant AND object = :object AND due_at > :now", key)
        tx.execute("DELETE FROM blob_holds WHERE tenant = :tenant AND id = :hold", key)

    def use(self, tx: Tx, ref: BlobRef) -> None:
        """Give up the hold on a blob, in the transaction that writes the row which uses it.

        Raises:
            UnavailableError: the hold has run out, and the blob may be gone.
        """
        if not tx.execute("DELETE FROM blob_holds WHERE tenant = :tenant AND id = :hold", {"hold": ref.hold}):
            raise _late()

    def release(self, tx: Tx, digest: str) -> None:
        """Let a blob go if nobody uses or holds it; part of the transaction that removed a row. `clear` follows it."""
        key = self._key(digest)
        held = "SELECT 1 AS ok FROM blob_holds WHERE tenant = :tenant AND room = :room AND digest = :digest LIMIT 1"
        if not self._in_use(tx, digest) and tx.one(held, key) is None:
            tx.execute(f"UPDATE blobs SET state = 'leaving', due_at = :now WHERE {_STORED}", key)  # noqa: S608

    async def drop(self, tenant: str, refs: Iterable[BlobRef]) -> None:
        """Give up the holds that are left, and the blobs that nobody uses."""
        kept = list(refs)

        def unit(tx: Tx) -> None:
            for ref in kept:
                if tx.execute("DELETE FROM blob_holds WHERE tenant = :tenant AND id = :hold", {"hold": ref.hold}):
                    self.release(tx, ref.digest)

        if kept:
            await self._db(tenant).write(unit)
            await self.clear(tenant)

    async def expire(self, tenant: str, digest: str) -> None:
        """Give up the holds on a blob that have run out."""

        def unit(tx: Tx) -> None:
            tx.execute(
                "DELETE FROM blob_holds WHERE tenant = :tenant AND room = :room AND digest = :digest AND until <= :now",
                self._key(digest),
            )
            self.release(tx, digest)

        await self._db(tenant).write(unit)

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


def _late() -> UnavailableError:
    return UnavailableError("the upload took more than a day and was given up; send it again", retry_after=1.0)
