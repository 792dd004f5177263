"""Blobs: what a folder and an S3-compatible store both promise to the rooms, on both databases."""

import asyncio
import hashlib
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from agentflow.errors import PayloadTooLargeError, UnavailableError
from agentflow_server.kit.clock import SECOND, SystemClock
from agentflow_server.kit.settings import Settings, SettingsError
from agentflow_server.storage import Tx, open_database
from agentflow_server.storage.blobs import BlobRef, Blobs, BlobStorage, clear
from agentflow_server.storage.blobstore import BlobStore, open_store
from agentflow_server.storage.errors import StorageUnavailableError

from tests.postgres import PostgresServer
from tests.s3 import CREDENTIALS, S3Server

MIB = 1024 * 1024
DAY = 86_400 * SECOND
CONTENT = random.Random(1).randbytes(3 * MIB + 7)


class LaterClock(SystemClock):
    """A clock that can be put forward."""

    ahead = 0

    def micros(self) -> int:
        return super().micros() + self.ahead


async def pieces(content: bytes, size: int = 100_000) -> AsyncGenerator[bytes, None]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


async def nothing() -> None:
    """What happens between two steps, if nothing does."""


class Interrupted:
    """A store, and what happens after something was added, and before something is removed."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store
        self.has, self.read = store.has, store.read
        self.before_add = self.after_add = self.before_remove = nothing

    async def add(self, name: str, source: Path) -> None:
        await self.before_add()
        await self._store.add(name, source)
        await self.after_add()

    async def remove(self, name: str) -> None:
        await self.before_remove()
        await self._store.remove(name)


@dataclass
class Place:
    """The blobs of a room, used by the rows of a table that are named by a digest."""

    storage: BlobStorage
    store: Interrupted
    blobs: Blobs
    clock: LaterClock
    names: Callable[[], list[str]]

    async def use(self, ref: BlobRef, tenant: str = "t") -> None:
        def unit(tx: Tx) -> None:
            tx.execute(_USE, {"digest": ref.digest})
            self.blobs.use(tx, ref)

        await self.storage.db.tenant(tenant).write(unit)

    async def stop_using(self, ref: BlobRef, tenant: str = "t") -> None:
        def unit(tx: Tx) -> None:
            tx.execute("DELETE FROM prompt_blocks WHERE tenant = :tenant AND name = :digest", {"digest": ref.digest})
            self.blobs.release(tx, ref.digest)

        await self.storage.db.tenant(tenant).write(unit)
        await self.blobs.clear(tenant)

    async def put(self, content: bytes, tenant: str = "t", limit: int = 10 * MIB) -> BlobRef:
        return await self.blobs.put(tenant, pieces(content), max_bytes=limit)

    async def stored(self, content: bytes, tenant: str = "t", limit: int = 64 * MIB) -> BlobRef:
        ref = await self.put(content, tenant, limit)
        await self.use(ref, tenant)
        return ref

    async def get(self, ref: BlobRef, tenant: str = "t", start: int = 0, end: int | None = None) -> bytes:
        return b"".join([piece async for piece in self.blobs.read(tenant, ref.digest, start=start, end=end)])


_USE = (
    "INSERT INTO prompt_blocks (tenant, name, data, version, created_at, updated_at)"
    " VALUES (:tenant, :digest, '', 1, 0, 0) ON CONFLICT DO NOTHING"
)


def in_use(tx: Tx, digest: str) -> bool:
    found = "SELECT 1 AS ok FROM prompt_blocks WHERE tenant = :tenant AND name = :digest"
    return tx.one(found, {"digest": digest}) is not None


def standing(tx: Tx, digest: str) -> tuple[bool, bool]:
    """Whether a row uses a blob, and whether the blob is there."""
    found = "SELECT 1 AS ok FROM blobs WHERE tenant = :tenant AND digest = :digest AND state = 'stored'"
    return in_use(tx, digest), tx.one(found, {"digest": digest}) is not None


Run = Callable[[Callable[[Place], Awaitable[None]]], None]


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, postgres: PostgresServer) -> str | None:
    return postgres.migrated() if request.param == "postgresql" else None


@pytest.fixture(params=["folder", "s3"])
def run(
    request: pytest.FixtureRequest, url: str | None, tmp_path: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> Run:
    """Runs a test with a new database and an empty place in a store."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    prefix = f"{tmp_path.name}/{request.param}"
    there = {"blobs_url": f"s3://files/{prefix}", "blobs_endpoint": s3.endpoint} if request.param == "s3" else {}
    settings = Settings.model_validate({"data": tmp_path, "database_url": url, **there})

    def names() -> list[str]:
        if there:
            return [name for name in s3.names() if name.startswith(prefix)]
        return [str(path) for path in (tmp_path / "blobs").rglob("*") if path.is_file()]

    def with_place(test: Callable[[Place], Awaitable[None]]) -> None:
        async def go() -> None:
            db, close = open_database(settings)
            clock = LaterClock()
            store = Interrupted(open_store(settings))
            storage = BlobStorage(db, clock, store, tmp_path / "incoming")
            storage.folder.mkdir()
            try:
                await test(Place(storage, store, storage.room("things", in_use), clock, names))
                assert list(storage.folder.iterdir()) == [], "nothing stays where files arrive"
            finally:
                await db.close()
                close()

        asyncio.run(go())

    return with_place


