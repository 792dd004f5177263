"""Tools: their definitions, which agents have them, and which a run may use. Called by routes and by rooms above.

A tool is defined once a tenant and name, and keeps its id; agents are given it, each with or without approval.
"""

import builtins
import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from agentflow.errors import ConflictError, NotFoundError, ValidationError
from agentflow.types.tools import (
    Assign,
    HttpCall,
    OpenApiImport,
    SetApproval,
    Tool,
    ToolCreate,
    ToolPage,
    ToolTest,
    ToolTestResult,
    ToolUpdate,
)

from agentflow_server.connectors import http
from agentflow_server.connectors.errors import ConnectorError
from agentflow_server.connectors.openapi import OpenApiError, operations
from agentflow_server.http.identity import Caller
from agentflow_server.kit.clock import Clock, to_datetime
from agentflow_server.kit.ids import new_id
from agentflow_server.resources.tools import store
from agentflow_server.resources.tools.builtin import CURRENT_TIME
from agentflow_server.resources.tools.execution import failure_of
from agentflow_server.resources.tools.resolver import DEFAULT_TIMEOUT, REFERENCE, ToolMaker
from agentflow_server.resources.tools.store import Assignment, ToolRecord
from agentflow_server.runtime.plan import ToolRef
from agentflow_server.runtime.structured import schema_problem
from agentflow_server.sandbox import Limits, SandboxError, SandboxRefused, Signature
from agentflow_server.sandbox.signature import SourceError, read_signature
from agentflow_server.storage import Database, Tx
from agentflow_server.storage.idempotency import once

logger = logging.getLogger(__name__)
RECALL_MEMORY, UPDATE_MEMORY = "recall_memory", "update_memory"
DEFAULT_TOOLS = (CURRENT_TIME, RECALL_MEMORY, UPDATE_MEMORY)
APPROVAL_TIMEOUT = 300.0
_OWN_KINDS = ("source", "http")
_KEPT = (
    "tags", "group", "icon", "icon_type", "icon_color", "icon_variant", "llm_usage", "execution_timeout", "idempotent",
    "max_retries", "require_approval", "approval_timeout",
)  # fmt: skip
_SHOWN = (*_KEPT, "description", "parameters", "secure_execution", "entrypoint", "function_code", "http", "mcp")


