"""Follows one conversation for one watcher: a snapshot at the start, and one whenever something has changed."""

from collections.abc import Sequence

from agentflow.types.conversations import ConversationSnapshot

from agentflow_server.eventlog import StoredEvent
from agentflow_server.http.identity import Caller
from agentflow_server.http.sse import state_frame
from agentflow_server.resources.conversations.service import ConversationsService


class Watch:
    """The state of one watcher: what it has seen."""

    def __init__(self, service: ConversationsService, caller: Caller, conversation_id: str, after: int | None) -> None:
        self._service = service
        self._caller = caller
        self._conversation_id = conversation_id
        self._after = -1 if after is None else after
        self._resumed = after is not None
        self._seen: ConversationSnapshot | None = None

    async def first(self) -> bytes | None:
        """The snapshot a watcher begins with; nothing if it resumes and has missed nothing."""
        snapshot = await self._service.snapshot(self._caller, self._conversation_id, self._after)
        if self._resumed and snapshot.last_seq <= self._after and not snapshot.deleted:
            self._seen = snapshot
            return b""
        return self._frame(snapshot)

    async def render(self, events: Sequence[StoredEvent]) -> bytes | None:
        """The frame for what has happened; None once the conversation is gone."""
        if self._seen is not None and self._seen.deleted:
            return None
        snapshot = await self._service.snapshot(self._caller, self._conversation_id, self._after)
        unchanged = self._seen is not None and snapshot.conversation == self._seen.conversation
        if not events and unchanged and not snapshot.messages:
            return b""
        return self._frame(snapshot)

    def _frame(self, snapshot: ConversationSnapshot) -> bytes:
        self._seen = snapshot
        self._after = max(self._after, snapshot.last_seq)
        number, now = snapshot.last_seq, self._service.now()
        id_ = str(number) if number >= 0 else None
        return state_frame("conversation_update", snapshot.model_dump(mode="json"), id_=id_, seq=number, timestamp=now)
