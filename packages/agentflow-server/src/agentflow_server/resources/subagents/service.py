"""Sub-agents: agents that others may call. The edges between them, and how a call is planned."""

import json
import logging
import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

from agentflow.errors import ConflictError, NotFoundError
from agentflow.types.agents import AgentCreate, AgentUpdate
from agentflow.types.runs import ChatRequest
from agentflow.types.subagents import Subagent, SubagentAssignment, SubagentCreate, SubagentPage, SubagentUpdate

from agentflow_server.definitions import SubAgentDefinition
from agentflow_server.http.identity import Caller
from agentflow_server.kit.clock import Clock
from agentflow_server.resources.agents.service import AgentsService, agent_of
from agentflow_server.resources.subagents import store
from agentflow_server.resources.subagents.store import Edge
from agentflow_server.runtime.context import RunContext
from agentflow_server.runtime.limits import MAX_DEPTH
from agentflow_server.runtime.plan import Plan
from agentflow_server.storage import Database, Tx

_log = logging.getLogger(__name__)
_SHOWN = (
    "enable_planning", "enable_reflection", "max_reflection_attempts", "llm_config", "system_prompt", "knowledge_bases",
    "max_turns",
)  # fmt: skip


class SubagentsService:
    """The sub-agents room."""

    def __init__(self, db: Database, clock: Clock, agents: AgentsService) -> None:
        self._db = db
        self._clock = clock
        self._agents = agents

    async def create(self, caller: Caller, parent_id: str, wanted: SubagentCreate, key: str | None = None) -> Subagent:
        """Add an agent and let a parent call it, in one transaction.

        Raises:
            NotFoundError: there is no such parent. ConflictError: the name is taken, or the chain would be too long.
        """
        await self._agents.record(caller, parent_id)
        settings = wanted.model_dump(exclude_none=True, exclude={"tool_assignments", "background"})
        agent = AgentCreate.model_validate({**settings, "tools": wanted.tool_assignments})
        now = self._clock.micros()

        def link(tx: Tx, agent_id: str) -> None:
            _require_sound(tx, parent_id, agent_id)
            store.link(tx, parent_id, agent_id, background=wanted.background, now=now)

        made = await self._agents.create(caller, agent, key, also=link)
        return await self.retrieve(caller, parent_id, made.id)

    async def list(self, caller: Caller, parent_id: str, *, limit: int, offset: int) -> SubagentPage:
        """A page of a parent's sub-agents."""
        await self._agents.record(caller, parent_id)
        names = await self.delegates(caller.tenant, parent_id)
        shown = [await self._shown(caller, parent_id, edge, name) for name, edge in names[offset : offset + limit]]
        return SubagentPage(subagents=shown, total=len(names), limit=limit, offset=offset)

    async def retrieve(self, caller: Caller, parent_id: str, subagent_id: str) -> Subagent:
        """One sub-agent of a parent.

        Raises:
            NotFoundError: there is no such parent, or it has no such sub-agent.
        """
        await self._agents.record(caller, parent_id)
        for name, edge in await self.delegates(caller.tenant, parent_id):
            if edge.child_id == subagent_id:
                return await self._shown(caller, parent_id, edge, name)
        raise _unknown(parent_id, subagent_id)

    async def _shown(self, caller: Caller, parent_id: str, edge: Edge, tool_name: str) -> Subagent:
        record = await self._agents.record(caller, edge.child_id)
        names = (await self._agents.config(caller, record.id)).tools
        agent = agent_of(record, names)
        shown = {name: record.data[name] for name in _SHOWN if name in record.data}
        own = {"parent_id": parent_id, "tool_name": tool_name, "background": edge.background}
        tools = {"tool_assignments": names}
        return Subagent.model_validate({**agent.model_dump(), **shown, **own, **tools})

    async def update(self, caller: Caller, parent_id: str, subagent_id: str, changes: SubagentUpdate) -> Subagent:
        """Change a sub-agent; what is left out stays. Raises as `retrieve`, and as for agents."""
        await self.retrieve(caller, parent_id, subagent_id)
        fields = changes.model_dump(exclude_unset=True, exclude={"background"})
        if "tool_assignments" in fields:
            fields["tools"] = fields.pop("tool_assignments")
        if fields:
            await self._agents.update(caller, subagent_id, AgentUpdate.model_validate(fields), agent_of)
        if changes.background is not None:
            await self._link(caller, parent_id, subagent_id, background=changes.background)
        return await self.retrieve(caller, parent_id, subagent_id)

    async def delete(self, caller: Caller, parent_id: str, subagent_id: str) -> None:
        """Remove a sub-agent for good, also from its other parents.

        Raises:
            NotFoundError: as `retrieve`. ConflictError: it belongs to the system.
        """
        await self.retrieve(caller, parent_id, subagent_id)
        await self._agents.delete(caller, subagent_id)

    async def assign(self, caller: Caller, parent_id: str, subagent_id: str, how: SubagentAssignment) -> Subagent:
        """Let a parent call an agent that exists.

        Raises:
            NotFoundError: one of them does not exist. ConflictError: they would call each other in a circle, or the
            chain would be too long.
        """
        await self._agents.record(caller, parent_id)
        await self._agents.record(caller, subagent_id)
        await self._link(caller, parent_id, subagent_id, background=how.background)
        return await self.retrieve(caller, parent_id, subagent_id)

    async def _link(self, caller: Caller, parent_id: str, subagent_id: str, *, background: bool) -> None:
        now = self._clock.micros()

        def unit(tx: Tx) -> None:
            _require_sound(tx, parent_id, subagent_id)
            store.link(tx, parent_id, subagent_id, background=background, now=now)

        await self._db.tenant(caller.tenant).write(unit)

    async def unassign(self, caller: Caller, parent_id: str, subagent_id: str) -> None:
        """Take a sub-agent from a parent; the agent stays. Raises as `retrieve`."""
        await self._agents.record(caller, parent_id)
        gone = await self._db.tenant(caller.tenant).write(lambda tx: store.unlink(tx, parent_id, subagent_id))
        if not gone:
            raise _unknown(parent_id, subagent_id)

    async def require(self, caller: Caller, parent_id: str, subagent_id: str) -> None:
        """Refuse a pair of agents of which the first may not call the second. Raises as `retrieve`."""
        await self._agents.record(caller, parent_id)
        if await self._db.tenant(caller.tenant).read(lambda tx: store.edge(tx, parent_id, subagent_id)) is None:
            raise _unknown(parent_id, subagent_id)

    async def delegates(self, tenant: str, parent_id: str) -> "list[tuple[str, Edge]]":
        """A parent's sub-agents, each under the name of the tool that calls it."""
        edges = await self._db.tenant(tenant).read(lambda tx: store.children(tx, parent_id))
        return _named(edges)

    async def plan(self, context: RunContext, agent_id: str, message: str, parent_call_id: str) -> Plan:
        """Freeze the run of a sub-agent that another run calls: its own configuration, its place below that run.

        Raises:
            APIError: the agent is gone, or cannot be run as it is configured.
        """
        run, above = context.run, context.plan
        caller = Caller(run.tenant, run.user_id, "user")
        record = await self._agents.record(caller, agent_id)
        request = ChatRequest(
            message=message,
            conversation_id=run.conversation_id,
            client_timezone=above.settings.get("client_timezone"),
            knowledge_bases=record.data.get("knowledge_bases") or None,
        )
        plan = await self._agents.plan(caller, record, request)
        lineage = {"ancestors": [*above.settings.get("ancestors", ()), above.agent_id]}
        return plan.model_copy(
            update={
                "parent_call_id": parent_call_id,
                "depth": above.depth + 1,
                "settings": {**plan.settings, **lineage},
            }
        )


