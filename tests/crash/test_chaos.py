"""Servers, workers and clients, and everything that can go wrong: on PostgreSQL with five processes, and embedded.

Processes are killed, paused and stopped, connections are cut, the database is restarted, in an order that a seed
decides, while clients stream, decide on approvals, and hand in batches and documents. Afterwards a checker compares
what every client saw with the log, and the log with its own rules: no acknowledged message, row or document lost, no
event missing, doubled or out of order, no tool that is not idempotent run twice, every run ended.
"""

import collections
import json
import random
import signal
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from agentflow import AgentFlow
from agentflow_server.eventlog.packing import unpacked

from tests.crash.cluster import Cluster, Process, running_cluster
from tests.crash.load import Load, check_all, prepare
from tests.postgres import PostgresServer, running_postgres

Select = Callable[[str], list[tuple[Any, ...]]]
_UNDER_WAY = "status IN ('ready', 'running', 'waiting')"
_WORK = "'run', 'batch_chunk', 'batch_import', 'kb_ingest'"


class Chaos:
    """What goes wrong, one thing after the other.

    Args:
        postgres: the database of the cluster; None if it is embedded, and nothing happens to it alone.
    """

    def __init__(self, cluster: Cluster, postgres: PostgresServer | None, seed: int) -> None:
        self._cluster = cluster
        self._postgres = postgres
        self._chance = random.Random(seed)
        self._calm = (0.5, 2.0) if postgres else (2.0, 5.0)
        self._later: list[tuple[float, Callable[[], None]]] = []
        self.done: collections.Counter[str] = collections.Counter()

    def go_on(self, seconds: float) -> None:
        faults = [self.kill, self.kill, self.pause, self.pause, self.hand_over, self.cut]
        if self._postgres is not None:
            faults += [self.drop, self.restart]
        self._chance.shuffle(faults)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            fault = faults[sum(self.done.values()) % len(faults)]
            fault()
            self.done[fault.__name__] += 1
            until = time.monotonic() + self._chance.uniform(*self._calm)
            while time.monotonic() < until or not any(process.alive for process in self._cluster.processes):
                self._mend(time.monotonic())
                time.sleep(0.05)
        self._mend(float("inf"))
        for process in self._cluster.processes:
            if process.alive:
                process.wait_until_ready()

    def _mend(self, now: float) -> None:
        due = [item for item in self._later if item[0] <= now]
        self._later = [item for item in self._later if item[0] > now]
        for _, action in due:
            action()

    def _in(self, seconds: float, action: Callable[[], None]) -> None:
        self._later.append((time.monotonic() + seconds, action))

    def _victim(self) -> Process:
        return self._chance.choice([process for process in self._cluster.processes if process.alive])

    def kill(self) -> None:
        victim = self._victim()
        victim.stop(signal.SIGKILL)
        self._in(self._chance.uniform(0.2, 2.0), victim.start)

    def hand_over(self) -> None:
        victim = self._victim()
        victim.stop(signal.SIGTERM)
        self._in(0.2, victim.start)

    def pause(self) -> None:
        """Longer than a lease sometimes: somebody else has the paused process's runs when it wakes."""
        victim = self._victim()
        victim.send(signal.SIGSTOP)
        process = victim.process

        def wake() -> None:
            if victim.process is process:
                victim.send(signal.SIGCONT)

        self._in(self._chance.uniform(1.0, 6.0), wake)

    def cut(self) -> None:
        """Break half of the clients' connections."""
        self._cluster.relay.cut(0.5)

    def drop(self) -> None:
        """Break half of the connections to the database."""
        assert self._postgres is not None
        with self._postgres.admin() as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name LIKE 'agentflow%' AND random() < 0.5"
            )

    def restart(self) -> None:
        """Restart the database, in half of the cases without letting it close its files."""
        assert self._postgres is not None
        self._postgres.stop(self._chance.choice([signal.SIGINT, signal.SIGQUIT]))
        self._postgres.start()


