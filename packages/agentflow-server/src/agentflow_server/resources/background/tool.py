"""Background work as the runtime sees it: tools to look after it, a flag to begin it, and what is told of its end."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from agentflow.errors import APIError, NotFoundError

from agentflow_server.eventlog import Part, mail, parts_of
from agentflow_server.gateway import Gateway, ModelRequest
from agentflow_server.gateway.messages import SystemMessage, TextPart, ToolSpec, UserMessage
from agentflow_server.kit.clock import Clock
from agentflow_server.resources.background import store
from agentflow_server.resources.background.service import BackgroundService, Sender, tool_began
from agentflow_server.resources.background.store import TaskRecord
from agentflow_server.resources.subagents.service import SubagentsService
from agentflow_server.resources.subagents.tool import handed_over
from agentflow_server.resources.tools.builtin import FunctionTool
from agentflow_server.runtime.children import call_of
from agentflow_server.runtime.context import RunContext
from agentflow_server.runtime.detached import Detachable, Detached
from agentflow_server.runtime.plan import Contribution, PlanAsk, ToolRef
from agentflow_server.runtime.tools import Suspended, Tool, ToolFailedError, ToolInvocation, ToolOutcome
from agentflow_server.storage import Database, Tx
from agentflow_server.storage.database import TenantTx

KIND = "background"
GET_RESULT = "get_background_sub_agent_result"
FETCH_PROGRESS = "fetch_sub_agent_progress"
MESSAGE = "message_sub_agent"
_TOLD = 600
_SEEN_PARTS = 30
_PROGRESS = (
    "You are asked how far a worker has come. Below is what it was asked and what it has done until now. Answer in at"
    " most three sentences, from that alone; say what is done and what is under way. Do not do its work."
)
_TASK_ID = {"type": "string", "minLength": 1, "maxLength": 200, "description": "as it was told when the work began"}
_SPECS = {
    GET_RESULT: ToolSpec(
        name=GET_RESULT,
        description="Collects what a background task gave. With wait, waits until it has ended.",
        parameters={
            "type": "object",
            "properties": {"task_id": _TASK_ID, "wait": {"type": "boolean"}},
            "required": ["task_id"],
            "additionalProperties": False,
        },
    ),
    FETCH_PROGRESS: ToolSpec(
        name=FETCH_PROGRESS,
        description="Asks how far a background task has come, without disturbing it.",
        parameters={
            "type": "object",
            "properties": {"task_id": _TASK_ID, "question": {"type": "string", "maxLength": 2000}},
            "required": ["task_id"],
            "additionalProperties": False,
        },
    ),
    MESSAGE: ToolSpec(
        name=MESSAGE,
        description="Says something to a sub-agent that works in the background, or takes it up again once it has"
        " ended. send returns at once; send_and_wait waits for its answer.",
        parameters={
            "type": "object",
            "properties": {
                "task_id": _TASK_ID,
                "message": {"type": "string", "minLength": 1, "maxLength": 100_000},
                "mode": {"enum": ["send", "send_and_wait"], "default": "send"},
            },
            "required": ["task_id", "message"],
            "additionalProperties": False,
        },
    ),
}


class BackgroundWork:
    """Contributor, resolver and wrapper of the room."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        gateway: Gateway,
        service: BackgroundService,
        subagents: SubagentsService,
        detached: Detached,
    ) -> None:
        self._db = db
        self._clock = clock
        self._gateway = gateway
        self._service = service
        self._subagents = subagents
        self._detached = detached

    async def contribute(self, ask: PlanAsk) -> Contribution:
        """The tools, where there is or may be background work; and what ended since the last turn."""
        names = [str(name) for name in ask.agent.get("background_tools") or ()]
        edges = await self._subagents.delegates(ask.tenant, ask.agent_id)
        ended: list[TaskRecord] = []
        known = False
        if (conversation := ask.conversation_id) is not None:
            db = self._db.tenant(ask.tenant)
            known, ended = await db.read(
                lambda tx: (
                    store.known_in(tx, conversation),
                    store.ended_since_last_turn(tx, conversation, ask.user_id),
                )
            )
        if not (names or known or any(edge.background for _, edge in edges)):
            return Contribution()
        return Contribution(
            events=("\n".join(_told(task) for task in ended),) if ended else (),
            tools=tuple(ToolRef(kind=KIND, name=name) for name in _SPECS),
            settings={"background_tools": names} if names else {},
        )

    async def resolve(self, context: RunContext) -> Mapping[str, Tool]:
        """The room's tools, for runs whose plan names them."""
        work: dict[str, Callable[[ToolInvocation], Awaitable[ToolOutcome]]] = {
            GET_RESULT: self._result,
            FETCH_PROGRESS: self._ask_progress,
            MESSAGE: self._message,
        }
        return {
            ref.name: RoomTool(_SPECS[ref.name], work[ref.name])
            for ref in context.plan.tools
            if ref.kind == KIND and ref.name in work
        }

    def wrap(self, context: RunContext, ref: ToolRef | None, tool: Tool) -> Tool:
        """Let the tools that the agent's `background_tools` name be called without waiting."""
        names: list[str] = context.plan.settings.get("background_tools", [])
        return Detachable(tool, self._hand_over) if ref is not None and ref.name in names else tool

    async def _hand_over(self, invocation: ToolInvocation, name: str) -> ToolOutcome:
        now = self._clock.micros()
        await self._detached.start(invocation, name, lambda tx: tool_began(tx, invocation, name, now))
        return handed_over(invocation.call_id, name, "tool")

    async def _task(self, invocation: ToolInvocation) -> TaskRecord:
        run = invocation.context.run
        try:
            task = await self._service.record(run.tenant, run.user_id, invocation.arguments["task_id"])
        except NotFoundError as error:
            raise ToolFailedError("not_found", error.message) from None
        if task.conversation_id != run.conversation_id:
            raise ToolFailedError("not_found", f"there is no background task {task.id!r}")
        return task

    async def _result(self, invocation: ToolInvocation) -> ToolOutcome:
        task = await self._task(invocation)
        if not task.ended:
            if invocation.arguments.get("wait"):
                raise _until_ended(invocation.context, task)
            return ToolOutcome.of({"task_id": task.id, "status": task.status})
        return _collected(task)

    async def _message(self, invocation: ToolInvocation) -> ToolOutcome:
        task, context = await self._task(invocation), invocation.context
        letter = mail.Letter(invocation.call_id, invocation.arguments["message"])
        try:
            await self._service.deliver(context.tenant, task, letter, Sender(context.run, invocation.call_id))
        except APIError as error:
            raise ToolFailedError(error.code, error.message) from None
        if invocation.arguments.get("mode") != "send_and_wait":
            return ToolOutcome.of({"task_id": task.id, "status": "delivered"})
        task = await self._task(invocation)
        if not task.ended:
            raise _until_ended(context, task)
        return _collected(task)

    async def _ask_progress(self, invocation: ToolInvocation) -> ToolOutcome:
        task, context = await self._task(invocation), invocation.context
        if task.ended:
            return ToolOutcome.of({"task_id": task.id, "status": task.status})
        if task.run_id is None:
            progress = await self._service.progress(context.tenant, task)
            return ToolOutcome.of({"task_id": task.id, "status": task.status, "progress": progress})
        run = await self._service.worker_of(context.tenant, task)
        found = await self._db.tenant(context.tenant).scan(
            lambda tx: parts_of(tx, run.conversation_id, after=run.first_seq - 1, thread=call_of(task.id))
        )
        question = invocation.arguments.get("question") or "How far has it come?"
        request = ModelRequest(
            model=context.plan.model,
            messages=(SystemMessage(text=_PROGRESS), _transcript(found[-_SEEN_PARTS:], question)),
            max_tokens=300,
            attribution=context.attribution("progress"),
        )
        completed = await self._gateway.complete(request)
        told = {"task_id": task.id, "status": task.status, "progress": completed.message.text}
        spent = {"usage": completed.usage.model_dump(), "cost": completed.cost}
        return ToolOutcome(completed.message.text, told, metadata=spent)


