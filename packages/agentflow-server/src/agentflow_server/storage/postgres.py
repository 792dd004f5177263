"""PostgreSQL: units of work in a bounded set of threads, one connection each. For any number of processes.

A unit runs at the isolation level SERIALIZABLE, so it may read and then decide as if it were alone, and is run again
when PostgreSQL finds that it was not (Ports and Grittner, "Serializable Snapshot Isolation in PostgreSQL", 2012). A
connection that breaks is opened anew and the unit begun again, unless it broke during the commit: then nobody knows,
and the caller is told that the database is unavailable.
"""

import asyncio
import random
import re
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, Literal, LiteralString, TypeVar, cast

import psycopg
from psycopg import errors
from psycopg.rows import DictRow, dict_row
from psycopg.types.numeric import FloatLoader, Int8Dumper
from psycopg.types.string import StrDumperUnknown

from agentflow_server.storage.database import NO_PARAMS, Params, Row, TenantDatabase, Tx, settle, until_told
from agentflow_server.storage.errors import StorageUnavailableError

T = TypeVar("T")
_PATIENCE = 10.0
_MAX_ATTEMPTS = 50
_READ_TOGETHER = 16
_PLACEHOLDER = re.compile(r"'(?:[^']|'')*'|::|:([A-Za-z_][A-Za-z0-9_]*)")
_AGAIN = (errors.SerializationFailure, errors.DeadlockDetected, errors.LockNotAvailable)
_SESSION = (
    "SET idle_in_transaction_session_timeout = '5s'; SET lock_timeout = '10s'; SET statement_timeout = '60s';"
    " SET standard_conforming_strings = on"
)
_NOW = "SELECT (EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::bigint AS now"
_READ = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_SCAN = f"{_READ}; SET LOCAL plan_cache_mode = force_custom_plan"  # a base is small or large: plans differ
_SERIAL = "BEGIN ISOLATION LEVEL SERIALIZABLE"
_PLAIN = "BEGIN ISOLATION LEVEL READ COMMITTED"


class _Number(FloatLoader):
    """NUMERIC as a number of Python: what sums of integers are on PostgreSQL."""

    def load(self, data: Any) -> Any:
        text = bytes(data)
        return int(text) if text.lstrip(b"-").isdigit() else float(text)


class _Text(StrDumperUnknown):
    """Text, with U+FFFD for the one character that PostgreSQL does not store, NUL."""

    def dump(self, obj: str) -> Any:
        return super().dump(obj.replace("\x00", "\ufffd") if "\x00" in obj else obj)


@lru_cache(maxsize=4096)
def translate(sql: str) -> tuple[LiteralString, tuple[str, ...]]:
    """A statement with `:name` parameters in PostgreSQL's own form, and the names in the order of their numbers."""
    names: dict[str, int] = {}

    def number(match: re.Match[str]) -> str:
        name = match.group(1)
        return match.group(0) if name is None else f"${names.setdefault(name, len(names) + 1)}"

    text = _PLACEHOLDER.sub(number, sql)
    return cast("LiteralString", text), tuple(names)


class PostgresTx:
    """A `Tx` over one connection."""

    __slots__ = ("_cursor",)
    dialect: Literal["postgresql"] = "postgresql"

    def __init__(self, connection: psycopg.Connection[DictRow]) -> None:
        self._cursor = psycopg.RawCursor[DictRow](connection)

    def _run(self, sql: str, params: Params) -> "psycopg.RawCursor[DictRow]":
        text, names = translate(sql)
        return self._cursor.execute(text, [params[name] for name in names])

    def execute(self, sql: str, params: Params = NO_PARAMS) -> int:
        return self._run(sql, params).rowcount

    def executemany(self, sql: str, rows: Iterable[Params]) -> None:
        text, names = translate(sql)
        values = [[row[name] for name in names] for row in rows]
        if len(values) == 1:
            self._cursor.execute(text, values[0])
        elif values:
            self._cursor.executemany(text, values)

    def one(self, sql: str, params: Params = NO_PARAMS) -> Row | None:
        return self._run(sql, params).fetchone()

    def all(self, sql: str, params: Params = NO_PARAMS) -> list[Row]:
        return cast("list[Row]", self._run(sql, params).fetchall())


