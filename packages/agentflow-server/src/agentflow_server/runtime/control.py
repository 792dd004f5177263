"""Cancels runs: durably first, so that whichever process drives the run hears of it; at once if it is this one."""

from agentflow_server.eventlog import runs
from agentflow_server.eventlog.runs import RunHeader
from agentflow_server.jobs import Worker, ledger
from agentflow_server.kit.clock import Clock
from agentflow_server.storage import Database, Tx


class Control:
    """Cancels runs and the runs they caused."""

    def __init__(self, db: Database, worker: Worker, clock: Clock) -> None:
        self._db = db
        self._worker = worker
        self._clock = clock

    async def cancel(self, run: RunHeader) -> None:
        """Ask for a run and all its children to be cancelled. Does nothing to runs that have ended."""
        now = self._clock.micros()

        def unit(tx: Tx) -> list[str]:
            family = [run.id, *runs.descendants(tx, run)]
            for run_id in family:
                ledger.request_cancel(tx, run.tenant, run_id, now)
            return family

        for run_id in await self._db.write(unit):
            self._worker.cancel(run.tenant, run_id)
        self._worker.ring()
