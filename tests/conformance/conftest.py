"""A new database for a test, on SQLite and on PostgreSQL."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from agentflow_server.kit.settings import Settings
from agentflow_server.storage import Database, open_database

from tests.postgres import PostgresServer

Run = Callable[[Callable[[Database], Awaitable[None]]], None]


@asynccontextmanager
async def opened(folder: Path, url: str | None) -> AsyncGenerator[Database]:
    """The database of a folder, or the one at a URL, for the length of a block."""
    db, close = open_database(Settings.model_validate({"data": folder, "database_url": url}))
    try:
        yield db
    finally:
        await db.close()
        close()


@pytest.fixture(params=["sqlite", "postgresql"])
def run(request: pytest.FixtureRequest, tmp_path: Path, postgres: PostgresServer) -> Run:
    """Runs a test with a new database."""

    def with_database(test: Callable[[Database], Awaitable[None]]) -> None:
        url = postgres.migrated() if request.param == "postgresql" else None

        async def go() -> None:
            async with opened(tmp_path, url) as db:
                await test(db)

        asyncio.run(go())

    return with_database