def test_what_is_stored_is_read_whole_and_in_part(run: Run) -> None:
    async def test(place: Place) -> None:
        ref = await place.stored(CONTENT)
        assert (ref.digest, ref.size) == (hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))
        assert await place.blobs.has("t", ref.digest)
        assert await place.get(ref) == CONTENT
        end = len(CONTENT)
        spans = [(0, 1), (5, 5), (1, end), (MIB - 1, MIB + 1), (end - 3, end + 9), (end, end + 1), (end + 5, end + 9)]
        for start, stop in spans:
            assert await place.get(ref, start=start, end=stop) == CONTENT[start:stop], (start, stop)
        assert await place.get(ref, start=end - 2) == CONTENT[-2:]
        async for piece in place.blobs.read("t", ref.digest):
            assert piece == CONTENT[: len(piece)], "reading may be left off"
            break
        async with place.blobs.local("t", ref.digest) as path:
            assert path.read_bytes() == CONTENT
        assert not path.exists()
        assert await place.get(await place.stored(b"")) == b""

    run(test)


def test_a_large_file_goes_in_parts(run: Run) -> None:
    async def test(place: Place) -> None:
        content = random.Random(2).randbytes(20 * MIB + 1)
        ref = await place.stored(content)
        assert await place.get(ref) == content

    run(test)


def test_the_same_bytes_are_kept_once_until_nobody_uses_them(run: Run) -> None:
    async def test(place: Place) -> None:
        first, second = await place.stored(CONTENT), await place.stored(CONTENT)
        await place.blobs.drop("t", [first, second])
        assert len(place.names()) == 1
        assert await place.get(first) == CONTENT
        third = await place.put(CONTENT)
        await place.stop_using(second)
        assert not await place.blobs.has("t", first.digest)
        await place.use(third)
        assert await place.get(third) == CONTENT, "what is on its way does not count on what is there"
        fourth = await place.put(CONTENT)
        await place.blobs.drop("t", [fourth, third])
        assert await place.get(third) == CONTENT, "what is used is not dropped"
        await place.stop_using(third)
        assert place.names() == []
        assert not await place.blobs.has("t", first.digest)
        with pytest.raises(FileNotFoundError):
            await place.get(first)

    run(test)


def test_tenants_and_rooms_share_nothing(run: Run) -> None:
    async def test(place: Place) -> None:
        mine = await place.stored(b"secret", "a/../b")
        assert not await place.blobs.has("b", mine.digest)
        with pytest.raises(FileNotFoundError):
            await place.get(mine, "b")
        with pytest.raises(FileNotFoundError):
            await place.get(BlobRef("../" * 20, 6, "../"), "a/../b")
        other = place.storage.room("others", lambda tx, digest: False)
        assert not await other.has("a/../b", mine.digest)
        theirs = await place.stored(b"secret", "b")
        assert len(place.names()) == 2
        await place.stop_using(theirs, "b")
        assert await place.get(mine, "a/../b") == b"secret"

    run(test)


def test_nothing_is_kept_of_what_is_too_large_or_breaks_off(run: Run) -> None:
    async def broken() -> AsyncGenerator[bytes, None]:
        yield b"some"
        raise ConnectionResetError

    async def test(place: Place) -> None:
        with pytest.raises(PayloadTooLargeError):
            await place.put(CONTENT, limit=MIB)
        with pytest.raises(ConnectionResetError):
            await place.blobs.put("t", broken(), max_bytes=MIB)
        assert place.names() == []
        ref = await place.put(CONTENT, limit=len(CONTENT))
        assert ref.size == len(CONTENT)

    run(test)