class ToolsService:
    """The tools room."""

    def __init__(self, db: Database, clock: Clock, maker: ToolMaker) -> None:
        self._db = db
        self._clock = clock
        self.maker = maker

    async def list(self, caller: Caller, agent_id: str | None, *, limit: int, offset: int) -> ToolPage:
        """A page of an agent's tools, or of all the tenant has.

        Raises:
            NotFoundError: there is no such agent.
        """

        def unit(tx: Tx) -> ToolPage:
            if agent_id is None:
                records, total = store.page(tx, limit=limit, offset=offset)
                tools = [shown(record, agents=store.agents_of(tx, record.id)) for record in records]
                return ToolPage(tools=tools, total=total, limit=limit, offset=offset)
            require_agent(tx, agent_id)
            found = store.assigned(tx, agent_id)
            tools = [shown_for(item) for item in found[offset : offset + limit]]
            return ToolPage(tools=tools, total=len(found), limit=limit, offset=offset)

        return await self._db.tenant(caller.tenant).read(unit)

    async def retrieve(self, caller: Caller, agent_id: str, identifier: str) -> Tool:
        """One of an agent's tools, by id or name.

        Raises:
            NotFoundError: the agent has no such tool.
        """
        return await self._db.tenant(caller.tenant).read(lambda tx: _shown_whole(tx, agent_id, identifier))

    async def create(self, caller: Caller, agent_id: str, wanted: ToolCreate, key: str | None = None) -> Tool:
        """Define a tool and give it to an agent.

        Raises:
            NotFoundError: no such agent. ConflictError: the name is taken. ValidationError: the source cannot run, the
            request cannot be made. NotAvailableError: an admin must allow what is asked for.
        """
        tool_id = new_id()
        data, kind = await self._definition(wanted, {})
        now = self._clock.micros()
        data["created_by_user_id"] = caller.user_id

        def unit(tx: Tx) -> Tool:
            agents = [agent_id, *(wanted.target_agent_ids or ())]
            agents += [wanted.target_sub_agent_id] if wanted.target_sub_agent_id else []
            for agent in agents:
                require_agent(tx, agent)

            def insert() -> str:
                record = ToolRecord(tool_id, wanted.name, kind, data, None, None, now, now)
                return self._insert(tx, caller.tenant, record, wanted)

            body = wanted.model_dump_json()
            stored = once(tx, user_id=caller.user_id, key=key, body=body, now=now, work=insert)
            for agent in agents:
                assign(tx, agent, _required(tx, stored), Assign())
            return _shown_whole(tx, agent_id, stored)

        return await self._db.tenant(caller.tenant).write(unit)

    def _insert(self, tx: Tx, tenant: str, record: ToolRecord, wanted: ToolCreate) -> str:
        known = store.find(tx, record.name)
        if known is not None and known.name == record.name:
            if not wanted.replace:
                raise _taken(record.name)
            _require_own(known)
            record = replace(record, id=known.id, created_at=known.created_at)
        record = replace(record, sealed=self.maker.seal(tenant, f"tool:{record.id}", wanted.credentials))
        if known is not None:
            store.update(tx, record)
        elif not store.insert(tx, record):
            raise _taken(record.name)
        return record.id

    async def update(self, caller: Caller, agent_id: str, identifier: str, changes: ToolUpdate) -> Tool:
        """Change a tool, for every agent that has it; `require_approval` and `approval_timeout` for this one alone.

        Raises:
            NotFoundError, ValidationError, NotAvailableError: as for the others. ConflictError: it is not a user's own.
        """
        db = self._db.tenant(caller.tenant)
        found = await db.read(lambda tx: _assigned(tx, agent_id, identifier))
        record = found.tool
        _require_own(record)
        data, kind = await self._definition(changes, record.data, name=record.name, kind=record.kind)
        sealed = record.sealed
        if "credentials" in changes.model_fields_set:
            sealed = self.maker.seal(caller.tenant, f"tool:{record.id}", changes.credentials)
        changed = replace(record, data=data, kind=kind, sealed=sealed, updated_at=self._clock.micros())

        def unit(tx: Tx) -> Tool:
            store.update(tx, changed)
            if changes.require_approval is not None or changes.approval_timeout is not None:
                required = found.require_approval if changes.require_approval is None else changes.require_approval
                seconds = changes.approval_timeout or found.approval_timeout
                store.set_approval(tx, agent_id, record.id, require_approval=required, approval_timeout=seconds)
            return _shown_whole(tx, agent_id, record.id)

        return await db.write(unit)

    async def delete(self, caller: Caller, agent_id: str, identifier: str) -> None:
        """Take a tool from an agent; one of a user's own that no agent has any more is gone.

        Raises:
            NotFoundError: the agent has no such tool.
        """

        def unit(tx: Tx) -> None:
            record = _assigned(tx, agent_id, identifier).tool
            store.unassign(tx, agent_id, record.id)
            if record.kind in _OWN_KINDS and not store.agents_of(tx, record.id):
                store.delete(tx, record.id)

        await self._db.tenant(caller.tenant).write(unit)

    async def assign(self, caller: Caller, agent_id: str, identifier: str, how: Assign) -> Tool:
        """Give an agent a tool of the tenant.

        Raises:
            NotFoundError: there is no such agent or tool.
        """

        def unit(tx: Tx) -> Tool:
            require_agent(tx, agent_id)
            record = _required(tx, identifier)
            assign(tx, agent_id, record, how)
            return _shown_whole(tx, agent_id, record.id)

        return await self._db.tenant(caller.tenant).write(unit)

    async def unassign(self, caller: Caller, agent_id: str, identifier: str) -> None:
        """Take a tool from an agent; the tool itself stays.

        Raises:
            NotFoundError: the agent has no such tool.
        """
        await self._db.tenant(caller.tenant).write(
            lambda tx: store.unassign(tx, agent_id, _assigned(tx, agent_id, identifier).tool.id)
        )

    async def set_approval(self, caller: Caller, agent_id: str, identifier: str, wanted: SetApproval) -> Tool:
        """Whether this agent's calls of a tool need approval.

        Raises:
            NotFoundError: the agent has no such tool.
        """

        def unit(tx: Tx) -> Tool:
            found = _assigned(tx, agent_id, identifier)
            seconds = wanted.timeout_seconds or found.approval_timeout
            store.set_approval(tx, agent_id, found.tool.id, require_approval=wanted.enabled, approval_timeout=seconds)
            return _shown_whole(tx, agent_id, found.tool.id)

        return await self._db.tenant(caller.tenant).write(unit)

    async def test(self, caller: Caller, agent_id: str, wanted: ToolTest) -> ToolTestResult:
        """Run source once; nothing is stored.

        Raises:
            NotFoundError: no such agent. NotAvailableError: an admin must allow what is asked for.
        """
        await self._db.tenant(caller.tenant).read(lambda tx: require_agent(tx, agent_id))
        sandbox = self.maker.sandbox(secure=wanted.secure_execution)
        progress: list[Any] = []
        signature: Signature | None = None
        described: dict[str, Any] = {}
        try:
            signature = await sandbox.check(wanted.function_code, wanted.entrypoint, limits=Limits(seconds=5.0))
            described = {
                "name": signature.name,
                "description": signature.description,
                "parameters": signature.parameters,
            }
            result = await sandbox.run(
                wanted.function_code, signature.name, wanted.arguments,
                limits=Limits(seconds=wanted.execution_timeout), on_progress=progress.append,
            )  # fmt: skip
        except SandboxError as error:
            failure = failure_of(error)
            problem: dict[str, Any] = {"code": failure.code, "message": str(failure)}
            if isinstance(error, SandboxRefused) and error.line is not None:
                problem["line"] = error.line
            return ToolTestResult(ok=False, error=problem, progress=progress, **described)
        return ToolTestResult(
            ok=True, result=result.value, stdout=result.stdout, duration_ms=result.duration_ms, progress=progress,
            **described,
        )  # fmt: skip

    async def import_openapi(self, caller: Caller, agent_id: str, wanted: OpenApiImport) -> ToolPage:
        """Make HTTP tools of operations of an OpenAPI document.

        Raises:
            ValidationError: the document cannot be read. ConflictError: a name is taken. NotFoundError: no such agent.
        """
        document = wanted.document if wanted.document is not None else await self._fetch(wanted.document_url or "")
        base = wanted.base_url or wanted.document_url
        try:
            found = operations(document, wanted.operations, base_url=base, prefix=wanted.prefix)
        except OpenApiError as error:
            raise invalid("document", str(error)) from None
        common: dict[str, Any] = {
            "tags": wanted.tags, "require_approval": wanted.require_approval, "replace": wanted.replace,
            "execution_timeout": wanted.execution_timeout, "credentials": wanted.credentials,
        }  # fmt: skip
        common = {name: value for name, value in common.items() if value is not None}
        tools = [
            await self.create(
                caller,
                agent_id,
                ToolCreate(
                    name=one.name, description=one.description, http=one.call, args_schema=one.parameters,
                    idempotent=one.call.method in ("GET", "HEAD", "PUT", "DELETE"), **common,
                ),
            )
            for one in found
        ]  # fmt: skip
        return ToolPage(tools=tools, total=len(tools), limit=len(tools), offset=0)

    async def _fetch(self, url: str) -> dict[str, Any]:
        try:
            async with self.maker.client(DEFAULT_TIMEOUT) as client:
                answer = await http.send(client, HttpCall(url=url), {}, None)
        except ConnectorError as error:
            raise invalid("document_url", str(error)) from None
        try:
            document = json.loads(answer.body) if isinstance(answer.body, str) else answer.body
        except ValueError:
            raise invalid("document_url", "what is there is not JSON") from None
        if not isinstance(document, dict):
            raise invalid("document_url", "what is there is not a JSON object")
        return document

    async def _definition(
        self, wanted: ToolCreate | ToolUpdate, before: dict[str, Any], *, name: str = "", kind: str = ""
    ) -> tuple[dict[str, Any], str]:
        """The definition as it is stored, checked; and its kind."""
        given = wanted.model_dump(mode="json", include={*_KEPT, "description"}, exclude_unset=True)
        data = {**before, **given}
        data = {key: value for key, value in data.items() if value is not None}
        name = wanted.name if isinstance(wanted, ToolCreate) else name
        if wanted.http is not None or (kind == "http" and wanted.function_code is None):
            kind = "http"
            self._http(wanted, data)
        else:
            kind = "source"
            await self._source(wanted, data, name)
        if problem := schema_problem(data["parameters"]):
            raise invalid("args_schema", f"this is not a JSON Schema: {problem}")
        if data["parameters"].get("type") != "object":
            raise invalid("args_schema", "must describe an object: `type` must be `object`")
        properties: dict[str, Any] = data["parameters"].get("properties", {})
        for argument, text in (wanted.param_descriptions or {}).items():
            if argument not in properties:
                raise invalid("param_descriptions", f"there is no argument {argument!r}")
            properties[argument] = {**properties[argument], "description": text}
        if data.get("max_retries") and not data.get("idempotent"):
            raise invalid("max_retries", "only an idempotent tool can be tried again: set idempotent")
        return data, kind

    def _http(self, wanted: ToolCreate | ToolUpdate, data: dict[str, Any]) -> None:
        for field in ("function_code", "entrypoint", "secure_execution"):
            data.pop(field, None)
        if wanted.http is not None:
            data["http"] = wanted.http.model_dump(mode="json", exclude_defaults=True)
        if wanted.schema_given is not None:
            data["parameters"] = wanted.schema_given
        elif "parameters" not in data:
            names = http.places(data["http"]["url"])
            properties: dict[str, Any] = {name: {"type": "string"} for name in names}
            required = list(dict.fromkeys(names))
            data["parameters"] = {
                "type": "object", "properties": properties, "required": required, "additionalProperties": False,
            }  # fmt: skip
        if problem := http.problem(HttpCall.model_validate(data["http"]), data["parameters"]):
            field, _, message = problem.partition(": ")
            raise invalid(f"http.{field}" if message else "http", message or problem)

    async def _source(self, wanted: ToolCreate | ToolUpdate, data: dict[str, Any], name: str) -> None:
        if wanted.credentials is not None:
            raise invalid("credentials", "are for HTTP tools: source has no network to use them on")
        data.pop("http", None)
        if wanted.function_code is not None:
            data["function_code"] = wanted.function_code
        if wanted.secure_execution is not None:
            data["secure_execution"] = wanted.secure_execution
        sandbox = self.maker.sandbox(secure=data.get("secure_execution", True))
        source: str = data["function_code"]
        entrypoint = wanted.entrypoint or (None if wanted.function_code else data.get("entrypoint"))
        try:
            signature = await sandbox.check(
                source, entrypoint or _function_named(source, name), limits=Limits(seconds=5.0)
            )
        except SandboxError as error:
            raise invalid("function_code", str(error)) from None
        data["entrypoint"] = signature.name
        if wanted.schema_given is not None:
            _require_fit(wanted.schema_given, signature)
            data["parameters"] = wanted.schema_given
        elif wanted.function_code is not None or "parameters" not in data:
            data["parameters"] = signature.parameters

    # What rooms above ask for, inside their own transactions.

    def references(self, tx: Tx, agent_id: str) -> tuple[ToolRef, ...]:
        """References to an agent's tools, in order, as they are frozen into a plan."""
        return tuple(reference(item) for item in store.assigned(tx, agent_id))

    def names(self, tx: Tx, agent_ids: Sequence[str]) -> "dict[str, builtins.list[str]]":
        """The names of the tools of each of these agents."""
        return store.names_of(tx, agent_ids)

    def count(self, tx: Tx) -> int:
        """How many tools the tenant has."""
        return store.count(tx)

    def set_names(self, tx: Tx, agent_id: str, names: Sequence[str], *, converging: bool = False) -> None:
        """Let an agent have exactly the tools of these names (or ids); those it had keep their approval.

        Args:
            converging: keep also what the agent has besides, and leave out what does not exist.

        Raises:
            ValidationError: there is no such tool.
        """
        wanted: list[ToolRecord] = []
        for name in names:
            record = store.find(tx, name)
            if record is not None:
                wanted.append(record)
            elif not converging:
                raise invalid("tools", f"there is no tool {name!r}")
            else:
                logger.warning("an agent names a tool that does not exist", extra={"agent": agent_id, "tool": name})
        keep = {record.id for record in wanted}
        for item in store.assigned(tx, agent_id):
            if item.tool.id not in keep and not converging:
                store.unassign(tx, agent_id, item.tool.id)
        for record in wanted:
            assign(tx, agent_id, record, Assign(), again=False)

    def forget_agent(self, tx: Tx, agent_id: str) -> None:
        """Take every tool from an agent that is removed; tools only it had stay, to be given to others."""
        store.unassign(tx, agent_id, None)

    def converge(self, tx: Tx) -> None:
        """Bring the tenant's built-in and code-defined tools in line with this server's."""
        now = self._clock.micros()
        for tool in self.maker.builtins.values():
            spec = tool.spec
            data = {"description": spec.description, "parameters": spec.parameters, "idempotent": tool.idempotent}
            _converge_one(tx, "builtin", spec.name, data, now)
        for definition in self.maker.definitions.tools.values():
            data = {
                "description": definition.description, "parameters": definition.parameters,
                "tags": list(definition.tags), "group": definition.group, "execution_timeout": definition.timeout,
                "idempotent": definition.idempotent, "max_retries": definition.max_retries,
                "require_approval": definition.require_approval, "approval_timeout": definition.approval_timeout,
            }  # fmt: skip
            _converge_one(tx, "code", definition.name, data, now)
        for record in (*store.of_kind(tx, "builtin"), *store.of_kind(tx, "code")):
            known = self.maker.builtins if record.kind == "builtin" else self.maker.definitions.tools
            if record.name not in known:
                store.delete(tx, record.id)

    def converge_assignments(self, tx: Tx) -> None:
        """Give code-defined tools to the agents they name."""
        for definition in self.maker.definitions.tools.values():
            record = store.find(tx, definition.name)
            for name in definition.agents:
                agent_id = store.agent_named(tx, name)
                if record is not None and record.kind == "code" and agent_id is not None:
                    assign(tx, agent_id, record, Assign(), again=False)


