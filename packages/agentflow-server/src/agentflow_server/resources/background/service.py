"""Background tasks: work that no run waits for. Found, awaited, cancelled, spoken to. Called by routes and tools."""

import asyncio
import json
import uuid
from dataclasses import dataclass
from typing import Any

from agentflow.errors import ConflictError, NotFoundError, ValidationError
from agentflow.types.background import BackgroundMessage, BackgroundTask, BackgroundTaskPage

from agentflow_server.eventlog import StoredEvent, Tail, mail, runs
from agentflow_server.eventlog.mail import Letter
from agentflow_server.eventlog.runs import RunHeader
from agentflow_server.eventlog.tail import last_of
from agentflow_server.gateway.messages import TextPart, UserMessage
from agentflow_server.http.identity import Caller
from agentflow_server.jobs import Worker, ledger
from agentflow_server.kit.clock import Clock, to_datetime
from agentflow_server.kit.ids import new_id
from agentflow_server.resources.background import store
from agentflow_server.resources.background.store import TaskRecord
from agentflow_server.runtime.children import Children
from agentflow_server.runtime.control import Control
from agentflow_server.runtime.plan import Plan
from agentflow_server.runtime.tools import ToolInvocation
from agentflow_server.storage import Database, Tx

_FOLLOW_UPS = uuid.UUID("0b7d41f0-7a51-4a3b-9a0e-2b1de0b6a7b1")
_LETTERS = uuid.UUID("9c5b94b1-35ad-49bb-b118-8e8fc24abf80")
_SUB_AGENT = "sub_agent"


@dataclass(frozen=True, slots=True)
class Sender:
    """Who speaks to a worker: a run by one of its calls, or a user. What is started for it is below `run`."""

    run: RunHeader
    call_id: str


