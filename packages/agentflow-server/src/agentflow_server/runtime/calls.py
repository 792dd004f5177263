"""The tool calls of one step: each checked, gated, announced, executed within its bounds, and answered.

A call whose execution was begun before the process died is executed again only if its tool is idempotent; otherwise the
model is told that its outcome is unknown. Nothing is ever silently done twice.
"""

import asyncio
import logging
import uuid
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from agentflow_server.eventlog import Draft, runs
from agentflow_server.gateway.messages import ToolCall, ToolMessage
from agentflow_server.jobs import LeaseLostError, ledger
from agentflow_server.kit import telemetry
from agentflow_server.runtime.context import RunContext
from agentflow_server.runtime.emitter import Emitter
from agentflow_server.runtime.engine import Engine
from agentflow_server.runtime.history import History
from agentflow_server.runtime.limits import MAX_PARALLEL_TOOLS, MAX_TOOL_CONTENT
from agentflow_server.runtime.opening import message_part
from agentflow_server.runtime.state import RunState
from agentflow_server.runtime.tools import (
    Suspended,
    Tool,
    ToolFailedError,
    ToolInvocation,
    ToolOutcome,
    call,
    parse_arguments,
)
from agentflow_server.storage import Tx
from agentflow_server.storage.database import TenantTx

logger = logging.getLogger(__name__)
_UNITS = uuid.UUID("7c9f5d52-6c55-4f0e-9a56-2f6c1f4f2f10")


def unit_id(context: RunContext, tool_call_id: str) -> str:
    """The id of a tool call in the event tree: the same whenever the call is looked at again."""
    return str(uuid.uuid5(_UNITS, f"{context.run.id}:{tool_call_id}"))


