"""The database port: what SQLite and PostgreSQL both promise to the stores."""

import asyncio
import base64
import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from agentflow_server.storage import Database, Tx
from agentflow_server.storage.database import UnboundStatementError, until_told
from agentflow_server.storage.errors import StorageUnavailableError
from agentflow_server.storage.migrations import HEAD
from agentflow_server.storage.postgres import PostgresDatabase, connect, translate

from tests.conformance.conftest import Run, opened
from tests.postgres import PostgresServer, running_postgres

COUNT = "SELECT COUNT(*) AS n FROM tenants"
INSERT = "INSERT INTO tenants (tenant, created_at) VALUES (:tenant, :at)"


def add(tx: Tx, tenant: str, at: int = 0) -> None:
    tx.execute(INSERT, {"tenant": tenant, "at": at})


def count(tx: Tx) -> int:
    row = tx.one(COUNT)
    assert row is not None
    return row["n"]


def test_a_unit_is_whole_or_not_at_all(run: Run) -> None:
    async def test(db: Database) -> None:
        def unit(tx: Tx) -> None:
            add(tx, "a")
            raise LookupError("no")

        with pytest.raises(LookupError):
            await db.write(unit)
        kept = db.write(lambda tx: add(tx, "b"))
        broken = db.write(unit)
        await kept
        with pytest.raises(LookupError):
            await broken
        assert await db.read(count) == 1

    run(test)


def test_units_of_one_caller_keep_their_order(run: Run) -> None:
    async def test(db: Database) -> None:
        await db.write(lambda tx: add(tx, "t"))
        update = "UPDATE tenants SET created_at = :n WHERE tenant = 't' AND created_at = :before RETURNING 1 AS ok"

        async def caller(order: str | None) -> None:
            steps = [
                db.write(lambda tx, n=n: tx.one(update, {"n": n + 1, "before": n}) is not None, order=order)
                for n in range(50)
            ]
            assert all([await step for step in steps])

        await caller(None)
        await db.write(lambda tx: tx.execute("UPDATE tenants SET created_at = 0"))
        await caller("lane")

    run(test)


def test_what_was_given_behind_a_failed_unit_fails_too(run: Run) -> None:
    async def test(db: Database) -> None:
        def lost(tx: Tx) -> None:
            add(tx, "lost")
            raise StorageUnavailableError("the disk is full")

        before = db.write(lambda tx: add(tx, "before"), order="lane")
        behind = [db.write(lost, order="lane")]
        behind += [db.write(lambda tx, n=n: add(tx, f"behind {n}"), order="lane") for n in range(3)]
        beside = db.write(lambda tx: add(tx, "beside"), order="other")
        await asyncio.gather(before, beside)
        for one in behind:
            with pytest.raises(StorageUnavailableError, match="the disk is full"):
                await one
        await until_told()
        await db.write(lambda tx: add(tx, "again"), order="lane")
        tenants = await db.read(lambda tx: tx.all("SELECT tenant FROM tenants ORDER BY tenant"))
        assert [row["tenant"] for row in tenants] == ["again", "before", "beside"]

    run(test)


def test_a_read_that_fails_leaves_the_others_alone(run: Run) -> None:
    async def test(db: Database) -> None:
        await db.write(lambda tx: add(tx, "t"))

        def broken(tx: Tx) -> int:
            raise LookupError("no")

        reads = [count, broken, lambda tx: tx.one("SELECT nothing FROM tenants")] * 10
        answers = await asyncio.gather(*(db.read(read) for read in reads), return_exceptions=True)
        assert answers[::3] == [1] * 10
        assert all(isinstance(answer, LookupError) for answer in answers[1::3])
        assert all(isinstance(answer, Exception) for answer in answers[2::3])

    run(test)


def test_what_is_read_and_then_decided_holds(run: Run) -> None:
    """Twenty units at once each add a row only if there are fewer than three."""

    async def test(db: Database) -> None:
        def unit(tx: Tx, name: str) -> bool:
            if count(tx) >= 3:
                return False
            add(tx, name)
            return True

        added = await asyncio.gather(
            *(db.write(lambda tx, n=n: unit(tx, f"t{n}"), order=("caller", n)) for n in range(20))
        )
        assert sum(added) == 3
        assert await db.read(count) == 3

    run(test)


