"""What a job costs: our ledger on SQLite and on PostgreSQL, and DBOS on the same PostgreSQL, beside DBOS by itself.

    python benchmarks/jobs.py [--jobs 2000]

A job does nothing, and is written, brought to a worker, taken, run and settled. Measured in one process for each
engine: jobs a second when all are there at once, CPU a job of this process and of PostgreSQL's, and the time from the
commit of a single job to the start of its handler. "dbos, bare" is a workflow of nothing, enqueued and run by DBOS
alone.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
ENGINES = ("sqlite", "postgresql", "dbos", "dbos, bare")
PLACES = 64


def server_seconds() -> float:
    """CPU that PostgreSQL's processes have used so far."""
    used = 0.0
    for process in psutil.process_iter(["name", "cpu_times"]):
        if process.info["name"] == "postgres" and process.info["cpu_times"]:
            used += process.info["cpu_times"].user + process.info["cpu_times"].system
    return used


def measure(count: int, clock: Callable[[], float]) -> Callable[[], dict[str, float]]:
    """Begin to measure; call what is returned when so many jobs are done."""
    began, ours, theirs = clock(), time.process_time(), server_seconds()
    return lambda: {
        "rate": count / (clock() - began),
        "cpu": (time.process_time() - ours) / count * 1e6,
        "server": (server_seconds() - theirs) / count * 1e6,
    }


async def ours(engine: str, where: str, count: int) -> dict[str, Any]:
    """Jobs through our worker."""
    from agentflow_server.jobs import Job, NewJob, Worker, ledger
    from agentflow_server.jobs.dbos import DbosEngine
    from agentflow_server.kit.clock import SystemClock

    from tests.conformance.job_worker import open_at

    db, clock = open_at(where), SystemClock()
    worker = Worker(db, clock, engine=DbosEngine(db, clock, where) if engine == "dbos" else None)
    started: asyncio.Queue[float] = asyncio.Queue()

    async def nothing(_: Job) -> None:
        started.put_nowait(time.perf_counter())

    worker.register("nothing", nothing, queue="bench", concurrency=PLACES)
    await worker.start()
    waits: list[float] = []

    async def add(number: int) -> None:
        jobs = [NewJob(f"t{n % 4}", "nothing", "bench") for n in range(number)]
        await db.write(lambda tx: [ledger.enqueue(tx, job, clock.micros()) for job in jobs])
        worker.ring()

    for _ in range(21):
        await add(1)
        committed = time.perf_counter()
        waits.append(max(0.0, await started.get() - committed))
        await asyncio.sleep(0.05)
    done = measure(count, time.perf_counter)
    await add(count)
    for _ in range(count):
        await started.get()
    found = done()
    await worker.stop(10)
    await db.close()
    return {**found, "wait": statistics.median(waits[1:]) * 1000}


def bare(where: str, count: int) -> dict[str, Any]:
    """Workflows through DBOS alone."""
    import threading

    from dbos import DBOS
    from dbos._serialization import DBOSPortableJSON

    DBOS(config={"name": "bench", "system_database_url": where, "serializer": DBOSPortableJSON, "log_level": "ERROR"})
    ran = threading.Semaphore(0)
    at: list[float] = []

    @DBOS.workflow()
    def nothing(_: int) -> None:
        at.append(time.perf_counter())
        ran.release()

    DBOS.launch()
    queue = DBOS.register_queue("bench", worker_concurrency=PLACES, polling_interval_sec=0.25)
    waits: list[float] = []
    for number in range(21):
        queue.enqueue(nothing, number)
        committed = time.perf_counter()
        ran.acquire()
        waits.append(max(0.0, at[-1] - committed))
    done = measure(count, time.perf_counter)
    handles = [queue.enqueue(nothing, number) for number in range(count)]
    for handle in handles[-PLACES:]:
        handle.get_result()
    for _ in range(count):
        ran.acquire()
    found = done()
    DBOS.destroy()
    return {**found, "wait": statistics.median(waits[1:]) * 1000}


def one(engine: str, where: str, count: int) -> None:
    """Measure one engine, in this process."""
    found = bare(where, count) if engine == "dbos, bare" else asyncio.run(ours(engine, where, count))
    print(json.dumps(found))


def main() -> None:
    """Measure every engine, each in a process of its own."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--jobs", type=int, default=2000)
    arguments.add_argument("--one", nargs=2, metavar=("ENGINE", "DATABASE"), help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.one:
        one(*given.one, given.jobs)
        return
    from agentflow_server.storage.migrations import upgrade_sqlite

    from tests.postgres import running_postgres

    print("| | jobs/s | CPU µs a job | of PostgreSQL's | ms to start |\n|---|---|---|---|---|")
    with running_postgres(durable=True) as postgres, tempfile.TemporaryDirectory() as folder:
        upgrade_sqlite(Path(folder) / "jobs.db")
        for engine in ENGINES:
            where = str(Path(folder) / "jobs.db") if engine == "sqlite" else postgres.migrated()
            command = [sys.executable, __file__, "--jobs", str(given.jobs), "--one", engine, where]
            told = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
            found = json.loads(told.splitlines()[-1])
            server = "–" if engine == "sqlite" else f"{found['server']:,.0f}"
            print(
                f"| {engine} | {found['rate']:,.0f} | {found['cpu']:,.0f} | {server} | {found['wait']:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