def linking(definitions: Mapping[str, SubAgentDefinition], clock: Clock) -> Callable[[Tx], None]:
    """What gives a tenant the edges that are written in code. Parents it does not have are passed over."""

    def unit(tx: Tx) -> None:
        for one in definitions.values():
            child = store.agent_named(tx, one.name)
            for parent_name in one.parents:
                parent = store.agent_named(tx, parent_name)
                if child is None or parent is None:
                    _log.warning("%s has no parent %s: there is no such agent", one.name, parent_name)
                    continue
                try:
                    _require_sound(tx, parent, child)
                except ConflictError as error:
                    _log.error("%s may not be called by %s: %s", one.name, parent_name, error.message)
                    continue
                store.link(tx, parent, child, background=one.background, now=clock.micros())

    return unit


def description_of(edge: Edge) -> str:
    """What the model is told of a sub-agent."""
    data: dict[str, Any] = json.loads(edge.data)
    return data.get("description") or f"Hands work over to {edge.name}."


def _named(edges: list[Edge]) -> list[tuple[str, Edge]]:
    seen: dict[str, int] = defaultdict(int)
    named: list[tuple[str, Edge]] = []
    for edge in edges:
        name = tool_name(edge.name)
        seen[name] += 1
        named.append((name if seen[name] == 1 else f"{name}_{seen[name]}", edge))
    return named


def tool_name(agent_name: str) -> str:
    """The name of the tool that calls an agent: `EmailsAgent` becomes `emails_agent`."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", agent_name)
    return re.sub(r"[^a-z0-9]+", "_", words.lower()).strip("_")[:56] or "sub_agent"


def _require_sound(tx: Tx, parent_id: str, child_id: str) -> None:
    below: dict[str, set[str]] = defaultdict(set)
    above: dict[str, set[str]] = defaultdict(set)
    for parent, child in store.all_edges(tx):
        below[parent].add(child)
        above[child].add(parent)
    if child_id == parent_id or parent_id in _reachable(below, child_id):
        raise ConflictError(
            "the two agents would call each other in a circle", details={"cycle": [parent_id, child_id]}
        )
    length = _height(above, parent_id) + 1 + _height(below, child_id)
    if length > MAX_DEPTH:
        raise ConflictError(
            f"the chain of sub-agents would be {length} deep; at most {MAX_DEPTH} are allowed",
            details={"depth": length, "limit": MAX_DEPTH},
        )


def _reachable(edges: dict[str, set[str]], start: str) -> set[str]:
    found: set[str] = set()
    pending = [start]
    while pending:
        fresh = edges[pending.pop()] - found
        found |= fresh
        pending.extend(fresh)
    return found


def _height(edges: dict[str, set[str]], start: str) -> int:
    """The longest way from an agent along the edges, which have no circles."""
    level, height = {start}, -1
    while level:
        level = {further for agent in level for further in edges[agent]}
        height += 1
    return height


def _unknown(parent_id: str, subagent_id: str) -> NotFoundError:
    return NotFoundError(
        f"agent {parent_id!r} has no sub-agent {subagent_id!r}",
        hint="client.agents.subagents.list(parent_id) shows those it has.",
    )
