"""`ask_user`: the built-in tool a model asks its user by. Handed to the tools room by app.py."""

from dataclasses import dataclass, field
from typing import Any

from agentflow_server.gateway.messages import ToolSpec
from agentflow_server.resources.questions.service import QuestionsService
from agentflow_server.runtime.tools import ToolFailedError, ToolInvocation, ToolOutcome

ASK_USER = "ask_user"
TIMEOUT = 3600.0
_PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "questions": {
            "type": "array",
            "minItems": 1,
            "maxItems": 20,
            "items": {
                "type": "object",
                "properties": {
                    "id": {"type": "string", "pattern": "^[A-Za-z0-9_.-]{1,64}$", "description": "Names the answer."},
                    "question": {"type": "string", "minLength": 1, "maxLength": 2000},
                    "type": {"enum": ["text", "number", "boolean", "choice", "multiple_choice"]},
                    "options": {
                        "type": "array",
                        "items": {"type": "string", "minLength": 1, "maxLength": 500},
                        "maxItems": 50,
                        "description": "For choice and multiple_choice.",
                    },
                    "required": {"type": "boolean"},
                },
                "required": ["id", "question"],
                "additionalProperties": False,
            },
        },
        "timeout_seconds": {"type": "number", "exclusiveMinimum": 0, "maximum": 604800},
    },
    "required": ["questions"],
    "additionalProperties": False,
}
_DESCRIPTION = "Asks the user one or several questions and waits for the answers. Use it only when you cannot go on."


@dataclass(frozen=True, slots=True)
class AskUser:
    """The tool. It may be called again after a restart: it finds what it has asked."""

    service: QuestionsService
    spec: ToolSpec = field(
        default=ToolSpec(name=ASK_USER, description=_DESCRIPTION, parameters=_PARAMETERS), init=False
    )
    timeout: float | None = field(default=None, init=False)
    idempotent: bool = field(default=True, init=False)

    async def gate(self, invocation: ToolInvocation) -> ToolInvocation:
        return invocation

    async def run(self, invocation: ToolInvocation) -> ToolOutcome:
        items = [_item(item) for item in invocation.arguments["questions"]]
        if len({item["id"] for item in items}) != len(items):
            raise ToolFailedError("invalid_arguments", "each question needs an id of its own")
        return await self.service.ask(invocation, items, float(invocation.arguments.get("timeout_seconds", TIMEOUT)))


def _item(item: dict[str, Any]) -> dict[str, Any]:
    options: list[str] = item.get("options", [])
    kind = item.get("type") or ("choice" if options else "text")
    if kind in ("choice", "multiple_choice") and not options:
        raise ToolFailedError("invalid_arguments", f"question {item['id']!r} needs options")
    return {**item, "type": kind, "options": options, "required": item.get("required", True)}
