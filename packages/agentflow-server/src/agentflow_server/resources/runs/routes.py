"""HTTP of the runs room: the chat route, and runs by their id."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from agentflow.types.prompt_blocks import PromptPreview
from agentflow.types.runs import ChatRequest, Run, RunResult
from agentflow.types.tools import ToolRunRequest, ToolRunResult
from fastapi import APIRouter, Header, Response
from pydantic_core import to_json

from agentflow_server.eventlog.tail import end_of
from agentflow_server.http.identity import CurrentCaller
from agentflow_server.http.pages import resume_point
from agentflow_server.http.sse import EventStream, Streams
from agentflow_server.resources.runs.service import Followed, RunsService

_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "the run's events (`stream`: true), or its result",
        "content": {"text/event-stream": {"schema": {"type": "string"}}, "application/json": {}},
    }
}


def router(service: RunsService, streams: Streams) -> APIRouter:  # noqa: C901 - a list of routes
    """The room's routes."""
    routes = APIRouter(tags=["runs"])

    @routes.post("/agent/{agent_id}/chat", response_model=RunResult, responses=_STREAM)
    async def chat(caller: CurrentCaller, agent_id: str, body: ChatRequest) -> Response:
        """Run an agent. Streams its events, unless `stream` is false."""
        return await _answer(service, streams, body, lambda: service.chat(caller, agent_id, body))

    @routes.post("/agent/{agent_id}/subagents/{subagent_id}/run", response_model=RunResult, responses=_STREAM)
    async def run_subagent(caller: CurrentCaller, agent_id: str, subagent_id: str, body: ChatRequest) -> Response:
        """Run a sub-agent itself, as the root of its run."""
        return await _answer(service, streams, body, lambda: service.run_subagent(caller, agent_id, subagent_id, body))

    @routes.post("/agent/{agent_id}/tools/{tool_id}/run", response_model=ToolRunResult, responses=_STREAM)
    async def run_tool(caller: CurrentCaller, agent_id: str, tool_id: str, body: ToolRunRequest) -> Response:
        """Run one of the agent's tools, by id or name. Streams its events, unless `stream` is false."""
        if body.stream:
            streams.enter()
        try:
            followed = await service.run_tool(caller, agent_id, tool_id, body)
        except BaseException:
            streams.open -= int(body.stream)
            raise
        if body.stream:
            return _stream(followed, streams)
        result = await service.outcome(followed, verbose=True)
        return Response(to_json(dict(result)), media_type="application/json", headers=_headers(followed))

    @routes.post("/agent/{agent_id}/chat/preview")
    async def preview(caller: CurrentCaller, agent_id: str, body: ChatRequest) -> PromptPreview:
        """The whole prompt a chat request would send, part by part; nothing is stored or sent."""
        return await service.preview(caller, agent_id, body)

    @routes.get("/runs/{run_id}")
    async def retrieve(caller: CurrentCaller, run_id: str) -> Run:
        """A run: where it stands, how it ended."""
        return await service.retrieve(caller, run_id)

    @routes.get("/runs/{run_id}/stream", response_model=None, responses=_STREAM)
    async def stream(
        caller: CurrentCaller,
        run_id: str,
        verbose: bool = False,
        last_event_id: Annotated[str | None, Header()] = None,
    ) -> Response:
        """A run's events, from behind `Last-Event-ID` on: how a stream is resumed."""
        followed = await service.follow(caller, run_id, resume_point(last_event_id), verbose=verbose)
        try:
            streams.enter()
        except BaseException:
            followed.reader.close()
            raise
        return _stream(followed, streams)

    return routes


async def _answer(
    service: RunsService, streams: Streams, body: ChatRequest, start: Callable[[], Awaitable[Followed]]
) -> Response:
    if body.stream:
        streams.enter()
        try:
            followed = await start()
        except BaseException:
            streams.open -= 1
            raise
        return _stream(followed, streams)
    followed = await start()
    result = await service.outcome(followed, verbose=body.verbose)
    content = to_json(dict(result))
    return Response(content, media_type="application/json", headers=_headers(followed))


def _headers(followed: Followed) -> dict[str, str]:
    run = followed.run
    return {"X-Run-ID": run.id, "X-Conversation-ID": run.conversation_id, "X-Call-ID": run.call_id}


def _stream(followed: Followed, streams: Streams) -> EventStream:
    return EventStream(followed.reader, streams, is_last=end_of(followed.run), headers=_headers(followed))
