"""Agents: what they are configured to be, and how a run of one is frozen into a plan. Called by routes and by runs."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from agentflow.errors import ConflictError, NotAvailableError, NotFoundError, ValidationError
from agentflow.types.agents import Agent, AgentConfig, AgentCreate, AgentPage, AgentStats, AgentUpdate, Capabilities
from agentflow.types.knowledge_bases import AssignedKnowledgeBases, SearchRequest, SearchResult
from agentflow.types.prompt_blocks import PromptBlock
from agentflow.types.runs import ChatRequest

from agentflow_server.definitions import AgentDefinition
from agentflow_server.gateway import Gateway
from agentflow_server.gateway.messages import TextPart, UserMessage, tagged
from agentflow_server.http.identity import Caller
from agentflow_server.kit import telemetry
from agentflow_server.kit.clock import Clock, to_datetime
from agentflow_server.kit.ids import new_id
from agentflow_server.resources.agents import store
from agentflow_server.resources.agents.store import AgentRecord
from agentflow_server.resources.knowledge_bases.service import KnowledgeBasesService
from agentflow_server.resources.prompt_blocks.service import PromptBlocksService
from agentflow_server.resources.tools.service import DEFAULT_TOOLS, ToolsService
from agentflow_server.runtime.plan import Contribution, Contributor, OutputSpec, Plan, PlanAsk, ToolRef
from agentflow_server.runtime.structured import schema_problem
from agentflow_server.storage import Database, Tx, audit
from agentflow_server.storage.audit import AuditEntry
from agentflow_server.storage.idempotency import once

T = TypeVar("T")
MAIN_AGENT = "MainAgent"
_MAIN = {
    "label": "Main agent",
    "description": "Receives every request and answers it, or hands it to a specialist.",
    "system_prompt": "You are MainAgent, a helpful assistant. Use your tools when they help. Answer briefly.",
    "is_system_agent": True,
}
_SAMPLING = ("temperature", "max_tokens", "top_p", "frequency_penalty", "presence_penalty", "reasoning_effort")
_NOT_BUILT = {
    "skills": "skills",
}


class AgentsService:
    """The agents room."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        gateway: Gateway,
        tools: ToolsService,
        prompt_blocks: PromptBlocksService,
        knowledge: KnowledgeBasesService,
        contributors: Sequence[Contributor] = (),
        definitions: Mapping[str, AgentDefinition] | None = None,
        setups: Sequence[Callable[[Tx], None]] = (),
    ) -> None:
        self._db = db
        self._clock = clock
        self._gateway = gateway
        self._tools = tools
        self._knowledge = knowledge
        self._prompt_blocks = prompt_blocks
        self._contributors = contributors
        self._definitions = definitions or {}
        self._setups = setups
        self._known_tenants: set[str] = set()

    async def admit(self, caller: Caller, allowed: bool) -> bool:
        """Whether a tenant is set up. One that is seen for the first time is, if `allowed`: it gets its `MainAgent`.

        Every one that this process sees for the first time is brought in line with what is defined in code.
        """
        if caller.tenant in self._known_tenants:
            return True
        tenant = self._db.tenant(caller.tenant)
        if not allowed and not await tenant.read(store.has_tenant):
            return False
        now = self._clock.micros()

        def unit(tx: Tx) -> None:
            self._tools.converge(tx)
            if store.add_tenant(tx, now):
                main = AgentRecord(new_id(), MAIN_AGENT, dict(_MAIN), now, now)
                store.insert(tx, main)
                self._tools.set_names(tx, main.id, DEFAULT_TOOLS)
                actor = caller.client or caller.user_id
                audit.append(
                    tx, AuditEntry(new_id(), now, actor, caller.kind, "tenant.set_up", caller.tenant, 201, None)
                )
            self._converge(tx, now)
            for setup in self._setups:
                setup(tx)
            self._tools.converge_assignments(tx)

        await tenant.write(unit)
        self._known_tenants.add(caller.tenant)
        return True

    def _converge(self, tx: Tx, now: int) -> None:
        """Write the agents that are defined in code; fields the code does not name stay as they are."""
        for definition in self._definitions.values():
            settings = AgentCreate.model_validate({**definition.config, "name": definition.name})
            fields = settings.model_dump(mode="json", exclude_unset=True, exclude={"name", "tools"})
            kept = store.by_id(tx, definition.agent_id) if definition.agent_id else None
            known = kept or store.by_name(tx, definition.name)
            data = {**(known.data if known else {}), **fields, "implementation_type": "code"}
            identity = known.id if known else definition.agent_id or new_id()
            record = AgentRecord(identity, definition.name, data, now, now)
            if known is None:
                store.insert(tx, record)
            elif (known.name, known.data) != (record.name, data):
                store.update(tx, record)
            if settings.tools is not None:
                self._tools.set_names(tx, record.id, settings.tools, converging=True)

    async def list(self, caller: Caller, *, name: str | None, limit: int, offset: int) -> AgentPage:
        """A page of the tenant's agents."""

        def unit(tx: Tx) -> AgentPage:
            records, total = store.page(tx, name=name, limit=limit, offset=offset)
            names = self._tools.names(tx, [record.id for record in records])
            agents = [agent_of(record, names[record.id]) for record in records]
            return AgentPage(agents=agents, total=total, limit=limit, offset=offset)

        return await self._db.tenant(caller.tenant).read(unit)

    async def stats(self, caller: Caller) -> AgentStats:
        """How many agents and tools there are."""

        def unit(tx: Tx) -> AgentStats:
            records, total = store.page(tx, name=None, limit=100_000, offset=0)
            system = sum(bool(record.data.get("is_system_agent")) for record in records)
            return AgentStats(agents=total, system_agents=system, tools=self._tools.count(tx))

        return await self._db.tenant(caller.tenant).scan(unit)

    async def record(self, caller: Caller, agent_id: str) -> AgentRecord:
        """The stored agent.

        Raises:
            NotFoundError: the tenant has no such agent.
        """
        record = await self._db.tenant(caller.tenant).read(lambda tx: store.by_id(tx, agent_id))
        if record is None:
            raise _unknown(agent_id)
        return record

    async def retrieve(self, caller: Caller, agent_id: str) -> Agent:
        return await self._with_tools(caller, await self.record(caller, agent_id), agent_of)

    async def config(self, caller: Caller, agent_id: str) -> AgentConfig:
        return await self._with_tools(caller, await self.record(caller, agent_id), config_of)

    async def _with_tools(
        self, caller: Caller, record: AgentRecord, show: "Callable[[AgentRecord, list[str]], T]"
    ) -> T:
        names = await self._db.tenant(caller.tenant).read(lambda tx: self._tools.names(tx, [record.id]))
        return show(record, names[record.id])

    async def context_blocks(self, caller: Caller, agent_id: str) -> "list[PromptBlock]":
        """The prompt blocks that runs of an agent are given."""
        record = await self.record(caller, agent_id)
        found = await self._prompt_blocks.definitions(caller.tenant)
        return [definition.block for definition in found if definition.is_for(record.id, record.name)]

    async def create(
        self,
        caller: Caller,
        wanted: AgentCreate,
        key: str | None = None,
        also: Callable[[Tx, str], None] | None = None,
    ) -> Agent:
        """Add an agent; a second request with the same idempotency key gives the agent of the first.

        Args:
            also: written in the same transaction, with the agent's id.

        Raises:
            ConflictError: the name is taken. ValidationError: an unknown tool or model.
        """
        data = wanted.model_dump(mode="json", exclude_none=True, exclude={"name", "tools"})
        self._check(data)
        await self._knowledge.check(caller.tenant, data.get("knowledge_bases", ()), "knowledge_bases")
        now = self._clock.micros()
        record = AgentRecord(new_id(), wanted.name, {**data, "created_by_user_id": caller.user_id}, now, now)

        def unit(tx: Tx) -> AgentRecord:
            def insert() -> str:
                if not store.insert(tx, record):
                    raise _taken(wanted.name)
                self._tools.set_names(tx, record.id, wanted.tools or ())
                return record.id

            body = wanted.model_dump_json()
            agent_id = once(tx, user_id=caller.user_id, key=key, body=body, now=now, work=insert)
            found = store.by_id(tx, agent_id)
            if found is None:
                raise _unknown(agent_id)
            if also is not None:
                also(tx, agent_id)
            return found

        created = await self._db.tenant(caller.tenant).write(unit)
        return await self._with_tools(caller, created, agent_of)

    async def update(
        self, caller: Caller, agent_id: str, changes: AgentUpdate, show: "Callable[[AgentRecord, list[str]], T]"
    ) -> T:
        """Change an agent, and show it; `llm_config` is merged field by field, null goes back to the default.

        Raises:
            NotFoundError, ConflictError, ValidationError: as for the others.
        """
        fields = changes.model_dump(mode="json", exclude_unset=True)
        name = fields.pop("name", None)
        await self._knowledge.check(caller.tenant, fields.get("knowledge_bases") or (), "knowledge_bases")
        tools: list[str] | None = fields.pop("tools", None)

        def merge(record: AgentRecord) -> AgentRecord:
            data = {**record.data, **fields}
            if fields.get("llm_config"):
                data["llm_config"] = _without_none({**record.data.get("llm_config", {}), **fields["llm_config"]})
            data = _without_none(data)
            self._check(data)
            return AgentRecord(record.id, name or record.name, data, record.created_at, self._clock.micros())

        def unit(tx: Tx) -> AgentRecord:
            record = _replace(tx, agent_id, merge)
            if tools is not None:
                self._tools.set_names(tx, agent_id, tools)
            return record

        return await self._with_tools(caller, await self._db.tenant(caller.tenant).write(unit), show)

    async def assign(self, caller: Caller, agent_id: str, kb: str, *, assigned: bool) -> AgentRecord:
        """Give a knowledge base to an agent, or take it away; doing it again changes nothing.

        Raises:
            NotFoundError: there is no such agent, or no such knowledge base to give.
        """
        if assigned:
            await self._knowledge.retrieve(caller, kb)

        def merge(record: AgentRecord) -> AgentRecord:
            others = [one for one in record.data.get("knowledge_bases") or () if one != kb]
            data = {**record.data, "knowledge_bases": [*others, kb] if assigned else others}
            return AgentRecord(record.id, record.name, data, record.created_at, self._clock.micros())

        return await self._db.tenant(caller.tenant).write(lambda tx: _replace(tx, agent_id, merge))

    async def knowledge_bases(self, caller: Caller, agent_id: str) -> AssignedKnowledgeBases:
        """An agent's knowledge bases, those that exist."""
        record = await self.record(caller, agent_id)
        found = await self._knowledge.some(caller, record.data.get("knowledge_bases") or ())
        return AssignedKnowledgeBases(agent_id=agent_id, knowledge_bases=found)

    async def search_knowledge(self, caller: Caller, agent_id: str, request: SearchRequest) -> SearchResult:
        """Search all knowledge bases of an agent as one.

        Raises:
            NotFoundError: there is no such agent.
        """
        record = await self.record(caller, agent_id)
        ids = record.data.get("knowledge_bases") or ()
        return await self._knowledge.search_many(caller.tenant, caller.user_id, ids, request, agent_id=agent_id)

    async def delete(self, caller: Caller, agent_id: str) -> None:
        """Remove an agent. Its conversations stay readable.

        Raises:
            NotFoundError: there is none. ConflictError: it belongs to the system.
        """
        record = await self.record(caller, agent_id)
        if record.data.get("is_system_agent"):
            raise ConflictError(f"{record.name} is a system agent and cannot be deleted")

        def unit(tx: Tx) -> None:
            store.delete(tx, agent_id)
            self._tools.forget_agent(tx, agent_id)

        await self._db.tenant(caller.tenant).write(unit)

    def _check(self, data: dict[str, Any]) -> None:
        if model := data.get("llm_config", {}).get("model"):
            self._check_model(model, "llm_config.model")

    def _check_model(self, model: str, field: str) -> None:
        try:
            self._gateway.model(model)
        except NotFoundError as error:
            raise _invalid(field, error.message) from None

    async def plan(self, caller: Caller, record: AgentRecord, request: ChatRequest) -> Plan:
        """Freeze a run of an agent.

        Raises:
            ValidationError: a field does not hold. NotAvailableError: a field asks for what this server does not offer.
        """
        for field in _NOT_BUILT:
            if getattr(request, field):
                raise _not_built(field)
        config: dict[str, Any] = record.data.get("llm_config", {})
        model = await self._model(caller, request.model, config.get("model"))
        sampling = {name: value for name in _SAMPLING if (value := _either(request, config, name)) is not None}
        if request.reasoning_summary:
            sampling["reasoning_summary"] = request.reasoning_summary
        ask = PlanAsk(
            caller.tenant, caller.user_id, record.id, record.name, record.data, request.message, request, model,
            request.conversation_id,
        )  # fmt: skip
        added = await asyncio.gather(*(contributor.contribute(ask) for contributor in self._contributors))
        mine = await self._db.tenant(caller.tenant).read(lambda tx: self._tools.references(tx, record.id))
        own = _selected(record, request, mine)
        return Plan(
            trace=telemetry.carrier(),
            agent_id=record.id,
            agent_name=record.name,
            model=model,
            text=request.message,
            user=self._user_message(request, added),
            system=(*_system(record.data), *(text for one in added for text in one.system)),
            sampling=sampling,
            tools=(*own, *(ref for one in added for ref in one.tools)),
            max_turns=request.max_turns or record.data.get("max_turns") or 10,
            output=_output(request),
            settings={name: value for one in added for name, value in one.settings.items()},
            notices=tuple(notice for one in added for notice in one.notices),
            citations=tuple(citation for one in added for citation in one.citations),
            planning=bool(_either(request, record.data, "enable_planning")),
            reflections=_reflections(request, record.data),
        )

    async def _model(self, caller: Caller, asked: str | None, own: str | None) -> str:
        try:
            return await self._gateway.choose(caller.tenant, caller.user_id, asked=asked, agent=own)
        except NotFoundError as error:
            raise _invalid("model", error.message) from None

    def _user_message(self, request: ChatRequest, added: "Sequence[Contribution]") -> UserMessage:
        """The message with its hidden context and what is attached in front."""
        hidden = [tagged("system_context", text) for one in added for text in one.context]
        hidden += [tagged("system_events", text) for one in added for text in one.events]
        hidden += [tagged("system_reminders", text) for one in added for text in one.reminders]
        parts = [part for one in added for part in one.parts]
        before = [TextPart(text=text) for text in hidden]
        return UserMessage(parts=(*before, *parts, TextPart(text=request.message)))


