"""Delegation as the runtime sees it: what an agent's run is given of its sub-agents, and what a call of one does."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from agentflow.errors import APIError

from agentflow_server.eventlog.runs import RunHeader
from agentflow_server.gateway.messages import ToolSpec
from agentflow_server.resources.subagents.service import SubagentsService, description_of
from agentflow_server.runtime.children import Children, has_ended, outcome_of
from agentflow_server.runtime.context import RunContext
from agentflow_server.runtime.limits import MAX_DEPTH
from agentflow_server.runtime.plan import Contribution, Notice, PlanAsk, ToolRef, handle_of
from agentflow_server.runtime.tools import Suspended, Tool, ToolFailedError, ToolInvocation, ToolOutcome
from agentflow_server.storage import Tx

KIND = "sub_agent"
Began = Callable[[Tx, RunHeader, dict[str, Any]], None]


class Delegations:
    """Contributor and resolver: gives a run a tool for each of its agent's sub-agents.

    Args:
        began: notes, in the transaction that starts it, a child that nobody waits for.
    """

    def __init__(self, service: SubagentsService, children: Children, began: Began) -> None:
        self._service = service
        self._children = children
        self._began = began

    async def contribute(self, ask: PlanAsk) -> Contribution:
        """References to the agent's sub-agents."""
        refs = [
            ToolRef(
                kind=KIND,
                name=name,
                config={
                    "agent_id": edge.child_id,
                    "agent_name": edge.name,
                    "description": description_of(edge),
                    "background": edge.background,
                },
            )
            for name, edge in await self._service.delegates(ask.tenant, ask.agent_id)
        ]
        return Contribution(tools=tuple(refs))

    async def resolve(self, context: RunContext) -> Mapping[str, Tool]:
        """The run's delegations by name."""
        return {
            ref.name: Delegation(ref, self._service, self._children, self._began)
            for ref in context.plan.tools
            if ref.kind == KIND
        }


@dataclass(frozen=True, slots=True)
class Delegation:
    """Hands a message to a sub-agent. The same call always finds the same child, so it may be repeated."""

    ref: ToolRef
    service: SubagentsService
    children: Children
    began: Began
    timeout: float | None = None
    idempotent: bool = True

    @property
    def spec(self) -> ToolSpec:
        properties: dict[str, Any] = {
            "message": {
                "type": "string",
                "minLength": 1,
                "description": "What it shall do, in plain words, with everything it needs to know: it does not see"
                " this conversation.",
            }
        }
        if self.ref.config["background"]:
            properties["background"] = {
                "type": "boolean",
                "description": "Do not wait: return a task id at once and go on.",
            }
        return ToolSpec(
            name=self.ref.name,
            description=self.ref.config["description"],
            parameters={
                "type": "object",
                "properties": properties,
                "required": ["message"],
                "additionalProperties": False,
            },
        )

    async def gate(self, invocation: ToolInvocation) -> ToolInvocation:
        plan = invocation.context.plan
        name, agent_id = self.ref.config["agent_name"], self.ref.config["agent_id"]
        if plan.depth >= MAX_DEPTH:
            raise ToolFailedError("depth_limit", f"{name} cannot be called: {MAX_DEPTH} sub-agents are above already")
        if agent_id in (plan.agent_id, *plan.settings.get("ancestors", ())):
            raise ToolFailedError("cycle", f"{name} cannot be called: it is waiting for this very answer")
        return invocation

    async def run(self, invocation: ToolInvocation) -> ToolOutcome:
        context, background = invocation.context, bool(invocation.arguments.get("background"))
        child = await self.children.find(context.tenant, invocation.call_id)
        if child is None:
            child = await self._start(invocation, background=background)
        if background:
            return handed_over(child.id, self.ref.config["agent_name"], KIND)
        if not child.ended:
            raise Suspended((), _nothing, lambda tx: has_ended(tx, context.tenant, child.id))
        return outcome_of(child, self.ref.config["agent_name"])

    async def _start(self, invocation: ToolInvocation, *, background: bool) -> RunHeader:
        context, message = invocation.context, str(invocation.arguments["message"])
        try:
            plan = await self.service.plan(context, self.ref.config["agent_id"], message, invocation.call_id)
        except APIError as error:
            raise ToolFailedError(error.code, f"{self.ref.config['agent_name']} cannot run: {error.message}") from None
        if not background:
            return await self.children.start(context.run, plan, invocation.call_id, cause=context.job)
        name = self.ref.config["agent_name"]
        told = Notice(type="background_task", content=handle_of(invocation.call_id, name, KIND))
        plan = plan.model_copy(update={"background": True, "notices": (told, *plan.notices)})
        task = {"name": name, "message": message}
        return await self.children.start(
            context.run, plan, invocation.call_id, cause=context.job, also=lambda tx, run: self.began(tx, run, task)
        )


def handed_over(task_id: str, name: str, kind: str) -> ToolOutcome:
    """The handle of work that nobody waits for: for the model, for readers, and for the result of the run."""
    handle = handle_of(task_id, name, kind)
    text = f"{name} works in the background as task {task_id}. Its result will be told when it has ended."
    return ToolOutcome(
        text,
        handle,
        metadata={"background_tasks": [handle]},
    )


def _nothing(_: Tx) -> None:
    return None
