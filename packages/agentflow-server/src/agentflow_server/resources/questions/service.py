"""Questions a run asks its user: it is parked until they are answered. Called by routes and by the tool `ask_user`."""

import json
import uuid
from typing import Any

from agentflow.errors import ConflictError, NotFoundError, ValidationError
from agentflow.types.questions import Question, QuestionItem, QuestionPage

from agentflow_server.http.identity import Caller
from agentflow_server.jobs import Job, NewJob, Worker, ledger
from agentflow_server.kit.clock import SECOND, Clock, to_datetime, to_iso
from agentflow_server.resources.questions import store
from agentflow_server.resources.questions.store import QuestionRecord
from agentflow_server.runtime.emitter import draft
from agentflow_server.runtime.plan import Notice
from agentflow_server.runtime.tools import Suspended, ToolFailedError, ToolInvocation, ToolOutcome
from agentflow_server.storage import Database, Tx

EXPIRY = "question_expiry"
_IDS = uuid.UUID("6a8b1a53-9f34-4dd6-8c0f-0c4d8e3f7b52")
_MAX_TEXT = 20_000


class QuestionsService:
    """The questions room."""

    def __init__(self, db: Database, clock: Clock, worker: Worker) -> None:
        self._db = db
        self._clock = clock
        self._worker = worker
        worker.register(EXPIRY, self._expire)

    async def ask(self, invocation: ToolInvocation, items: "list[dict[str, Any]]", timeout: float) -> ToolOutcome:
        """The answers to the questions of a call.

        Args:
            timeout: seconds.

        Raises:
            Suspended: there are none yet. ToolFailedError: they were cancelled, or have expired.
        """
        tenant = invocation.context.tenant
        question_id = str(uuid.uuid5(_IDS, invocation.call_id))
        record = await self._db.tenant(tenant).read(lambda tx: store.by_id(tx, tenant, question_id))
        if record is None:
            raise self._asked(question_id, invocation, items, timeout)
        if record.status == "pending":
            raise Suspended((), lambda _: None, lambda tx: _closed(tx, tenant, question_id))
        content: dict[str, Any] = {"id": record.id, "status": record.status, "answers": record.answers}
        told = (Notice(type=f"question_{record.status}", content=content),)
        if record.answers is None:
            reason = "nobody has answered in time" if record.status == "expired" else "the questions were cancelled"
            raise ToolFailedError(f"question_{record.status}", reason, told)
        return ToolOutcome(json.dumps(record.answers, ensure_ascii=False), {"answers": record.answers}, notices=told)

    def _asked(
        self, question_id: str, invocation: ToolInvocation, items: "list[dict[str, Any]]", timeout: float
    ) -> Suspended:
        """The request, and the job that lets it expire."""
        run = invocation.context.run
        now = self._clock.micros()
        record = QuestionRecord(
            question_id, "pending", run.agent_id, run.user_id, run.conversation_id, run.id, invocation.call_id, now,
            now + int(timeout * SECOND), None, items, None,
        )  # fmt: skip
        content = {
            "id": question_id, "items": items, "conversation_id": run.conversation_id, "run_id": run.id,
            "timeout_seconds": timeout, "expires_at": to_iso(record.expires_at),
        }  # fmt: skip
        event = draft(invocation.context, self._clock, "question_required", content, call_id=invocation.call_id)

        def also(tx: Tx) -> None:
            if store.insert(tx, run.tenant, record):
                expiry = NewJob(run.tenant, EXPIRY, payload={"question_id": question_id}, run_at=record.expires_at)
                ledger.enqueue(tx, expiry, now)

        return Suspended((event,), also, lambda tx: _closed(tx, run.tenant, question_id))

    async def _expire(self, job: Job) -> None:
        await self._resolve(job.tenant, job.payload["question_id"], "expired", None, None)

    async def _resolve(
        self, tenant: str, question_id: str, status: str, by: str | None, answers: dict[str, Any] | None
    ) -> bool:
        """Close a request, and let the run go on; False if it was closed before."""
        now = self._clock.micros()

        def unit(tx: Tx) -> bool:
            if not store.resolve(tx, tenant, question_id, status, now, by=by, answers=answers):
                return False
            record = store.by_id(tx, tenant, question_id)
            if record is not None:
                ledger.wake(tx, tenant, record.run_id, now)
            return True

        resolved = await self._db.tenant(tenant).write(unit)
        self._worker.ring()
        return resolved

    async def list(self, caller: Caller, *, status: str | None, limit: int, offset: int) -> QuestionPage:
        """A page of the caller's questions."""
        records, total = await self._db.tenant(caller.tenant).read(
            lambda tx: store.page(tx, caller.user_id, status=status, limit=limit, offset=offset)
        )
        return QuestionPage(
            questions=[question_of(record) for record in records], total=total, limit=limit, offset=offset
        )

    async def retrieve(self, caller: Caller, question_id: str) -> Question:
        """One request.

        Raises:
            NotFoundError: the caller has none of this id.
        """
        return question_of(await self._own(caller, question_id))

    async def respond(self, caller: Caller, question_id: str, answers: dict[str, Any]) -> Question:
        """Answer; the run goes on.

        Raises:
            NotFoundError: the caller has no such questions. ConflictError: they were closed before.
            ValidationError: an answer is missing, unknown, or not what its item asks for.
        """
        record = await self._pending(caller, question_id)
        problems = check_answers(record.items, answers)
        if problems:
            first = problems[0]
            raise ValidationError(f"{first['field']}: {first['message']}", details=problems)
        return await self._close(caller, record, "answered", answers)

    async def cancel(self, caller: Caller, question_id: str) -> Question:
        """Refuse to answer: the model is told that the questions were cancelled.

        Raises:
            NotFoundError, ConflictError: as `respond`.
        """
        return await self._close(caller, await self._pending(caller, question_id), "cancelled", None)

    async def _close(
        self, caller: Caller, record: QuestionRecord, status: str, answers: dict[str, Any] | None
    ) -> Question:
        if not await self._resolve(caller.tenant, record.id, status, caller.user_id, answers):
            raise _late(await self._own(caller, record.id))
        return await self.retrieve(caller, record.id)

    async def _own(self, caller: Caller, question_id: str) -> QuestionRecord:
        record = await self._db.tenant(caller.tenant).read(lambda tx: store.by_id(tx, caller.tenant, question_id))
        if record is None or record.user_id != caller.user_id:
            raise NotFoundError(f"there is no question {question_id!r}")
        return record

    async def _pending(self, caller: Caller, question_id: str) -> QuestionRecord:
        record = await self._own(caller, question_id)
        if record.status == "pending" and record.expires_at <= self._clock.micros():
            await self._resolve(caller.tenant, question_id, "expired", None, None)
            record = await self._own(caller, question_id)
        if record.status != "pending":
            raise _late(record)
        return record


