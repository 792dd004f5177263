"""The end of a run, one transaction: the last events, the header, the job, what followers note, and who comes next.

Called by the runner alone.
"""

from typing import Any

from agentflow.errors import AgentFlowError, APIError

from agentflow_server.eventlog import Draft, mail, runs
from agentflow_server.eventlog.runs import RunHeader
from agentflow_server.gateway.messages import AssistantMessage, ToolCall
from agentflow_server.jobs import ledger
from agentflow_server.kit import telemetry
from agentflow_server.runtime.calls import end_content
from agentflow_server.runtime.context import RunContext
from agentflow_server.runtime.emitter import Emitter
from agentflow_server.runtime.engine import Engine
from agentflow_server.runtime.history import History
from agentflow_server.runtime.loop import Answer
from agentflow_server.runtime.opening import message_part
from agentflow_server.runtime.state import RunState
from agentflow_server.runtime.tools import ToolOutcome
from agentflow_server.storage import Tx


class _UnreadMailError(Exception):
    """Messages came to a run that was about to end."""


class Conclusion:
    """Writes how one run ended."""

    def __init__(self, engine: Engine, context: RunContext, emitter: Emitter, state: RunState) -> None:
        self._engine = engine
        self._context = context
        self._emitter = emitter
        self._state = state

    async def completed(self, answer: Answer, history: History) -> bool:
        """The run gave its answer; False if messages came that it has to read first, and nothing was written."""
        result = self._result(answer.message.text, answer.output, answer.finish_reason, answer.model)
        drafts = (*answer.drafts, self._final(answer.message, result))
        if self._may_go_on():
            self._emitter.keep_text()
        try:
            events = await self._end("completed", "done", drafts, result)
        except _UnreadMailError:
            return False
        history.append(events[len(answer.drafts)], answer.message)
        return True

    async def answered(self, item: ToolCall, outcome: ToolOutcome) -> None:
        """The call of a direct run has ended."""
        self._state.tool_calls += 1
        self._state.background_tasks.extend(outcome.metadata.get("background_tasks", ()))
        self._state.citations.extend(outcome.metadata.get("citations", ()))
        reason = "error" if outcome.is_error else "stop"
        result = {**self._result("", None, reason, self._context.plan.model), **end_content(item, outcome)}
        told = (self._emitter.draft(notice.type, notice.content) for notice in outcome.notices)
        await self._end("completed", "done", (*told, self._emitter.draft("end", result)), result)

    async def cancelled(self, partial: str) -> None:
        """The run was cancelled; what was streamed until then is kept."""
        result = self._result(partial, None, "cancelled", self._context.plan.model)
        end = self._final(AssistantMessage(text=partial), result) if partial else self._emitter.draft("end", result)
        await self._end("cancelled", "cancelled", (end,), result)

    async def failed(self, error: AgentFlowError) -> None:
        """The run failed for good."""
        content = error_content(error)
        event = self._emitter.draft("error", content)
        await self._end("failed", "done", (event,), None, {**content, **self._used()})

    def _used(self) -> dict[str, Any]:
        state = self._state
        usage = {**state.usage.model_dump(), "total_tokens": state.usage.total_tokens}
        return {"usage": usage, "cost": state.cost}

    def _final(self, message: AssistantMessage, result: dict[str, Any]) -> Draft:
        root = self._context.run.is_root
        part = message_part(self._context, "agent_text", message, message.text, visible=root)
        return self._emitter.draft("end", result, part=part)

    def _result(self, text: str, output: Any, reason: str, model: str) -> dict[str, Any]:
        run, state = self._context.run, self._state
        return {
            "text": text,
            "output": output,
            "conversation_id": run.conversation_id,
            "message_id": run.message_id,
            "run_id": run.id,
            "call_id": run.call_id,
            "finish_reason": reason,
            **self._used(),
            "metrics": {
                "duration_ms": round((self._engine.clock.micros() - run.created_at) / 1000, 3),
                "time_to_first_token_ms": state.first_text_ms,
                "model": model,
                "turns": state.turns,
                "tool_calls": state.tool_calls,
                "background_tasks": state.background_tasks,
            },
            "background_tasks": state.background_tasks,
            "citations": [*self._context.plan.citations, *state.citations],
        }

    async def _end(
        self,
        status: str,
        job_status: str,
        drafts: tuple[Draft, ...],
        result: dict[str, Any] | None,
        error: dict[str, Any] | None = None,
    ) -> list[int]:
        engine, context = self._engine, self._context
        if context.plan.background:
            drafts = (*drafts, self._told(status, result, error))

        def unit(tx: Tx) -> None:
            now = engine.clock.micros()
            if status == "completed" and self._may_go_on() and mail.unread(tx, context.tenant, context.run.id):
                raise _UnreadMailError
            runs.finish(tx, context.run, status, now, result=result, error=error)
            ledger.settle(tx, context.job, job_status, now)
            for follow in engine.followers:
                follow(tx, context.run, result)
            wake_next(tx, context.run, now)

        # A root run's end hangs on nothing but its job and its conversation; a sub-agent may be sent mail meanwhile.
        serial = not context.run.is_root or context.plan.background
        events = await self._emitter.send(drafts, unit, serial=serial)
        if context.run.is_root or context.plan.background:
            engine.packer.add(context.run)
        telemetry.runs.labels(status).inc()
        return [event.seq for event in events]

    def _may_go_on(self) -> bool:
        """Whether the run could still read a message: it is a sub-agent's, and has turns left."""
        return not self._context.run.is_root and self._state.turns < self._context.plan.max_turns

    def _told(self, status: str, result: dict[str, Any] | None, error: dict[str, Any] | None) -> Draft:
        """The event that tells the end of work that nobody waited for."""
        task_id = self._context.plan.settings.get("task_id", self._context.run.id)
        content = {"task_id": task_id, "status": status, "name": self._context.plan.agent_name}
        ending = {"text": result["text"]} if result else {"error": error}
        return self._emitter.draft("background_task", {**content, "kind": "sub_agent", **ending})


def wake_next(tx: Tx, run: RunHeader, now: int) -> None:
    """Let the conversation's next run begin, if there is one and none is under way."""
    if not run.is_root:
        return
    others = [other for other in runs.active_in(tx, run.tenant, run.conversation_id) if other.is_root]
    if others and all(other.status == "queued" for other in others):
        ledger.wake(tx, run.tenant, others[0].id, now)


def error_content(error: AgentFlowError) -> dict[str, Any]:
    """The content of an `error` event."""
    if isinstance(error, APIError):
        return {
            "code": error.code,
            "message": error.message,
            "status": error.status,
            "details": error.details,
            "hint": error.hint,
            "retryable": error.status in (429, 502, 503, 504),
        }
    return {
        "code": "internal_error",
        "message": str(error),
        "status": 500,
        "details": None,
        "hint": None,
        "retryable": False,
    }