def test_what_a_dead_process_left_is_collected(run: Run) -> None:
    """It stored a file that no row came to use, and was storing another one. If it is not dead after all but slept
    for a day, it hears that it is late.
    """

    async def test(place: Place) -> None:
        used, left = await place.stored(b"used"), await place.put(b"left")
        asleep, awake = asyncio.Event(), asyncio.Event()

        async def sleep() -> None:
            asleep.set()
            await awake.wait()

        place.store.after_add = sleep
        late = asyncio.create_task(place.put(b"half"))
        await asleep.wait()
        place.store.after_add = nothing
        assert len(place.names()) == 3
        await place.storage.sweep()
        assert len(place.names()) == 3, "it may yet be used"
        place.clock.ahead = DAY + SECOND
        await place.storage.sweep()
        assert len(place.names()) == 1
        assert await place.get(used) == b"used"
        awake.set()
        for ref in (await late, left):
            with pytest.raises(UnavailableError, match="again"):
                await place.use(ref)
        assert await place.get(await place.stored(b"left")) == b"left"

    run(test)


def test_a_process_begins_while_others_take_files_in(run: Run) -> None:
    """A file that is gone when it is looked at (here a link to nothing) does not stop the start."""

    async def test(place: Place) -> None:
        gone = place.storage.folder / "gone"
        gone.symlink_to("nowhere")
        await place.storage.begin()
        await place.storage.stop()
        gone.unlink()

    run(test)


def test_a_late_removal_does_no_harm(run: Run) -> None:
    """A process sleeps between noting that an object is to go and removing it; meanwhile the bytes are sent again."""

    async def test(place: Place) -> None:
        asleep, awake = asyncio.Event(), asyncio.Event()

        async def sleep() -> None:
            asleep.set()
            await awake.wait()

        ref = await place.stored(b"again")
        place.store.before_remove = sleep
        dropping = asyncio.create_task(place.stop_using(ref))
        await asleep.wait()
        place.store.before_remove = nothing
        place.clock.ahead = 61 * SECOND
        await clear(place.storage, "t")  # another process does not wait for it
        fresh = await place.stored(b"again")
        awake.set()
        await dropping
        assert await place.get(fresh) == b"again"
        assert len(place.names()) == 1

    run(test)


def test_senders_and_deleters_of_the_same_bytes_do_not_meet(run: Run) -> None:
    async def test(place: Place) -> None:
        async def one(seed: int) -> None:
            chance = random.Random(seed)
            for turn in range(6):
                tenant, content = f"t{seed}", b"same"
                if seed % 2:
                    tenant = "shared"
                ref = await place.put(content, tenant)
                await asyncio.sleep(chance.random() / 100)
                await place.use(ref, tenant)
                used, there = await place.storage.db.tenant(tenant).read(lambda tx, ref=ref: standing(tx, ref.digest))
                assert used == there, turn
                assert used or tenant == "shared", "others delete what is shared"
                await place.stop_using(ref, tenant)

        await asyncio.gather(*(one(seed) for seed in range(8)))
        for tenant in ("shared", *(f"t{seed}" for seed in range(0, 8, 2))):
            await place.blobs.clear(tenant)
        assert place.names() == []

    run(test)


def test_a_store_that_is_away_is_said_and_made_up_for(run: Run) -> None:
    async def test(place: Place) -> None:
        kept = await place.stored(b"kept")

        async def away() -> None:
            raise StorageUnavailableError("away")

        place.store.before_add = place.store.before_remove = away
        with pytest.raises(UnavailableError):
            await place.put(b"new")
        await place.stop_using(kept)
        assert not await place.blobs.has("t", kept.digest), "it is gone for its tenant at once"
        assert len(place.names()) == 1
        place.store.before_add = place.store.before_remove = nothing
        place.clock.ahead = 61 * SECOND
        await place.storage.sweep()
        assert place.names() == []

    run(test)


def test_s3_that_cannot_be_used_answers_503(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, s3: S3Server) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    file = tmp_path / "file"
    file.write_bytes(b"x")

    async def go(url: str, endpoint: str) -> None:
        store = open_store(Settings(blobs_url=url, blobs_endpoint=endpoint))
        with pytest.raises(StorageUnavailableError) as raised:
            await store.add("a", file)
        assert endpoint not in str(raised.value)

    asyncio.run(go("s3://files/x", "http://127.0.0.1:9"))
    asyncio.run(go("s3://no-such-bucket/x", s3.endpoint))


@pytest.mark.parametrize(
    "url", ["file:///tmp", "s3://", "https://files.example", "s3://key:secret@files", "s3://f?x=1"]
)
def test_urls_that_are_none_stop_the_start(url: str) -> None:
    with pytest.raises(SettingsError, match="AGENTFLOW_BLOBS_URL"):
        open_store(Settings(blobs_url=url))
