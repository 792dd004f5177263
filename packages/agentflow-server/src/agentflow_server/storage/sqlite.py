"""SQLite: one writer thread with group commit, readers that never wait for it.

Everything that was queued while a commit was under way is committed together, so an idle database commits at once and
a busy one shares the cost of the disk. A unit is wrapped in a savepoint: its failure touches no other unit.
"""

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Hashable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, cast

from agentflow_server.storage.database import NO_PARAMS, Params, Row, TenantDatabase, Tx, settle, until_told
from agentflow_server.storage.errors import StorageUnavailableError

T = TypeVar("T")
_MAX_GROUP = 512
_Outcome = tuple["asyncio.Future[Any]", Any, BaseException | None]
_Broken = dict[Hashable, StorageUnavailableError]


class _Unit(NamedTuple):
    fn: Callable[[Tx], Any]
    future: "asyncio.Future[Any]"
    order: Hashable | None


class _Told(NamedTuple):
    """Who gave units of these orders knows by now that one failed."""

    orders: list[Hashable]


class SqliteTx:
    """A `Tx` over one `sqlite3` connection."""

    __slots__ = ("_connection",)
    dialect: Literal["sqlite"] = "sqlite"

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def execute(self, sql: str, params: Params = NO_PARAMS) -> int:
        return self._connection.execute(sql, params).rowcount

    def executemany(self, sql: str, rows: Iterable[Params]) -> None:
        self._connection.executemany(sql, rows)

    def one(self, sql: str, params: Params = NO_PARAMS) -> Row | None:
        return cast("Row | None", self._connection.execute(sql, params).fetchone())

    def all(self, sql: str, params: Params = NO_PARAMS) -> list[Row]:
        return cast("list[Row]", self._connection.execute(sql, params).fetchall())


class SqliteDatabase:
    """The embedded database: one file, one writing process.

    Args:
        path: the database file; its folder must exist and be on a local disk.
        synchronous: `full` survives a power cut, `normal` only the death of the process (SQLite, "PRAGMA synchronous").
        readers: threads for long reads.
    """

    dialect: Literal["sqlite"] = "sqlite"

    def __init__(self, path: Path, *, synchronous: Literal["full", "normal"] = "full", readers: int = 4) -> None:
        self._path = path
        self._synchronous = synchronous
        self._queue: queue.SimpleQueue[_Unit | _Told | None] = queue.SimpleQueue()
        self._inline = self._connect()
        self._inline.execute("PRAGMA query_only = ON")
        self._scans = ThreadPoolExecutor(readers, thread_name_prefix="agentflow-read", initializer=self._open_scanner)
        self._local = threading.local()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._writer: threading.Thread | None = None
        self._closed = False

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, cached_statements=512)
        connection.row_factory = sqlite3.Row
        connection.executescript(
            "PRAGMA journal_mode = WAL; PRAGMA busy_timeout = 5000; PRAGMA foreign_keys = ON;"
            f"PRAGMA synchronous = {self._synchronous}; PRAGMA temp_store = MEMORY; PRAGMA cache_size = -16000;"
        )
        return connection

    def _open_scanner(self) -> None:
        connection = self._connect()
        connection.execute("PRAGMA query_only = ON")
        self._local.connection = connection

    async def read(self, fn: Callable[[Tx], T], *, tenant: str | None = None) -> T:
        return _snapshot(self._inline, fn)

    async def scan(self, fn: Callable[[Tx], T], *, tenant: str | None = None) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._scans, self._scan, fn)

    def _scan(self, fn: Callable[[Tx], T]) -> T:
        return _snapshot(self._local.connection, fn)

    def write(
        self,
        fn: Callable[[Tx], T],
        *,
        tenant: str | None = None,
        order: Hashable | None = None,
        serial: bool = True,
    ) -> Awaitable[T]:
        if self._closed:
            raise StorageUnavailableError("the database is closed: the server is shutting down")
        loop = asyncio.get_running_loop()
        if self._writer is None:
            self._start(loop)
        future: asyncio.Future[T] = loop.create_future()
        self._queue.put(_Unit(fn, future, order))
        return future

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._writer = threading.Thread(target=self._write_forever, name="agentflow-write", daemon=True)
        self._writer.start()

    def tenant(self, tenant: str) -> TenantDatabase:
        return TenantDatabase(self, tenant)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        writer = self._writer
        if writer is not None:
            self._queue.put(None)
            await asyncio.get_running_loop().run_in_executor(None, writer.join)
        self._scans.shutdown(wait=True)
        self._inline.close()

    def _write_forever(self) -> None:
        connection = self._connect()
        tx = SqliteTx(connection)
        broken: _Broken = {}
        stopping = False
        while not stopping:
            units: list[_Unit] = []
            outcomes: list[_Outcome] = []
            item = self._queue.get()
            while item is not None:
                if isinstance(item, _Told):
                    for order in item.orders:
                        broken.pop(order, None)
                elif item.order in broken:
                    outcomes.append((item.future, None, broken[item.order]))
                else:
                    units.append(item)
                if len(units) == _MAX_GROUP or self._queue.empty():
                    break
                item = self._queue.get_nowait()
            stopping = item is None
            before = set(broken)
            if units:
                outcomes += _commit_group(connection, tx, units, broken)
            if outcomes:
                self._publish(outcomes, [order for order in broken if order not in before])
        connection.close()

    def _publish(self, outcomes: list[_Outcome], broken: list[Hashable]) -> None:
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._resolve, outcomes, broken)

    def _resolve(self, outcomes: list[_Outcome], broken: list[Hashable]) -> None:
        for future, value, error in outcomes:
            settle(future, value, error)
        if broken:
            self._telling = asyncio.ensure_future(self._tell(broken))

    async def _tell(self, broken: list[Hashable]) -> None:
        await until_told()
        self._queue.put(_Told(broken))


