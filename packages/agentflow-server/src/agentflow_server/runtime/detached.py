"""Tool calls that nobody waits for: a job of their own, which runs the tool and tells its end.

A call whose execution was begun before the process died is executed again only if its tool is idempotent.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from agentflow_server.eventlog import runs
from agentflow_server.gateway.messages import ToolSpec
from agentflow_server.jobs import Job, NewJob, Settled, ledger
from agentflow_server.runtime.calls import contained
from agentflow_server.runtime.context import RunContext
from agentflow_server.runtime.emitter import Emitter
from agentflow_server.runtime.engine import Engine
from agentflow_server.runtime.plan import Plan, handle_of
from agentflow_server.runtime.tools import Suspended, Tool, ToolFailedError, ToolInvocation, ToolOutcome, call
from agentflow_server.storage import Tx
from agentflow_server.storage.database import TenantTx

KIND = "background_call"
QUEUE = "background"
FLAG = "background"
Ended = Callable[[Tx, str, str, str, ToolOutcome], None]


@dataclass(frozen=True, slots=True)
class Detachable:
    """A tool that may also be called without waiting, by `background: true`.

    Args:
        hand_over: starts the call as a task of its own, and says what the model is told.
    """

    inner: Tool
    hand_over: "Callable[[ToolInvocation, str], Any]"

    @property
    def spec(self) -> ToolSpec:
        spec = self.inner.spec
        flag = {"type": "boolean", "description": "Do not wait: return a task id at once and go on."}
        properties = {**spec.parameters.get("properties", {}), FLAG: flag}
        return spec.model_copy(update={"parameters": {**spec.parameters, "properties": properties}})

    @property
    def timeout(self) -> float | None:
        return self.inner.timeout

    @property
    def idempotent(self) -> bool:
        return self.inner.idempotent

    async def gate(self, invocation: ToolInvocation) -> ToolInvocation:
        arguments = dict(invocation.arguments)
        flag = arguments.pop(FLAG, False)
        gated = await self.inner.gate(replace(invocation, arguments=arguments))
        return replace(gated, arguments={**gated.arguments, FLAG: True}) if flag else gated

    async def run(self, invocation: ToolInvocation) -> ToolOutcome:
        arguments = dict(invocation.arguments)
        if not arguments.pop(FLAG, False):
            return await self.inner.run(invocation)
        return await self.hand_over(replace(invocation, arguments=arguments), self.spec.name)


class Detached:
    """Runs calls that were handed over.

    Args:
        ended: notes, in the transaction that tells it, how a task has ended: its tenant, its id, its status, its
            outcome.
    """

    def __init__(self, engine: Engine, ended: Ended) -> None:
        self._engine = engine
        self._ended = ended

    async def start(self, invocation: ToolInvocation, name: str, also: Callable[[Tx], None]) -> None:
        """Write the job of a call, once; its id is the call's.

        Raises:
            ToolFailedError: the run was cancelled.
        """
        context, engine = invocation.context, self._engine
        payload = {
            "run_id": context.run.id,
            "name": name,
            "arguments": invocation.arguments,
            "tool_call_id": invocation.tool_call_id,
        }
        job = NewJob(tenant=context.tenant, kind=KIND, queue=QUEUE, payload=payload, id=invocation.call_id)

        if await engine.db.read(lambda tx: ledger.exists(tx, job.tenant, job.id)):
            return
        emitter = Emitter(context, engine.log, engine.clock)

        def unit(tx: Tx) -> None:
            if ledger.cancel_requested(tx, context.tenant, context.job.id):
                raise ToolFailedError("cancelled", "the run was cancelled")
            ledger.enqueue(tx, job, engine.clock.micros())
            also(TenantTx(tx, context.tenant))

        await emitter.send((emitter.draft("background_task", handle_of(job.id, name, "tool")),), unit)
        engine.worker.ring()

    async def handle(self, job: Job) -> Settled:
        """Run the call of a job, and tell its end."""
        engine = self._engine
        run = await engine.db.read(lambda tx: runs.by_id(tx, job.tenant, job.payload["run_id"]))
        if run is None:
            await engine.db.write(lambda tx: ledger.settle(tx, job, "done", engine.clock.micros()))
            return Settled.BY_HANDLER
        context = RunContext(run, Plan.model_validate_json(run.plan), job)
        emitter = Emitter(context, engine.log, engine.clock)
        try:
            outcome = await self._outcome(context, emitter)
        except asyncio.CancelledError:
            if not await engine.db.read(lambda tx: ledger.cancel_requested(tx, job.tenant, job.id)):
                raise
            await self._end(context, emitter, "cancelled", ToolOutcome.failure("cancelled", "the task was cancelled"))
            return Settled.BY_HANDLER
        await self._end(context, emitter, "failed" if outcome.is_error else "completed", outcome)
        return Settled.BY_HANDLER

    async def _outcome(self, context: RunContext, emitter: Emitter) -> ToolOutcome:
        job, name = context.job, context.job.payload["name"]
        tool = (await self._engine.resolver.resolve(context)).get(name)
        if tool is None:
            return ToolOutcome.failure("unknown_tool", f"there is no tool {name!r} any more")
        inner = tool.inner if isinstance(tool, Detachable) else tool
        if job.attempts > 1 and not inner.idempotent:
            return ToolOutcome.failure("interrupted", "the call was interrupted; whether it took effect is unknown")

        def progress(value: Any) -> None:
            content = {"tool_call_id": job.payload["tool_call_id"], "name": name, "progress": value}
            emitter.report(emitter.draft("tool_progress", content, call_id=job.id))

        call_ = ToolInvocation(job.payload["arguments"], job.id, job.payload["tool_call_id"], context, progress)
        try:
            return await contained(call(inner, call_), name)
        except Suspended:
            return ToolOutcome.failure(
                "cannot_wait", f"{name} must wait for somebody, which it cannot in the background"
            )

    async def _end(self, context: RunContext, emitter: Emitter, status: str, outcome: ToolOutcome) -> None:
        job = context.job
        told = {"task_id": job.id, "kind": "tool", "name": job.payload["name"], "status": status}
        drafts = [emitter.draft(notice.type, notice.content) for notice in outcome.announce]
        drafts.append(emitter.draft("background_task", {**told, "text": outcome.content[:1000]}))

        def unit(tx: Tx) -> None:
            bound = TenantTx(tx, context.tenant)
            if outcome.also is not None:
                outcome.also(bound)
            self._ended(bound, context.tenant, job.id, status, outcome)
            ledger.settle(tx, job, "cancelled" if status == "cancelled" else "done", self._engine.clock.micros())

        await emitter.send(drafts, unit)