class RoomTool(FunctionTool):
    """A tool of the room; its function gives the whole outcome."""

    def __init__(self, spec: ToolSpec, function: Callable[[ToolInvocation], Awaitable[ToolOutcome]]) -> None:
        super().__init__(spec, function, timeout=None)

    async def run(self, invocation: ToolInvocation) -> ToolOutcome:
        return await self.function(invocation)


def _until_ended(context: RunContext, task: TaskRecord) -> Suspended:
    def answered(tx: Tx) -> bool:
        now = store.by_id(TenantTx(tx, context.tenant), task.id, task.user_id)
        return now is None or now.ended

    return Suspended((), lambda _: None, answered)


def _collected(task: TaskRecord) -> ToolOutcome:
    told: dict[str, Any] = {"task_id": task.id, "name": task.name, "status": task.status}

    def collect(tx: Tx) -> None:
        store.collect(tx, task.id)

    if task.status == "completed":
        text = task.result["text"] if isinstance(task.result, dict) else str(task.result)
        return ToolOutcome(text, {**told, "result": task.result}, also=collect)
    error = task.error or {"code": task.status, "message": f"the task was {task.status}"}
    return ToolOutcome(f"Error: {task.name}: {error['message']}", {**told, "error": error}, is_error=True, also=collect)


def _told(task: TaskRecord) -> str:
    """The line that tells the model of a task that has ended since its last turn."""
    outcome = task.result["text"] if isinstance(task.result, dict) else (task.error or {}).get("message", "")
    cut = "…" if len(outcome) > _TOLD else ""
    return (
        f"Background task {task.id} ({task.name}) is {task.status}: {outcome[:_TOLD]}{cut}"
        f" ({GET_RESULT} gives the whole.)"
    )


def _transcript(found: list[Part], question: str) -> UserMessage:
    lines = "\n".join(f"{part.kind}: {part.text[:1000]}" for part in found)
    work = TextPart(text=f"<system_context>\n{lines}\n</system_context>")
    return UserMessage(parts=(work, TextPart(text=question)))
