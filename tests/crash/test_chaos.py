"""Three servers, two workers, one PostgreSQL, clients that stream and call tools, and everything that can go wrong.

Processes are killed, paused and stopped, connections are cut, the database is restarted, in an order that a seed
decides. Afterwards a checker compares what every client saw with the log, and the log with its own rules: no
acknowledged message lost, no event missing, doubled or out of order, no tool that is not idempotent run twice, every
run ended.
"""

import collections
import random
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from agentflow import AgentFlow
from agentflow.errors import AgentFlowError, ConflictError, NotFoundError
from agentflow.events import Event

from tests.crash.cluster import Cluster, Process, running_cluster
from tests.crash.test_kill import Seen, check
from tests.postgres import PostgresServer, running_postgres

CLIENTS = 6
PATIENCE = 90.0


@dataclass
class Load:
    """Clients that go on until they are told to stop, and what they saw."""

    endpoint: str
    seed: int
    stop: threading.Event = field(default_factory=threading.Event)
    seen: list[Seen] = field(default_factory=list[Seen])
    broken: int = 0

    def client(self, number: int) -> None:
        chance = random.Random(self.seed * 1000 + number)
        count = 0
        with AgentFlow(endpoint=self.endpoint, timeout=30) as client:
            agent_id = self._agent(client)
            while not self.stop.is_set():
                count += 1
                self.seen.append(self._one(client, agent_id, f"c{number}-{count}", chance))

    def _agent(self, client: AgentFlow) -> str:
        while True:
            try:
                return client.agents.by_name("MainAgent").id
            except AgentFlowError:
                time.sleep(0.1)

    def _one(self, client: AgentFlow, agent_id: str, name: str, chance: random.Random) -> Seen:
        """Send one message until its run has ended, with the same ids however often it takes."""
        words, tool = chance.randint(20, 120), chance.random() < 0.5
        call = "[[tool current_time {}]] " if tool else ""
        message = f"{call}[[words {words}]] [[delay {chance.randint(5, 25)}]]"
        ids: dict[str, Any] = {"conversation_id": name, "message_id": "m"}
        deadline = time.monotonic() + PATIENCE
        before: list[Event] = []
        while True:
            seen = Seen(words, tool)
            stream = client.agents.stream(agent_id=agent_id, message=message, options={"verbose": True}, **ids)
            try:
                for event in stream:
                    seen.events.append(event)
            except (ConflictError, NotFoundError):
                raise
            except AgentFlowError as error:
                self.broken += 1
                before = max(before, seen.events, key=len)
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{name} did not end") from error
                time.sleep(0.1)
                continue
            assert stream.run_id
            assert stream.conversation_id
            seen.run_id, seen.conversation_id = stream.run_id, stream.conversation_id
            assert [e.raw for e in before] == [e.raw for e in seen.events[: len(before)]]
            return seen


class Chaos:
    """What goes wrong, one thing after the other."""

    def __init__(self, cluster: Cluster, postgres: PostgresServer, seed: int) -> None:
        self._cluster = cluster
        self._postgres = postgres
        self._chance = random.Random(seed)
        self._later: list[tuple[float, Callable[[], None]]] = []
        self.done: collections.Counter[str] = collections.Counter()

    def go_on(self, seconds: float) -> None:
        faults = [self.kill, self.kill, self.pause, self.pause, self.hand_over, self.cut, self.drop, self.restart]
        self._chance.shuffle(faults)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            fault = faults[sum(self.done.values()) % len(faults)]
            fault()
            self.done[fault.__name__] += 1
            until = time.monotonic() + self._chance.uniform(0.5, 2.0)
            while time.monotonic() < until:
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
        with self._postgres.admin() as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name LIKE 'agentflow%' AND random() < 0.5"
            )

    def restart(self) -> None:
        """Restart the database, in half of the cases without letting it close its files."""
        self._postgres.stop(self._chance.choice([signal.SIGINT, signal.SIGQUIT]))
        self._postgres.start()


def check_log(postgres: PostgresServer, database: str) -> None:
    """The log's own rules, read by somebody who sees every tenant."""
    with postgres.admin(database) as connection:
        alive = connection.execute("SELECT id, status FROM runs WHERE status NOT IN ('completed')").fetchall()
        assert alive == []
        jobs = connection.execute("SELECT id, status FROM jobs WHERE status IN ('ready', 'running', 'waiting')")
        assert [row for row in jobs.fetchall() if row[0] in {run for run, _ in alive}] == []
        gaps = connection.execute(
            "SELECT h.conversation_id, h.next_seq, COUNT(e.seq), MIN(e.seq), MAX(e.seq) FROM event_heads h"
            " LEFT JOIN events e USING (tenant, conversation_id) GROUP BY 1, 2"
            " HAVING COUNT(e.seq) <> h.next_seq OR MIN(e.seq) <> 0 OR MAX(e.seq) <> h.next_seq - 1"
        ).fetchall()
        assert gaps == []
        ends = connection.execute(
            "SELECT r.id, COUNT(e.seq) FROM runs r LEFT JOIN events e ON e.tenant = r.tenant AND e.call_id = r.call_id"
            " AND e.conversation_id = r.conversation_id AND e.type IN ('end', 'error')"
            " GROUP BY r.id HAVING COUNT(e.seq) <> 1"
        ).fetchall()
        assert ends == []


def chaos(tmp_path: Path, seed: int, seconds: float) -> tuple[int, int]:
    """One episode; returns how many runs there were and how many streams were broken for good and begun again."""
    marks = tmp_path / "marks"
    marks.touch()
    with running_postgres() as postgres:
        url = postgres.migrated()
        extra = {"MARKS": str(marks), "AGENTFLOW_SHUTDOWN_SECONDS": "3"}
        with running_cluster(url, tmp_path, servers=3, workers=2, extra=extra) as cluster:
            load = Load(cluster.relay.endpoint, seed)
            trouble = Chaos(cluster, postgres, seed)
            with ThreadPoolExecutor(CLIENTS) as pool:
                clients = [pool.submit(load.client, number) for number in range(CLIENTS)]
                try:
                    trouble.go_on(seconds)
                finally:
                    load.stop.set()
                for client in clients:
                    client.result(PATIENCE + 30)
            with AgentFlow(endpoint=cluster.relay.endpoint) as client:
                for seen in load.seen:
                    check(client, seen)
            check_log(postgres, url.rsplit("/", 1)[1])
    lines = marks.read_text().splitlines()
    twice = [line for line, count in collections.Counter(lines).items() if count > 1]
    assert twice == []
    assert len(lines) <= sum(seen.tool for seen in load.seen)
    print(f"seed {seed}: {len(load.seen)} runs, {len(lines)} marks, {load.broken} broken streams, {dict(trouble.done)}")
    return len(load.seen), load.broken


@pytest.mark.slow
def test_chaos(tmp_path: Path) -> None:
    assert chaos(tmp_path, 1, 12.0)[0] >= CLIENTS


@pytest.mark.long
@pytest.mark.parametrize("seed", range(2, 10))
def test_long_chaos(tmp_path: Path, seed: int) -> None:
    assert chaos(tmp_path, seed, 60.0)[0] >= CLIENTS