def reference(item: Assignment) -> ToolRef:
    """A tool of an agent as a plan holds it: its definition is read when the run begins, its approval is frozen."""
    config: dict[str, Any] = {"id": item.tool.id, "kind": item.tool.kind}
    if item.require_approval:
        config["approval"] = item.approval_timeout
    return ToolRef(kind=REFERENCE, name=item.tool.name, config=config)


def shown_for(item: Assignment) -> Tool:
    """A tool as one agent has it, without its source."""
    tool = shown(item.tool)
    tool.require_approval, tool.approval_timeout = item.require_approval, item.approval_timeout
    return tool


def shown(record: ToolRecord, *, agents: Sequence[str] = (), whole: bool = False) -> Tool:
    """A definition as the wire shows it."""
    hidden = () if whole else ("function_code",)
    data = {name: record.data[name] for name in _SHOWN if record.data.get(name) is not None and name not in hidden}
    return Tool(
        id=record.id, tool_id=record.id, name=record.name, kind=record.kind,
        has_credentials=record.sealed is not None, agent_ids=list(agents),
        created_by_user_id=record.data.get("created_by_user_id"),
        created_at=to_datetime(record.created_at), updated_at=to_datetime(record.updated_at), **data,
    )  # fmt: skip


def invalid(field: str, message: str) -> ValidationError:
    """A field of a request that does not hold."""
    return ValidationError(f"{field}: {message}", details=[{"field": field, "message": message}])


