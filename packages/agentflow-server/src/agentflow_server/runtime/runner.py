"""Drives runs: the handler of `run` jobs. Begins a run or carries it on, and writes how it ended.

The only place in the runtime that catches everything: whatever happens to a run, its readers are told.
"""

import asyncio
import json
import logging
from collections.abc import Mapping, Sequence

from agentflow.errors import AgentFlowError, InternalServerError
from agentflow.types.prompt_blocks import PromptPreview

from agentflow_server.eventlog import Scope, StoredEvent, runs
from agentflow_server.eventlog.runs import RunHeader
from agentflow_server.gateway.messages import ToolCall
from agentflow_server.jobs import Job, LeaseLostError, NewJob, Settled, ledger
from agentflow_server.kit import logs, telemetry
from agentflow_server.runtime.calls import ToolCalls
from agentflow_server.runtime.conclude import Conclusion
from agentflow_server.runtime.context import RunContext
from agentflow_server.runtime.emitter import Emitter
from agentflow_server.runtime.engine import Engine
from agentflow_server.runtime.history import History
from agentflow_server.runtime.loop import Loop
from agentflow_server.runtime.opening import opening
from agentflow_server.runtime.plan import Plan
from agentflow_server.runtime.preview import preview
from agentflow_server.runtime.state import RunState, load_state
from agentflow_server.runtime.tools import Tool
from agentflow_server.storage import Tx
from agentflow_server.storage.errors import StorageUnavailableError

logger = logging.getLogger(__name__)
KIND = "run"
QUEUE = "runs"


class Runner:
    """Runs the runs of this process."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._accepted: dict[str, RunContext] = {}

    def job(self, run: RunHeader, *, started: bool, waits: bool = False, dedupe: str | None = None) -> NewJob:
        """The job of a new run: this process' own (`started`), for whoever is free, or one that waits its turn.

        Args:
            dedupe: a key that no other run under way may have.
        """
        worker = self._engine.worker
        return NewJob(
            tenant=run.tenant,
            kind=KIND,
            queue=QUEUE,
            payload={"run_id": run.id},
            id=run.id,
            status="waiting" if waits else "ready",
            owner=worker.owner if started else None,
            lease_until=worker.lease_until(),
            max_attempts=1_000,
            dedupe_key=dedupe,
        )

    def record_opening(self, tx: Tx, context: RunContext) -> list[StoredEvent]:
        """Write the first events of a run inside the transaction that accepts it; then `accept` it."""
        scope = Scope(context.tenant, context.run.conversation_id)
        return self._engine.log.record(tx, scope, opening(context, self._engine.clock))

    def accept(self, context: RunContext, opened: Sequence[StoredEvent]) -> None:
        """Drive a run that this process has just written as its own."""
        self._engine.log.publish(Scope(context.tenant, context.run.conversation_id), opened)
        self._accepted[context.run.id] = context
        self._engine.worker.adopt(context.job)

    async def handle(self, job: Job) -> Settled:
        """Drive the run of a job to its end, or to the point where it waits."""
        context = self._accepted.pop(job.id, None)
        if context is not None and context.job.fence != job.fence:
            context = None
        state = RunState(begun=True) if context else None
        if context is None:
            context = await self._load(job)
        if context is None:
            return Settled.BY_HANDLER
        run, plan = context.run, context.plan
        logs.bind(run=run.id, tenant=run.tenant)
        with telemetry.run_span(
            agent=plan.agent_name, agent_id=run.agent_id, run_id=run.id, conversation_id=run.conversation_id,
            tenant=run.tenant, trace=plan.trace,
        ):  # fmt: skip
            try:
                await self._drive(context, state or await load_state(self._engine.db, context))
            except LeaseLostError:
                logger.info("run is driven elsewhere")
        return Settled.BY_HANDLER

    async def preview(self, context: RunContext, *, history: bool) -> PromptPreview:
        """The prompt of a run that is not started; see `runtime.preview`."""
        return await preview(self._engine, context, history=history)

    async def _load(self, job: Job) -> RunContext | None:
        run = await self._engine.db.read(lambda tx: runs.by_id(tx, job.tenant, job.payload["run_id"]))
        if run is None or run.ended:
            now = self._engine.clock.micros()
            await self._engine.db.write(lambda tx: ledger.settle(tx, job, "done", now))
            return None
        return RunContext(run, Plan.model_validate_json(run.plan), job)

    async def _drive(self, context: RunContext, state: RunState) -> None:
        engine = self._engine
        emitter = Emitter(context, engine.log, engine.clock)
        conclusion = Conclusion(engine, context, emitter, state)
        loop: Loop | None = None
        try:
            if await self._cancel_requested(context):
                await conclusion.cancelled("")
                return
            await self._begin(context, emitter, state)
            tools = await engine.resolver.resolve(context)
            if context.plan.direct is not None:
                await self._direct(context, emitter, state, conclusion, tools)
                return
            history = await engine.histories.load(context)
            loop = Loop(engine, context, emitter, state, history, tools)
            answer = await loop.drive()
            while answer is not None and not await conclusion.completed(answer, history):
                answer = await loop.go_on(answer)
        except asyncio.CancelledError:
            if not await self._cancel_requested(context):
                raise
            await conclusion.cancelled("".join(loop.step.partial) if loop else "")
        except (LeaseLostError, StorageUnavailableError):
            raise
        except AgentFlowError as error:
            await conclusion.failed(error)
        except Exception:
            logger.exception("run failed", extra={"run": context.run.id, "tenant": context.tenant})
            await conclusion.failed(InternalServerError("the run failed because of an error in the server"))

    async def _direct(
        self, context: RunContext, emitter: Emitter, state: RunState, conclusion: Conclusion, tools: Mapping[str, Tool]
    ) -> None:
        """Drive a run that is one tool call."""
        direct = context.plan.direct
        assert direct is not None
        item = ToolCall(id=context.run.call_id, name=direct.name, arguments=json.dumps(direct.arguments))
        outcome = await ToolCalls(self._engine, context, emitter, state, History(), tools).direct(item)
        if outcome is not None:
            await conclusion.answered(item, outcome)

    async def _cancel_requested(self, context: RunContext) -> bool:
        job = context.job
        return await self._engine.db.read(lambda tx: ledger.cancel_requested(tx, job.tenant, job.id))

    async def _begin(self, context: RunContext, emitter: Emitter, state: RunState) -> None:
        if state.begun:
            if context.run.status == "waiting":
                await emitter.send((), lambda tx: self._mark_running(tx, context))
            await emitter.discard_text("resumed", state.void_since)
            return
        await emitter.send(opening(context, self._engine.clock), lambda tx: self._mark_running(tx, context))
        state.begun = True

    def _mark_running(self, tx: Tx, context: RunContext) -> None:
        runs.set_status(tx, context.run, "running", self._engine.clock.micros())
