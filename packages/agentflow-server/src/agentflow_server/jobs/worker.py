"""Runs the handlers of jobs, with a bound for each queue. One worker a process; started by app.py.

It decides nothing about a job: the handler settles it inside its own transaction (`Settled`) or returns a result that
the worker writes. A handler that fails is tried again later, with a growing pause, until its attempts are used up.
Which jobs it runs, its engine tells it (`jobs.port`).
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from agentflow_server.jobs import ledger
from agentflow_server.jobs.claims import Claims
from agentflow_server.jobs.ledger import Job, LeaseLostError
from agentflow_server.jobs.port import Engine, forever
from agentflow_server.kit import telemetry
from agentflow_server.kit.clock import SECOND, Clock
from agentflow_server.kit.ids import new_id
from agentflow_server.storage import Database
from agentflow_server.storage.signals import NoSignals, Signals

logger = logging.getLogger(__name__)
_PAUSE = 1.0
_RENEWED_AT_ONCE = 50
_MAX_BACKOFF = 300


class Settled(Enum):
    """What a handler returns when it has written the job's fate itself."""

    BY_HANDLER = "by_handler"


Handler = Callable[[Job], Awaitable[Any]]


@dataclass(slots=True)
class _Pool:
    concurrency: int
    running: int = 0
    kinds: set[str] = field(default_factory=set[str])