class BackgroundService:
    """The background room."""

    def __init__(
        self, db: Database, clock: Clock, tail: Tail, worker: Worker, control: Control, children: Children
    ) -> None:
        self._db = db
        self._clock = clock
        self._tail = tail
        self._worker = worker
        self._control = control
        self._children = children

    async def list(
        self, caller: Caller, *, status: str | None, conversation_id: str | None, limit: int, offset: int
    ) -> BackgroundTaskPage:
        """A page of the caller's tasks, the newest first."""
        found, total = await self._db.tenant(caller.tenant).read(
            lambda tx: store.page(
                tx, caller.user_id, status=status, conversation_id=conversation_id, limit=limit, offset=offset
            )
        )
        return BackgroundTaskPage(tasks=[task_of(task) for task in found], total=total, limit=limit, offset=offset)

    async def record(self, tenant: str, user_id: str, task_id: str) -> TaskRecord:
        """The stored task.

        Raises:
            NotFoundError: the user has no such task.
        """
        task = await self._db.tenant(tenant).read(lambda tx: store.by_id(tx, task_id, user_id))
        if task is None:
            raise NotFoundError(f"there is no background task {task_id!r}")
        return task

    async def retrieve(self, caller: Caller, task_id: str, *, wait: float = 0.0) -> BackgroundTask:
        """A task; with `wait`, as it stands once it has ended or so many seconds are over. Raises as `record`."""
        task = await self.record(caller.tenant, caller.user_id, task_id)
        if wait > 0 and not task.ended:
            await self._ended(caller.tenant, task, wait)
            task = await self.record(caller.tenant, caller.user_id, task_id)
        return task_of(task, await self.progress(caller.tenant, task))

    async def progress(self, tenant: str, task: TaskRecord) -> Any:
        """What a tool that is under way has last reported."""
        if task.ended or task.kind == _SUB_AGENT:
            return None
        event = await self._db.tenant(tenant).scan(
            lambda tx: last_of(tx, task.conversation_id, task.id, "tool_progress")
        )
        return json.loads(event.data)["content"]["progress"] if event else None

    async def _ended(self, tenant: str, task: TaskRecord, patience: float) -> None:
        def told(event: StoredEvent) -> bool:
            return event.type == "background_task"

        reader = self._tail.open(tenant, task.conversation_id, told)
        reader.start_now()
        try:
            async with asyncio.timeout(patience):
                while not (await self.record(tenant, task.user_id, task.id)).ended and not self._worker.stopping:
                    await reader.next()
        except TimeoutError:
            pass
        finally:
            reader.close()

    async def cancel(self, caller: Caller, task_id: str) -> BackgroundTask:
        """Ask a task to stop; does nothing to one that has ended. Raises as `record`."""
        task = await self.record(caller.tenant, caller.user_id, task_id)
        if not task.ended and task.run_id is not None:
            await self._control.cancel(await self.worker_of(caller.tenant, task))
        elif not task.ended:
            now = self._clock.micros()
            await self._db.write(lambda tx: ledger.request_cancel(tx, caller.tenant, task.id, now))
            self._worker.cancel(caller.tenant, task.id)
            self._worker.ring()
        return task_of(task)

    async def message(
        self, caller: Caller, task_id: str, wanted: BackgroundMessage, *, wait: float, key: str | None
    ) -> BackgroundTask:
        """Say something to a sub-agent; with `send_and_wait`, wait for its answer, but at most so many seconds.

        A second request with the same idempotency key says nothing more.

        Raises:
            NotFoundError: as `record`. ValidationError: the task is a tool's. ConflictError: as `deliver`.
        """
        task = await self.record(caller.tenant, caller.user_id, task_id)
        run = await self.worker_of(caller.tenant, task)
        parent = await self._db.read(lambda tx: runs.by_id(tx, caller.tenant, run.parent_run_id or ""))
        plan = Plan.model_validate_json(run.plan)
        sender = Sender(parent or run, plan.parent_call_id or run.call_id)
        letter = str(uuid.uuid5(_LETTERS, f"{caller.user_id}:{key}")) if key else new_id()
        await self.deliver(caller.tenant, task, Letter(letter, wanted.message), sender)
        return await self.retrieve(caller, task_id, wait=wait if wanted.mode == "send_and_wait" else 0.0)

    async def worker_of(self, tenant: str, task: TaskRecord) -> RunHeader:
        """The run that works on a task.

        Raises:
            ValidationError: the task is a tool's.
        """
        run = await self._children.find(tenant, task.run_id or "")
        if run is None:
            raise ValidationError(f"task {task.id!r} is a tool's: only sub-agents can be spoken to")
        return run

    async def deliver(self, tenant: str, task: TaskRecord, letter: Letter, sender: Sender) -> None:
        """Get a message to the sub-agent of a task, once: it reads it between two turns, or, if it has ended, takes up
        its thread again in another run.

        Raises:
            ConflictError: somebody else has just taken it up. ValidationError: the task is a tool's.
        """
        run = await self.worker_of(tenant, task)
        further = str(uuid.uuid5(_FOLLOW_UPS, letter.id))

        def unit(tx: Tx) -> bool:
            place = mail.place_of(tx, tenant, letter.id)
            if runs.by_id(tx, tenant, further) is not None or (place is not None and place[1]):
                return True
            current = runs.by_id(tx, tenant, run.id)
            if current is None or current.ended:
                return False
            mail.post(tx, tenant, run.id, letter, self._clock.micros())
            return True

        if not await self._db.write(unit):
            await self._take_up(task, run, further, letter.text, sender)

    async def _take_up(self, task: TaskRecord, run: RunHeader, further: str, text: str, sender: Sender) -> None:
        plan = Plan.model_validate_json(run.plan)
        message = UserMessage(parts=(TextPart(text=text),))
        changes: dict[str, Any] = {
            "text": text,
            "user": message,
            "thread": plan.thread or run.call_id,
            "parent_call_id": sender.call_id,
            "notices": (),
            "citations": (),
            "settings": {**plan.settings, "task_id": task.id},
        }

        def carry_on(tx: Tx, child: RunHeader) -> None:
            if not store.carry_on(tx, task.id, from_run=run.id, to_run=child.id):
                raise ConflictError("somebody else has just sent this sub-agent a message; send yours again")

        await self._children.start(sender.run, plan.model_copy(update=changes), further, also=carry_on)


def tool_began(tx: Tx, invocation: ToolInvocation, name: str, now: int) -> None:
    """A tool call was handed over; the call's id is the task's."""
    run = invocation.context.run
    store.insert(
        tx,
        TaskRecord(
            invocation.call_id, run.user_id, run.conversation_id, run.id, "tool", name, None, "running",
            invocation.arguments, None, None, False, now, None,
        ),
    )  # fmt: skip


def task_of(task: TaskRecord, progress: Any = None) -> BackgroundTask:
    """A task as the wire shows it."""
    return BackgroundTask(
        task_id=task.id,
        kind=task.kind,
        name=task.name,
        status=task.status,
        conversation_id=task.conversation_id,
        run_id=task.run_id,
        input=task.input,
        result=task.result,
        error=task.error,
        progress=progress,
        created_at=to_datetime(task.created_at),
        ended_at=to_datetime(task.ended_at) if task.ended_at is not None else None,
    )
