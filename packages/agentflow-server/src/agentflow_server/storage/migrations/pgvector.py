"""Vectors of knowledge bases in PostgreSQL's own type, where it has pgvector: a row each in `kb_embeddings`.

Without pgvector they stay in `kb_vectors`, as many as were written together in a row, as they are on SQLite. Only one
of the two tables is there. Called whenever the schema is brought up to date, so pgvector may also come later, and by
`storage.copying`.
"""

import logging
import struct
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, LiteralString, cast

import psycopg

from agentflow_server.storage.migrations.tenants import secured

if TYPE_CHECKING:
    from psycopg import Connection, Cursor
    from psycopg.rows import DictRow

logger = logging.getLogger(__name__)
TABLE = "kb_embeddings"
SEGMENTS = "SELECT tenant, kb_id, number, amount, file_id, data FROM kb_vectors"
_Segment = tuple[str, str, int, int, str, bytes]
_CREATE = (
    f"CREATE TABLE {TABLE} (tenant TEXT NOT NULL, kb_id TEXT NOT NULL, number BIGINT NOT NULL, file_id TEXT NOT NULL,"
    " embedding halfvec NOT NULL, PRIMARY KEY (tenant, kb_id, number))",
    f"CREATE INDEX {TABLE}_by_file ON {TABLE} (tenant, kb_id, file_id)",
    f"ALTER TABLE {TABLE} ALTER COLUMN embedding SET STORAGE MAIN",
)
_WITHOUT = "vectors of knowledge bases are searched in the memory of each process"
_INSERT: LiteralString = "INSERT INTO kb_embeddings VALUES (%s, %s, %s, %s, CAST(%s AS halfvec))"


def adopt(connection: "Connection[DictRow]") -> None:
    """Keep vectors in pgvector from now on, those there are too, if it is installed and we may use it.

    All at once or not at all. Meanwhile other processes search, and wait to write; a unit of theirs that meets the
    change is run again.
    """
    if _holds(connection, f"to_regclass('{TABLE}')") or not _enabled(connection):
        return
    with connection.transaction():
        connection.execute("SET LOCAL app.every_tenant = 'on'")
        connection.execute("LOCK TABLE kb_vectors IN EXCLUSIVE MODE")
        for statement in _CREATE:
            connection.execute(statement)
        segments = connection.cursor("segments")
        with segments, connection.cursor() as cursor:
            rows = segments.execute(SEGMENTS)
            spread(cursor, (cast("_Segment", tuple(row.values())) for row in rows))
        connection.execute("DROP TABLE kb_vectors")
        for statement in secured(TABLE):
            connection.execute(cast("LiteralString", statement))


def spread(cursor: "Cursor[Any]", segments: Iterable[_Segment]) -> int:
    """Write vectors that were written together as a row each; returns how many."""
    count = 0
    for segment in segments:
        rows = list(_rows(*segment))
        cursor.executemany(_INSERT, rows)
        count += len(rows)
    return count


def _rows(tenant: str, kb: str, number: int, amount: int, file_id: str, data: bytes) -> Iterator[tuple[Any, ...]]:
    width = len(data) // amount
    for place in range(amount):
        values = struct.unpack_from(f"<{width // 2}e", data, place * width)
        yield tenant, kb, number + place, file_id, f"[{','.join(map(str, values))}]"


def _enabled(connection: "Connection[DictRow]") -> bool:
    """Whether the database has pgvector's `halfvec` (0.7 or newer), enabled here if we may; if not, why is logged."""
    if _holds(connection, "to_regtype('halfvec')"):
        return True
    if connection.execute("SELECT 1 FROM pg_available_extensions WHERE name = 'vector'").fetchone() is None:
        logger.warning("PostgreSQL has no pgvector: %s", _WITHOUT)
        return False
    try:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
    except psycopg.errors.InsufficientPrivilege:
        logger.warning("pgvector is not enabled (an administrator runs CREATE EXTENSION vector): %s", _WITHOUT)
        return False
    if _holds(connection, "to_regtype('halfvec')"):
        return True
    logger.warning("pgvector is older than 0.7, or not in this schema's search path: %s", _WITHOUT)
    return False


def _holds(connection: "Connection[DictRow]", name: str) -> bool:
    row = connection.execute(cast("LiteralString", f"SELECT {name} IS NOT NULL AS there")).fetchone()
    return row is not None and row["there"]