def test_two_with_one_key_agree(run: Run) -> None:
    """Looking first and inserting then, as `once` does, gives one row and two equal answers."""

    async def test(db: Database) -> None:
        def unit(tx: Tx, mine: int) -> int:
            row = tx.one("SELECT created_at FROM tenants WHERE tenant = 'one'")
            if row is not None:
                return row["created_at"]
            add(tx, "one", mine)
            return mine

        answers = await asyncio.gather(*(db.write(lambda tx, n=n: unit(tx, n), order=("k", n)) for n in range(12)))
        assert len(set(answers)) == 1

    run(test)


def test_values_come_back_as_they_were(run: Run) -> None:
    async def test(db: Database) -> None:
        await db.write(lambda tx: tx.executemany(INSERT, [{"tenant": f"t{n}", "at": 2**53 + n} for n in range(3)]))
        row = await db.read(lambda tx: tx.one("SELECT SUM(created_at) AS total, MAX(tenant) AS last FROM tenants"))
        assert row is not None
        assert row["total"] == 3 * 2**53 + 3
        assert row["last"] == "t2"
        assert set(row.keys()) == {"total", "last"}
        await db.write(
            lambda tx: tx.execute(
                "INSERT INTO events (tenant, conversation_id, seq, type, call_id, root_call_id, data)"
                " VALUES ('t0', 'c', 0, 'x', 'é', '''', :data)",
                {"data": b"\x00\xff"},
            )
        )
        event = await db.scan(lambda tx: tx.one("SELECT data, call_id, root_call_id FROM events"))
        assert event is not None
        assert (bytes(event["data"]), event["call_id"], event["root_call_id"]) == (b"\x00\xff", "é", "'")

    run(test)


def test_a_tenants_transaction_is_bound(run: Run) -> None:
    async def test(db: Database) -> None:
        await db.write(lambda tx: [add(tx, "a"), add(tx, "b")])
        mine = db.tenant("a")
        with pytest.raises(UnboundStatementError):
            await mine.read(lambda tx: tx.all("SELECT * FROM tenants"))
        rows = await mine.read(lambda tx: tx.all("SELECT tenant FROM tenants WHERE tenant = :tenant"))
        assert [row["tenant"] for row in rows] == ["a"]
        if db.dialect == "postgresql":
            # the database itself holds the line where a statement's own condition fails to
            rows = await mine.read(lambda tx: tx.all("SELECT tenant FROM tenants WHERE :tenant = :tenant"))
            assert [row["tenant"] for row in rows] == ["a"]
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await mine.write(lambda tx: tx.execute("INSERT INTO tenants SELECT :tenant || 'x', 0"))
            assert await mine.write(lambda tx: tx.execute("DELETE FROM tenants WHERE :tenant <> ''")) == 1
            assert await db.read(count) == 1

    run(test)


def test_every_table_of_tenants_is_secured(postgres: PostgresServer) -> None:
    url = postgres.migrated()
    with connect(url) as connection:
        tables = connection.execute(
            "SELECT c.relname AS name, c.relforcerowsecurity AS forced FROM pg_class c JOIN pg_attribute a"
            " ON a.attrelid = c.oid WHERE c.relkind IN ('r', 'p') AND a.attname = 'tenant' AND NOT a.attisdropped"
            " AND c.relnamespace = 'public'::regnamespace"
        ).fetchall()
        assert len(tables) >= 9
        assert [row["name"] for row in tables if not row["forced"]] == []
        connection.execute("BEGIN; SET LOCAL app.every_tenant = 'on'")
        connection.execute("INSERT INTO tenants (tenant, created_at) VALUES ('a', 0)")
        connection.execute("COMMIT")
        for row in tables:
            assert connection.execute(f'SELECT * FROM "{row["name"]}"').fetchall() == []  # pyright: ignore[reportArgumentType, reportCallIssue]  # a name from the catalogue
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("INSERT INTO tenants (tenant, created_at) VALUES ('b', 0)")


