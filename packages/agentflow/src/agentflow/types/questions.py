"""Questions on the wire."""

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from agentflow.types.base import Page, RequestModel, ResponseModel

ItemType = Literal["text", "number", "boolean", "choice", "multiple_choice"]


class QuestionItem(ResponseModel):
    """One question of a request.

    Attributes:
        options: what may be chosen. required: whether it must be answered.
    """

    id: str
    question: str
    type: ItemType | str = "text"
    options: list[str] = Field(default_factory=list[str])
    required: bool = True


class QuestionAnswers(RequestModel):
    """Answers by the id of their item."""

    answers: dict[str, Any]


class Question(ResponseModel):
    """Questions a run asks its user, and waits for.

    Attributes:
        status: `pending`, `answered`, `expired` or `cancelled`.
    """

    id: str
    status: str
    items: list[QuestionItem]
    answers: dict[str, Any] | None = None
    agent_id: str | None = None
    conversation_id: str
    run_id: str
    call_id: str | None = None
    created_at: datetime
    expires_at: datetime
    resolved_at: datetime | None = None


class QuestionPage(Page):
    """A page of questions, the newest first."""

    questions: list[Question]
