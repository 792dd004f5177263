"""Conversations: made, found, read, renamed, deleted. Called by routes, and by runs through `access`."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

from agentflow.errors import ConflictError, NotFoundError, ValidationError
from agentflow.types.conversations import (
    Conversation,
    ConversationCreate,
    ConversationCreated,
    ConversationDetail,
    ConversationPage,
    ConversationSnapshot,
    ConversationUpdate,
    Message,
    MessagePage,
    Timeline,
)

from agentflow_server.eventlog import Part, Reader, StoredEvent, Tail, parts, runs
from agentflow_server.eventlog.erasure import erase
from agentflow_server.eventlog.runs import RunHeader
from agentflow_server.eventlog.tail import end_of, head
from agentflow_server.gateway import Attribution, Completed, Gateway, ModelRequest
from agentflow_server.gateway.messages import SystemMessage, TextPart, UserMessage
from agentflow_server.http.identity import Caller
from agentflow_server.kit.clock import Clock, to_datetime, to_iso
from agentflow_server.kit.ids import new_id
from agentflow_server.resources.agents.service import AgentsService
from agentflow_server.resources.conversations import store
from agentflow_server.resources.conversations.store import ConversationRecord, Filters
from agentflow_server.resources.conversations.timeline import timeline
from agentflow_server.runtime.control import Control
from agentflow_server.storage import Database, Tx

_TITLE_LENGTH = 80
_SNAPSHOT_MESSAGES = 100
_EVERY = 1_000_000_000
_DELETE_PATIENCE = 10.0
_TITLE_INSTRUCTION = (
    "Write a title for this conversation: at most six words, in its language, without quotation marks or a full stop."
)


class ConversationsService:
    """The conversations room."""

    def __init__(
        self, db: Database, clock: Clock, tail: Tail, control: Control, gateway: Gateway, agents: AgentsService
    ) -> None:
        self._db = db
        self._clock = clock
        self._tail = tail
        self._control = control
        self._gateway = gateway
        self._agents = agents
        self._erasers: tuple[Callable[[Tx, str], None], ...] = ()

    def erase_with(self, *erasers: Callable[[Tx, str], None]) -> None:
        """Let other rooms remove what they keep of a conversation, in the transaction that deletes it."""
        self._erasers = (*self._erasers, *erasers)

    async def create(self, caller: Caller, wanted: ConversationCreate) -> ConversationCreated:
        """Begin a conversation, or find the one that has the wanted id.

        Raises:
            NotFoundError: there is no such agent. ConflictError: the id belongs to somebody else or another agent.
        """
        agent = await self._agents.record(caller, wanted.agent_id)
        now = self._clock.micros()
        record = ConversationRecord(
            wanted.id or new_id(), caller.user_id, agent.id, wanted.title, wanted.source, wanted.source_ref_id,
            wanted.metadata or {}, 0, now, now,
        )  # fmt: skip

        def unit(tx: Tx) -> tuple[ConversationRecord, bool]:
            if store.insert(tx, record):
                return record, True
            existing = store.by_id(tx, record.id, caller.user_id)
            if existing is None or existing.agent_id != agent.id:
                raise ConflictError(f"the conversation id {record.id!r} is in use")
            return existing, False

        found, created = await self._db.tenant(caller.tenant).write(unit)
        return ConversationCreated(conversation=_conversation(found), created=created)

    async def list(self, caller: Caller, filters: Filters, *, limit: int, offset: int) -> ConversationPage:
        """A page of conversations.

        Raises:
            ValidationError: every user's were asked for without a `source_ref_id`.
        """
        if filters.user_id is None and filters.source_ref_id is None:
            message = "all_users: needs source_ref_id, so that only what belongs to one record is shown"
            raise ValidationError(message, details=[{"field": "all_users", "message": message}])
        records, total = await self._db.tenant(caller.tenant).scan(
            lambda tx: store.page(tx, filters, limit=limit, offset=offset)
        )
        found = [_conversation(record) for record in records]
        return ConversationPage(conversations=found, total=total, limit=limit, offset=offset)

    async def record(self, caller: Caller, conversation_id: str) -> ConversationRecord:
        """The caller's conversation.

        Raises:
            NotFoundError: the caller has no such conversation.
        """
        record = await self._db.tenant(caller.tenant).read(lambda tx: store.by_id(tx, conversation_id, caller.user_id))
        if record is None:
            raise unknown(conversation_id)
        return record

    async def retrieve(self, caller: Caller, conversation_id: str) -> Conversation:
        return _conversation(await self.record(caller, conversation_id))

    async def detail(self, caller: Caller, conversation_id: str) -> ConversationDetail:
        """A conversation with its newest messages (at most 1,000; `messages` pages through all)."""
        record = await self.record(caller, conversation_id)
        found, _ = await self._messages(caller, record.id, limit=1000, offset=max(0, record.message_count - 1000))
        return ConversationDetail(**_conversation(record).model_dump(), messages=found)

    async def messages(self, caller: Caller, conversation_id: str, *, limit: int, offset: int) -> MessagePage:
        """A page of messages, oldest first."""
        await self.record(caller, conversation_id)
        found, total = await self._messages(caller, conversation_id, limit=limit, offset=offset)
        return MessagePage(messages=found, total=total, limit=limit, offset=offset)

    async def _messages(
        self, caller: Caller, conversation_id: str, *, limit: int, offset: int
    ) -> "tuple[list[Message], int]":
        found, total = await self._db.tenant(caller.tenant).scan(
            lambda tx: parts.visible_parts(tx, conversation_id, limit=limit, offset=offset)
        )
        return [_message(conversation_id, part) for part in found], total

    async def timeline(self, caller: Caller, conversation_id: str) -> Timeline:
        """Everything that happened in a conversation."""
        await self.record(caller, conversation_id)
        return await self._db.tenant(caller.tenant).scan(lambda tx: timeline(tx, conversation_id))

    async def update(self, caller: Caller, conversation_id: str, changes: ConversationUpdate) -> Conversation:
        """Rename a conversation or replace its metadata."""
        given = changes.model_fields_set
        now = self._clock.micros()

        def unit(tx: Tx) -> ConversationRecord | None:
            record = store.by_id(tx, conversation_id, caller.user_id)
            if record is None:
                raise unknown(conversation_id)
            title = changes.title if "title" in given else record.title
            metadata = (changes.metadata or {}) if "metadata" in given else record.metadata
            store.update(tx, conversation_id, title=title, metadata=metadata, now=now)
            return store.by_id(tx, conversation_id, caller.user_id)

        record = await self._db.tenant(caller.tenant).write(unit)
        assert record is not None
        self._tail.hub.ring(caller.tenant, conversation_id)
        return _conversation(record)

    async def generate_title(self, caller: Caller, conversation_id: str) -> Conversation:
        """Let the agent's model name the conversation.

        Raises:
            ValidationError: there is nothing to name yet. ModelError: the model failed.
        """
        record = await self.record(caller, conversation_id)
        found, _ = await self._messages(caller, conversation_id, limit=6, offset=0)
        if not found:
            raise ValidationError("the conversation has no messages yet: there is nothing to name")
        config = (await self._agents.config(caller, record.agent_id)).llm_config
        model = await self._gateway.choose(caller.tenant, caller.user_id, agent=config.get("model"), use_case="titles")
        said = "\n".join(f"{message.role}: {message.content[:2000]}" for message in found)
        title = await self._ask(model, said, Attribution(caller.tenant, caller.user_id, record.agent_id, None, "title"))
        return await self.update(caller, conversation_id, ConversationUpdate(title=derived_title(title)))

    async def _ask(self, model: str, said: str, attribution: Attribution) -> str:
        request = ModelRequest(
            model,
            (SystemMessage(text=_TITLE_INSTRUCTION), UserMessage(parts=(TextPart(text=said),))),
            max_tokens=2000,
            attribution=attribution,
        )
        text = ""
        async with self._gateway.stream(request) as chunks:
            async for chunk in chunks:
                if isinstance(chunk, Completed):
                    text = chunk.message.text
        return text.strip().strip('"').splitlines()[0] if text.strip() else said.split(": ", 1)[-1]

    async def delete(self, caller: Caller, conversation_id: str) -> None:
        """Stop what runs in a conversation, and remove everything of it."""
        await self.record(caller, conversation_id)
        active = await self._db.read(lambda tx: runs.active_in(tx, caller.tenant, conversation_id))
        for run in active:
            await self._control.cancel(run)
        for run in active:
            await self._ended(run)

        def unit(tx: Tx) -> None:
            for eraser in (*self._erasers, erase):
                eraser(tx, conversation_id)
            store.delete(tx, conversation_id)

        await self._db.tenant(caller.tenant).write(unit)
        self._tail.hub.ring(caller.tenant, conversation_id)

    async def _ended(self, run: RunHeader) -> None:
        reader = self._tail.open(run.tenant, run.conversation_id, end_of(run))
        reader.start_after(run.first_seq - 1)
        try:
            async with asyncio.timeout(_DELETE_PATIENCE):
                while not await reader.next():
                    pass
        except TimeoutError:
            pass
        finally:
            reader.close()

    async def export_user(self, caller: Caller) -> "list[dict[str, Any]]":
        """Every conversation of the caller with all that was said, as JSON values."""
        found: list[dict[str, Any]] = []
        for record in await self._of_user(caller):
            said, _ = await self._messages(caller, record.id, limit=_EVERY, offset=0)
            detail = ConversationDetail(**_conversation(record).model_dump(), messages=said)
            found.append(detail.model_dump(mode="json"))
        return found

    async def erase_user(self, caller: Caller) -> int:
        """Delete every conversation of the caller; returns how many there were."""
        records = await self._of_user(caller)
        for record in records:
            await self.delete(caller, record.id)
        return len(records)

    async def _of_user(self, caller: Caller) -> "list[ConversationRecord]":
        filters = Filters(caller.user_id)
        found, _ = await self._db.tenant(caller.tenant).scan(lambda tx: store.page(tx, filters, limit=_EVERY, offset=0))
        return found

    def now(self) -> str:
        """The time as the wire writes it."""
        return to_iso(self._clock.micros())

    def watch(self, caller: Caller, conversation_id: str) -> Reader:
        """A reader that hears of every change of a conversation."""
        reader = self._tail.open(caller.tenant, conversation_id, _changes)
        reader.start_now()
        return reader

    async def snapshot(self, caller: Caller, conversation_id: str, after: int) -> ConversationSnapshot:
        """How a conversation stands, with the messages behind number `after`."""

        def look(tx: Tx) -> ConversationSnapshot:
            record = store.by_id(tx, conversation_id, caller.user_id)
            if record is None:
                return ConversationSnapshot(deleted=True, last_seq=after)
            newer = [part for part in parts.parts_of(tx, conversation_id, after=after, thread="") if part.visible]
            active = [run for run in runs.active_in(tx, caller.tenant, conversation_id) if run.is_root]
            return ConversationSnapshot(
                conversation=_conversation(record),
                messages=[_message(conversation_id, part) for part in newer[-_SNAPSHOT_MESSAGES:]],
                active_run={"run_id": active[0].id, "status": active[0].status, "call_id": active[0].call_id}
                if active
                else None,
                last_seq=head(tx, conversation_id) - 1,
            )

        return await self._db.tenant(caller.tenant).scan(look)


def _changes(event: StoredEvent) -> bool:
    return event.type in ("user", "start", "end", "error", "background_task") and event.call_id == event.root_call_id


def derived_title(message: str) -> str:
    """A title from a message: its first line, cut at a word."""
    line = " ".join(message.split())
    if len(line) <= _TITLE_LENGTH:
        return line or "Conversation"
    return f"{line[:_TITLE_LENGTH].rsplit(' ', 1)[0]}…"


def unknown(conversation_id: str) -> NotFoundError:
    """The error for a conversation that is not there, or not the caller's."""
    return NotFoundError(f"there is no conversation {conversation_id!r}")


def _conversation(record: ConversationRecord) -> Conversation:
    return Conversation(
        id=record.id,
        agent_id=record.agent_id,
        title=record.title,
        source=record.source,
        source_ref_id=record.source_ref_id,
        metadata=record.metadata,
        message_count=record.message_count,
        has_active_generation=record.active,
        is_active=record.active,
        created_at=to_datetime(record.created_at),
        updated_at=to_datetime(record.updated_at),
    )


def _message(conversation_id: str, part: Part) -> Message:
    mine = part.kind == "user"
    return Message(
        id=part.message_id if mine else part.call_id,
        conversation_id=conversation_id,
        role="user" if mine else "assistant",
        content=part.text if mine else json.loads(part.data).get("text", part.text),
        timestamp=to_datetime(part.created_at),
        run_id=part.run_id,
    )
