"""Planning: before its first answer the model makes a short plan, follows it, and keeps it up to date.

The plan is an event, and a hidden message of the thread: so it is there again after a restart, and in later turns.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agentflow.errors import ModelError

from agentflow_server.eventlog import Draft
from agentflow_server.gateway import Completed, ModelRequest
from agentflow_server.gateway.messages import Message, TextPart, ToolSpec, UserMessage
from agentflow_server.runtime.context import RunContext
from agentflow_server.runtime.emitter import Emitter
from agentflow_server.runtime.engine import Engine
from agentflow_server.runtime.history import History
from agentflow_server.runtime.images import shown
from agentflow_server.runtime.opening import message_part
from agentflow_server.runtime.plan import Notice, OutputSpec
from agentflow_server.runtime.state import RunState, usage_content
from agentflow_server.runtime.structured import OutputMismatchError, parse_output
from agentflow_server.runtime.tools import Tool, ToolInvocation, ToolOutcome

PLAN_TOOL = "update_plan"
_STATUS = ("pending", "in_progress", "completed")
_SPEC = OutputSpec(
    name="plan",
    json_schema={
        "type": "object",
        "properties": {
            "steps": {"type": "array", "maxItems": 20, "items": {"type": "string", "minLength": 1, "maxLength": 500}}
        },
        "required": ["steps"],
        "additionalProperties": False,
    },
)
_INSTRUCTION = (
    "Before you answer, make a plan: the few steps that lead to the answer, each one short sentence. No steps if the"
    " answer needs no plan. Do not answer yet."
)


async def make_plan(
    engine: Engine,
    context: RunContext,
    emitter: Emitter,
    state: RunState,
    history: History,
    system: tuple[Message, ...],
    tools: Mapping[str, Tool],
) -> None:
    """Ask the model for a plan and put it into the thread. Without a usable one the run goes on without."""
    known = "".join(f"\n- {tool.spec.name}: {tool.spec.description[:200]}" for tool in tools.values())
    ask = hidden(f"{_INSTRUCTION}\nYour tools:{known or ' none'}", "system_reminders")
    request = ModelRequest(
        model=context.plan.model,
        messages=(*system, *await shown(engine.images, context, history), ask),
        output_schema=_SPEC.json_schema,
        output_name=_SPEC.name,
        attribution=context.attribution("planning"),
    )
    try:
        completed = await engine.gateway.complete(request)
        drafts, steps = _made(completed, emitter, state)
    except ModelError as error:
        drafts, steps = [emitter.draft("warning", {"code": "planning_failed", "message": error.message})], []
    state.planned = True
    if not steps:
        await emitter.send((*drafts, emitter.draft("plan", {"steps": []})))
        return
    message = hidden(f"Your plan; keep it up to date with {PLAN_TOOL}:\n{rendered(steps)}", "system_context")
    part = message_part(context, "plan", message, rendered(steps), visible=False)
    events = await emitter.send((*drafts, emitter.draft("plan", {"steps": steps}, part=part)))
    history.append(events[-1].seq, message)


def _made(completed: Completed, emitter: Emitter, state: RunState) -> tuple[list[Draft], list[dict[str, Any]]]:
    state.add_usage(completed.usage, completed.cost)
    drafts = [emitter.draft("usage", usage_content(completed, state, purpose="planning"))]
    try:
        titles: list[str] = parse_output(completed.message.text, _SPEC)["steps"]
    except OutputMismatchError as mismatch:
        drafts.append(emitter.draft("warning", {"code": "planning_failed", "message": str(mismatch)}))
        return drafts, []
    return drafts, numbered([{"title": title, "status": "pending"} for title in titles])


def numbered(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The steps with their ids."""
    return [{"id": str(number), **step} for number, step in enumerate(steps, 1)]


def rendered(steps: list[dict[str, Any]]) -> str:
    """The plan as the model reads it."""
    return "\n".join(f"{step['id']}. [{step['status']}] {step['title']}" for step in steps)


def hidden(text: str, kind: str) -> UserMessage:
    """A message of the platform to the model: no words of the user."""
    return UserMessage(parts=(TextPart(text=f"<{kind}>\n{text}\n</{kind}>"),))


@dataclass(frozen=True, slots=True)
class PlanTool:
    """`update_plan`: the model says where it stands, or changes its mind."""

    timeout: float | None = None
    idempotent: bool = True

    @property
    def spec(self) -> ToolSpec:
        step = {
            "type": "object",
            "properties": {
                "title": {"type": "string", "minLength": 1, "maxLength": 500},
                "status": {"enum": list(_STATUS)},
            },
            "required": ["title", "status"],
            "additionalProperties": False,
        }
        return ToolSpec(
            name=PLAN_TOOL,
            description="Replaces your plan by these steps. Call it when a step is begun or completed.",
            parameters={
                "type": "object",
                "properties": {"steps": {"type": "array", "maxItems": 20, "items": step}},
                "required": ["steps"],
                "additionalProperties": False,
            },
        )

    async def gate(self, invocation: ToolInvocation) -> ToolInvocation:
        return invocation

    async def run(self, invocation: ToolInvocation) -> ToolOutcome:
        steps = numbered(invocation.arguments["steps"])
        return ToolOutcome(
            rendered(steps) or "The plan is empty.", steps, announce=(Notice(type="plan", content={"steps": steps}),)
        )


class Planning:
    """Gives planned runs their tool."""

    async def resolve(self, context: RunContext) -> Mapping[str, Tool]:
        return {PLAN_TOOL: PlanTool()} if context.plan.planning else {}