@pytest.mark.slow
def test_processes_that_start_at_once_upgrade_once(postgres: PostgresServer) -> None:
    url = postgres.empty()
    program = "import sys; from agentflow_server.storage.migrations import upgrade_postgres as u; u(sys.argv[1])"
    processes = [subprocess.Popen([sys.executable, "-c", program, url]) for _ in range(4)]
    assert [process.wait(60) for process in processes] == [0] * 4
    with connect(url) as connection:
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    assert row == {"version_num": HEAD}


def test_a_folder_of_a_newer_version_is_worked_on(tmp_path: Path) -> None:
    async def open_and_add(tenant: str) -> int:
        async with opened(tmp_path, None) as db:
            await db.write(lambda tx: add(tx, tenant))
            return await db.read(count)

    assert asyncio.run(open_and_add("one")) == 1
    with closing(sqlite3.connect(tmp_path / "agentflow.db")) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.execute("ALTER TABLE tenants ADD COLUMN next INTEGER NOT NULL DEFAULT 1")
        connection.commit()
    assert asyncio.run(open_and_add("two")) == 2


@pytest.mark.slow
def test_a_database_that_goes_and_comes_back() -> None:
    with running_postgres() as postgres:
        url = postgres.migrated()

        async def go() -> None:
            db = PostgresDatabase(url, connections=4)
            await db.write(lambda tx: add(tx, "before"))
            postgres.stop()
            waiting = asyncio.ensure_future(db.write(lambda tx: add(tx, "meanwhile")))
            await asyncio.to_thread(postgres.start)
            await waiting
            assert await db.read(count) == 2
            postgres.stop()
            with pytest.raises(StorageUnavailableError):
                await db.write(lambda tx: add(tx, "never"))
            await asyncio.to_thread(postgres.start)
            assert await db.read(count) == 2
            await db.close()
            with pytest.raises(StorageUnavailableError):
                db.write(lambda tx: add(tx, "closed"))

        asyncio.run(go())


def test_parameters_are_found_and_nothing_else() -> None:
    assert translate("SELECT ':a', ''':b', :c::text, :d, :c") == ("SELECT ':a', ''':b', $1::text, $2, $1", ("c", "d"))


@pytest.mark.slow
def test_a_folder_is_copied_to_postgresql(postgres: PostgresServer, tmp_path: Path) -> None:
    from agentflow_server.testing import local_server

    command = Path(sys.executable).with_name("agentflow")

    def copy(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([command, "db", "copy", *arguments], capture_output=True, text=True, check=False)

    with local_server(data=tmp_path) as server, server.client() as client:
        agent = client.agents.create(name="Mover", system_prompt="Größe: ✓")
        sent = client.agents.run(agent_id=agent.id, message="[[say before the move]]")
        busy = copy("--data", str(tmp_path), "--to", postgres.empty())
        assert busy.returncode == 1
        assert "in use" in busy.stderr
    url = postgres.empty()
    done = copy("--data", str(tmp_path), "--to", url, "--json")
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)
    assert counts["runs"] == 1
    assert counts["agents"] == 2
    assert counts["events"] > 3
    assert "holds data already" in copy("--data", str(tmp_path), "--to", url).stderr
    keys = f"local:{base64.b64encode((tmp_path / 'secret.key').read_bytes()).decode()}"
    with local_server(database_url=url, secret_keys=keys) as server, server.client() as client:
        assert client.agents.get_config(agent.id).system_prompt == "Größe: ✓"
        moved = client.runs.retrieve(sent.run_id).result
        assert moved is not None
        assert (moved.text, moved.usage) == (sent.text, sent.usage)
        ids: dict[str, Any] = {"agent_id": agent.id, "conversation_id": sent.conversation_id}
        again = client.agents.run(message="[[say after it]]", **ids)
        assert [m.content for m in client.conversations.messages(sent.conversation_id)][1::2] == [sent.text, again.text]
