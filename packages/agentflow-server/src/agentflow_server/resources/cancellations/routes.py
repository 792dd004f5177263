"""HTTP of cancellations: by run, by call, by the message that started the run. All run on the runs room's headers."""

from agentflow.types.cancellations import Cancellation
from fastapi import APIRouter

from agentflow_server.http.identity import CurrentCaller
from agentflow_server.resources.cancellations.service import CancellationsService


def router(service: CancellationsService) -> APIRouter:
    """The room's routes."""
    routes = APIRouter(prefix="/cancellations", tags=["cancellations"])

    @routes.post("/runs/{run_id}", status_code=202)
    async def cancel_run(caller: CurrentCaller, run_id: str) -> Cancellation:
        """Cancel a run, and what it caused."""
        return await service.cancel_run(caller, run_id)

    @routes.post("/calls/{call_id}", status_code=202)
    async def cancel_call(caller: CurrentCaller, call_id: str) -> Cancellation:
        """Cancel the run whose root call this is."""
        return await service.cancel_call(caller, call_id)

    @routes.post("/conversations/{conversation_id}/messages/{message_id}", status_code=202)
    async def cancel_message(caller: CurrentCaller, conversation_id: str, message_id: str) -> Cancellation:
        """Cancel the run that a message started."""
        return await service.cancel_message(caller, conversation_id, message_id)

    return routes
