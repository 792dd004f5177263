"""Starts runs, finds them again, and shows them to readers. Owns run headers; the work itself is the runtime's.

A run is accepted in one transaction: de-duplication, conversation, header, job and first events stand or fall together.
"""

import hashlib
import json
from dataclasses import dataclass, replace
from typing import Any

from agentflow.errors import (
    APIError,
    ConflictError,
    NotFoundError,
    PayloadTooLargeError,
    RateLimitedError,
    UnavailableError,
    ValidationError,
    api_error,
)
from agentflow.types.prompt_blocks import PromptPreview
from agentflow.types.runs import ChatRequest, Run, RunResult
from agentflow.types.tools import ToolRunRequest, ToolRunResult
from pydantic_core import to_json

from agentflow_server.eventlog import Reader, StoredEvent, Tail, runs
from agentflow_server.eventlog.hub import Accept
from agentflow_server.eventlog.runs import RunHeader
from agentflow_server.eventlog.tail import end_of, hold, read_run
from agentflow_server.gateway.messages import UserMessage
from agentflow_server.http.identity import Caller
from agentflow_server.jobs import Worker, ledger
from agentflow_server.kit.clock import Clock, to_datetime
from agentflow_server.kit.ids import new_id
from agentflow_server.kit.settings import Settings
from agentflow_server.resources.agents.service import AgentsService
from agentflow_server.resources.conversations import access
from agentflow_server.resources.subagents.service import SubagentsService
from agentflow_server.resources.tools.service import ToolsService
from agentflow_server.runtime.context import RunContext
from agentflow_server.runtime.plan import DirectCall, Plan
from agentflow_server.runtime.runner import QUEUE, Runner
from agentflow_server.runtime.structured import first_problem
from agentflow_server.storage import Database, Tx, take_turns

_NOT_PART_OF_IT = {"stream", "verbose", "call_id"}
_HIDDEN = frozenset({"user", "usage"})
_FOR_EVERYBODY = (
    "approval_", "question_", "artifact_", "background_task", "plan", "reflection", "retrieval",
)  # fmt: skip
_QUEUE_FACTOR = 4
_BESIDE = 100
"""More runs than are accepted in the same moment: so near a limit they are accepted one after the other."""


@dataclass(frozen=True, slots=True)
class Followed:
    """A run and a reader of its events."""

    run: RunHeader
    reader: Reader


