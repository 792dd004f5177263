"""Artifacts: typed things that agents make and people act on. Called by routes and tools."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple, cast

from agentflow.errors import ConflictError, NotFoundError, ValidationError
from agentflow.types.artifacts import (
    Artifact,
    ArtifactActionRequest,
    ArtifactContentUpdate,
    ArtifactPage,
    ArtifactStateUpdate,
    ArtifactType,
    ArtifactTypeDefinition,
    ArtifactTypes,
    ArtifactVersion,
    ArtifactVersionPage,
)

from agentflow_server.definitions import ArtifactDefinition, DefinitionError
from agentflow_server.http.identity import Caller
from agentflow_server.kit.clock import Clock, to_datetime
from agentflow_server.resources.artifacts import store
from agentflow_server.resources.artifacts.builtin import BUILT_IN, File, file_of, type_of
from agentflow_server.resources.artifacts.store import ArtifactRecord, VersionRecord
from agentflow_server.runtime.structured import first_problem, schema_problem
from agentflow_server.storage import Database, Tx

Summarize = Callable[[Any], str]
_SUMMARY = 300


class CodeType(NamedTuple):
    """A type written in code: `summarize` sums a content up, `default` lies under the content of a new one."""

    shown: ArtifactType
    summarize: Summarize | None
    default: dict[str, Any]


class ArtifactsService:
    """The artifacts room.

    Args:
        defined: types written in code.
    """

    def __init__(self, db: Database, clock: Clock, defined: Mapping[str, CodeType]) -> None:
        self._db = db
        self._clock = clock
        self._defined = defined

    async def types(self, tenant: str) -> dict[str, ArtifactType]:
        """Every type a tenant can use, by name."""
        own = await self._db.tenant(tenant).read(store.types)
        code = {name: found.shown for name, found in self._defined.items()}
        tenants = {name: _type(name, ArtifactTypeDefinition.model_validate(data)) for name, data in own.items()}
        return {**tenants, **code, **BUILT_IN}

    async def list_types(self, caller: Caller) -> ArtifactTypes:
        """Every type the caller can use."""
        return ArtifactTypes(types=list((await self.types(caller.tenant)).values()))

    async def define(self, caller: Caller, name: str, wanted: ArtifactTypeDefinition) -> ArtifactType:
        """Define a type of the tenant, or define it anew.

        Raises:
            ConflictError: the name is a built-in type's, or one's that is written in code. ValidationError: the schema
            is not one, or an action leads from nowhere.
        """
        if name in BUILT_IN or name in self._defined:
            raise ConflictError(f"the type {name!r} is the server's own and cannot be defined anew")
        _check_definition(wanted)
        made = _type(name, wanted)
        data = wanted.model_dump(mode="json", by_alias=True)
        now = self._clock.micros()
        await self._db.tenant(caller.tenant).write(lambda tx: store.put_type(tx, name, data, now))
        return made

    async def delete_type(self, caller: Caller, name: str) -> None:
        """Remove a type of the tenant; artifacts of it stay readable, and can be changed no more.

        Raises:
            NotFoundError: the tenant has no such type. ConflictError: it is the server's own.
        """
        if name in BUILT_IN or name in self._defined:
            raise ConflictError(f"the type {name!r} is the server's own and cannot be removed")
        if not await self._db.tenant(caller.tenant).write(lambda tx: store.delete_type(tx, name)):
            raise NotFoundError(f"there is no type of artifacts {name!r}")

    async def record(self, tenant: str, user_id: str, artifact_id: str) -> ArtifactRecord:
        """The stored artifact.

        Raises:
            NotFoundError: the user has no such artifact.
        """
        found = await self._db.tenant(tenant).read(lambda tx: store.by_id(tx, artifact_id, user_id))
        if found is None:
            raise NotFoundError(f"there is no artifact {artifact_id!r}")
        return found

    async def retrieve(self, caller: Caller, artifact_id: str) -> Artifact:
        """One artifact. Raises as `record`."""
        found = await self.record(caller.tenant, caller.user_id, artifact_id)
        return artifact_of(found, (await self.types(caller.tenant)).get(found.type))

    async def list(
        self, caller: Caller, *, conversation_id: str | None, type_: str | None, limit: int, offset: int
    ) -> ArtifactPage:
        """A page of the caller's artifacts, the newest first."""
        found, total = await self._db.tenant(caller.tenant).scan(
            lambda tx: store.page(
                tx, caller.user_id, conversation_id=conversation_id, type_=type_, limit=limit, offset=offset
            )
        )
        types = await self.types(caller.tenant)
        shown = [artifact_of(record, types.get(record.type)) for record in found]
        return ArtifactPage(artifacts=shown, total=total, limit=limit, offset=offset)

    async def versions(self, caller: Caller, artifact_id: str, *, limit: int, offset: int) -> ArtifactVersionPage:
        """A page of an artifact's versions, the newest first. Raises as `record`."""
        await self.record(caller.tenant, caller.user_id, artifact_id)
        found, total = await self._db.tenant(caller.tenant).scan(
            lambda tx: store.versions(tx, artifact_id, limit=limit, offset=offset)
        )
        return ArtifactVersionPage(versions=[_shown(one) for one in found], total=total, limit=limit, offset=offset)

    async def update_content(self, caller: Caller, artifact_id: str, wanted: ArtifactContentUpdate) -> Artifact:
        """Change the content, by a person.

        Raises:
            NotFoundError: as `record`. ConflictError: somebody else changed it first, or its type is gone.
            ValidationError: the content would not fit its type.
        """
        found, type_ = await self._typed(caller, artifact_id)
        changed = self.with_content(found, type_, wanted)
        return await self._keep(caller, changed, type_, "content", wanted.expected_version)

    async def update_state(self, caller: Caller, artifact_id: str, wanted: ArtifactStateUpdate) -> Artifact:
        """Change the state. Raises as `update_content`; also ConflictError if no action leads to its `status`."""
        found, type_ = await self._typed(caller, artifact_id)
        status = wanted.state.get("status", found.state["status"])
        _check_version(found, wanted.expected_version)
        change = "state"
        if status != found.state["status"]:
            change = _leading_to(type_, found, status)
        state = merged(found.state, {**wanted.state, "status": status})
        return await self._keep(caller, self._next(found, state=state), type_, change, wanted.expected_version)

    async def act(self, caller: Caller, artifact_id: str, action: str, wanted: ArtifactActionRequest) -> Artifact:
        """Do an action of the type, by a person.

        Raises:
            NotFoundError: as `record`. ConflictError: the state does not allow it, or somebody else changed the
            artifact first. ValidationError: the type has no such action.
        """
        found, type_ = await self._typed(caller, artifact_id)
        known = type_.actions.get(action)
        if known is None:
            raise _invalid(
                "action", f"{type_.name} has no action {action!r}; it has {', '.join(type_.actions) or 'none'}"
            )
        _check_version(found, wanted.expected_version)
        if found.state["status"] not in known["from"]:
            raise ConflictError(
                f"{action} is not possible: the artifact is {found.state['status']}",
                details={"state": found.state, "allowed": allowed(type_, found), "version": found.version},
            )
        state = merged(found.state, {**wanted.data, "status": known["to"]})
        return await self._keep(caller, self._next(found, state=state), type_, action, wanted.expected_version)

    async def download(self, caller: Caller, artifact_id: str) -> tuple[str, File]:
        """The artifact as a file, and its name. Raises as `record`."""
        found = await self.record(caller.tenant, caller.user_id, artifact_id)
        file = file_of(found.type, found.title, found.content)
        stem = "".join(char if char.isalnum() or char in " -_" else "_" for char in found.title).strip()[:100]
        return f"{stem or found.type}.{file.extension}", file

    async def _typed(self, caller: Caller, artifact_id: str) -> tuple[ArtifactRecord, ArtifactType]:
        found = await self.record(caller.tenant, caller.user_id, artifact_id)
        type_ = (await self.types(caller.tenant)).get(found.type)
        if type_ is None:
            raise ConflictError(f"the type {found.type!r} was removed: the artifact can be changed no more")
        return found, type_

    async def _keep(
        self, caller: Caller, changed: ArtifactRecord, type_: ArtifactType, change: str, expected: int | None
    ) -> Artifact:
        _check_version(replace(changed, version=changed.version - 1), expected)
        done = await self._db.tenant(caller.tenant).write(lambda tx: store.replace(tx, changed, "user", change))
        if not done:
            raise conflict(await self.record(caller.tenant, caller.user_id, changed.id))
        return artifact_of(changed, type_)

    def with_content(self, found: ArtifactRecord, type_: ArtifactType, wanted: ArtifactContentUpdate) -> ArtifactRecord:
        """The artifact with a changed content, as its next version.

        Raises:
            ConflictError: it has another version than was expected. ValidationError: the content does not fit.
        """
        _check_version(found, wanted.expected_version)
        content = merged(found.content, wanted.content)
        if problem := first_problem(content, type_.content_schema):
            raise _invalid("content", problem)
        return self._next(found, content=content, title=wanted.title or found.title)

    def _next(self, found: ArtifactRecord, **changes: Any) -> ArtifactRecord:
        return replace(found, **changes, version=found.version + 1, updated_at=self._clock.micros())

    def begun(self, type_: str, content: dict[str, Any]) -> dict[str, Any]:
        """The content of a new artifact: what is given over the type's default."""
        code = self._defined.get(type_)
        return merged(code.default, content) if code is not None else content

    def summary_of(self, found: ArtifactRecord, type_: ArtifactType | None) -> str:
        """An artifact in few words, for the model."""
        code = self._defined.get(found.type)
        if code is not None and code.summarize is not None:
            return code.summarize(found.content)[:_SUMMARY]
        fields = (type_.summary_fields if type_ else []) or list(found.content)[:4]
        told = [f"{name}: {_brief(found.content[name])}" for name in fields if name in found.content]
        return "; ".join(told)[:_SUMMARY]

    async def of_conversation(
        self, tenant: str, user_id: str, conversation_id: str, limit: int
    ) -> "tuple[list[ArtifactRecord], list[VersionRecord]]":
        """A conversation's newest artifacts, and what people changed since its last turn."""

        def look(tx: Tx) -> tuple[list[ArtifactRecord], list[VersionRecord]]:
            found, _ = store.page(tx, user_id, conversation_id=conversation_id, type_=None, limit=limit, offset=0)
            return found, store.changed_by_user(tx, conversation_id, user_id) if found else []

        return await self._db.tenant(tenant).read(look)

    def erase(self, tx: Tx, conversation_id: str) -> None:
        """A conversation is deleted: its artifacts go with it."""
        store.erase(tx, conversation_id)


