"""Claims jobs and runs their handlers, with a bound for each queue. One worker a process; started by app.py.

It decides nothing about a job: the handler settles it inside its own transaction (`Settled`) or returns a result that
the worker writes. A handler that fails is tried again later, with a growing pause, until its attempts are used up.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from agentflow_server.jobs import ledger
from agentflow_server.jobs.ledger import Job, LeaseLostError
from agentflow_server.kit.clock import SECOND, Clock
from agentflow_server.kit.ids import new_id
from agentflow_server.storage import Database

logger = logging.getLogger(__name__)
_IDLE = 5.0
_MAX_BACKOFF = 300


class Settled(Enum):
    """What a handler returns when it has written the job's fate itself."""

    BY_HANDLER = "by_handler"


Handler = Callable[[Job], Awaitable[Any]]


@dataclass(slots=True)
class _Pool:
    concurrency: int
    running: int = 0


class Worker:
    """Runs jobs of this process.

    Args:
        lease_seconds: how long a job stays ours without a sign of life; it is renewed at a third of that.
    """

    def __init__(self, db: Database, clock: Clock, *, lease_seconds: float = 30.0, owner: str | None = None) -> None:
        self._db = db
        self._clock = clock
        self._lease = int(lease_seconds * SECOND)
        self.owner = owner or new_id()
        self._handlers: dict[str, Handler] = {}
        self._concluding: set[str] = set()
        self._pools: dict[str, _Pool] = {}
        self._tasks: dict[tuple[str, str], asyncio.Task[Any]] = {}
        self._bell = asyncio.Event()
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

    @property
    def running(self) -> int:
        """How many jobs run now."""
        return len(self._tasks)

    def free(self, queue: str) -> int:
        """How many more jobs this worker may run in a queue."""
        pool = self._pools[queue]
        return pool.concurrency - pool.running

    def lease_until(self) -> int:
        """The end of a lease that begins now."""
        return self._clock.micros() + self._lease

    def start(self) -> None:
        """Begin to claim and to renew."""
        self._loops = [asyncio.create_task(self._claim_forever()), asyncio.create_task(self._renew_forever())]

    def ring(self) -> None:
        """There may be new work."""
        self._bell.set()

    def adopt(self, job: Job) -> None:
        """Run a job that was written with this worker as its owner."""
        self._spawn(job)

    def cancel(self, tenant: str, job_id: str) -> bool:
        """Interrupt the handler of a job if it runs here."""
        task = self._tasks.get((tenant, job_id))
        return task.cancel() if task else False

    async def stop(self, timeout: float) -> None:
        """Claim no more, interrupt every handler, and wait until they have let go of their jobs."""
        self.stopping = True
        for loop in self._loops:
            loop.cancel()
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=timeout)
        await asyncio.gather(*self._loops, return_exceptions=True)

    async def _claim_forever(self) -> None:
        while True:
            self._bell.clear()
            for queue, pool in self._pools.items():
                await self._claim(queue, pool)
            await self._wait()

    async def _claim(self, queue: str, pool: _Pool) -> None:
        free = pool.concurrency - pool.running
        if free <= 0:
            return
        now = self._clock.micros()
        jobs = await self._db.write(
            lambda tx: ledger.claim(
                tx, queue=queue, owner=self.owner, limit=free, now=now, lease_until=now + self._lease
            )
        )
        for job in jobs:
            self._spawn(job)

    async def _wait(self) -> None:
        due = await self._db.read(ledger.next_due)
        ahead = 0 if due is None else due - self._clock.micros()
        pause = min(_IDLE, ahead / SECOND + 0.001) if ahead > 0 else _IDLE
        try:
            async with asyncio.timeout(pause):
                await self._bell.wait()
        except TimeoutError:
            pass

    async def _renew_forever(self) -> None:
        while True:
            await asyncio.sleep(self._lease / SECOND / 3)
            if not self._tasks:
                continue
            now = self._clock.micros()
            cancelled = await self._db.write(
                lambda tx, now=now: ledger.renew(tx, owner=self.owner, now=now, lease_until=now + self._lease)
            )
            for tenant, job_id in cancelled:
                self.cancel(tenant, job_id)

    def _spawn(self, job: Job) -> None:
        key = (job.tenant, job.id)
        self._pools[job.queue].running += 1
        task = asyncio.create_task(self._run(job))
        self._tasks[key] = task
        task.add_done_callback(lambda done: self._ended(job, done))

    async def _run(self, job: Job) -> None:
        handler = self._handlers.get(job.kind)
        if handler is None:
            raise LookupError(f"no handler for jobs of kind {job.kind!r}")
        result = await handler(job)
        if not isinstance(result, Settled):
            await self._db.write(lambda tx: ledger.settle(tx, job, "done", self._clock.micros(), result=result))

    def _ended(self, job: Job, done: "asyncio.Task[Any]") -> None:
        self._tasks.pop((job.tenant, job.id), None)
        self._pools[job.queue].running -= 1
        self._bell.set()
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

        future = asyncio.ensure_future(self._db.write(unit))
        future.add_done_callback(self._written)

    def _written(self, done: "asyncio.Future[None]") -> None:
        self._bell.set()
        _forget_lost_lease(done)


def _forget_lost_lease(done: "asyncio.Future[None]") -> None:
    if not done.cancelled() and (error := done.exception()) and not isinstance(error, LeaseLostError):
        logger.error("a job's end could not be written", exc_info=error)
