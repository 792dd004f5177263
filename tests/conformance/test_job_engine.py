"""What every engine promises that brings jobs to workers: our ledger on SQLite and on PostgreSQL, and DBOS.

The workers are processes (`job_worker.py`): killed, stopped and woken, with clocks that are set. A job's steps are rows
in a table, each with the fence it was written under, so that what ran twice, too late or not at all is seen.
"""

import json
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from agentflow_server.jobs import NewJob, ledger
from agentflow_server.kit.clock import SECOND, SystemClock
from agentflow_server.storage import Tx
from agentflow_server.storage.migrations import upgrade_sqlite
from agentflow_server.storage.postgres import PostgresTx, connect
from agentflow_server.storage.sqlite import SqliteTx

from tests.postgres import PostgresServer

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
LEASE = 1.5
NUMBER = {"sqlite": "INTEGER PRIMARY KEY", "postgresql": "BIGINT GENERATED ALWAYS AS IDENTITY"}
MARKS = "CREATE TABLE marks (number {}, tenant TEXT NOT NULL, job TEXT NOT NULL, step BIGINT, fence BIGINT)"
NOW = SystemClock().micros


class Suite:
    """A database with an engine's workers, and what can be seen of their jobs."""

    def __init__(self, engine: str, database: str, folder: Path) -> None:
        self.engine, self._database, self._folder = engine, database, folder
        self._workers: list[subprocess.Popen[str]] = []
        self._numbers = iter(range(1_000_000))

    def start(self, *, places: int = 4, skew: float = 0) -> subprocess.Popen[str]:
        """Start a worker; it is ready when this returns."""
        clock = self._folder / f"clock-{next(self._numbers)}"
        clock.write_text(str(skew))
        spec = {
            "engine": self.engine, "database": self._database, "lease": LEASE, "places": places, "clock": str(clock),
        }  # fmt: skip
        with (self._folder / "workers.log").open("a") as log:
            worker = subprocess.Popen(
                [sys.executable, "-m", "tests.conformance.job_worker", json.dumps(spec)], cwd=ROOT,
                stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip
        worker.clock = clock  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
        self._workers.append(worker)
        assert worker.stdout is not None
        if worker.stdout.readline() != "ready\n":
            self.close()
            pytest.fail(self.log())
        return worker

    def end(self, worker: subprocess.Popen[str], sig: int = signal.SIGKILL) -> None:
        """End a worker: at once, or with SIGTERM in order."""
        worker.send_signal(sig)
        worker.wait(30)
        assert worker.stdout is not None
        worker.stdout.close()
        self._workers.remove(worker)

    def close(self) -> None:
        for worker in list(self._workers):
            worker.send_signal(signal.SIGCONT)
            self.end(worker)

    def log(self) -> str:
        return (self._folder / "workers.log").read_text()[-4000:]

    def write(self, unit: Callable[[Tx], Any]) -> Any:
        """Run a unit over all tenants, in a transaction."""
        if self._database.startswith("postgresql"):
            with connect(self._database) as connection:
                connection.execute("BEGIN; SET LOCAL app.every_tenant = 'on'")
                found = unit(PostgresTx(connection))
                connection.execute("COMMIT")
                return found
        with closing(sqlite3.connect(self._database, isolation_level=None, timeout=20)) as connection:
            connection.row_factory = sqlite3.Row
            connection.execute("BEGIN IMMEDIATE")
            found = unit(SqliteTx(connection))
            connection.execute("COMMIT")
            return found

    def add(self, kind: str, *, tenant: str = "t", count: int = 1, run_at: int = 0, **payload: Any) -> list[str]:
        """Write jobs of a kind; returns their ids."""
        body = {"steps": 1, "pause": 0.01, **payload}
        jobs = [NewJob(tenant, kind, "suite", body, run_at=run_at, max_attempts=50) for _ in range(count)]
        self.write(lambda tx: [ledger.enqueue(tx, job, NOW()) for job in jobs])
        return [job.id for job in jobs]

    def jobs(self) -> dict[str, Any]:
        rows = self.write(lambda tx: tx.all("SELECT id, status, fence, attempts, lease_owner, error FROM jobs"))
        return {row["id"]: row for row in rows}

    def statuses(self) -> Counter[str]:
        return Counter(row["status"] for row in self.jobs().values())

    def marks(self) -> list[tuple[str, str, int, int]]:
        rows = self.write(lambda tx: tx.all("SELECT tenant, job, step, fence FROM marks ORDER BY number"))
        return [(row["tenant"], row["job"], row["step"], row["fence"]) for row in rows]

    def until(self, look: Callable[[], Any], seconds: float = 40) -> Any:
        """Look until something is there."""
        deadline = time.monotonic() + seconds
        while not (found := look()):
            assert time.monotonic() < deadline, f"{self.statuses()}, {len(self.marks())} marks\n{self.log()}"
            time.sleep(0.05)
        return found

    def until_done(self, ids: list[str], seconds: float = 40) -> None:
        self.until(lambda: all(self.jobs()[one]["status"] == "done" for one in ids), seconds)

    def check_steps(self, ids: list[str], steps: int) -> None:
        """Each step of each job once, in order, and never under an older fence than the step before."""
        for one in ids:
            written = [(step, fence) for _, job, step, fence in self.marks() if job == one]
            assert [step for step, _ in written] == list(range(steps)), (one, written)
            fences = [fence for _, fence in written]
            assert fences == sorted(fences), (one, written)


@pytest.fixture(scope="session")
def dbos_template(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database in which DBOS has made its tables, to be copied."""
    url = postgres.migrated()
    suite = Suite("dbos", url, tmp_path_factory.mktemp("dbos"))
    suite.end(suite.start(), signal.SIGTERM)
    return url.rsplit("/", 1)[1]


@pytest.fixture(params=["sqlite", "postgresql", "dbos"])
def suite(request: pytest.FixtureRequest, tmp_path: Path, postgres: PostgresServer) -> Iterator[Suite]:
    """A new database and its engine."""
    kind = request.param
    if kind == "sqlite":
        database = str(tmp_path / "jobs.db")
        upgrade_sqlite(Path(database))
    elif kind == "postgresql":
        database = postgres.migrated()
    else:
        database = postgres.copied(request.getfixturevalue("dbos_template"))
    made = Suite("dbos" if kind == "dbos" else "ledger", database, tmp_path)
    made.write(lambda tx: tx.execute(MARKS.format(NUMBER[tx.dialect])))
    yield made
    made.close()


def test_every_job_runs_once_and_only_once(suite: Suite) -> None:
    early = suite.add("mark", count=10, steps=2)
    suite.start()
    suite.start()
    ids = early + suite.add("mark", count=20, steps=2) + suite.add("mark", tenant="other", count=10, steps=2)
    suite.until_done(ids)
    suite.check_steps(ids, 2)
    assert {row["attempts"] for row in suite.jobs().values()} == {1}


def test_a_job_of_an_aborted_unit_never_runs(suite: Suite) -> None:
    suite.start()

    def unit(tx: Tx) -> None:
        ledger.enqueue(tx, NewJob("t", "mark", "suite", {"steps": 1, "pause": 0}, id="ghost"), NOW())
        raise LookupError("no")

    with pytest.raises(LookupError):
        suite.write(unit)
    ids = suite.add("mark")
    suite.until_done(ids)
    assert list(suite.jobs()) == ids
    assert {job for _, job, _, _ in suite.marks()} == set(ids)


@pytest.mark.parametrize("seed", [1, 2])
def test_kill_at_random_points(suite: Suite, seed: int) -> None:
    rng = random.Random(seed)
    ids = suite.add("mark", count=12, steps=6, pause=0.05)
    workers = [suite.start(places=3), suite.start(places=3)]
    for _ in range(4):
        reached = len(suite.marks()) + rng.randint(1, 10)
        suite.until(lambda reached=reached: len(suite.marks()) >= min(reached, 72))
        suite.end(workers.pop(0))
        workers.append(suite.start(places=3))
    suite.until_done(ids)
    suite.check_steps(ids, 6)


def test_a_worker_that_sleeps_through_its_lease_cannot_write(suite: Suite) -> None:
    first = suite.start(places=8)
    ids = suite.add("mark", count=8, steps=8, pause=0.1)
    suite.until(lambda: len(suite.marks()) >= 10)
    first.send_signal(signal.SIGSTOP)
    suite.start(places=8)
    suite.until(lambda: any(row["fence"] > 1 for row in suite.jobs().values()))
    first.send_signal(signal.SIGCONT)
    suite.until_done(ids)
    suite.check_steps(ids, 8)
    again = suite.add("mark", count=8)
    suite.until_done(again)
    assert first.poll() is None
    assert "Traceback" not in suite.log()


@pytest.mark.parametrize("seed", [3, 4])
def test_cancelling_races_with_everything(suite: Suite, seed: int) -> None:
    rng = random.Random(seed)
    suite.start(places=4)
    marks, waits = suite.add("mark", count=20, steps=4, pause=0.02), suite.add("wait", count=6)
    holds = suite.add("hold", count=2)
    wanted = [*rng.sample(marks, 12), *waits[:3], *holds]
    rng.shuffle(wanted)
    for number, one in enumerate(wanted):
        suite.until(lambda number=number: len(suite.marks()) >= min(number, 20))
        suite.write(lambda tx, one=one: ledger.request_cancel(tx, "t", one, NOW()))
    for one in waits[3:]:
        suite.until(lambda one=one: suite.write(lambda tx: ledger.wake(tx, "t", one, NOW())))
    suite.until(lambda: set(suite.statuses()) <= {"done", "cancelled"})
    jobs = suite.jobs()
    assert {jobs[one]["status"] for one in holds} == {"cancelled"}
    assert {jobs[one]["status"] for one in (*waits[3:], *(set(marks) - set(wanted)))} == {"done"}
    steps = Counter(job for _, job, _, _ in suite.marks())
    for one in marks:
        assert steps[one] == 4 if jobs[one]["status"] == "done" else steps[one] < 4


def test_who_waits_is_found_after_a_restart(suite: Suite) -> None:
    worker = suite.start()
    ids, later = suite.add("wait", count=3), suite.add("mark", count=2, run_at=NOW() + 4 * SECOND)
    suite.until(lambda: suite.statuses()["waiting"] == 3)
    suite.end(worker)
    assert suite.write(lambda tx: ledger.wake(tx, "t", ids[0], NOW()))
    assert suite.statuses() == {"waiting": 2, "ready": 3}
    suite.start()
    suite.until_done(ids[:1])
    assert not [mark for mark in suite.marks() if mark[1] in later], "too early"
    for one in ids[1:]:
        assert suite.write(lambda tx, one=one: ledger.wake(tx, "t", one, NOW()))
    suite.until_done([*ids, *later])
    assert not suite.write(lambda tx: ledger.wake(tx, "t", ids[0], NOW()))


def test_a_tenant_with_much_to_do_does_not_keep_another_waiting(suite: Suite) -> None:
    suite.add("mark", tenant="busy", count=120, pause=0.02)
    suite.start(places=2)
    suite.until(lambda: len(suite.marks()) >= 2)
    small = suite.add("mark", tenant="small", count=2, pause=0.02)
    suite.until_done(small, 60)
    assert sum(tenant == "busy" for tenant, *_ in suite.marks()) < 100


def test_what_fails_is_tried_again_and_then_given_up(suite: Suite) -> None:
    suite.start()
    body = {"steps": 1, "pause": 0}
    suite.write(lambda tx: ledger.enqueue(tx, NewJob("t", "fail", "suite", body, id="f", max_attempts=2), NOW()))
    suite.until(lambda: suite.jobs()["f"]["status"] == "failed")
    assert suite.jobs()["f"]["error"] == "LookupError: no"
    assert [step for _, _, step, _ in suite.marks()] == [1, 2]


def test_a_clock_that_is_set_ends_no_job_twice(suite: Suite) -> None:
    worker = suite.start(places=2)
    first = suite.add("mark", count=6, steps=10, pause=0.05)
    suite.until(lambda: len(suite.marks()) >= 5)
    worker.clock.write_text("3600")  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    suite.until(lambda: len(suite.marks()) >= 30)
    worker.clock.write_text("0")  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    ids = first + suite.add("mark", count=4)
    suite.until_done(ids)
    suite.check_steps(first, 10)
    assert {row["attempts"] for row in suite.jobs().values()} == {1}, "a leap made a living job look dead"


def test_two_clocks_that_differ_by_an_hour(suite: Suite) -> None:
    """Leases look overdue to one of the workers, so jobs change hands; still each step is written once."""
    ids = suite.add("mark", count=6, steps=5, pause=0.05)
    suite.start(places=3)
    suite.until(lambda: len(suite.marks()) >= 3)
    suite.start(places=3, skew=3600)
    suite.until_done(ids, 60)
    suite.check_steps(ids, 5)


def test_a_kind_nobody_knows_waits_for_somebody_who_does(suite: Suite) -> None:
    suite.start(places=1)
    suite.add("of_tomorrow", count=3)
    ids = suite.add("mark", count=5)
    suite.until_done(ids)
    unknown = [row for row in suite.jobs().values() if row["status"] != "done"]
    assert [row["attempts"] for row in unknown if row["status"] == "ready"] == [0] * len(unknown)


def test_a_worker_that_stops_gives_its_jobs_to_the_others(suite: Suite) -> None:
    first = suite.start(places=4)
    ids = suite.add("mark", count=4, steps=20, pause=0.05)
    suite.until(lambda: len(suite.marks()) >= 8)
    suite.start(places=4)
    suite.end(first, signal.SIGTERM)
    assert not [row for row in suite.jobs().values() if row["status"] == "running" and row["fence"] == 1]
    suite.until_done(ids)
    suite.check_steps(ids, 20)