class Worker:
    """Runs jobs of this process.

    Args:
        signals: how the workers of other processes hear of work and of cancellations.
        lease_seconds: how long a job stays ours without a sign of life; it is renewed at a third of that.
        claims: whether this process runs jobs at all; if not, it only tells the others of them.
        engine: what brings it jobs; by default it claims them from the ledger.
    """

    def __init__(
        self,
        db: Database,
        clock: Clock,
        signals: Signals | None = None,
        *,
        lease_seconds: float = 30.0,
        owner: str | None = None,
        claims: bool = True,
        engine: Engine | None = None,
    ) -> None:
        self._db = db
        self._clock = clock
        self._signals = signals or NoSignals()
        self._claims = claims
        self._rung = False
        self._afterwards: set[asyncio.Future[None]] = set()
        self._engine = engine or Claims(db, clock, self._signals)
        self.lease_seconds = lease_seconds
        self._looked = (clock.micros(), time.monotonic())
        self.owner = owner or new_id()
        self._handlers: dict[str, Handler] = {}
        self._concluding: set[str] = set()
        self._pools: dict[str, _Pool] = {}
        self._tasks: dict[tuple[str, str], tuple[Job, asyncio.Task[Any]]] = {}
        self._loops: list[asyncio.Task[None]] = []
        self.stopping = False

    def register(
        self, kind: str, handler: Handler, *, queue: str = "default", concurrency: int = 8, concludes: bool = False
    ) -> None:
        """Let jobs of `kind` be run by `handler`; the queue runs at most `concurrency` at once.

        Args:
            concludes: the handler itself writes how a cancelled job ends: one that was interrupted before it could is
                given its job once more.
        """
        self._handlers[kind] = handler
        if concludes:
            self._concluding.add(kind)
        pool = self._pools.setdefault(queue, _Pool(concurrency))
        pool.concurrency = max(pool.concurrency, concurrency)
        pool.kinds.add(kind)

    @property
    def queues(self) -> dict[str, int]:
        """The queues of this worker, and how many jobs it runs of each at most."""
        return {name: pool.concurrency for name, pool in self._pools.items()}

    def kinds(self, queue: str) -> Collection[str]:
        """The kinds of jobs of a queue that this worker can run."""
        pool = self._pools.get(queue)
        return pool.kinds if pool else ()

    @property
    def running(self) -> int:
        """How many jobs run now."""
        return len(self._tasks)

    def free(self, queue: str) -> int:
        """How many more jobs this worker may run in a queue."""
        pool = self._pools[queue]
        return pool.concurrency - pool.running if self._claims and not self.stopping else 0

    @contextmanager
    def places(self, queue: str, limit: int) -> Generator[int]:
        """Reserve up to so many free places of a queue until the block ends, so that nobody else counts on them while
        the jobs that are to take them are being written. Gives how many they are.
        """
        pool = self._pools[queue]
        count = max(0, min(limit, self.free(queue)))
        pool.running += count
        try:
            yield count
        finally:
            pool.running -= count

    def lease_until(self) -> int:
        """The end of a lease that begins now."""
        return self._clock.micros() + int(self.lease_seconds * SECOND)

    async def start(self) -> None:
        """Begin to be given jobs, to renew, and to listen."""
        self._signals.on("jobs", self._engine.ring)
        self._signals.on("cancel", self._end)
        if not self._claims:
            return
        loops = [self._renew_in_time]
        if self._db.dialect == "postgresql":
            loops.append(self._look_for_cancellations)
        self._loops = [asyncio.create_task(forever(loop)) for loop in loops]
        await self._engine.start(self)

    def ring(self) -> None:
        """There may be new work."""
        self._rung = True
        self._engine.ring()
        if not self._claims:
            self._signals.send("jobs")

    def was_rung(self) -> bool:
        """Whether this process has written work since it was last asked."""
        rung, self._rung = self._rung, False
        return rung

    async def watch_clock(self) -> int:
        """The time, once it is certain that a clock which was set does no harm.

        A leap forward must not make the leases of jobs that run here look overdue, nor one back put off what was due.
        """
        before, then = self._looked
        now, ticks = self._clock.micros(), time.monotonic()
        self._looked = (now, ticks)
        leap = now - before - int((ticks - then) * SECOND)
        if leap > self.lease_seconds * SECOND / 3:
            await self._renew()
        elif now < before:
            await self._db.write(lambda tx: ledger.keep_due(tx, before, now), serial=False)
        return now

    def adopt(self, job: Job) -> None:
        """Run a job that was written with this worker as its owner."""
        self._spawn(job)

    def run(self, job: Job) -> asyncio.Task[Any]:
        """Run a job that was claimed for this worker."""
        telemetry.waits.labels(job.queue).observe(max(0, self._clock.micros() - job.run_at) / SECOND)
        return self._spawn(job)

    def cancel(self, tenant: str, job_id: str) -> None:
        """Interrupt the handler of a job, wherever it runs. One that waits for its turn is run at once, to end."""
        if not self._end(tenant, job_id):
            self._signals.send("cancel", tenant, job_id)

    def _end(self, tenant: str, job_id: str) -> bool:
        """False if others must know of it too."""
        here = self._cancel_here(tenant, job_id)
        if not here and self._claims and not self.stopping:
            self._afterwards_write(self._end_waiting(tenant, job_id))
        return here

    async def _end_waiting(self, tenant: str, job_id: str) -> None:
        now = self._clock.micros()
        job = await self._db.write(
            lambda tx: ledger.take_unwanted(
                tx, tenant, job_id, owner=self.owner, now=now, lease_until=self.lease_until()
            ),
            serial=False,
        )
        if job is None:
            return
        if job.kind in self._handlers and not self.stopping:
            self.run(job)  # beyond the places of its queue: it takes no time
        else:
            await self._db.write(lambda tx: ledger.release(tx, job, now, unused=True))

    def _cancel_here(self, tenant: str, job_id: str) -> bool:
        running = self._tasks.get((tenant, job_id))
        return running is not None and running[1].cancel()

    async def stop(self, timeout: float) -> None:
        """Take no more, interrupt every handler, and wait until they have given their jobs to other workers."""
        self.stopping = True
        await self._engine.stop()
        for loop in self._loops:
            loop.cancel()
        tasks = [task for _, task in self._tasks.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=timeout)
            await asyncio.sleep(0)  # their callbacks begin to write what becomes of the jobs
        if self._afterwards:
            await asyncio.wait(self._afterwards, timeout=timeout)
        await asyncio.gather(*self._loops, return_exceptions=True)
        await self._engine.close()
        self._signals.send("jobs")

    async def _renew_in_time(self) -> None:
        await asyncio.sleep(self.lease_seconds / 3)
        await self._renew()
        if self._db.dialect == "sqlite":
            await self._cancel_unwanted()

    async def _renew(self) -> None:
        jobs = [job for job, _ in self._tasks.values()]
        for start in range(0, len(jobs), _RENEWED_AT_ONCE):
            some = jobs[start : start + _RENEWED_AT_ONCE]
            until = self.lease_until()
            lost = await self._db.write(
                lambda tx, some=some, until=until: ledger.renew(tx, some, owner=self.owner, lease_until=until),
                serial=False,
            )
            for job in lost:
                self._cancel_here(job.tenant, job.id)

    async def _look_for_cancellations(self) -> None:
        await asyncio.sleep(_PAUSE)
        if self._tasks:
            await self._cancel_unwanted()

    async def _cancel_unwanted(self) -> None:
        for tenant, job_id in await self._db.read(lambda tx: ledger.wanted_gone(tx, self.owner)):
            self._cancel_here(tenant, job_id)

    def _spawn(self, job: Job) -> asyncio.Task[Any]:
        key = (job.tenant, job.id)
        self._pools[job.queue].running += 1
        task = asyncio.create_task(self._run(job))
        self._tasks[key] = (job, task)
        began = time.monotonic()
        telemetry.running.set(len(self._tasks))
        task.add_done_callback(lambda done: self._ended(job, done, began))
        return task

    async def _run(self, job: Job) -> None:
        result = await self._handlers[job.kind](job)
        if not isinstance(result, Settled):
            await self._db.write(lambda tx: ledger.settle(tx, job, "done", self._clock.micros(), result=result))

    def _ended(self, job: Job, done: "asyncio.Task[Any]", began: float) -> None:
        telemetry.jobs.labels(job.kind).observe(time.monotonic() - began)
        if (held := self._tasks.get((job.tenant, job.id))) is not None and held[1] is done:
            del self._tasks[(job.tenant, job.id)]
        telemetry.running.set(len(self._tasks))
        self._pools[job.queue].running -= 1
        self._engine.ring()
        if done.cancelled():
            self._aftermath(job, None)
        elif (error := done.exception()) is not None and not isinstance(error, LeaseLostError):
            logger.error("job failed", extra={"job": job.id, "kind": job.kind}, exc_info=error)
            self._aftermath(job, error)

    def _aftermath(self, job: Job, error: BaseException | None) -> None:
        """Write what became of a handler that did not settle its job: given back, tried again later, or failed."""
        now = self._clock.micros()

        def unit(tx: Any) -> None:
            if error is None and (job.kind in self._concluding or not ledger.cancel_requested(tx, job.tenant, job.id)):
                ledger.release(tx, job, now)
            elif error is None:
                ledger.settle(tx, job, "cancelled", now)
            elif job.attempts >= job.max_attempts:
                ledger.settle(tx, job, "failed", now, error=f"{type(error).__name__}: {error}")
            else:
                pause = min(_MAX_BACKOFF, 2**job.attempts)
                ledger.release(tx, job, now, run_at=now + pause * SECOND)

        self._afterwards_write(self._db.write(unit, tenant=job.tenant))

    def _afterwards_write(self, writing: Awaitable[None]) -> None:
        future = asyncio.ensure_future(writing)
        self._afterwards.add(future)
        future.add_done_callback(self._written)

    def _written(self, done: "asyncio.Future[None]") -> None:
        self._afterwards.discard(done)
        self._engine.ring()
        _forget_lost_lease(done)


def _forget_lost_lease(done: "asyncio.Future[None]") -> None:
    if not done.cancelled() and (error := done.exception()) and not isinstance(error, LeaseLostError):
        logger.error("a job's end could not be written", exc_info=error)