def _shown_whole(tx: Tx, agent_id: str, identifier: str) -> Tool:
    item = _assigned(tx, agent_id, identifier)
    tool = shown(item.tool, agents=store.agents_of(tx, item.tool.id), whole=True)
    tool.require_approval, tool.approval_timeout = item.require_approval, item.approval_timeout
    return tool


def _assigned(tx: Tx, agent_id: str, identifier: str) -> Assignment:
    require_agent(tx, agent_id)
    found = store.assignment(tx, agent_id, identifier)
    if found is None:
        raise NotFoundError(
            f"the agent has no tool {identifier!r}", hint="client.agents.tools.list(agent_id) shows those it has."
        )
    return found


def _required(tx: Tx, identifier: str) -> ToolRecord:
    record = store.find(tx, identifier)
    if record is None:
        raise NotFoundError(f"there is no tool {identifier!r}")
    return record


def require_agent(tx: Tx, agent_id: str) -> None:
    """Refuse an agent that the tenant does not have.

    Raises:
        NotFoundError: there is none.
    """
    if not store.agent_exists(tx, agent_id):
        raise NotFoundError(
            f"there is no agent {agent_id!r}",
            hint="client.agents.list() shows those there are; ids are UUIDs, not names.",
        )


def _require_own(record: ToolRecord) -> None:
    if record.kind not in _OWN_KINDS:
        raise ConflictError(f"{record.name} is a tool of kind {record.kind}; it is not changed here")


