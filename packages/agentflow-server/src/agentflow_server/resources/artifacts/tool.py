"""Artifacts as the runtime sees them: what a run is told of them, and the tools that make and change them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agentflow.errors import ConflictError, NotFoundError, ValidationError
from agentflow.types.artifacts import ArtifactContentUpdate, ArtifactType

from agentflow_server.gateway.messages import ToolSpec
from agentflow_server.kit.clock import Clock
from agentflow_server.resources.artifacts import store
from agentflow_server.resources.artifacts.service import ArtifactsService, conflict
from agentflow_server.resources.artifacts.store import ArtifactRecord, VersionRecord
from agentflow_server.runtime.context import RunContext
from agentflow_server.runtime.plan import Contribution, Notice, PlanAsk, ToolRef
from agentflow_server.runtime.structured import first_problem
from agentflow_server.runtime.tools import Tool, ToolFailedError, ToolInvocation, ToolOutcome
from agentflow_server.storage import Tx

KIND = "artifacts"
CREATE = "create_artifact"
UPDATE = "update_artifact"
_SHOWN = 20
_SELECTED = 20_000


class Artifacts:
    """Contributor and resolver of the room."""

    def __init__(self, service: ArtifactsService, clock: Clock) -> None:
        self._service = service
        self._clock = clock

    async def contribute(self, ask: PlanAsk) -> Contribution:
        """For agents with `artifact_types`: the conversation's artifacts, what people did, the tools.
        For every agent: the artifacts the request selects.
        """
        types = await self._usable(ask.tenant, ask.agent.get("artifact_types") or ())
        selected = [await self._selected(ask, artifact_id) for artifact_id in ask.options.artifacts or ()]
        if not types and not selected:
            return Contribution()
        found: list[ArtifactRecord] = []
        changes: list[VersionRecord] = []
        if ask.conversation_id is not None and types:
            found, changes = await self._service.of_conversation(ask.tenant, ask.user_id, ask.conversation_id, _SHOWN)
        known = await self._service.types(ask.tenant)
        refs = [ToolRef(kind=KIND, name=CREATE, config={"types": list(types)})] if types else []
        summaries = [self._line(record, known.get(record.type)) for record in found]
        return Contribution(
            context=(
                *(("Artifacts of this conversation:\n" + "\n".join(summaries),) if summaries else ()),
                *selected,
            ),
            events=("\n".join(_told(change) for change in changes),) if changes else (),
            tools=(*refs, ToolRef(kind=KIND, name=UPDATE)),
        )

    async def catalogue(self, tenant: str, agent: Mapping[str, Any]) -> str | None:
        """The types an agent may make, for the prompt block `available_artifacts`."""
        types = await self._usable(tenant, agent.get("artifact_types") or ())
        return "\n".join(f"- {name}: {found.description}" for name, found in types.items()) or None

    async def _usable(self, tenant: str, names: Any) -> dict[str, ArtifactType]:
        if not names:
            return {}
        known = await self._service.types(tenant)
        return known if "*" in names else {name: known[name] for name in names if name in known}

    async def _selected(self, ask: PlanAsk, artifact_id: str) -> str:
        try:
            found = await self._service.record(ask.tenant, ask.user_id, artifact_id)
        except NotFoundError as error:
            message = f"artifacts: {error.message}"
            raise ValidationError(message, details=[{"field": "artifacts", "message": error.message}]) from None
        content = json.dumps(found.content, ensure_ascii=False)[:_SELECTED]
        return f"The artifact the user has chosen:\n{_head(found)}\n{content}"

    def _line(self, record: ArtifactRecord, type_: ArtifactType | None) -> str:
        return f"{_head(record)}: {self._service.summary_of(record, type_)}"

    async def resolve(self, context: RunContext) -> Mapping[str, Tool]:
        """The room's tools, for runs whose plan names them."""
        refs = {ref.name: ref for ref in context.plan.tools if ref.kind == KIND}
        if not refs:
            return {}
        known = await self._service.types(context.tenant)
        tools: dict[str, Tool] = {UPDATE: UpdateArtifact(self._service, known)}
        if CREATE in refs:
            types = {name: known[name] for name in refs[CREATE].config["types"] if name in known}
            tools[CREATE] = CreateArtifact(self._service, types, self._clock)
        return tools


