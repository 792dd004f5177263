"""Wake-ups between the processes that share a database. They carry names, no data: the tables are the truth.

Whoever misses a signal finds what it told of by looking, a little later; so they may be lost, and are after a
connection broke.
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from psycopg import AsyncConnection

Kind = Literal["events", "changed", "jobs", "cancel"]
Hear = Callable[..., object]
logger = logging.getLogger(__name__)
_CHANNEL = "agentflow"
_MAX_PAYLOAD = 6000
_RETRY = 1.0


class Signals(Protocol):
    """Tells the other processes, and hears them.

    Kinds: `events` (tenant, conversation): the log has more; `changed` (tenant, conversation or batch): something
    else of it changed; `jobs`: there is work; `cancel` (tenant, job): somebody asked for it.
    """

    @property
    def state(self) -> str:
        """`ok`, or what is wrong."""
        ...

    def on(self, kind: Kind, hear: Hear) -> None:
        """Call `hear` with the names of every signal of a kind that another process sends."""
        ...

    def send(self, kind: Kind, *names: str) -> None:
        """Tell the others. Returns at once."""
        ...

    def start(self, lost: Callable[[], None]) -> None:
        """Begin to listen; `lost` is called when signals may have been missed."""
        ...

    async def close(self) -> None: ...


class NoSignals:
    """For the embedded server: there is no other process."""

    state = "ok"

    def on(self, kind: Kind, hear: Hear) -> None:
        pass

    def send(self, kind: Kind, *names: str) -> None:
        pass

    def start(self, lost: Callable[[], None]) -> None:
        pass

    async def close(self) -> None:
        pass


class PostgresSignals:
    """LISTEN and NOTIFY on connections of their own, so that no commit of data waits for PostgreSQL's queue of
    notifications. What is to be sent while a NOTIFY is under way goes out together with the next one.
    """

    def __init__(self, url: str, origin: str) -> None:
        self._url = url
        self._origin = origin
        self._hear: dict[str, Hear] = {}
        self._waiting: dict[tuple[str, ...], None] = {}
        self._bell = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.state = "starting"

    def on(self, kind: Kind, hear: Hear) -> None:
        self._hear[kind] = hear

    def send(self, kind: Kind, *names: str) -> None:
        self._waiting[(kind, *names)] = None
        self._bell.set()

    def start(self, lost: Callable[[], None]) -> None:
        self._tasks = [asyncio.create_task(self._listen(lost)), asyncio.create_task(self._speak())]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._waiting:
            with contextlib.suppress(*_broken()):
                async with await self._connect() as connection:
                    await self._send_waiting(connection)

    async def _listen(self, lost: Callable[[], None]) -> None:
        while True:
            try:
                async with await self._connect() as connection:
                    await connection.execute("LISTEN agentflow")
                    self.state = "ok"
                    lost()
                    async for notice in connection.notifies():
                        self._heard(notice.payload)
            except _broken() as error:
                self.state = "reconnecting"
                logger.warning("signals are lost", extra={"reason": str(error).strip()})
                await asyncio.sleep(_RETRY)

    def _heard(self, payload: str) -> None:
        origin, *signals = json.loads(payload)
        if origin == self._origin:
            return
        for kind, *names in signals:
            hear = self._hear.get(kind)
            if hear is not None:
                hear(*names)

    async def _speak(self) -> None:
        while True:
            try:
                async with await self._connect() as connection:
                    while True:
                        await self._bell.wait()
                        self._bell.clear()
                        await self._send_waiting(connection)
            except _broken():
                await asyncio.sleep(_RETRY)

    async def _send_waiting(self, connection: "AsyncConnection[Any]") -> None:
        signals, self._waiting = self._waiting, {}
        await connection.execute(
            "SELECT pg_notify(%s, payload) FROM unnest(%s::text[]) AS payload",
            (_CHANNEL, list(_payloads(self._origin, signals))),
        )

    async def _connect(self) -> "AsyncConnection[Any]":
        from psycopg import AsyncConnection

        return await AsyncConnection.connect(
            self._url, autocommit=True, connect_timeout=5, application_name="agentflow signals",
            keepalives_idle=5, keepalives_interval=5, keepalives_count=3, tcp_user_timeout=15_000,
        )  # fmt: skip


def _broken() -> tuple[type[Exception], ...]:
    """What is raised when a connection breaks."""
    import psycopg

    return (psycopg.Error, OSError)


def _payloads(origin: str, signals: Iterable[tuple[str, ...]]) -> Iterable[str]:
    """The signals in payloads that PostgreSQL takes (less than 8,000 bytes)."""
    packed: list[tuple[str, ...]] = []
    size = 0
    for signal in signals:
        length = len(json.dumps(signal))
        if packed and size + length > _MAX_PAYLOAD:
            yield json.dumps([origin, *packed])
            packed, size = [], 0
        packed.append(signal)
        size += length
    if packed:
        yield json.dumps([origin, *packed])
