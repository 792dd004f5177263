"""Generated from agentflow/resources/conversations.py by tools/sync_generator.py: do not edit.

`client.conversations`: conversations, and the handle one talks through."""

from typing import Any

from agentflow._sync.pages import Page
from agentflow._sync.runs import Options, chat_request, run_once, segment
from agentflow._sync.streams import Stream, Watch, new_id
from agentflow.transport.drivers import SyncTransport
from agentflow.transport.request import Request, Timeout
from agentflow.types.conversations import (
    Conversation as ConversationData,
)
from agentflow.types.conversations import (
    ConversationCreate,
    ConversationCreated,
    ConversationDetail,
    ConversationPage,
    ConversationUpdate,
    Message,
    MessagePage,
    Timeline,
)
from agentflow.types.runs import RunResult

_BASE = "/api/v1/conversations"


class Conversation:
    """One conversation: send messages, read what was said.

    Attributes:
        id, agent_id, title: as they were when the handle was made or last refreshed.
    """

    def __init__(self, transport: SyncTransport, data: ConversationData) -> None:
        self._transport = transport
        self._resource = Conversations(transport)
        self.data = data
        self.id = data.id
        self.agent_id = data.agent_id

    @property
    def title(self) -> str | None:
        """Its title."""
        return self.data.title

    def send(
        self,
        message: str,
        *,
        options: Options = None,
        message_id: str | None = None,
        output_type: Any = None,
        timeout: Timeout | float | None = None,
    ) -> RunResult:
        """Send a message and wait for the answer. Arguments and errors as for `client.agents.run`."""
        request = self._chat(message, False, options, message_id, output_type, timeout)
        return run_once(self._transport, request, output_type)

    def stream(
        self,
        message: str,
        *,
        options: Options = None,
        message_id: str | None = None,
        output_type: Any = None,
        timeout: Timeout | float | None = None,
    ) -> Stream:
        """Send a message and read the events of its run."""
        request = self._chat(message, True, options, message_id, output_type, timeout)
        return Stream(self._transport, request, verbose=bool(request.body.get("verbose")))

    def run_handle(
        self,
        message: str,
        *,
        options: Options = None,
        message_id: str | None = None,
        output_type: Any = None,
        timeout: Timeout | float | None = None,
    ) -> Stream:
        """Send a message and get a handle of its run: iterate it for events, `cancel()` it, wait for its `result()`."""
        return self.stream(message, options=options, message_id=message_id, output_type=output_type, timeout=timeout)

    def _chat(
        self,
        message: str,
        stream: bool,
        options: Options,
        message_id: str | None,
        output_type: Any,
        timeout: Timeout | float | None,
    ) -> Request:
        return chat_request(
            self.agent_id,
            message,
            stream=stream,
            options=options,
            conversation_id=self.id,
            message_id=message_id,
            output_type=output_type,
            timeout=timeout,
        )

    def refresh(self) -> ConversationDetail:
        """Read the conversation again, with its messages."""
        detail = self._resource.detail(self.id)
        self.data = detail
        return detail

    def messages(self, *, limit: int = 50, offset: int = 0) -> Page[Message]:
        """What was said, oldest first."""
        return self._resource.messages(self.id, limit=limit, offset=offset)

    def timeline(self) -> Timeline:
        """Everything that happened."""
        return self._resource.timeline(self.id)

    def set_title(self, title: str) -> ConversationData:
        """Name the conversation."""
        self.data = self._resource.set_title(self.id, title)
        return self.data

    def generate_title(self) -> ConversationData:
        """Let the agent's model name the conversation."""
        self.data = self._resource.generate_title(self.id)
        return self.data

    def watch(self, *, last_event_id: str | None = None) -> Watch:
        """Snapshots, one for every change."""
        return self._resource.watch(self.id, last_event_id=last_event_id)

    def delete(self) -> None:
        """Remove the conversation; what runs in it is cancelled."""
        self._resource.delete(self.id)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(id={self.id!r}, title={self.title!r})"