def assign(tx: Tx, agent_id: str, record: ToolRecord, how: Assign, *, again: bool = True) -> None:
    """Give a tool to an agent; one that has it already keeps its approval unless `how` says otherwise."""
    required = how.require_approval
    if required is None:
        required = bool(record.data.get("require_approval"))
    seconds = how.approval_timeout or record.data.get("approval_timeout") or APPROVAL_TIMEOUT
    fresh = store.assign(tx, agent_id, record.id, require_approval=required, approval_timeout=seconds)
    if not fresh and again and how.model_fields_set:
        store.set_approval(tx, agent_id, record.id, require_approval=required, approval_timeout=seconds)


def _converge_one(tx: Tx, kind: str, name: str, data: dict[str, Any], now: int) -> None:
    known = store.find(tx, name)
    if known is None:
        store.insert(tx, ToolRecord(new_id(), name, kind, data, None, None, now, now))
    elif known.kind in (kind, "builtin", "code") and (known.kind, known.data) != (kind, data):
        store.update(tx, replace(known, kind=kind, data=data, updated_at=now))


def _function_named(source: str, name: str) -> str | None:
    """The tool's own name, if the source has a function that is called so."""
    try:
        return read_signature(source, name).name
    except SourceError:
        return None


def _require_fit(schema: dict[str, Any], signature: Signature) -> None:
    """Refuse a schema whose arguments the function would not take."""
    takes = signature.parameters
    offered: dict[str, Any] = schema.get("properties", {})
    if not takes["additionalProperties"] and (unknown := [name for name in offered if name not in takes["properties"]]):
        raise invalid("args_schema", f"the function {signature.name} takes no argument {unknown[0]!r}")
    if missing := [name for name in takes.get("required", ()) if name not in offered]:
        raise invalid("args_schema", f"the function {signature.name} needs the argument {missing[0]!r}")


def _taken(name: str) -> ConflictError:
    return ConflictError(
        f"there is a tool named {name!r} already", details={"name": name}, hint="Pass replace=True to change it."
    )
