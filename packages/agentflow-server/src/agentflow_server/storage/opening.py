"""Opens the configured database, brought up to the newest schema. Called once, by app.py and the `db` commands."""

import logging
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, TypeVar

from agentflow_server.kit.clock import Clock, SharedClock, SystemClock
from agentflow_server.kit.settings import Settings, SettingsError
from agentflow_server.storage.database import Database
from agentflow_server.storage.migrations import upgrade_sqlite
from agentflow_server.storage.signals import NoSignals, PostgresSignals, Signals
from agentflow_server.storage.sqlite import SqliteDatabase

DATABASE_FILE = "agentflow.db"
LOCK_FILE = "server.lock"
T = TypeVar("T")
logger = logging.getLogger(__name__)
_AGAIN = 0.5
_SOON = ("starting up", "shutting down", "not yet accepting", "recovery", "terminating connection", "too many")


def open_database(settings: Settings) -> tuple[Database, Callable[[], None]]:
    """Open the database and return it with a function that gives its folder's lock back.

    Raises:
        SettingsError: the folder or the database cannot be used, or another server is using the folder.
    """
    if settings.database_url is not None:
        from agentflow_server.storage.postgres import PostgresDatabase

        url = _upgraded_postgres(settings.database_url.get_secret_value(), settings.database_wait_seconds)
        return PostgresDatabase(url, connections=settings.database_connections), _nothing
    path, lock = open_folder(settings)
    return SqliteDatabase(path, synchronous=settings.sqlite_synchronous), lock.close


def upgrade_database(settings: Settings) -> None:
    """Bring the configured database up to the newest schema, and leave it.

    Raises:
        SettingsError: as `open_database`.
    """
    if settings.database_url is not None:
        _upgraded_postgres(settings.database_url.get_secret_value(), settings.database_wait_seconds)
        return
    _, lock = open_folder(settings)
    lock.close()


def open_clock(settings: Settings) -> Clock:
    """The clock that every process of the database goes by."""
    if settings.database_url is None:
        return SystemClock()
    from agentflow_server.storage.postgres import ask_time

    url = settings.database_url.get_secret_value()
    return SharedClock(_patiently(lambda: ask_time(url), settings.database_wait_seconds))


def open_signals(db: Database, origin: str) -> Signals:
    """Wake-ups between the processes of a database; `origin` is this one."""
    if db.dialect == "sqlite":
        return NoSignals()
    from agentflow_server.storage.postgres import PostgresDatabase

    assert isinstance(db, PostgresDatabase)
    return PostgresSignals(db.url, origin)


def _nothing() -> None:
    """A shared database has no lock to give back."""


def _upgraded_postgres(url: str, patience: float) -> str:
    if not url.startswith(("postgresql://", "postgres://")):
        raise SettingsError("AGENTFLOW_DATABASE_URL: must begin with postgresql://")
    try:
        import psycopg  # pyright: ignore[reportUnusedImport] # noqa: F401
    except ImportError:
        raise SettingsError(
            "AGENTFLOW_DATABASE_URL: needs the PostgreSQL driver; install it with:"
            " pip install 'agentflow-server[postgres]'"
        ) from None
    from agentflow_server.storage.migrations import upgrade_postgres

    _patiently(lambda: upgrade_postgres(url), patience)
    return url


def _patiently(step: Callable[[], T], seconds: float) -> T:
    """Do what needs the shared database, again for a while if it can't be had now: it starts, restarts, is in use.

    Raises:
        SettingsError: it can't be had after `seconds`, or it refuses us.
    """
    import psycopg
    import sqlalchemy.exc

    deadline = time.monotonic() + seconds
    while True:
        try:
            return step()
        except (psycopg.Error, sqlalchemy.exc.DBAPIError) as error:
            cause = error.orig if isinstance(error, sqlalchemy.exc.DBAPIError) else error
            reason = str(cause).strip()
            soon = isinstance(cause, psycopg.OperationalError) and _is_passing(reason)
            if not soon or time.monotonic() > deadline:
                raise SettingsError(f"AGENTFLOW_DATABASE_URL: the database cannot be used: {reason}") from None
            logger.warning("waiting for the database", extra={"reason": reason})
            time.sleep(_AGAIN)


def _is_passing(reason: str) -> bool:
    """Whether a database says of itself that it will be there soon, or says nothing at all.

    Of a connection that fails libpq hands on nothing but its text.
    """
    return "FATAL" not in reason or any(word in reason for word in _SOON)


def open_folder(settings: Settings) -> tuple[Path, IO[str]]:
    """The database file of a data folder, upgraded, and the lock that keeps other servers away.

    Raises:
        SettingsError: the folder cannot be used, or another server is using it.
    """
    folder = settings.data
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = _lock(folder)
        path = folder / DATABASE_FILE
        upgrade_sqlite(path)
    except (OSError, sqlite3.Error) as error:
        raise SettingsError(f"AGENTFLOW_DATA: cannot use the folder {folder}: {error}") from None
    return path, lock


def _lock(folder: Path) -> IO[str]:
    """Hold the folder for this process; the system gives the lock back when the process ends, however it ends."""
    import fcntl

    handle = (folder / LOCK_FILE).open("a+")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        handle.seek(0)
        owner = handle.read().strip() or "unknown"
        handle.close()
        raise SettingsError(
            f"AGENTFLOW_DATA: the folder {folder} is in use by another server (process {owner}); "
            "stop it, or give this one its own --data folder"
        ) from None
    handle.seek(0)
    handle.truncate()
    handle.write(str(os.getpid()))
    handle.flush()
    return handle