class Conversations:
    """The caller's conversations."""

    def __init__(self, transport: SyncTransport) -> None:
        self._transport = transport

    def create(
        self,
        *,
        agent_id: str,
        title: str | None = None,
        metadata: dict[str, Any] | None = None,
        source: str | None = None,
        source_ref_id: str | None = None,
        conversation_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> Conversation:
        """Begin a conversation with an agent.

        Args:
            conversation_id: an id of one's own; creating it again gives the conversation there is.
            source, source_ref_id: where it comes from, for listings.

        Raises:
            NotFoundError: there is no such agent. ConflictError: the id is in use.
        """
        fields = {"title": title, "metadata": metadata, "source": source, "source_ref_id": source_ref_id}
        given = {name: value for name, value in fields.items() if value is not None}
        identity = conversation_id or idempotency_key or new_id()
        body = ConversationCreate.model_validate({"agent_id": agent_id, "id": identity, **given}).wire()
        created = self._transport.call(Request("POST", _BASE, body=body, repeatable=True), ConversationCreated)
        return Conversation(self._transport, created.conversation)

    def list(
        self,
        *,
        limit: int = 50,
        offset: int = 0,
        agent_id: str | None = None,
        source_ref_id: str | None = None,
        source: str | None = None,
        exclude_source: str | None = None,
        all_users: bool = False,
    ) -> Page[ConversationData]:
        """A page of conversations, the most recently used first; iterating it walks on through all.

        Args:
            limit: 1 to 100. all_users: those of the whole tenant; needs `source_ref_id`.
        """
        query = {
            "limit": limit,
            "offset": offset,
            "agent_id": agent_id,
            "source_ref_id": source_ref_id,
            "source": source,
            "exclude_source": exclude_source,
            "all_users": all_users or None,
        }
        data = self._transport.call(Request("GET", _BASE, query, repeatable=True), ConversationPage)

        def fetch(start: int) -> Page[ConversationData]:
            return self.list(
                limit=limit,
                offset=start,
                agent_id=agent_id,
                source_ref_id=source_ref_id,
                source=source,
                exclude_source=exclude_source,
                all_users=all_users,
            )

        return Page(data, "conversations", fetch)

    def search(self, query: str, *, limit: int = 50, offset: int = 0) -> Page[ConversationData]:
        """Conversations whose title or messages contain a text."""
        params = {"query": query, "limit": limit, "offset": offset}
        request = Request("GET", f"{_BASE}/search", params, repeatable=True)
        data = self._transport.call(request, ConversationPage)

        def fetch(start: int) -> Page[ConversationData]:
            return self.search(query, limit=limit, offset=start)

        return Page(data, "conversations", fetch)

    def resume(self, conversation_id: str) -> Conversation:
        """A handle of a conversation that exists.

        Raises:
            NotFoundError: the caller has no such conversation.
        """
        request = Request("POST", f"{_path(conversation_id)}/resume", repeatable=True)
        return Conversation(self._transport, self._transport.call(request, ConversationData))

    def detail(self, conversation_id: str) -> ConversationDetail:
        """A conversation with its newest messages."""
        return self._transport.call(Request("GET", _path(conversation_id), repeatable=True), ConversationDetail)

    def retrieve(self, conversation_id: str) -> ConversationDetail:
        """The same as `detail`."""
        return self.detail(conversation_id)

    def messages(self, conversation_id: str, *, limit: int = 50, offset: int = 0) -> Page[Message]:
        """What was said, oldest first."""
        query = {"limit": limit, "offset": offset}
        request = Request("GET", f"{_path(conversation_id)}/messages", query, repeatable=True)
        data = self._transport.call(request, MessagePage)

        def fetch(start: int) -> Page[Message]:
            return self.messages(conversation_id, limit=limit, offset=start)

        return Page(data, "messages", fetch)

    def timeline(self, conversation_id: str) -> Timeline:
        """Everything that happened: the tree of executions and all parts."""
        return self._transport.call(Request("GET", f"{_path(conversation_id)}/timeline", repeatable=True), Timeline)

    def update(
        self,
        conversation_id: str,
        *,
        title: str | None = None,
        metadata: dict[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> ConversationData:
        """Set the title, or replace the metadata."""
        given = {name: value for name, value in (("title", title), ("metadata", metadata)) if value is not None}
        headers = {"Idempotency-Key": idempotency_key or new_id()}
        body = ConversationUpdate.model_validate(given).wire()
        request = Request("PATCH", _path(conversation_id), body=body, headers=headers, repeatable=True)
        return self._transport.call(request, ConversationData)

    def set_title(self, conversation_id: str, title: str) -> ConversationData:
        """Name a conversation."""
        return self.update(conversation_id, title=title)

    def generate_title(self, conversation_id: str) -> ConversationData:
        """Let the agent's model name a conversation."""
        request = Request("POST", f"{_path(conversation_id)}/title/generate", repeatable=True)
        return self._transport.call(request, ConversationData)

    def delete(self, conversation_id: str) -> None:
        """Remove a conversation; what runs in it is cancelled.

        Raises:
            NotFoundError: the caller has no such conversation.
        """
        self._transport.raw(Request("DELETE", _path(conversation_id)))

    def watch(self, conversation_id: str, *, last_event_id: str | None = None) -> Watch:
        """Snapshots of a conversation, one for every change, as `ConversationUpdate` events.

        Args:
            last_event_id: the `seq` of the last snapshot seen: nothing is sent until something has changed since.
        """
        return Watch(self._transport, segment(conversation_id), last_event_id)


def _path(conversation_id: str) -> str:
    return f"{_BASE}/{segment(conversation_id)}"
