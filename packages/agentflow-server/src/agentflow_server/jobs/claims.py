"""The platform's own engine: workers claim jobs from the ledger, each as many as it has places for."""

import asyncio

from agentflow_server.jobs import ledger
from agentflow_server.jobs.dbos import uninstall
from agentflow_server.jobs.port import Workplace, forever
from agentflow_server.kit.clock import SECOND, Clock
from agentflow_server.storage import Database
from agentflow_server.storage.signals import Signals

_IDLE = 5.0
_CLAIMED_AT_ONCE = 50


class Claims:
    """Claims what is due whenever it is rung for, when the next job is due, and every few seconds."""

    def __init__(self, db: Database, clock: Clock, signals: Signals) -> None:
        self._db = db
        self._clock = clock
        self._signals = signals
        self._bell = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None

    async def start(self, worker: Workplace) -> None:
        if self._db.dialect == "postgresql":
            await self._db.write(uninstall)
        self._loop = asyncio.create_task(forever(lambda: self._claim_all(worker)))

    def ring(self) -> None:
        self._bell.set()

    async def stop(self) -> None:
        if self._loop is not None:
            self._loop.cancel()

    async def close(self) -> None:
        if self._loop is not None:
            await asyncio.gather(self._loop, return_exceptions=True)

    async def _claim_all(self, worker: Workplace) -> None:
        self._bell.clear()
        rung = worker.was_rung()
        now = await worker.watch_clock()
        due = await self._db.read(lambda tx: ledger.due(tx, now))
        here = {queue for queue, kind in due if kind in worker.kinds(queue)}
        for queue in here:
            await self._claim(worker, queue)
        if rung and any(kind not in worker.kinds(queue) or worker.free(queue) <= 0 for queue, kind in due):
            self._signals.send("jobs")  # more than this process can take
        await self._wait(worker)

    async def _claim(self, worker: Workplace, queue: str) -> None:
        with worker.places(queue, _CLAIMED_AT_ONCE) as free:
            if not free:
                return
            now = self._clock.micros()
            jobs = await self._db.write(
                lambda tx: ledger.claim(
                    tx, queue=queue, kinds=worker.kinds(queue), owner=worker.owner, limit=free, now=now,
                    lease_until=worker.lease_until(),
                ),
                serial=False,
            )  # fmt: skip
            for job in jobs:
                worker.run(job)
        if len(jobs) == free:
            self._bell.set()  # there may be more

    async def _wait(self, worker: Workplace) -> None:
        due = await self._db.read(ledger.next_due)
        ahead = 0 if due is None else due - self._clock.micros()
        pause = min(_IDLE, ahead / SECOND + 0.001) if ahead > 0 else _IDLE
        try:
            async with asyncio.timeout(min(pause, worker.lease_seconds)):
                await self._bell.wait()
        except TimeoutError:
            pass