def _selected(record: AgentRecord, request: ChatRequest, own: Sequence[ToolRef]) -> tuple[ToolRef, ...]:
    """The agent's tools that the request selects, by name or id; all of them by default."""
    if request.selected_tools is None:
        return tuple(own)
    known = {key for ref in own for key in (ref.name, ref.config["id"])}
    if unknown := [name for name in request.selected_tools if name not in known]:
        raise _invalid("selected_tools", f"{record.name} has no tool {unknown[0]!r}")
    return tuple(ref for ref in own if not {ref.name, ref.config["id"]}.isdisjoint(request.selected_tools))


def _replace(tx: Tx, agent_id: str, merge: Callable[[AgentRecord], AgentRecord]) -> AgentRecord:
    record = store.by_id(tx, agent_id)
    if record is None:
        raise _unknown(agent_id)
    changed = merge(record)
    if not store.update(tx, changed):
        raise _taken(changed.name)
    return changed


def _either(request: ChatRequest, config: dict[str, Any], name: str) -> Any:
    value = getattr(request, name)
    return config.get(name) if value is None else value


def _reflections(request: ChatRequest, data: dict[str, Any]) -> int:
    """How often a draft may be sent back: not at all, unless reflection is on."""
    if not _either(request, data, "enable_reflection"):
        return 0
    most = _either(request, data, "max_reflection_attempts")
    return 1 if most is None else most