class RunsService:
    """The runs room."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        settings: Settings,
        tail: Tail,
        worker: Worker,
        runner: Runner,
        agents: AgentsService,
        tools: ToolsService,
        subagents: SubagentsService,
    ) -> None:
        self._db = db
        self._clock = clock
        self._settings = settings
        self._tail = tail
        self._worker = worker
        self._runner = runner
        self._agents = agents
        self._tools = tools
        self._subagents = subagents

    async def chat(self, caller: Caller, agent_id: str, request: ChatRequest) -> Followed:
        """Start a run, or find the one this very message has started before.

        Raises:
            NotFoundError: no such agent; a conversation of somebody else. ConflictError: the message id or the call id
            was used for something else. ValidationError, PayloadTooLargeError: the request does not hold.
            UnavailableError: too much is running.
        """
        self._check_message(request.message)
        agent = await self._agents.record(caller, agent_id)
        plan = await self._agents.plan(caller, agent, request)
        return await self._start(caller, plan, request)

    async def run_tool(self, caller: Caller, agent_id: str, identifier: str, wanted: ToolRunRequest) -> Followed:
        """Start a direct run of one of an agent's tools, or find the one this very request has started before.

        Raises:
            NotFoundError: no such agent, the agent has no such tool; a conversation of somebody else.
            ConflictError: a run with this idempotency key goes on; the message id was used for something else.
            ValidationError: the arguments are not what the tool takes. UnavailableError: too much is running.
        """
        agent = await self._agents.record(caller, agent_id)
        tool = await self._tools.retrieve(caller, agent_id, identifier)
        if problem := first_problem(wanted.arguments, tool.parameters):
            raise _invalid("arguments", problem)
        refs = await self._db.tenant(caller.tenant).read(lambda tx: self._tools.references(tx, agent_id))
        plan = Plan(
            agent_id=agent.id,
            agent_name=agent.name,
            model="",
            text=tool.name,
            user=UserMessage(parts=()),
            tools=tuple(ref for ref in refs if ref.name == tool.name),
            direct=DirectCall(name=tool.name, arguments=wanted.arguments),
        )
        key = wanted.idempotency_key
        dedupe = key and hashlib.sha256(to_json([caller.user_id, agent.id, tool.id, key])).hexdigest()
        request = ChatRequest(
            message=tool.name, conversation_id=wanted.conversation_id, message_id=wanted.message_id,
            call_id=wanted.call_id, stream=wanted.stream, session_context=wanted.arguments,
        )  # fmt: skip
        return await self._start(caller, plan, request, dedupe)

    async def _start(self, caller: Caller, plan: Plan, request: ChatRequest, dedupe: str | None = None) -> Followed:
        """Make a run exist, or find the one this request has made before."""
        run = self._header(caller, plan, request)
        reader = self._tail.open(caller.tenant, run.conversation_id, view(run, request))
        with self._worker.places(QUEUE, 1) as free:
            try:
                accepted, context, events = await self._db.tenant(caller.tenant).write(
                    lambda tx: self._accept(tx, caller, run, plan, request, dedupe, free > 0), serial=False
                )
            except BaseException:
                reader.close()
                raise
            if accepted.id != run.id:
                reader.close()
                return self._followed(accepted, request, -1)
            reader.start_now(accepted.first_seq)
            if context is not None:
                self._runner.accept(context, events)
        if context is None:
            self._worker.ring()
        return Followed(accepted, reader)

    async def preview(self, caller: Caller, agent_id: str, request: ChatRequest) -> PromptPreview:
        """The whole prompt a request would send, part by part; nothing is stored or sent.

        Raises:
            NotFoundError, ValidationError, PayloadTooLargeError: as `chat`.
        """
        self._check_message(request.message)
        agent = await self._agents.record(caller, agent_id)
        if (conversation_id := request.conversation_id) is not None:
            owned = self._db.tenant(caller.tenant).read
            await owned(lambda tx: access.require_own(tx, conversation_id, caller.user_id))
        plan = await self._agents.plan(caller, agent, request)
        run = self._header(caller, plan, request)
        job = ledger.born_claimed(self._runner.job(run, started=True))
        return await self._runner.preview(RunContext(run, plan, job), history=conversation_id is not None)

    async def run_subagent(self, caller: Caller, parent_id: str, subagent_id: str, request: ChatRequest) -> Followed:
        """Start a run of a sub-agent itself, as the root of its run.

        Raises:
            NotFoundError: the parent has no such sub-agent. Otherwise as `chat`.
        """
        await self._subagents.require(caller, parent_id, subagent_id)
        return await self.chat(caller, subagent_id, request)

    def _check_message(self, message: str) -> None:
        if not message.strip():
            raise _invalid("message", "must not be empty")
        limit = self._settings.max_message_chars
        if len(message) > limit:
            raise PayloadTooLargeError(
                f"message: has {len(message)} characters; at most {limit} are accepted",
                details={"limit": limit},
                hint="Upload long content, or split it over several messages.",
            )

    def _header(self, caller: Caller, plan: Plan, request: ChatRequest) -> RunHeader:
        now = self._clock.micros()
        body = request.model_dump(mode="json", exclude=_NOT_PART_OF_IT, exclude_none=True, by_alias=True)
        digest = hashlib.sha256(to_json([plan.agent_id, sorted(body.items())])).hexdigest()
        call_id = request.call_id or new_id()
        return RunHeader(
            tenant=caller.tenant, id=new_id(), conversation_id=request.conversation_id or new_id(),
            message_id=request.message_id or new_id(), agent_id=plan.agent_id, user_id=caller.user_id,
            call_id=call_id, root_call_id=call_id, parent_run_id=None, status="running", body_hash=digest,
            plan=plan.model_dump_json(), result=None, error=None, first_seq=0, created_at=now, updated_at=now,
        )  # fmt: skip

    def _accept(
        self, tx: Tx, caller: Caller, run: RunHeader, plan: Plan, request: ChatRequest, dedupe: str | None, free: bool
    ) -> tuple[RunHeader, RunContext | None, list[StoredEvent]]:
        """The transaction that makes a run exist. It holds the conversation, so it need not be serializable."""
        first_seq = hold(tx, run.conversation_id)
        if request.conversation_id is not None:
            access.require_own(tx, run.conversation_id, caller.user_id)
            if (existing := runs.by_message(tx, run.tenant, run.conversation_id, run.message_id)) is not None:
                return _same(existing, run, dedupe), None, []
        if request.call_id is not None and runs.by_call(tx, run.tenant, run.call_id) is not None:
            raise ConflictError(f"call_id: {run.call_id!r} was used for another run")
        self._check_under_way(tx, caller)
        access.use(tx, run, text=plan.text, source=request, messages=int(plan.direct is None))
        waits = any(other.is_root for other in runs.active_in(tx, run.tenant, run.conversation_id))
        if not free:
            self._check_queue(tx)
        started = not waits and free
        run = _placed(run, "running" if started else "queued", first_seq)
        runs.insert(tx, run)
        job = self._runner.job(run, started=started, waits=waits, dedupe=dedupe)
        if not ledger.enqueue(tx, job, run.created_at):
            raise _in_flight()
        if not started:
            return run, None, []
        context = RunContext(run, plan, ledger.born_claimed(job))
        return run, context, self._runner.record_opening(tx, context)

    def _check_under_way(self, tx: Tx, caller: Caller) -> None:
        """The limits on what is under way at once, over all processes."""
        settings = self._settings
        limits = ((settings.principal_max_runs, caller.user_id, "user"), (settings.tenant_max_runs, None, "tenant"))
        for limit, user, of in limits:
            if not limit or runs.count_live(tx, caller.tenant, user, limit) < limit - _BESIDE:
                continue
            take_turns(tx, f"runs {user}")
            if runs.count_live(tx, caller.tenant, user, limit) >= limit:
                raise RateLimitedError(
                    f"this {of} has {limit} runs under way, and may not have more at once",
                    details={"limit": limit, "of": of},
                    retry_after=1.0,
                    hint="Wait for one to end, or cancel one.",
                )

    def _check_queue(self, tx: Tx) -> None:
        take_turns(tx, "queue")
        limit = self._settings.max_concurrent_runs * _QUEUE_FACTOR
        if ledger.backlog(tx, QUEUE, limit) >= limit:
            raise UnavailableError("too many runs are waiting for their turn", retry_after=2.0)

    async def retrieve(self, caller: Caller, run_id: str) -> Run:
        """A run's header.

        Raises:
            NotFoundError: the caller has no such run.
        """
        return run_of(await self.header(caller, run_id))

    async def header(self, caller: Caller, run_id: str) -> RunHeader:
        """The stored header; raises as `retrieve`."""
        run = await self._db.read(lambda tx: runs.by_id(tx, caller.tenant, run_id))
        if run is None or run.user_id != caller.user_id:
            raise NotFoundError(f"there is no run {run_id!r}")
        return run

    async def follow(self, caller: Caller, run_id: str, after: int | None, *, verbose: bool) -> Followed:
        """Read a run's events from behind number `after`; its last event is always among them."""
        run = await self.header(caller, run_id)
        last = await self._db.read(lambda tx: runs.terminal_seq(tx, run))
        start = -1 if after is None else after
        if last is not None:
            start = min(start, last - 1)
        return self._followed(run, ChatRequest(message="-", verbose=verbose), start)

    def _followed(self, run: RunHeader, request: ChatRequest, after: int) -> Followed:
        reader = self._tail.open(run.tenant, run.conversation_id, view(run, request))
        reader.start_after(max(after, run.first_seq - 1))
        return Followed(run, reader)

    async def outcome(self, followed: Followed, *, verbose: bool) -> RunResult:
        """Wait for a run to end.

        Raises:
            APIError: the run failed; the error is the one its stream ends with.
        """
        run, reader = followed.run, followed.reader
        try:
            while True:
                events = await reader.next()
                if events and end_of(run)(events[-1]):
                    break
                if self._worker.stopping:
                    raise UnavailableError("the server is restarting; the run goes on", retry_after=1.0)
        finally:
            reader.close()
        final = json.loads(events[-1].data)
        if events[-1].type == "error":
            raise failure(final["content"])
        kind = ToolRunResult if run_is_direct(final["content"]) else RunResult
        result = kind.model_construct(**final["content"])
        if verbose:
            shown = view(run, ChatRequest(message="-", verbose=True))
            found = await self._db.tenant(run.tenant).scan(lambda tx: read_run(tx, run))
            result.events = [json.loads(event.data) for event in found if shown(event)]
        return result


