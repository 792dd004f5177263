"""Reflection: the model looks at its own draft before it becomes the answer, and may send it back with reasons.

After "Reflexion" (Shinn et al., 2023) and "Self-Refine" (Madaan et al., 2023): a critique in words, then another try.
"""

from dataclasses import dataclass, field

from agentflow.errors import ModelError

from agentflow_server.eventlog import Draft
from agentflow_server.gateway import ModelRequest
from agentflow_server.gateway.messages import SystemMessage, TextPart, ToolMessage, UserMessage
from agentflow_server.runtime.context import RunContext
from agentflow_server.runtime.emitter import Emitter
from agentflow_server.runtime.engine import Engine
from agentflow_server.runtime.history import History
from agentflow_server.runtime.plan import OutputSpec
from agentflow_server.runtime.state import RunState, usage_content
from agentflow_server.runtime.structured import OutputMismatchError, parse_output

_SPEC = OutputSpec(
    name="reflection",
    json_schema={
        "type": "object",
        "properties": {
            "decision": {"enum": ["accept", "revise"]},
            "reasons": {"type": "array", "maxItems": 10, "items": {"type": "string", "maxLength": 2_000}},
        },
        "required": ["decision", "reasons"],
        "additionalProperties": False,
    },
)
_INSTRUCTION = (
    "You check an assistant's draft before the user sees it. Decide `revise` only if it is wrong, leaves out something"
    " that was asked for, or contradicts the results of the tools; give the reasons, so that they can be mended."
    " Otherwise decide `accept`."
)
_MAX_RESULT = 4_000


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of looking at a draft: the events that tell it, and the reasons to try again (none: it is accepted)."""

    drafts: tuple[Draft, ...] = ()
    reasons: list[str] = field(default_factory=list[str])
    revise: bool = False


async def reflect(
    engine: Engine, context: RunContext, emitter: Emitter, state: RunState, history: History, draft: str
) -> Verdict:
    """Look at a draft. A critique that cannot be had or understood lets it pass, with a warning."""
    attempt = state.reflections + 1
    state.reflections = attempt
    request = ModelRequest(
        model=context.plan.model,
        messages=(SystemMessage(text=_INSTRUCTION), _question(context, history, draft, attempt)),
        output_schema=_SPEC.json_schema,
        output_name=_SPEC.name,
        attribution=context.attribution("reflection"),
    )
    try:
        completed = await engine.gateway.complete(request)
    except ModelError as error:
        return Verdict((emitter.draft("warning", {"code": "reflection_failed", "message": error.message}),))
    state.add_usage(completed.usage, completed.cost)
    usage = emitter.draft("usage", usage_content(completed, state, purpose="reflection"))
    try:
        found = parse_output(completed.message.text, _SPEC)
    except OutputMismatchError as mismatch:
        return Verdict((usage, emitter.draft("warning", {"code": "reflection_failed", "message": str(mismatch)})))
    told = emitter.draft("reflection", {"attempt": attempt, **found})
    return Verdict((usage, told), found["reasons"], found["decision"] == "revise")


def _question(context: RunContext, history: History, draft: str, attempt: int) -> UserMessage:
    results: list[str] = []
    for message in reversed(history.messages):
        if isinstance(message, UserMessage) and message == context.plan.user:
            break
        if isinstance(message, ToolMessage):
            results.append(f"{message.name}: {message.content[:_MAX_RESULT]}")
    texts = [
        f"<system_context>\nDraft {attempt}, of at most {context.plan.reflections + 1}:\n{draft}\n</system_context>",
        *(f"<system_context>\nResult of {result}\n</system_context>" for result in reversed(results)),
        context.plan.text,
    ]
    return UserMessage(parts=tuple(TextPart(text=text) for text in texts))