class ToolCalls:
    """Executes tool calls of one run."""

    def __init__(
        self,
        engine: Engine,
        context: RunContext,
        emitter: Emitter,
        state: RunState,
        history: History,
        tools: Mapping[str, Tool],
    ) -> None:
        self._engine = engine
        self._context = context
        self._emitter = emitter
        self._state = state
        self._history = history
        self._tools = tools
        self._slots = asyncio.Semaphore(MAX_PARALLEL_TOOLS)

    async def run(self, calls: Sequence[ToolCall]) -> bool:
        """Execute the calls side by side; False if the run was parked because one of them waits for somebody.

        Calls that had to wait, but whose answer came in the meantime, are still open afterwards.
        """
        tasks = [asyncio.ensure_future(self._one(item)) for item in calls]
        try:
            await asyncio.wait(tasks)
        except asyncio.CancelledError:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            raise
        waits: list[Suspended] = []
        for task in tasks:
            error = task.exception()
            if isinstance(error, Suspended):
                waits.append(error)
            elif error is not None:
                raise error
        return not waits or not await self._park(waits)

    async def _one(self, item: ToolCall) -> None:
        async with self._slots:
            with telemetry.tool_span(item.name, item.id):
                outcome = await self._outcome(item)
        await self._answer(item, outcome)

    async def _outcome(self, item: ToolCall) -> ToolOutcome:
        tool = self._tools.get(item.name)
        if tool is None:
            known = ", ".join(sorted(self._tools)) or "none"
            return ToolOutcome.failure("unknown_tool", f"there is no tool {item.name!r}; the tools are: {known}")
        begun = item.id in self._state.started_calls
        if begun and not tool.idempotent:
            return ToolOutcome.failure("interrupted", "the call was interrupted; whether it took effect is unknown")
        try:
            invocation = await tool.gate(self._invocation(item, parse_arguments(tool, item.arguments)))
        except ToolFailedError as error:
            return ToolOutcome.failure(error.code, str(error))
        if not begun:
            await self._begin(item, invocation)
        return await contained(call(tool, invocation), tool.spec.name)

    def _invocation(self, item: ToolCall, arguments: dict[str, Any]) -> ToolInvocation:
        unit = unit_id(self._context, item.id)

        def progress(value: Any) -> None:
            content = {"tool_call_id": item.id, "name": item.name, "progress": value}
            self._emitter.report(self._emitter.draft("tool_progress", content, call_id=unit))

        return ToolInvocation(arguments, unit, item.id, self._context, progress)

    async def _begin(self, item: ToolCall, invocation: ToolInvocation) -> None:
        content = {"name": item.name, "role": "tool", "input": invocation.arguments, "tool_call_id": item.id}
        await self._emitter.send((self._emitter.draft("start", content, call_id=invocation.call_id),))
        self._state.started_calls.add(item.id)

    async def _answer(self, item: ToolCall, outcome: ToolOutcome) -> None:
        message = ToolMessage(
            tool_call_id=item.id, name=item.name, content=_bounded(outcome.content), is_error=outcome.is_error
        )
        content = {
            "tool_call_id": item.id,
            "name": item.name,
            "role": "tool",
            "result": outcome.result,
            "is_error": outcome.is_error,
            **outcome.metadata,
        }
        part = message_part(self._context, "tool_response", message, message.content, visible=False)
        part = part._replace(data=message.model_dump_json())
        unit = unit_id(self._context, item.id)
        told = [self._emitter.draft(notice.type, notice.content) for notice in outcome.announce]
        drafts = (*told, self._emitter.draft("end", content, call_id=unit, part=part))
        try:
            events = await self._emitter.send(drafts, self._bound(outcome.also))
        except ToolFailedError as error:
            await self._answer(item, ToolOutcome.failure(error.code, str(error)))
            return
        self._history.append(events[-1].seq, message)
        self._state.add_outcome(outcome.metadata)

    def _bound(self, also: Callable[[Tx], None] | None) -> Callable[[Tx], None] | None:
        """What a tool writes, bound to its tenant."""
        if also is None:
            return None
        return lambda tx: also(TenantTx(tx, self._context.tenant))

    async def _park(self, waits: Sequence[Suspended]) -> bool:
        """Let go of the run until somebody wakes it; False if what it waits for has come in the meantime."""
        drafts: list[Draft] = [draft for wait in waits for draft in wait.announce]
        run, job = self._context.run, self._context.job
        parked = False

        def unit(tx: Tx) -> None:
            nonlocal parked
            for wait in waits:
                wait.also(tx)
            parked = not any(wait.answered(tx) for wait in waits)
            if parked:
                now = self._engine.clock.micros()
                runs.set_status(tx, run, "waiting", now)
                ledger.park(tx, job, now)

        await self._emitter.send(drafts, unit)
        return parked


async def contained(work: Coroutine[Any, Any, ToolOutcome], name: str) -> ToolOutcome:
    """The outcome of a tool's work, whatever it raises: a tool's bug is for the model to read."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait((task,))
    except asyncio.CancelledError:
        task.cancel()
        await asyncio.wait((task,))
        raise
    if task.cancelled():
        return ToolOutcome.failure("tool_cancelled", f"{name} was cancelled")
    error = task.exception()
    if error is None:
        return task.result()
    if isinstance(error, Suspended | LeaseLostError) or not isinstance(error, Exception):
        raise error
    logger.warning("tool failed", extra={"tool": name}, exc_info=error)
    return ToolOutcome.failure("tool_error", f"{name} failed: {type(error).__name__}: {error}")


def _bounded(text: str) -> str:
    if len(text) <= MAX_TOOL_CONTENT:
        return text
    return f"{text[:MAX_TOOL_CONTENT]}\n[cut: {len(text) - MAX_TOOL_CONTENT} more characters]"


def with_unique_ids(calls: Sequence[ToolCall], seen: set[str]) -> tuple[ToolCall, ...]:
    """The calls with ids that no earlier call of the run has: some providers count from zero in every answer."""
    unique: list[ToolCall] = []
    for item in calls:
        identity = item.id or "call"
        number = 1
        while identity in seen:
            number += 1
            identity = f"{item.id or 'call'}_{number}"
        seen.add(identity)
        unique.append(item if identity == item.id else replace_id(item, identity))
    return tuple(unique)


def replace_id(item: ToolCall, identity: str) -> ToolCall:
    """The same call under another id."""
    return item.model_copy(update={"id": identity})