@dataclass(frozen=True, slots=True)
class CreateArtifact:
    """`create_artifact`. The artifact's id is the call's: a call that is looked at again makes no second one."""

    service: ArtifactsService
    types: dict[str, ArtifactType]
    clock: Clock
    timeout: float | None = 30.0
    idempotent: bool = True

    @property
    def spec(self) -> ToolSpec:
        schemas = "\n".join(
            f"{name}: {json.dumps(found.content_schema, ensure_ascii=False)}" for name, found in self.types.items()
        )
        return ToolSpec(
            name=CREATE,
            description=f"Makes an artifact for the user. The content must fit the schema of its type:\n{schemas}",
            parameters={
                "type": "object",
                "properties": {
                    "type": {"enum": list(self.types)},
                    "title": {"type": "string", "minLength": 1, "maxLength": 500},
                    "content": {"type": "object"},
                },
                "required": ["type", "title", "content"],
                "additionalProperties": False,
            },
        )

    async def gate(self, invocation: ToolInvocation) -> ToolInvocation:
        return invocation

    async def run(self, invocation: ToolInvocation) -> ToolOutcome:
        arguments, run = invocation.arguments, invocation.context.run
        type_ = self.types[arguments["type"]]
        content = self.service.begun(type_.name, arguments["content"])
        if problem := first_problem(content, type_.content_schema):
            return _refused(invocation.call_id, type_.name, f"content: {problem}")
        now = self.clock.micros()
        record = ArtifactRecord(
            invocation.call_id, run.user_id, run.conversation_id, run.id, type_.name, arguments["title"],
            content, {"status": type_.initial_state}, 1, now, now,
        )  # fmt: skip

        def keep(tx: Tx) -> None:
            store.insert(tx, record, "agent")

        told = _described(record)
        announce = tuple(Notice(type=f"artifact_{what}", content=told) for what in ("started", "completed"))
        text = f"Made the {type_.name} {record.id}, version 1, state {type_.initial_state}."
        return ToolOutcome(text, told, announce=announce, also=keep)


@dataclass(frozen=True, slots=True)
class UpdateArtifact:
    """`update_artifact`: changes the content, if it is still what the model thinks it is."""

    service: ArtifactsService
    types: dict[str, ArtifactType]
    timeout: float | None = 30.0
    idempotent: bool = True

    @property
    def spec(self) -> ToolSpec:
        return ToolSpec(
            name=UPDATE,
            description="Changes an artifact: content is a JSON merge patch (fields left out stay, null removes one).",
            parameters={
                "type": "object",
                "properties": {
                    "artifact_id": {"type": "string", "minLength": 1, "maxLength": 200},
                    "content": {"type": "object"},
                    "title": {"type": "string", "minLength": 1, "maxLength": 500},
                    "expected_version": {
                        "type": "integer",
                        "minimum": 1,
                        "description": "the version the change is made to; refused if it has another by now",
                    },
                },
                "required": ["artifact_id"],
                "additionalProperties": False,
            },
        )

    async def gate(self, invocation: ToolInvocation) -> ToolInvocation:
        return invocation

    async def run(self, invocation: ToolInvocation) -> ToolOutcome:
        run, given = invocation.context.run, dict(invocation.arguments)
        artifact_id = given.pop("artifact_id")
        try:
            found = await self.service.record(run.tenant, run.user_id, artifact_id)
        except NotFoundError as error:
            raise ToolFailedError(error.code, error.message) from None
        if found.type not in self.types:
            raise ToolFailedError("conflict", f"the type {found.type!r} was removed")
        try:
            wanted = ArtifactContentUpdate.model_validate(given)
            changed = self.service.with_content(found, self.types[found.type], wanted)
        except ValidationError as error:
            return _refused(artifact_id, found.type, error.message)
        except ConflictError as error:
            raise ToolFailedError(error.code, error.message) from None

        def keep(tx: Tx) -> None:
            if not store.replace(tx, changed, "agent", "content"):
                raise ToolFailedError("conflict", conflict(found).message)

        told = _described(changed)
        text = f"Changed the {changed.type} {changed.id}, version {changed.version}."
        return ToolOutcome(text, told, announce=(Notice(type="artifact_updated", content=told),), also=keep)


def _refused(artifact_id: str, type_: str, problem: str) -> ToolOutcome:
    error = {"code": "invalid_content", "message": problem}
    told = {"artifact_id": artifact_id, "artifact_type": type_, "error": error}
    failed = Notice(type="artifact_failed", content=told)
    return ToolOutcome(f"Error: {problem}", {"error": error}, is_error=True, announce=(failed,))


def _described(record: ArtifactRecord) -> dict[str, Any]:
    return {
        "artifact_id": record.id,
        "artifact_type": record.type,
        "title": record.title,
        "state": record.state,
        "version": record.version,
    }


def _head(record: ArtifactRecord) -> str:
    return f"{record.id} ({record.type}, {record.state['status']}, version {record.version}) {record.title!r}"


def _told(change: VersionRecord) -> str:
    """The line that tells the model what a person did."""
    what = (
        f"did {change.change!r} with"
        if change.change not in ("content", "state")
        else f"changed the {change.change} of"
    )
    return (
        f"The user {what} the artifact {change.artifact_id} {change.title!r}:"
        f" it is {change.state['status']}, version {change.version}."
    )