def connect(url: str) -> psycopg.Connection[DictRow]:
    """A connection as the server uses it: in autocommit, with limits that free what a paused process holds."""
    connection = psycopg.Connection[DictRow].connect(
        url, autocommit=True, prepare_threshold=2, connect_timeout=5, application_name="agentflow",
        keepalives_idle=10, keepalives_interval=5, keepalives_count=3, tcp_user_timeout=15_000, row_factory=dict_row,
    )  # fmt: skip
    connection.adapters.register_dumper(int, Int8Dumper)
    connection.adapters.register_dumper(str, _Text)
    connection.adapters.register_loader("numeric", _Number)
    connection.execute(_SESSION)
    return connection


def ask_time(url: str) -> int:
    """The database's time: microseconds since the epoch."""
    with connect(url) as connection:
        row = connection.execute(_NOW).fetchone()
    assert row is not None
    return row["now"]


class _Session:
    """One thread's connection."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: psycopg.Connection[DictRow] | None = None
        self._committing = False

    def run(self, begin: str, tenant: str | None, fn: Callable[[Tx], T]) -> T:
        """Run a unit to its commit, again where that helps.

        Raises:
            StorageUnavailableError: the database cannot be reached, or it is not known whether the unit was committed.
        """
        deadline = time.monotonic() + _PATIENCE
        attempts = doubles = 0
        while True:
            attempts += 1
            self._committing = False
            try:
                return self._once(begin, tenant, fn)
            except _AGAIN as error:
                self._rollback()
                if attempts >= _MAX_ATTEMPTS or time.monotonic() > deadline:
                    raise StorageUnavailableError(f"too many writes at once: {_first_line(error)}") from error
                time.sleep(random.uniform(0, min(0.1, 0.001 * 2 ** min(attempts, 7))))
            except (errors.UniqueViolation, errors.UndefinedTable):  # a table may be replaced beside a unit
                self._rollback()
                doubles += 1
                if doubles > 2:
                    raise
            except (psycopg.OperationalError, psycopg.InterfaceError) as error:
                broken = self._dropped(error)
                if not broken or self._committing or time.monotonic() > deadline:
                    raise StorageUnavailableError(f"the database cannot be used: {_first_line(error)}") from error
                time.sleep(random.uniform(0.02, 0.2))
            except BaseException:
                self._rollback()
                raise

    def _once(self, begin: str, tenant: str | None, fn: Callable[[Tx], T]) -> T:
        connection = self._connection
        if connection is None or connection.closed:
            connection = self._connection = connect(self._url)
        connection.execute(cast("LiteralString", f"{begin}; SET LOCAL {_bound(tenant)}"))
        value = fn(PostgresTx(connection))
        self._committing = begin not in (_READ, _SCAN)
        done = connection.execute("COMMIT")
        if done.statusmessage != "COMMIT":
            raise errors.InFailedSqlTransaction("a statement of the unit failed, and its error was passed over")
        return value

    def _dropped(self, error: Exception) -> bool:
        """Whether the connection is gone (it is let go of then); if not, it is cleaned for the next unit."""
        connection = self._connection
        if connection is None or connection.closed or isinstance(error, psycopg.InterfaceError):
            self.close()
            return True
        self._rollback()
        return False

    def _rollback(self) -> None:
        connection = self._connection
        if connection is None:
            return
        try:
            connection.execute("ROLLBACK")
        except psycopg.Error:
            self.close()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _bound(tenant: str | None) -> str:
    """Which rows the policies of migration 0009 let a transaction see."""
    if tenant is None:
        return "app.every_tenant = 'on'"
    return "app.tenant = '{}'".format(tenant.replace("'", "''"))


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class _Threads:
    """Threads with a connection each."""

    def __init__(self, url: str, count: int, name: str) -> None:
        self._url = url
        self._local = threading.local()
        self._sessions: list[_Session] = []
        self._pool = ThreadPoolExecutor(count, thread_name_prefix=name, initializer=self._open)

    def _open(self) -> None:
        self._local.session = session = _Session(self._url)
        self._sessions.append(session)

    async def run(self, begin: str, tenant: str | None, fn: Callable[[Tx], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._work, begin, tenant, fn)

    def _work(self, begin: str, tenant: str | None, fn: Callable[[Tx], T]) -> T:
        session: _Session = self._local.session
        return session.run(begin, tenant, fn)

    def close(self) -> None:
        self._pool.shutdown(wait=True)
        for session in self._sessions:
            session.close()


_Queued = tuple[Callable[[], Awaitable[BaseException | None]], "asyncio.Future[Any]"]
_Asked = tuple[Callable[[Tx], Any], "asyncio.Future[Any]"]


class _Reads:
    """Reads that come while every connection is busy share the next free one's transaction, those of a tenant together.

    That saves them a BEGIN, a COMMIT and a change of threads each, just when there is much to do.
    """

    def __init__(self, threads: _Threads, count: int) -> None:
        self._threads = threads
        self._free = count
        self._waiting: dict[str | None, deque[_Asked]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def read(self, tenant: str | None, fn: Callable[[Tx], T]) -> "asyncio.Future[T]":
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(tenant, deque()).append((fn, future))
        if self._free:
            self._free -= 1
            task = asyncio.create_task(self._drive())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return future

    async def _drive(self) -> None:
        try:
            while self._waiting:
                tenant, waiting = next(iter(self._waiting.items()))
                some = [waiting.popleft() for _ in range(min(len(waiting), _READ_TOGETHER))]
                del self._waiting[tenant]
                if waiting:
                    self._waiting[tenant] = waiting  # behind the other tenants
                await self._answer(tenant, some)
        finally:
            self._free += 1

    async def _answer(self, tenant: str | None, some: list[_Asked]) -> None:
        try:
            answers = await self._threads.run(_READ, tenant, lambda tx: [_answer(tx, fn) for fn, _ in some])
        except BaseException as error:  # noqa: BLE001 - handed to the callers
            if len(some) > 1 and not isinstance(error, StorageUnavailableError):
                for one in some:  # whose fault it was
                    await self._answer(tenant, [one])
                return
            answers = [(None, error)] * len(some)
        for (_, future), (value, error) in zip(some, answers, strict=True):
            settle(future, value, error)


def _answer(tx: Tx, fn: Callable[[Tx], Any]) -> tuple[Any, BaseException | None]:
    try:
        return fn(tx), None
    except psycopg.Error:
        raise
    except BaseException as error:  # noqa: BLE001 - handed to the caller
        return None, error


class PostgresDatabase:
    """A database that many processes share.

    Args:
        url: `postgresql://…`, as libpq reads it. connections: how many this process may open; a quarter is for reads.
    """

    dialect: Literal["postgresql"] = "postgresql"

    def __init__(self, url: str, *, connections: int = 12) -> None:
        readers = max(1, connections // 4)
        self.url = url
        self._readers = _Threads(url, readers, "agentflow-read")
        self._reads = _Reads(self._readers, readers)
        self._writes = _Threads(url, max(1, connections - readers), "agentflow-write")
        self._lanes: dict[Hashable, deque[_Queued]] = {}
        self._pending: set[asyncio.Task[None]] = set()
        self._closed = False

    async def read(self, fn: Callable[[Tx], T], *, tenant: str | None = None) -> T:
        self._require_open()
        return await self._reads.read(tenant, fn)

    async def scan(self, fn: Callable[[Tx], T], *, tenant: str | None = None) -> T:
        self._require_open()
        return await self._readers.run(_SCAN, tenant, fn)

    def write(
        self,
        fn: Callable[[Tx], T],
        *,
        tenant: str | None = None,
        order: Hashable | None = None,
        serial: bool = True,
    ) -> Awaitable[T]:
        self._require_open()
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        begin = _SERIAL if serial else _PLAIN

        async def unit() -> BaseException | None:
            try:
                value = await self._writes.run(begin, tenant, fn)
            except BaseException as error:  # noqa: BLE001 - handed to the caller that wrote the unit
                settle(future, None, error)
                return error
            settle(future, value, None)
            return None

        self._line_up(order or asyncio.current_task() or future, (unit, future), linked=order is not None)
        return future

    def _line_up(self, order: Hashable, queued: _Queued, *, linked: bool) -> None:
        lane = self._lanes.get(order)
        if lane is not None:
            lane.append(queued)
            return
        self._lanes[order] = deque((queued,))
        task = asyncio.create_task(self._drive(order, linked))
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)

    async def _drive(self, order: Hashable, linked: bool) -> None:
        lane = self._lanes[order]
        while lane:
            unit, _ = lane[0]
            error = await unit()
            lane.popleft()
            if linked and isinstance(error, (StorageUnavailableError, psycopg.Error)):
                await until_told()
                while lane:
                    _, future = lane.popleft()
                    settle(future, None, error)
        del self._lanes[order]

    def _require_open(self) -> None:
        if self._closed:
            raise StorageUnavailableError("the database is closed: the server is shutting down")

    def tenant(self, tenant: str) -> TenantDatabase:
        return TenantDatabase(self, tenant)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        while self._pending:
            await asyncio.wait(self._pending)
        await asyncio.to_thread(self._readers.close)
        await asyncio.to_thread(self._writes.close)