def check_log(select: Select) -> None:
    """The database's own rules, read by somebody who sees every tenant."""
    assert select("SELECT id, status FROM runs WHERE status <> 'completed'") == []
    deadline = time.monotonic() + 30
    while left := select(f"SELECT kind, id, status FROM jobs WHERE {_UNDER_WAY} AND kind IN ({_WORK})"):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
    numbers: collections.defaultdict[str, list[int]] = collections.defaultdict(list)
    for conversation_id, *row in select(
        "SELECT conversation_id, seq, type, call_id, root_call_id, data FROM events ORDER BY conversation_id, seq"
    ):
        stored: dict[str, Any] = dict(zip(("seq", "type", "call_id", "root_call_id", "data"), row, strict=True))
        for event in unpacked([stored]):
            assert json.loads(event.data)["seq"] == event.seq
            numbers[conversation_id].append(event.seq)
    for conversation_id, end in select("SELECT conversation_id, next_seq FROM event_heads"):
        assert numbers[conversation_id] == list(range(end)), conversation_id
    ends = select(
        "SELECT r.id, COUNT(e.seq) FROM runs r LEFT JOIN events e ON e.tenant = r.tenant AND e.call_id = r.call_id"
        " AND e.conversation_id = r.conversation_id AND e.type IN ('end', 'error')"
        " GROUP BY r.id HAVING COUNT(e.seq) <> 1"
    )
    assert ends == []
    lost = select(
        "SELECT f.name FROM kb_files f LEFT JOIN blobs b ON b.tenant = f.tenant AND b.digest = f.digest"
        " AND b.room = 'knowledge_bases' AND b.state = 'stored' WHERE b.object IS NULL"
    )
    assert lost == []


def episode(folder: Path, cluster: Cluster, postgres: PostgresServer | None, seed: int, seconds: float) -> Load:
    """Load and trouble for so many seconds, and what the clients then find."""
    with AgentFlow(endpoint=cluster.relay.endpoint) as client:
        load = Load(cluster.relay.endpoint, seed, prepare(client))
        trouble = Chaos(cluster, postgres, seed)
        with load.working():
            trouble.go_on(seconds)
        marks = (folder / "marks").read_text().splitlines()
        check_all(client, load, marks)
    print(
        f"seed {seed}: {len(load.runs)} runs, {len(marks)} marks, {len(load.batches)} batches,"
        f" {len(load.uploads)} uploads, {load.broken} refused or broken, {dict(trouble.done)}"
    )
    return load


def environment(folder: Path) -> dict[str, str]:
    (folder / "marks").touch()
    return {"MARKS": str(folder / "marks"), "AGENTFLOW_SHUTDOWN_SECONDS": "3"}


def many(folder: Path, seed: int, seconds: float, *, engine: str = "ledger") -> Load:
    """Three servers and two workers on PostgreSQL. They search by words: the passages are what matters here."""
    extra = environment(folder) | {"AGENTFLOW_EMBEDDING_MODEL": "none", "AGENTFLOW_JOB_ENGINE": engine}
    with running_postgres() as postgres:
        url = postgres.migrated()
        with running_cluster(url, folder, servers=3, workers=2, extra=extra) as cluster:
            load = episode(folder, cluster, postgres, seed, seconds)
            with postgres.admin(url.rsplit("/", 1)[1]) as connection:
                check_log(lambda sql: connection.execute(sql.encode()).fetchall())
    return load


def one(folder: Path, seed: int, seconds: float) -> Load:
    """One embedded process, which embeds passages too."""
    with running_cluster(None, folder, servers=1, extra=environment(folder)) as cluster:
        load = episode(folder, cluster, None, seed, seconds)
        with sqlite3.connect(folder / "agentflow.db") as connection:
            check_log(lambda sql: connection.execute(sql).fetchall())
    return load


def enough(load: Load) -> bool:
    return bool(len(load.runs) >= 6 and load.batches and load.uploads)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["ledger", "dbos"])
def test_chaos(tmp_path: Path, engine: str) -> None:
    assert enough(many(tmp_path, 1, 12.0, engine=engine))


@pytest.mark.slow
def test_embedded_chaos(tmp_path: Path) -> None:
    assert enough(one(tmp_path, 1, 20.0))


@pytest.mark.long
@pytest.mark.parametrize("seed", range(2, 10))
def test_long_chaos(tmp_path: Path, seed: int) -> None:
    assert enough(many(tmp_path, seed, 60.0))


@pytest.mark.long
@pytest.mark.parametrize("seed", range(2, 6))
def test_long_embedded_chaos(tmp_path: Path, seed: int) -> None:
    assert enough(one(tmp_path, seed, 60.0))