def _snapshot(connection: sqlite3.Connection, fn: Callable[[Tx], T]) -> T:
    connection.execute("BEGIN")
    try:
        return fn(SqliteTx(connection))
    finally:
        connection.execute("COMMIT")


def _commit_group(connection: sqlite3.Connection, tx: Tx, units: list[_Unit], broken: _Broken) -> list[_Outcome]:
    if len(units) == 1:
        outcomes = [_commit_one(connection, tx, units[0])]
    else:
        outcomes = _commit_many(connection, tx, units, broken)
    for unit, (_, _, error) in zip(units, outcomes, strict=True):
        if unit.order is not None and isinstance(error, StorageUnavailableError):
            broken[unit.order] = error
    return outcomes


def _commit_many(connection: sqlite3.Connection, tx: Tx, units: list[_Unit], broken: _Broken) -> list[_Outcome]:
    outcomes: list[_Outcome] = []
    try:
        connection.execute("BEGIN IMMEDIATE")
        for fn, future, order in units:
            if order in broken:
                outcomes.append((future, None, broken[order]))
                continue
            connection.execute("SAVEPOINT unit")
            try:
                outcomes.append((future, fn(tx), None))
            except BaseException as error:  # noqa: BLE001 - handed to the caller that wrote the unit
                connection.execute("ROLLBACK TO unit")
                failure = _translate(error)
                outcomes.append((future, None, failure))
                if order is not None and isinstance(failure, StorageUnavailableError):
                    broken[order] = failure
            connection.execute("RELEASE unit")
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        failure = _translate(error)
        return [(unit.future, None, failure) for unit in units]
    return outcomes


def _commit_one(connection: sqlite3.Connection, tx: Tx, unit: _Unit) -> _Outcome:
    try:
        connection.execute("BEGIN IMMEDIATE")
        value = unit.fn(tx)
        connection.execute("COMMIT")
    except BaseException as error:  # noqa: BLE001 - handed to the caller that wrote the unit
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        return unit.future, None, _translate(error)
    return unit.future, value, None


def _translate(error: BaseException) -> BaseException:
    if isinstance(error, sqlite3.OperationalError):
        return StorageUnavailableError(f"the database cannot be written: {error}")
    return error
