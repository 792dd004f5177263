"""Schema changes: one alembic script a change, applied in order when the server starts.

`HEAD` is the newest revision. A database that stands there already is not looked at further, so an ordinary start
does not load the migration library at all; a test keeps `HEAD` in step with the scripts.
"""

import sqlite3
from pathlib import Path

HEAD = "0009"
FOLDER = Path(__file__).parent


def upgrade_sqlite(path: Path) -> None:
    """Bring the SQLite file up to `HEAD`, creating it if there is none."""
    if _revision(path) == HEAD:
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