def artifact_of(found: ArtifactRecord, type_: ArtifactType | None) -> Artifact:
    """An artifact as the wire shows it."""
    return Artifact(
        id=found.id,
        artifact_type=found.type,
        title=found.title,
        conversation_id=found.conversation_id,
        run_id=found.run_id,
        content=found.content,
        state=found.state,
        version=found.version,
        actions=allowed(type_, found) if type_ else [],
        created_at=to_datetime(found.created_at),
        updated_at=to_datetime(found.updated_at),
    )


def _shown(version: VersionRecord) -> ArtifactVersion:
    return ArtifactVersion(
        artifact_id=version.artifact_id,
        version=version.version,
        author=version.author,
        change=version.change,
        title=version.title,
        content=version.content,
        state=version.state,
        created_at=to_datetime(version.created_at),
    )


def allowed(type_: ArtifactType, found: ArtifactRecord) -> list[str]:
    """The actions an artifact's state allows."""
    return [name for name, action in type_.actions.items() if found.state["status"] in action["from"]]


def merged(old: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """A value with a JSON merge patch applied (RFC 7396)."""
    result = dict(old)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            before = result.get(key)
            base = cast("dict[str, Any]", before) if isinstance(before, dict) else {}
            result[key] = merged(base, cast("dict[str, Any]", value))
        else:
            result[key] = value
    return result


def conflict(found: ArtifactRecord) -> ConflictError:
    """The error for a change of an artifact that has changed in the meantime; it carries how it stands."""
    return ConflictError(
        f"the artifact has changed: it stands at version {found.version}",
        details={"version": found.version, "content": found.content, "state": found.state, "title": found.title},
        hint="Look at the current version, and send the change again with its number.",
    )


def _check_version(found: ArtifactRecord, expected: int | None) -> None:
    if expected is not None and expected != found.version:
        raise conflict(found)


def _leading_to(type_: ArtifactType, found: ArtifactRecord, status: Any) -> str:
    if status not in type_.states:
        raise _invalid("state.status", f"{type_.name} has no state {status!r}; it has {', '.join(type_.states)}")
    for name in allowed(type_, found):
        if type_.actions[name]["to"] == status:
            return name
    raise ConflictError(
        f"no action leads from {found.state['status']} to {status}",
        details={"state": found.state, "allowed": allowed(type_, found), "version": found.version},
    )


def _check_definition(wanted: ArtifactTypeDefinition) -> None:
    if problem := schema_problem(wanted.content_schema):
        raise _invalid("content_schema", f"this is not a JSON Schema: {problem}")
    reached = {wanted.initial_state, *(action.to for action in wanted.actions.values())}
    for key, action in wanted.actions.items():
        if unknown := [state for state in action.from_ if state not in reached]:
            raise _invalid(f"actions.{key}.from", f"no artifact can be in the state {unknown[0]!r}")


def code_types(definitions: Mapping[str, ArtifactDefinition]) -> dict[str, CodeType]:
    """The types that are written in code, by name.

    Raises:
        DefinitionError: a name is a built-in type's, or the definition does not hold.
    """
    found: dict[str, CodeType] = {}
    for name, one in definitions.items():
        if name in BUILT_IN:
            raise DefinitionError(f"artifact {name!r}: this is a built-in type; choose another name")
        try:
            _check_definition(one.definition)
        except ValidationError as error:
            raise DefinitionError(f"artifact {name!r}: {error.message}") from None
        found[name] = CodeType(_type(name, one.definition, "code"), one.summarize, one.default)
    return found


def _type(name: str, wanted: ArtifactTypeDefinition, source: str = "tenant") -> ArtifactType:
    return type_of(
        name,
        wanted.label,
        wanted.description,
        wanted.content_schema,
        wanted.actions,
        source=source,
        initial_state=wanted.initial_state,
        summary_fields=wanted.summary_fields,
        icon=wanted.icon,
        display=wanted.display,
    )


def _brief(value: Any) -> str:
    if isinstance(value, list) and len(cast("list[Any]", value)) > 5:
        return f"{len(cast('list[Any]', value))} items"
    text = " ".join(str(value).split())
    return text if len(text) <= 120 else f"{text[:120]}…"


def _invalid(field: str, message: str) -> ValidationError:
    return ValidationError(f"{field}: {message}", details=[{"field": field, "message": message}])
