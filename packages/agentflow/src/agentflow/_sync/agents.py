"""Generated from agentflow/resources/agents.py by tools/sync_generator.py: do not edit.

`client.agents`: agents, and running them."""

from functools import cached_property
from typing import TYPE_CHECKING, Any

from agentflow.errors import NotFoundError
from agentflow._sync.knowledge_bases import AgentKnowledgeBases
from agentflow._sync.pages import Page
from agentflow._sync.runs import Options, chat_request, run_once, segment
from agentflow._sync.streams import Stream, new_id
from agentflow._sync.subagents import Subagents
from agentflow.transport.drivers import SyncTransport
from agentflow.transport.request import Request, Timeout
from agentflow.types.agents import (
    Agent,
    AgentConfig,
    AgentConfigUpdate,
    AgentCreate,
    AgentPage,
    AgentStats,
    AgentUpdate,
)
from agentflow.types.prompt_blocks import PromptBlockPage
from agentflow.types.runs import RunResult

if TYPE_CHECKING:
    from agentflow._sync.tools import Tools


class Agents:
    """Agents of the tenant."""

    def __init__(self, transport: SyncTransport) -> None:
        self._transport = transport

    @cached_property
    def knowledge_bases(self) -> AgentKnowledgeBases:
        """The knowledge bases of an agent."""
        return AgentKnowledgeBases(self._transport)

    @cached_property
    def tools(self) -> "Tools":
        """Tools of an agent."""
        from agentflow._sync.tools import Tools

        return Tools(self._transport)

    @cached_property
    def subagents(self) -> Subagents:
        """Agents that other agents may call."""
        return Subagents(self._transport)

    def list(self, *, limit: int = 50, offset: int = 0, name: str | None = None) -> Page[Agent]:
        """A page of agents, oldest first; iterating it walks on through all.

        Args:
            limit: 1 to 100. name: only the agent of exactly this name.
        """
        query = {"limit": limit, "offset": offset, "name": name}
        data = self._transport.call(Request("GET", "/api/v1/agents", query, repeatable=True), AgentPage)

        def fetch(start: int) -> Page[Agent]:
            return self.list(limit=limit, offset=start, name=name)

        return Page(data, "agents", fetch)

    def by_name(self, name: str) -> Agent:
        """The agent of this name. Resolve names once and keep the id: everything else goes by ids.

        Raises:
            NotFoundError: no agent has this name.
        """
        page = self.list(limit=1, name=name)
        if not page.items:
            raise NotFoundError(f"there is no agent named {name!r}", hint="client.agents.list() shows those there are.")
        return page.items[0]

    def retrieve(self, agent_id: str) -> Agent:
        """One agent.

        Raises:
            NotFoundError: there is no such agent.
        """
        return self._transport.call(_get(agent_id), Agent)

    def create(self, *, name: str, idempotency_key: str | None = None, **settings: Any) -> Agent:
        """Add an agent.

        Args:
            settings: `description`, `label`, `icon`, `system_prompt`, `custom_instructions`, `additional_context`,
                `llm_config`, `max_turns`, `tools`, … as in `AgentCreate`.

        Raises:
            ConflictError: the name is taken. ValidationError: a setting does not hold.
        """
        body = AgentCreate.model_validate({"name": name, **settings}).wire()
        headers = {"Idempotency-Key": idempotency_key or new_id()}
        request = Request("POST", "/api/v1/agents", body=body, headers=headers, repeatable=True)
        return self._transport.call(request, Agent)

    def update(self, agent_id: str, *, idempotency_key: str | None = None, **changes: Any) -> AgentConfig:
        """Change an agent's configuration; what is left out stays, `llm_config` is merged field by field.

        Raises:
            NotFoundError: there is no such agent. ConflictError: the new name is taken.
        """
        body = AgentConfigUpdate.model_validate(changes).wire()
        headers = {"Idempotency-Key": idempotency_key or new_id()}
        request = Request("PATCH", _path(agent_id, "/config"), body=body, headers=headers, repeatable=True)
        return self._transport.call(request, AgentConfig)

    def rename(self, agent_id: str, name: str) -> Agent:
        """Give an agent another name.

        Raises:
            NotFoundError: there is no such agent. ConflictError: the name is taken.
        """
        request = Request("PATCH", _path(agent_id), body=AgentUpdate(name=name).wire(), repeatable=True)
        return self._transport.call(request, Agent)

    def delete(self, agent_id: str) -> None:
        """Remove an agent. Its conversations stay readable.

        Raises:
            NotFoundError: there is no such agent. ConflictError: it belongs to the system.
        """
        self._transport.raw(Request("DELETE", _path(agent_id)))

    def get_config(self, agent_id: str) -> AgentConfig:
        """An agent's whole configuration.

        Raises:
            NotFoundError: there is no such agent.
        """
        return self._transport.call(Request("GET", _path(agent_id, "/config"), repeatable=True), AgentConfig)

    def context_blocks(self, agent_id: str) -> PromptBlockPage:
        """The prompt blocks that runs of an agent are given, in their order.

        Raises:
            NotFoundError: there is no such agent.
        """
        request = Request("GET", _path(agent_id, "/context-blocks"), repeatable=True)
        return self._transport.call(request, PromptBlockPage)

    def stats(self) -> AgentStats:
        """How many agents and tools the tenant has."""
        return self._transport.call(Request("GET", "/api/v1/agents/stats", repeatable=True), AgentStats)

    def run(
        self,
        *,
        agent_id: str,
        message: str,
        options: Options = None,
        conversation_id: str | None = None,
        message_id: str | None = None,
        output_type: Any = None,
        idempotency_key: str | None = None,
        timeout: Timeout | float | None = None,
    ) -> RunResult:
        """Run an agent and wait for its answer.

        Args:
            options: a `RunOptions`, or a dict of its fields.
            conversation_id: to go on with a conversation; a new one by default.
            message_id: pass a stable one to retry the same user action: the run is started once. `idempotency_key`
                means the same here.
            output_type: a pydantic model (or any type pydantic understands): `result.output` is one.
            timeout: seconds for the whole call, or a `Timeout`.

        Raises:
            APIError: the request was refused, or the run failed (a `ModelError` if its model did).
            TransportError: no answer came in time. RunCancelledError: cancelled before it gave its output.
        """
        request = chat_request(
            agent_id,
            message,
            stream=False,
            options=options,
            conversation_id=conversation_id,
            message_id=message_id or idempotency_key,
            output_type=output_type,
            timeout=timeout,
        )
        return run_once(self._transport, request, output_type)

    def stream(
        self,
        *,
        agent_id: str,
        message: str,
        options: Options = None,
        conversation_id: str | None = None,
        message_id: str | None = None,
        output_type: Any = None,
        idempotency_key: str | None = None,
        timeout: Timeout | float | None = None,
    ) -> Stream:
        """Run an agent and read its events as they happen. Arguments as for `run`.

        The run starts when the stream is first read. It goes on if the stream is left.
        """
        request = chat_request(
            agent_id,
            message,
            stream=True,
            options=options,
            conversation_id=conversation_id,
            message_id=message_id or idempotency_key,
            output_type=output_type,
            timeout=timeout,
        )
        return Stream(self._transport, request, verbose=bool(request.body.get("verbose")))


def _path(agent_id: str, rest: str = "") -> str:
    return f"/api/v1/agent/{segment(agent_id)}{rest}"


def _get(agent_id: str) -> Request:
    return Request("GET", _path(agent_id), repeatable=True)