def _without_none(data: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in data.items() if value is not None}


def _system(data: dict[str, Any]) -> tuple[str, ...]:
    texts = [data.get(name) for name in ("system_prompt", "custom_instructions", "additional_context")]
    joined = "\n\n".join(text for text in texts if text)
    return (joined,) if joined else ()


def _output(request: ChatRequest) -> OutputSpec | None:
    if request.output_schema is None:
        return None
    schema = request.output_schema.schema_
    if problem := schema_problem(schema):
        raise _invalid("output_schema.schema", f"this is not a JSON Schema: {problem}")
    return OutputSpec(name=request.output_schema.name, json_schema=schema)


def agent_of(record: AgentRecord, tools: Sequence[str]) -> Agent:
    """An agent as listings show it."""
    data = record.data
    return Agent(
        id=record.id,
        name=record.name,
        label=data.get("label"),
        description=data.get("description"),
        icon=data.get("icon"),
        tool_count=len(tools),
        sub_agent_count=record.sub_agents,
        capabilities=Capabilities(
            planning=data.get("enable_planning", False), reflection=data.get("enable_reflection", False)
        ),
        is_system_agent=data.get("is_system_agent", False),
        created_by_user_id=data.get("created_by_user_id"),
        created_at=to_datetime(record.created_at),
        updated_at=to_datetime(record.updated_at),
    )


def config_of(record: AgentRecord, tools: Sequence[str]) -> AgentConfig:
    """An agent's configuration as the wire shows it."""
    known = {name: value for name, value in record.data.items() if name in AgentConfig.model_fields}
    own = {
        "id": record.id,
        "name": record.name,
        "tools": list(tools),
        "tool_count": len(tools),
        "sub_agent_count": record.sub_agents,
    }
    return AgentConfig.model_validate({**known, **own})


def _unknown(agent_id: str) -> NotFoundError:
    return NotFoundError(
        f"there is no agent {agent_id!r}", hint="client.agents.list() shows those there are; ids are UUIDs, not names."
    )


def _taken(name: str) -> ConflictError:
    return ConflictError(f"there is an agent named {name!r} already", details={"name": name})


def _invalid(field: str, message: str) -> ValidationError:
    return ValidationError(f"{field}: {message}", details=[{"field": field, "message": message}])


def _not_built(field: str) -> NotAvailableError:
    feature = _NOT_BUILT[field]
    return NotAvailableError(
        f"{field}: this server does not offer {feature}", details=[{"field": field, "message": f"needs {feature}"}]
    )
