"""Schema changes: one alembic script a change, applied in order when the server starts.

`HEAD` is the newest revision. A database that stands there already is not looked at further, so an ordinary start
does not load the migration library at all; a test keeps `HEAD` in step with the scripts. One that stands at a newer
revision is left alone: migrations only add, so an older version works on it (a rolling upgrade,
a step back).
"""

import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.rows import DictRow

HEAD = "0009"
FOLDER = Path(__file__).parent
_LOCK = 4_272_011_966_120_417_382
_LOCK_WAIT = "2s"
"""What waits for a table in use holds up all that comes after it, so it gives way and is done again."""


def upgrade_sqlite(path: Path) -> None:
    """Bring the SQLite file up to `HEAD`, creating it if there is none."""
    revision = _revision(path)
    if revision is not None and revision >= HEAD:
        return
    from sqlalchemy import URL, create_engine

    engine = create_engine(URL.create("sqlite", database=str(path)))
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")
        with engine.begin() as connection:
            _upgrade(connection)
    finally:
        engine.dispose()


def upgrade_postgres(url: str) -> None:
    """Bring a PostgreSQL database up to `HEAD`, and to pgvector. Of processes that start at once one does it.

    Raises:
        psycopg.Error, sqlalchemy.exc.DBAPIError: the database cannot be reached or changed, or (to be done again)
            a table was in use for too long.
    """
    from agentflow_server.storage.migrations.pgvector import adopt
    from agentflow_server.storage.postgres import connect

    with connect(url) as connection:
        connection.execute(
            "SET statement_timeout = 0; SET lock_timeout = 0; SET idle_in_transaction_session_timeout = 0"
        )
        connection.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
        revision = _postgres_revision(connection)
        if revision is None or revision < HEAD:
            _upgrade_postgres(url)
        if revision is None or revision <= HEAD:
            adopt(connection)


def _upgrade_postgres(url: str) -> None:
    from psycopg import Connection
    from sqlalchemy import create_engine, text

    engine = create_engine("postgresql+psycopg://", creator=lambda: Connection.connect(url))
    try:
        with engine.begin() as connection:
            connection.execute(text(f"SET LOCAL app.every_tenant = 'on'; SET LOCAL lock_timeout = '{_LOCK_WAIT}'"))
            _upgrade(connection)
    finally:
        engine.dispose()


def _postgres_revision(connection: "Connection[DictRow]") -> str | None:
    there = connection.execute("SELECT to_regclass('alembic_version') IS NOT NULL AS there").fetchone()
    if there is None or not there["there"]:
        return None
    row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return row["version_num"] if row else None


def _upgrade(connection: object) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _revision(path: Path) -> str | None:
    if not path.exists():
        return None
    connection = sqlite3.connect(path)
    try:
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.OperationalError:
        return None
    finally:
        connection.close()
    return row[0] if row else None
