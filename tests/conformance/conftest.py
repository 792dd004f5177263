"""A new database for a test, on SQLite and on PostgreSQL."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from agentflow_server.kit.settings import Settings
from agentflow_server.storage import Database, open_database

from tests.postgres import PostgresServer

Run = Callable[[Callable[[Database], Awaitable[None]]], None]


@pytest.fixture(params=["sqlite", "postgresql"])
def run(request: pytest.FixtureRequest, tmp_path: Path, postgres: PostgresServer) -> Run:
    """Runs a test with a new database."""

    def with_database(test: Callable[[Database], Awaitable[None]]) -> None:
        url = postgres.migrated() if request.param == "postgresql" else None
        settings = Settings.model_validate({"data": tmp_path, "database_url": url})

        async def go() -> None:
            db, close = open_database(settings)
            try:
                await test(db)
            finally:
                await db.close()
                close()

        asyncio.run(go())

    return with_database
