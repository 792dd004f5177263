"""Generated from agentflow/resources/questions.py by tools/sync_generator.py: do not edit.

`client.questions`: answer what runs ask their user."""

from typing import Any, Literal

from agentflow._sync.pages import Page
from agentflow._sync.runs import segment
from agentflow.transport.drivers import SyncTransport
from agentflow.transport.request import Request
from agentflow.types.questions import Question, QuestionAnswers, QuestionPage

_BASE = "/api/v1/questions"
Wanted = Literal["pending", "answered", "expired", "cancelled", "all"]


class Questions:
    """Questions of the caller's runs."""

    def __init__(self, transport: SyncTransport) -> None:
        self._transport = transport

    def list(self, *, limit: int = 50, offset: int = 0, status: Wanted = "pending") -> Page[Question]:
        """A page of questions, the newest first; iterating it walks on through all.

        Args:
            limit: 1 to 100. status: those that wait by default; `all` for every one.
        """
        query = {"limit": limit, "offset": offset, "status": status}
        data = self._transport.call(Request("GET", _BASE, query, repeatable=True), QuestionPage)

        def fetch(start: int) -> Page[Question]:
            return self.list(limit=limit, offset=start, status=status)

        return Page(data, "questions", fetch)

    def retrieve(self, question_id: str) -> Question:
        """One request for answers.

        Raises:
            NotFoundError: there is none, or it is somebody else's.
        """
        return self._transport.call(Request("GET", _path(question_id), repeatable=True), Question)

    def respond(self, question_id: str, answers: dict[str, Any]) -> Question:
        """Answer; the run goes on.

        Args:
            answers: by the id of their item: a text, a number, a boolean, one of the options, or a list of them.

        Raises:
            NotFoundError: there is none, or it is somebody else's. ConflictError: it was answered before, or has
            expired. ValidationError: an answer is missing or does not fit its item.
        """
        body = QuestionAnswers(answers=answers).wire()
        return self._transport.call(Request("POST", _path(question_id, "/respond"), body=body), Question)

    def cancel(self, question_id: str) -> Question:
        """Refuse to answer: the model is told that the questions were cancelled.

        Raises:
            NotFoundError, ConflictError: as `respond`.
        """
        return self._transport.call(Request("POST", _path(question_id, "/cancel")), Question)


def _path(question_id: str, rest: str = "") -> str:
    return f"{_BASE}/{segment(question_id)}{rest}"
