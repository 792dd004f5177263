"""A worker in a process of its own, for the suite of job engines: `python -m tests.conformance.job_worker SPEC`.

SPEC is JSON: `engine` (`ledger` or `dbos`), `database` (a file, or `postgresql://…`), `lease` in seconds, `places`
(jobs at once), `clock` (a file with the seconds its clock is wrong by, read whenever it is asked). Its jobs: `mark`
writes a row for each of its steps, `wait` lets go of its job until it is woken, `hold` never ends by itself, `fail`
raises. Prints `ready`; SIGTERM stops it as a server is stopped.
"""

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Any

from agentflow_server.jobs import Job, Settled, Worker, ledger
from agentflow_server.jobs.dbos import DbosEngine
from agentflow_server.kit.clock import SECOND, SystemClock
from agentflow_server.storage import Database, Tx
from agentflow_server.storage.postgres import PostgresDatabase
from agentflow_server.storage.signals import NoSignals, PostgresSignals, Signals
from agentflow_server.storage.sqlite import SqliteDatabase

INSERT = "INSERT INTO marks (tenant, job, step, fence) VALUES (:tenant, :job, :step, :fence)"
STEPS = "SELECT COUNT(*) AS n FROM marks WHERE tenant = :tenant AND job = :job"


def open_at(where: str) -> Database:
    """The database at a path or URL, which must have its schema."""
    return PostgresDatabase(where, connections=6) if where.startswith("postgresql") else SqliteDatabase(Path(where))


class SkewedClock:
    """The machine's clock, wrong by what a file says."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._right = SystemClock()

    def micros(self) -> int:
        return self._right.micros() + int(float(self._file.read_text()) * SECOND)


class Handlers:
    """What the jobs of the suite do."""

    def __init__(self, db: Database, clock: SkewedClock) -> None:
        self._db = db
        self._clock = clock

    def _mark(self, tx: Tx, job: Job, step: int, *, last: bool) -> None:
        ledger.check_fence(tx, job)
        tx.execute(INSERT, {"tenant": job.tenant, "job": job.id, "step": step, "fence": job.fence})
        if last:
            ledger.settle(tx, job, "done", self._clock.micros())

    async def mark(self, job: Job) -> Settled:
        wanted, steps = {"tenant": job.tenant, "job": job.id}, job.payload["steps"]
        row = await self._db.read(lambda tx: tx.one(STEPS, wanted))
        for step in range(row["n"] if row else 0, steps):
            await asyncio.sleep(job.payload["pause"])
            last = step == steps - 1
            await self._db.write(lambda tx, step=step, last=last: self._mark(tx, job, step, last=last))
        return Settled.BY_HANDLER

    async def wait(self, job: Job) -> Settled:
        if job.attempts == 1:
            await self._db.write(lambda tx: ledger.park(tx, job, self._clock.micros()))
        else:
            await self._db.write(lambda tx: self._mark(tx, job, 0, last=True))
        return Settled.BY_HANDLER

    async def hold(self, job: Job) -> Settled:
        await self._db.write(lambda tx: self._mark(tx, job, 0, last=False))
        await asyncio.Event().wait()
        return Settled.BY_HANDLER

    async def fail(self, job: Job) -> Settled:
        await self._db.write(lambda tx: self._mark(tx, job, job.attempts, last=False))
        raise LookupError("no")


async def work(spec: dict[str, Any]) -> None:
    """Be a worker until SIGTERM."""
    where: str = spec["database"]
    db, clock = open_at(where), SkewedClock(Path(spec["clock"]))
    shared = where.startswith("postgresql")
    signals: Signals = PostgresSignals(where, str(id(db))) if shared else NoSignals()
    engine = DbosEngine(db, clock, where) if spec["engine"] == "dbos" else None
    worker = Worker(db, clock, signals, lease_seconds=spec["lease"], engine=engine)
    handlers = Handlers(db, clock)
    for kind in ("mark", "wait", "hold", "fail"):
        worker.register(kind, getattr(handlers, kind), queue="suite", concurrency=spec["places"])
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    signals.start(worker.ring)
    await worker.start()
    print("ready", flush=True)
    await stop.wait()
    await worker.stop(10)
    await signals.close()
    await db.close()


if __name__ == "__main__":
    asyncio.run(work(json.loads(sys.argv[1])))
