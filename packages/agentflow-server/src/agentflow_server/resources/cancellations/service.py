"""Cancels what is running. The run is told durably, and stops within a second wherever it runs."""

from agentflow.errors import NotFoundError
from agentflow.types.cancellations import Cancellation

from agentflow_server.eventlog import runs
from agentflow_server.eventlog.runs import RunHeader
from agentflow_server.http.identity import Caller
from agentflow_server.runtime.control import Control
from agentflow_server.storage import Database


class CancellationsService:
    """The cancellations room."""

    def __init__(self, db: Database, control: Control) -> None:
        self._db = db
        self._control = control

    async def cancel_run(self, caller: Caller, run_id: str) -> Cancellation:
        """Cancel by run id.

        Raises:
            NotFoundError: the caller has no such run.
        """
        run = await self._db.read(lambda tx: runs.by_id(tx, caller.tenant, run_id))
        return await self._cancel(caller, run, f"run {run_id!r}")

    async def cancel_call(self, caller: Caller, call_id: str) -> Cancellation:
        """Cancel by call id; raises as `cancel_run`."""
        run = await self._db.read(lambda tx: runs.by_call(tx, caller.tenant, call_id))
        return await self._cancel(caller, run, f"call {call_id!r}")

    async def cancel_message(self, caller: Caller, conversation_id: str, message_id: str) -> Cancellation:
        """Cancel by conversation and message; raises as `cancel_run`."""
        run = await self._db.read(lambda tx: runs.by_message(tx, caller.tenant, conversation_id, message_id))
        return await self._cancel(caller, run, f"run of message {message_id!r}")

    async def _cancel(self, caller: Caller, run: RunHeader | None, what: str) -> Cancellation:
        if run is None or run.user_id != caller.user_id:
            raise NotFoundError(f"there is no {what}")
        if not run.ended:
            await self._control.cancel(run)
        return Cancellation(cancelled=not run.ended, run_id=run.id, status=run.status)
