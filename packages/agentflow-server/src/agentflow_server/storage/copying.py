"""Moves an embedded data folder's database to PostgreSQL: `agentflow db copy`. All of it or nothing, counted twice."""

import sqlite3
from pathlib import Path
from typing import Any, LiteralString, cast

from psycopg import Connection
from psycopg.rows import DictRow
from psycopg.sql import SQL, Identifier, Placeholder

from agentflow_server.kit.settings import Settings, SettingsError
from agentflow_server.storage.migrations import pgvector
from agentflow_server.storage.opening import DATABASE_FILE, open_folder, upgrade_database
from agentflow_server.storage.postgres import connect

_BATCH = 1000
_COLUMNS: LiteralString = (
    "SELECT c.table_name AS table, c.column_name AS name FROM information_schema.columns c"
    " JOIN information_schema.tables t USING (table_schema, table_name) WHERE c.table_schema = current_schema()"
    " AND t.table_type = 'BASE TABLE' AND c.is_generated = 'NEVER' AND c.table_name <> 'alembic_version'"
    " ORDER BY c.table_name, c.ordinal_position"
)


def copy_database(source: Settings, url: str) -> dict[str, int]:
    """Copy every row of an embedded database, in one transaction. Returns how many rows each table had.

    The folder must not be in use; it is left as it was, brought up to this version's schema.

    Raises:
        SettingsError: the folder or the database cannot be used, the database holds data already, or the counts differ.
    """
    if not (source.data / DATABASE_FILE).exists():
        raise SettingsError(f"{source.data} holds no {DATABASE_FILE}")
    upgrade_database(Settings.model_validate({"database_url": url}))
    path, lock = open_folder(source)
    with lock, connect(url) as target:
        rows = _rows_of(path)
        try:
            target.execute("SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0")
            with target.transaction():
                target.execute("SET LOCAL app.every_tenant = 'on'")
                return {table: _checked(rows, target, table, names) for table, names in _tables(target).items()}
        finally:
            rows.close()


def _rows_of(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path)
    connection.execute("BEGIN")
    return connection


def _tables(target: "Connection[DictRow]") -> dict[str, list[str]]:
    tables: dict[str, list[str]] = {}
    for row in target.execute(_COLUMNS).fetchall():
        tables.setdefault(row["table"], []).append(row["name"])
    return tables


def _checked(source: sqlite3.Connection, target: "Connection[DictRow]", table: str, columns: list[str]) -> int:
    if _count(target, table):
        raise SettingsError(f"the database holds data already (in {table}): copy into an empty one")
    copied = _copy_vectors(source, target) if table == pgvector.TABLE else _copy(source, target, table, columns)
    found = _count(target, table)
    if found != copied:
        raise SettingsError(f"{table}: {copied} rows were copied, {found} arrived; nothing was kept")
    return copied


def _copy(source: sqlite3.Connection, target: "Connection[DictRow]", table: str, columns: list[str]) -> int:
    there = {row[1] for row in source.execute(f'PRAGMA table_info("{table}")')}
    if not there:
        return 0
    names = [name for name in columns if name in there]
    listed = ", ".join(f'"{name}"' for name in names)
    insert = SQL("INSERT INTO {} ({}) VALUES ({})").format(
        Identifier(table), SQL(", ").join(map(Identifier, names)), SQL(", ").join(Placeholder() * len(names))
    )
    rows = source.execute(f'SELECT {listed} FROM "{table}"')  # noqa: S608 - names from the catalogues
    copied = 0
    with target.cursor() as cursor:
        while batch := cast("list[tuple[Any, ...]]", rows.fetchmany(_BATCH)):
            cursor.executemany(insert, batch)
            copied += len(batch)
    return copied


def _copy_vectors(source: sqlite3.Connection, target: "Connection[DictRow]") -> int:
    with target.cursor() as cursor:
        return pgvector.spread(cursor, source.execute(pgvector.SEGMENTS))


def _count(target: "Connection[DictRow]", table: str) -> int:
    row = target.execute(SQL("SELECT COUNT(*) AS n FROM {}").format(Identifier(table))).fetchone()
    assert row is not None
    return row["n"]
