"""Vectors that move into pgvector: when it is enabled later, and when an embedded folder is copied."""

import asyncio
import base64
import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from agentflow_server.retrieval.index import SearchIndex
from agentflow_server.storage.migrations import pgvector, upgrade_postgres
from agentflow_server.storage.postgres import connect

from tests.conformance.conftest import opened
from tests.conformance.test_search_index import best, entries, fill, ranked, vectors
from tests.crash.backend import COMMAND
from tests.postgres import PostgresServer

UPGRADE = "import sys; from agentflow_server.storage.migrations import upgrade_postgres as u; u(sys.argv[1])"


def tables(url: str) -> dict[str, int]:
    """Those of the two tables that are there, and how many rows they have."""
    found: dict[str, int] = {}
    with connect(url) as connection:
        connection.execute("SET app.every_tenant = 'on'")
        for name in ("kb_vectors", "kb_embeddings"):
            if connection.execute("SELECT to_regclass(%s) IS NOT NULL AS there", (name,)).fetchone() == {"there": True}:
                row = connection.execute(f"SELECT COUNT(*) AS n FROM {name}").fetchone()  # pyright: ignore[reportArgumentType, reportCallIssue]  # a name from above
                assert row is not None
                found[name] = row["n"]
    return found


def upgraded_at_once(url: str) -> None:
    processes = [subprocess.Popen([sys.executable, "-c", UPGRADE, url]) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0] * 3


def test_pgvector_may_come_later_and_beside_a_running_process(postgres: PostgresServer, tmp_path: Path) -> None:
    url, rows = postgres.migrated(pgvector=False), vectors(60, seed=1)

    async def go() -> None:
        async with opened(tmp_path, url) as db:
            index, one, other = SearchIndex(), db.tenant("one"), db.tenant("other")
            for tenant in (one, other):
                await fill(tenant, index, rows, files=2)
            assert await ranked(one, index, "kb", rows[4]) == best(rows, rows[4])
            assert tables(url) == {"kb_vectors": 4}
            postgres.add_pgvector(url)
            await asyncio.to_thread(upgraded_at_once, url)
            assert tables(url) == {"kb_embeddings": 120}
            for told in (index, SearchIndex()):
                assert await ranked(one, told, "kb", rows[4], revision=2) == best(rows, rows[4])
            assert index.uses_pgvector
            await one.write(lambda tx: index.remove(tx, "kb", "file0"))
            await one.write(lambda tx: index.add(tx, "kb", "file0", 0, entries("text"), rows[4:5]))
            left = [int(place) for place in (-(rows @ rows[4])).argsort() if place >= 30]
            assert await ranked(one, index, "kb", rows[4], revision=3) == [0, *left][:10]
            assert await ranked(other, index, "kb", rows[4]) == best(rows, rows[4])
            upgrade_postgres(url)
            assert tables(url) == {"kb_embeddings": 91}

    asyncio.run(go())
    with connect(url) as connection:
        assert connection.execute("SELECT 1 FROM kb_embeddings").fetchall() == [], "row-level security"


def test_a_move_that_breaks_off_changes_nothing(
    postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, rows = postgres.migrated(pgvector=False), vectors(60, seed=2)

    def run(test: Callable[[Any], Any]) -> None:
        async def go() -> None:
            async with opened(tmp_path, url) as db:
                await test(db.tenant("t"))

        asyncio.run(go())

    run(lambda db: fill(db, SearchIndex(), rows, files=3))
    postgres.add_pgvector(url)
    spread = pgvector.spread

    def broken(cursor: Any, segments: Iterable[Any]) -> int:
        spread(cursor, [next(iter(segments))])
        cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        return 0

    with monkeypatch.context() as patched:
        patched.setattr(pgvector, "spread", broken)
        with pytest.raises(psycopg.OperationalError):
            upgrade_postgres(url)
    assert tables(url) == {"kb_vectors": 3}

    async def test(db: Any) -> None:
        assert await ranked(db, SearchIndex(), "kb", rows[9], size=20) == best(rows, rows[9])

    run(test)
    assert tables(url) == {"kb_embeddings": 60}


def test_without_pgvector_it_is_told_what_happens(postgres: PostgresServer, caplog: pytest.LogCaptureFixture) -> None:
    url = postgres.migrated(pgvector=False)
    with caplog.at_level(logging.WARNING):
        upgrade_postgres(url)
    assert "CREATE EXTENSION vector" in caplog.text
    assert "searched in the memory of each process" in caplog.text
    caplog.clear()
    postgres.add_pgvector(url)
    upgrade_postgres(url)
    upgrade_postgres(url)
    assert "pgvector" not in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("enabled", [True, False])
def test_knowledge_bases_of_a_folder_are_copied(postgres: PostgresServer, tmp_path: Path, enabled: bool) -> None:
    from agentflow_server.testing import local_server

    files = [
        ("pump.md", b"# Pumps\n\nThe pump is oiled every week."),
        ("cake.md", b"# Cakes\n\nA cake is baked of flour."),
    ]

    def scores(client: Any) -> dict[str, float]:
        found = client.knowledge_bases.search("kb_things", query="lubrication of machines", search_type="semantic")
        return {one.source_file: one.score for one in found.documents}

    with local_server(data=tmp_path) as server, server.client() as client:
        client.knowledge_bases.create_from_files(id="kb_things", name="Things", files=files)
        before = scores(client)
        assert list(before) == ["pump.md", "cake.md"]
    url = postgres.empty(pgvector=enabled)
    command = [COMMAND, "db", "copy", "--data", tmp_path, "--to", url, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)
    assert counts["kb_chunks"] == counts["kb_embeddings" if enabled else "kb_vectors"] == 2
    keys = f"k:{base64.b64encode(bytes(32)).decode()}"
    with local_server(data=tmp_path, database_url=url, secret_keys=keys) as server, server.client() as client:
        assert scores(client) == pytest.approx(before, abs=2e-3)
        configuration = client.knowledge_bases.retrieve("kb_things").configuration
        assert configuration["vector_db_type"] == ("pgvector" if enabled else "embedded")
