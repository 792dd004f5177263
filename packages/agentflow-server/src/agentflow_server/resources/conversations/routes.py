"""HTTP of the conversations room."""

from typing import Annotated

from agentflow.types.conversations import (
    Conversation,
    ConversationCreate,
    ConversationCreated,
    ConversationDetail,
    ConversationPage,
    ConversationUpdate,
    MessagePage,
    Timeline,
)
from fastapi import APIRouter, Header, Query, Response

from agentflow_server.http.identity import CurrentCaller
from agentflow_server.http.pages import Limit, Offset, resume_point
from agentflow_server.http.sse import EventStream, Streams
from agentflow_server.resources.conversations.service import ConversationsService
from agentflow_server.resources.conversations.store import Filters
from agentflow_server.resources.conversations.watch import Watch

Text = Annotated[str | None, Query(min_length=1, max_length=500)]


def router(service: ConversationsService, streams: Streams) -> APIRouter:  # noqa: C901 - a list of routes
    """The room's routes."""
    routes = APIRouter(prefix="/conversations", tags=["conversations"])

    @routes.get("")
    async def list_conversations(
        caller: CurrentCaller,
        limit: Limit = 50,
        offset: Offset = 0,
        agent_id: Text = None,
        source: Text = None,
        exclude_source: Text = None,
        source_ref_id: Text = None,
        all_users: bool = False,
    ) -> ConversationPage:
        """The caller's conversations, the most recently used first. `all_users` needs `source_ref_id`."""
        user = None if all_users else caller.user_id
        filters = Filters(user, agent_id, source, exclude_source, source_ref_id)
        return await service.list(caller, filters, limit=limit, offset=offset)

    @routes.get("/search")
    async def search(
        caller: CurrentCaller,
        query: Annotated[str, Query(min_length=1, max_length=500)],
        limit: Limit = 50,
        offset: Offset = 0,
    ) -> ConversationPage:
        """The caller's conversations whose title or messages contain the text."""
        return await service.list(caller, Filters(caller.user_id, text=query), limit=limit, offset=offset)

    @routes.post("", status_code=201)
    async def create(caller: CurrentCaller, body: ConversationCreate) -> ConversationCreated:
        """Begin a conversation with an agent."""
        return await service.create(caller, body)

    @routes.get("/{conversation_id}")
    async def retrieve(caller: CurrentCaller, conversation_id: str) -> ConversationDetail:
        """A conversation with its newest messages."""
        return await service.detail(caller, conversation_id)

    @routes.patch("/{conversation_id}")
    async def update(caller: CurrentCaller, conversation_id: str, body: ConversationUpdate) -> Conversation:
        """Set the title or the metadata."""
        return await service.update(caller, conversation_id, body)

    @routes.delete("/{conversation_id}", status_code=204)
    async def delete(caller: CurrentCaller, conversation_id: str) -> Response:
        """Remove a conversation; what runs in it is cancelled first."""
        await service.delete(caller, conversation_id)
        return Response(status_code=204)

    @routes.post("/{conversation_id}/resume")
    async def resume(caller: CurrentCaller, conversation_id: str) -> Conversation:
        """Take up a conversation again."""
        return await service.retrieve(caller, conversation_id)

    @routes.get("/{conversation_id}/messages")
    async def messages(
        caller: CurrentCaller, conversation_id: str, limit: Limit = 50, offset: Offset = 0
    ) -> MessagePage:
        """What was said, oldest first."""
        return await service.messages(caller, conversation_id, limit=limit, offset=offset)

    @routes.get("/{conversation_id}/timeline")
    async def timeline(caller: CurrentCaller, conversation_id: str) -> Timeline:
        """Everything that happened: the tree of executions and all parts."""
        return await service.timeline(caller, conversation_id)

    @routes.post("/{conversation_id}/title/generate")
    async def generate_title(caller: CurrentCaller, conversation_id: str) -> Conversation:
        """Let the agent's model name the conversation."""
        return await service.generate_title(caller, conversation_id)

    @routes.get("/{conversation_id}/watch", response_model=None)
    async def watch(
        caller: CurrentCaller, conversation_id: str, last_event_id: Annotated[str | None, Header()] = None
    ) -> Response:
        """Snapshots of a conversation, one for every change, as server-sent events."""
        await service.record(caller, conversation_id)
        streams.enter()
        reader = service.watch(caller, conversation_id)
        follow = Watch(service, caller, conversation_id, resume_point(last_event_id))
        return EventStream(reader, streams, is_last=None, headers={}, render=follow.render, first=follow.first)

    return routes
