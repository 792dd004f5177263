"""`client.conversations`: conversations, and the handle one talks through."""

from typing import Any

from agentflow.resources.pages import AsyncPage
from agentflow.resources.runs import Options, chat_request, run_once, segment
from agentflow.resources.streams import AsyncStream, AsyncWatch, new_id
from agentflow.transport.drivers import AsyncTransport
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


class AsyncConversation:
    """One conversation: send messages, read what was said.

    Attributes:
        id, agent_id, title: as they were when the handle was made or last refreshed.
    """

    def __init__(self, transport: AsyncTransport, data: ConversationData) -> None:
        self._transport = transport
        self._resource = AsyncConversations(transport)
        self.data = data
        self.id = data.id
        self.agent_id = data.agent_id

    @property
    def title(self) -> str | None:
        """Its title."""
        return self.data.title

    async def send(
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
        return await run_once(self._transport, request, output_type)

    def stream(
        self,
        message: str,
        *,
        options: Options = None,
        message_id: str | None = None,
        output_type: Any = None,
        timeout: Timeout | float | None = None,
    ) -> AsyncStream:
        """Send a message and read the events of its run."""
        request = self._chat(message, True, options, message_id, output_type, timeout)
        return AsyncStream(self._transport, request, verbose=bool(request.body.get("verbose")))

    def run_handle(
        self,
        message: str,
        *,
        options: Options = None,
        message_id: str | None = None,
        output_type: Any = None,
        timeout: Timeout | float | None = None,
    ) -> AsyncStream:
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

    async def refresh(self) -> ConversationDetail:
        """Read the conversation again, with its messages."""
        detail = await self._resource.detail(self.id)
        self.data = detail
        return detail

    async def messages(self, *, limit: int = 50, offset: int = 0) -> AsyncPage[Message]:
        """What was said, oldest first."""
        return await self._resource.messages(self.id, limit=limit, offset=offset)

    async def timeline(self) -> Timeline:
        """Everything that happened."""
        return await self._resource.timeline(self.id)

    async def set_title(self, title: str) -> ConversationData:
        """Name the conversation."""
        self.data = await self._resource.set_title(self.id, title)
        return self.data

    async def generate_title(self) -> ConversationData:
        """Let the agent's model name the conversation."""
        self.data = await self._resource.generate_title(self.id)
        return self.data

    def watch(self, *, last_event_id: str | None = None) -> AsyncWatch:
        """Snapshots, one for every change."""
        return self._resource.watch(self.id, last_event_id=last_event_id)

    async def delete(self) -> None:
        """Remove the conversation; what runs in it is cancelled."""
        await self._resource.delete(self.id)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(id={self.id!r}, title={self.title!r})"


class AsyncConversations:
    """The caller's conversations."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def create(
        self,
        *,
        agent_id: str,
        title: str | None = None,
        metadata: dict[str, Any] | None = None,
        source: str | None = None,
        source_ref_id: str | None = None,
        conversation_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> AsyncConversation:
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
        created = await self._transport.call(Request("POST", _BASE, body=body, repeatable=True), ConversationCreated)
        return AsyncConversation(self._transport, created.conversation)

    async def list(
        self,
        *,
        limit: int = 50,
        offset: int = 0,
        agent_id: str | None = None,
        source_ref_id: str | None = None,
        source: str | None = None,
        exclude_source: str | None = None,
        all_users: bool = False,
    ) -> AsyncPage[ConversationData]:
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
        data = await self._transport.call(Request("GET", _BASE, query, repeatable=True), ConversationPage)

        async def fetch(start: int) -> AsyncPage[ConversationData]:
            return await self.list(
                limit=limit,
                offset=start,
                agent_id=agent_id,
                source_ref_id=source_ref_id,
                source=source,
                exclude_source=exclude_source,
                all_users=all_users,
            )

        return AsyncPage(data, "conversations", fetch)

    async def search(self, query: str, *, limit: int = 50, offset: int = 0) -> AsyncPage[ConversationData]:
        """Conversations whose title or messages contain a text."""
        params = {"query": query, "limit": limit, "offset": offset}
        request = Request("GET", f"{_BASE}/search", params, repeatable=True)
        data = await self._transport.call(request, ConversationPage)

        async def fetch(start: int) -> AsyncPage[ConversationData]:
            return await self.search(query, limit=limit, offset=start)

        return AsyncPage(data, "conversations", fetch)

    async def resume(self, conversation_id: str) -> AsyncConversation:
        """A handle of a conversation that exists.

        Raises:
            NotFoundError: the caller has no such conversation.
        """
        request = Request("POST", f"{_path(conversation_id)}/resume", repeatable=True)
        return AsyncConversation(self._transport, await self._transport.call(request, ConversationData))

    async def detail(self, conversation_id: str) -> ConversationDetail:
        """A conversation with its newest messages."""
        return await self._transport.call(Request("GET", _path(conversation_id), repeatable=True), ConversationDetail)

    async def retrieve(self, conversation_id: str) -> ConversationDetail:
        """The same as `detail`."""
        return await self.detail(conversation_id)

    async def messages(self, conversation_id: str, *, limit: int = 50, offset: int = 0) -> AsyncPage[Message]:
        """What was said, oldest first."""
        query = {"limit": limit, "offset": offset}
        request = Request("GET", f"{_path(conversation_id)}/messages", query, repeatable=True)
        data = await self._transport.call(request, MessagePage)

        async def fetch(start: int) -> AsyncPage[Message]:
            return await self.messages(conversation_id, limit=limit, offset=start)

        return AsyncPage(data, "messages", fetch)

    async def timeline(self, conversation_id: str) -> Timeline:
        """Everything that happened: the tree of executions and all parts."""
        return await self._transport.call(
            Request("GET", f"{_path(conversation_id)}/timeline", repeatable=True), Timeline
        )

    async def update(
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
        return await self._transport.call(request, ConversationData)

    async def set_title(self, conversation_id: str, title: str) -> ConversationData:
        """Name a conversation."""
        return await self.update(conversation_id, title=title)

    async def generate_title(self, conversation_id: str) -> ConversationData:
        """Let the agent's model name a conversation."""
        request = Request("POST", f"{_path(conversation_id)}/title/generate", repeatable=True)
        return await self._transport.call(request, ConversationData)

    async def delete(self, conversation_id: str) -> None:
        """Remove a conversation; what runs in it is cancelled.

        Raises:
            NotFoundError: the caller has no such conversation.
        """
        await self._transport.raw(Request("DELETE", _path(conversation_id)))

    def watch(self, conversation_id: str, *, last_event_id: str | None = None) -> AsyncWatch:
        """Snapshots of a conversation, one for every change, as `ConversationUpdate` events.

        Args:
            last_event_id: the `seq` of the last snapshot seen: nothing is sent until something has changed since.
        """
        return AsyncWatch(self._transport, segment(conversation_id), last_event_id)


def _path(conversation_id: str) -> str:
    return f"{_BASE}/{segment(conversation_id)}"