def check_answers(items: "list[dict[str, Any]]", answers: dict[str, Any]) -> "list[dict[str, str]]":
    """What is wrong with answers: `{field, message}` each."""
    known = {item["id"]: item for item in items}
    problems = [
        {"field": f"answers.{name}", "message": "there is no such question"} for name in answers if name not in known
    ]
    for identity, item in known.items():
        value = answers.get(identity)
        if value is None:
            message = "must be answered" if item.get("required", True) else None
        else:
            message = _problem(item, value)
        if message is not None:
            problems.append({"field": f"answers.{identity}", "message": message})
    return problems


def _problem(item: dict[str, Any], value: Any) -> str | None:
    kind, options = item.get("type", "text"), item.get("options", [])
    shown = ", ".join(repr(option) for option in options)
    if kind == "choice":
        return None if value in options else f"must be one of {shown}"
    if kind == "multiple_choice":
        fits = isinstance(value, list) and all(one in options for one in value) and len(set(value)) == len(value)
        return None if fits else f"must be a list of some of {shown}"
    if kind == "boolean":
        return None if isinstance(value, bool) else "must be true or false"
    if kind == "number":
        return None if isinstance(value, int | float) and not isinstance(value, bool) else "must be a number"
    fits = isinstance(value, str) and bool(value.strip()) and len(value) <= _MAX_TEXT
    return None if fits else f"must be a text of 1 to {_MAX_TEXT} characters"


def question_of(record: QuestionRecord) -> Question:
    """A request as the wire shows it."""
    return Question(
        id=record.id, status=record.status, items=[QuestionItem.model_validate(item) for item in record.items],
        answers=record.answers, agent_id=record.agent_id, conversation_id=record.conversation_id,
        run_id=record.run_id, call_id=record.call_id, created_at=to_datetime(record.created_at),
        expires_at=to_datetime(record.expires_at),
        resolved_at=to_datetime(record.resolved_at) if record.resolved_at else None,
    )  # fmt: skip


def _closed(tx: Tx, tenant: str, question_id: str) -> bool:
    record = store.by_id(tx, tenant, question_id)
    return record is not None and record.status != "pending"


def _late(record: QuestionRecord) -> ConflictError:
    told = {"answered": "were answered before", "expired": "have expired"}.get(record.status, "were cancelled")
    return ConflictError(f"the questions {told}", details={"id": record.id, "status": record.status})
