"""`client.cancellations`: stop what is running."""

from agentflow.resources.runs import segment
from agentflow.transport.drivers import AsyncTransport
from agentflow.transport.request import Request
from agentflow.types.cancellations import Cancellation

_BASE = "/api/v1/cancellations"


class AsyncCancellations:
    """Cancel by run id, by call id, or by the message that started the run. A cancelled run stops within a second."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def cancel_run(self, run_id: str) -> Cancellation:
        """Cancel a run, and what it caused.

        Raises:
            NotFoundError: there is no such run.
        """
        return await self._cancel(f"{_BASE}/runs/{segment(run_id)}")

    async def cancel_call(self, call_id: str) -> Cancellation:
        """Cancel the run whose root call this is; raises as `cancel_run`."""
        return await self._cancel(f"{_BASE}/calls/{segment(call_id)}")

    async def cancel_message(self, conversation_id: str, message_id: str) -> Cancellation:
        """Cancel the run that a message started; raises as `cancel_run`."""
        return await self._cancel(f"{_BASE}/conversations/{segment(conversation_id)}/messages/{segment(message_id)}")

    async def _cancel(self, path: str) -> Cancellation:
        return await self._transport.call(Request("POST", path, repeatable=True), Cancellation)
