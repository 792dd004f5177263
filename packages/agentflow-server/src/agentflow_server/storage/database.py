"""The database port: what stores may do, and how a tenant is bound to every statement.

A unit of work is a plain function over a `Tx`. Two implementations run it: SQLite (one writer thread, group
commit) and PostgreSQL (connections in threads). Nothing above the stores sees SQL; nothing below them decides anything.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping
from functools import lru_cache
from typing import Any, Literal, Protocol, TypeVar

T = TypeVar("T")
Params = Mapping[str, Any]
NO_PARAMS: Params = {}
Dialect = Literal["sqlite", "postgresql"]


class Row(Protocol):
    """One row of an answer; columns are read by name."""

    def __getitem__(self, name: str, /) -> Any: ...

    def keys(self) -> Iterable[str]: ...


class Tx(Protocol):
    """An open transaction. Statements are text with named parameters (`:name`)."""

    @property
    def dialect(self) -> Dialect: ...

    def execute(self, sql: str, params: Params = NO_PARAMS) -> int:
        """Run a statement; returns the number of rows it touched."""
        ...

    def executemany(self, sql: str, rows: Iterable[Params]) -> None:
        """Run a statement once for each row of parameters."""
        ...

    def one(self, sql: str, params: Params = NO_PARAMS) -> Row | None:
        """The first row of the answer, or None."""
        ...

    def all(self, sql: str, params: Params = NO_PARAMS) -> list[Row]:
        """Every row of the answer."""
        ...


class Database(Protocol):
    """A database of the platform. `read` must be short; `scan` may take its time in a thread.

    A unit given with a `tenant` is shut in with that tenant's rows where the database can do so (row-level security);
    one without may touch every tenant's.
    """

    @property
    def dialect(self) -> Dialect: ...

    def read(self, fn: Callable[[Tx], T], *, tenant: str | None = None) -> Awaitable[T]:
        """Run a short point read on a consistent snapshot."""
        ...

    def scan(self, fn: Callable[[Tx], T], *, tenant: str | None = None) -> Awaitable[T]:
        """Run a longer read in a thread, so that the event loop is not held up."""
        ...

    def write(
        self,
        fn: Callable[[Tx], T],
        *,
        tenant: str | None = None,
        order: Hashable | None = None,
        serial: bool = True,
    ) -> Awaitable[T]:
        """Run one atomic unit; resolves only after its commit has reached the disk.

        If `fn` raises, its own changes are rolled back, no other unit is affected, and the exception is raised here.
        `fn` may be run again from its beginning when the unit has met another one, so it changes nothing but the
        database.

        Args:
            order: units with the same value are committed in the order they were given; when the database fails one,
                those that were given before its caller could know of it fail too. By default those of one task are
                committed in their order.
            serial: the unit sees and leaves the database as if it ran alone. Without it the unit must hold by itself
                the locks it relies on.
        """
        ...

    def tenant(self, tenant: str) -> "TenantDatabase":
        """The same database, bound to one tenant."""
        ...

    async def close(self) -> None:
        """Finish what is queued and close every connection."""
        ...


def settle(future: "asyncio.Future[Any]", value: Any, error: BaseException | None) -> None:
    """Give a unit's outcome to its caller, unless the caller is gone."""
    if future.done():
        return
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)


async def until_told() -> None:
    """Let those who wait for a future hear of it, also behind `asyncio.shield`."""
    for _ in range(4):
        await asyncio.sleep(0)


def take_turns(tx: Tx, name: str) -> None:
    """Let units of a tenant that say the same name wait for each other's commit, as all do on SQLite."""
    if tx.dialect == "postgresql":
        tx.one("SELECT pg_advisory_xact_lock(hashtextextended(:tenant || '/' || :name, 0)) AS ok", {"name": name})


class UnboundStatementError(AssertionError):
    """A tenant-bound transaction was handed a statement that does not name `:tenant`. A bug, never a user's mistake."""


@lru_cache(maxsize=4096)
def _require_tenant(sql: str) -> None:
    if ":tenant" not in sql:
        raise UnboundStatementError(f"statement is not bound to the tenant: {sql}")


class TenantTx:
    """A transaction of one tenant: injects `:tenant` into every statement and refuses those that do not mention it."""

    __slots__ = ("_tx", "tenant")

    def __init__(self, tx: Tx, tenant: str) -> None:
        self._tx = tx
        self.tenant = tenant

    @property
    def dialect(self) -> Dialect:
        return self._tx.dialect

    def _bind(self, sql: str, params: Params) -> Params:
        _require_tenant(sql)
        return {**params, "tenant": self.tenant}

    def execute(self, sql: str, params: Params = NO_PARAMS) -> int:
        return self._tx.execute(sql, self._bind(sql, params))

    def executemany(self, sql: str, rows: Iterable[Params]) -> None:
        self._tx.executemany(sql, [self._bind(sql, row) for row in rows])

    def one(self, sql: str, params: Params = NO_PARAMS) -> Row | None:
        return self._tx.one(sql, self._bind(sql, params))

    def all(self, sql: str, params: Params = NO_PARAMS) -> list[Row]:
        return self._tx.all(sql, self._bind(sql, params))


class TenantDatabase:
    """A database bound to one tenant. What rooms hold while they serve a caller."""

    __slots__ = ("_db", "tenant")

    def __init__(self, db: Database, tenant: str) -> None:
        self._db = db
        self.tenant = tenant

    @property
    def dialect(self) -> Dialect:
        return self._db.dialect

    def read(self, fn: Callable[[Tx], T]) -> Awaitable[T]:
        return self._db.read(lambda tx: fn(TenantTx(tx, self.tenant)), tenant=self.tenant)

    def scan(self, fn: Callable[[Tx], T]) -> Awaitable[T]:
        return self._db.scan(lambda tx: fn(TenantTx(tx, self.tenant)), tenant=self.tenant)

    def write(self, fn: Callable[[Tx], T], *, serial: bool = True) -> Awaitable[T]:
        return self._db.write(lambda tx: fn(TenantTx(tx, self.tenant)), tenant=self.tenant, serial=serial)