def view(run: RunHeader, request: ChatRequest) -> Accept:
    """Which events of its conversation a reader of this run sees: only the last, the agent's own, or all.

    Of a run below another one, a reader sees what that run itself tells.
    """
    root = run.root_call_id
    if not request.stream:
        return end_of(run)
    if not run.is_root:
        return lambda event: event.call_id == run.call_id and (request.verbose or event.type not in _HIDDEN)
    if request.verbose:

        def everything(event: StoredEvent) -> bool:
            return event.root_call_id == root and event.type != "user"

        return everything

    def shown(event: StoredEvent) -> bool:
        if event.root_call_id != root:
            return False
        if event.call_id == root:
            return event.type not in _HIDDEN
        return event.type.startswith(_FOR_EVERYBODY)

    return shown


def failure(content: dict[str, Any]) -> APIError:
    """The error a failed run's last event describes."""
    return api_error(int(content.get("status") or 500), {"error": content})


def run_of(run: RunHeader) -> Run:
    """A header as the wire shows it."""
    return Run(
        id=run.id,
        status=run.status,
        agent_id=run.agent_id,
        conversation_id=run.conversation_id,
        message_id=run.message_id,
        call_id=run.call_id,
        root_call_id=run.root_call_id,
        created_at=to_datetime(run.created_at),
        updated_at=to_datetime(run.updated_at),
        result=RunResult.model_validate(run.result) if run.result else None,
        error=run.error,
    )


def run_is_direct(content: dict[str, Any]) -> bool:
    """Whether the last event of a run is that of a direct tool run."""
    return content.get("role") == "tool"


def _in_flight() -> ConflictError:
    return ConflictError(
        "a run of this tool with this idempotency_key goes on", hint="It may be sent again when that run has ended."
    )


def _same(existing: RunHeader, run: RunHeader, dedupe: str | None) -> RunHeader:
    if dedupe is not None and not existing.ended and existing.call_id != run.call_id:
        raise _in_flight()
    if existing.body_hash != run.body_hash:
        raise ConflictError(
            f"message_id: {run.message_id!r} was sent before with another body",
            hint="Use a new message_id for a new message; repeat one only to retry the same request.",
        )
    return existing


def _placed(run: RunHeader, status: str, first_seq: int) -> RunHeader:
    return replace(run, status=status, first_seq=first_seq)


def _invalid(field: str, message: str) -> ValidationError:
    return ValidationError(f"{field}: {message}", details=[{"field": field, "message": message}])
