"""HTTP of the questions room."""

from typing import Literal

from agentflow.types.questions import Question, QuestionAnswers, QuestionPage
from fastapi import APIRouter

from agentflow_server.http.identity import CurrentCaller
from agentflow_server.http.pages import Limit, Offset
from agentflow_server.resources.questions.service import QuestionsService


def router(service: QuestionsService) -> APIRouter:
    """The room's routes."""
    routes = APIRouter(prefix="/questions", tags=["questions"])

    @routes.get("")
    async def list_questions(
        caller: CurrentCaller,
        limit: Limit = 50,
        offset: Offset = 0,
        status: Literal["pending", "answered", "expired", "cancelled", "all"] = "all",
    ) -> QuestionPage:
        """The caller's questions, the newest first."""
        return await service.list(caller, status=None if status == "all" else status, limit=limit, offset=offset)

    @routes.get("/{question_id}")
    async def retrieve(caller: CurrentCaller, question_id: str) -> Question:
        """One request for answers."""
        return await service.retrieve(caller, question_id)

    @routes.post("/{question_id}/respond")
    async def respond(caller: CurrentCaller, question_id: str, body: QuestionAnswers) -> Question:
        """Answer; the run goes on."""
        return await service.respond(caller, question_id, body.answers)

    @routes.post("/{question_id}/cancel")
    async def cancel(caller: CurrentCaller, question_id: str) -> Question:
        """Refuse to answer."""
        return await service.cancel(caller, question_id)

    return routes
