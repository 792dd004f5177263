"""What a user's own folder defines in code: decorators, and the registry they fill while the folder is loaded.

`agentflow serve --app DIR` imports every module of the folder once; decorating anything elsewhere does nothing. Rooms
are handed the registry by app.py. It knows no room.
"""

import importlib
import inspect
import re
import sys
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeVar, get_type_hints
from uuid import UUID

from agentflow.types.agents import AgentCreate
from agentflow.types.artifacts import ArtifactTypeDefinition, TypeName
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, create_model
from pydantic.errors import PydanticUserError

from agentflow_server.sandbox.signature import read_docstring

NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]{0,63}")
_TYPE_NAME: TypeAdapter[str] = TypeAdapter(TypeName)
T = TypeVar("T", bound=Callable[..., Any])
C = TypeVar("C")


class DefinitionError(Exception):
    """Something in the folder cannot be used; the message says what, where, and what to do."""


@dataclass(frozen=True, slots=True)
class ToolContext:
    """What a tool may know of its call: a parameter of this type is filled in, and hidden from the model.

    Attributes:
        idempotency_key: the same for every attempt at one call. progress: reports on the way, as an event.
    """

    tenant: str
    user_id: str
    agent_id: str
    conversation_id: str
    run_id: str
    call_id: str
    idempotency_key: str
    progress: Callable[[Any], None]


@dataclass(frozen=True, slots=True)
class ToolDefinition:
    """A tool written in code. `agents` are the names of the agents it is assigned to; `timeout` is in seconds."""

    name: str
    description: str
    function: Callable[..., Any]
    parameters: dict[str, Any]
    arguments: type[BaseModel]
    context_parameter: str | None = None
    agents: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    group: str | None = None
    require_approval: bool = False
    approval_timeout: float = 300.0
    timeout: float = 30.0
    idempotent: bool = False
    max_retries: int = 0


@dataclass(frozen=True, slots=True)
class AgentDefinition:
    """An agent written in code; `config` holds fields of `AgentCreate`, `agent_id` the id it begins with."""

    name: str
    config: dict[str, Any]
    agent_id: str | None = None


@dataclass(frozen=True, slots=True)
class SubAgentDefinition:
    """Who may call an agent that is written in code: its `parents` (names), without waiting if `background`."""

    name: str
    parents: tuple[str, ...]
    background: bool = False


@dataclass(frozen=True, slots=True)
class PromptBlockDefinition:
    """A prompt block: `function` fetches its text for a run (None or blank: skipped), or `body` is its fixed text."""

    name: str
    description: str
    function: Callable[[Any], Awaitable[str | None]] | None = None
    body: str | None = None
    message: Literal["system", "user"] = "system"
    mode: Literal["cached", "real_time"] = "cached"
    scope: Literal["conversation", "turn"] = "conversation"
    tags: tuple[str, ...] = ()
    agents: tuple[str, ...] = ()
    order: int = 100
    ttl: float | None = None


@dataclass(frozen=True, slots=True)
class ArtifactDefinition:
    """A type of artifact. `summarize` makes the text that models are shown of a content; `default` lies under a new
    one's.
    """

    type: str
    definition: ArtifactTypeDefinition
    summarize: Callable[[Any], str] | None = None
    default: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class EntityResolverDefinition:
    """Turns a reference `{system, type, id}` into text for the model. `resolve(context, id)` may give None."""

    system: str
    type: str
    resolve: Callable[[Any, str], Awaitable[str | None]]


@dataclass(slots=True)
class Definitions:
    """Everything a folder defines, each by its name."""

    tools: dict[str, ToolDefinition] = field(default_factory=dict[str, ToolDefinition])
    agents: dict[str, AgentDefinition] = field(default_factory=dict[str, AgentDefinition])
    sub_agents: dict[str, SubAgentDefinition] = field(default_factory=dict[str, SubAgentDefinition])
    prompt_blocks: dict[str, PromptBlockDefinition] = field(default_factory=dict[str, PromptBlockDefinition])
    artifacts: dict[str, ArtifactDefinition] = field(default_factory=dict[str, ArtifactDefinition])
    entity_resolvers: dict[tuple[str, str], EntityResolverDefinition] = field(
        default_factory=dict[tuple[str, str], EntityResolverDefinition]
    )


_collecting: ContextVar[Definitions | None] = ContextVar("definitions", default=None)


@contextmanager
def collecting() -> Generator[Definitions]:
    """Let the decorators used inside the block fill a registry of their own."""
    found = Definitions()
    token = _collecting.set(found)
    try:
        yield found
    finally:
        _collecting.reset(token)


def _define(shelf: str, key: Any, definition: Any) -> None:
    found = _collecting.get()
    if found is None:
        return
    known: dict[Any, Any] = getattr(found, shelf)
    if key in known:
        raise DefinitionError(f"{shelf.rstrip('s').replace('_', ' ')} {key!r} is defined twice; names are unique")
    known[key] = definition


def tool(
    name: str | None = None,
    *,
    description: str | None = None,
    agent: str | Sequence[str] | None = None,
    tags: Sequence[str] = (),
    group: str | None = None,
    require_approval: bool = False,
    approval_timeout: float = 300.0,
    timeout: float = 30.0,
    idempotent: bool = False,
    max_retries: int = 0,
) -> Callable[[T], T]:
    """Make a function, sync or async, a tool. A sync one runs in a thread, which a time-out cannot end.

    Args:
        name, description: the function's name and docstring by default; the docstring's `Args` describe the arguments.
        agent: names of the agents that have it. require_approval: somebody must approve each call.
        approval_timeout, timeout: seconds. idempotent: a call may be repeated, after a crash and up to `max_retries`
            times when it fails.

    Raises:
        DefinitionError: the name is not one, or the function cannot be called with named arguments.
    """

    def decorate(function: T) -> T:
        chosen = _name(name or function.__name__)
        summary, documented = read_docstring(inspect.cleandoc(function.__doc__ or ""))
        arguments, context_parameter = _arguments(function, chosen)
        definition = ToolDefinition(
            chosen, description or summary or chosen, function, _schema(arguments, documented, chosen), arguments,
            context_parameter, _names(agent), tuple(tags), group, require_approval, approval_timeout, timeout,
            idempotent or max_retries > 0, max_retries,
        )  # fmt: skip
        _define("tools", chosen, definition)
        return function

    return decorate


def agent(name: str | None = None, **config: Any) -> Callable[[C], C]:
    """Define an agent. Decorates a class (its name and docstring are the defaults) or a function.

    Args:
        config: fields of an agent: `description`, `system_prompt`, `llm_config`, `tools`, `max_turns`, …

    Raises:
        DefinitionError: a field does not hold.
    """

    def decorate(decorated: C) -> C:
        chosen: str = name or getattr(decorated, "__name__", "")
        text = inspect.cleandoc(decorated.__doc__ or "")
        _define("agents", chosen, _agent(chosen, {**({"description": text} if text else {}), **config}))
        return decorated

    return decorate


def sub_agent(
    name: str | None = None,
    *,
    parents: str | Sequence[str],
    description: str | None = None,
    agent_id: str | None = None,
    role: str | None = None,
    background: bool = False,
    **config: Any,
) -> Callable[[C], C]:
    """Define an agent that its parents may call.

    Args:
        parents: names of agents. description: when to call it; the docstring by default. agent_id: the UUID it begins
            with. role: the first line of its system prompt. background: it may be called without waiting for it.
        config: further fields of an agent: `tools`, `system_prompt`, `llm_config`, …

    Raises:
        DefinitionError: it has no description or no parents, or a field does not hold.
    """

    def decorate(decorated: C) -> C:
        chosen: str = name or getattr(decorated, "__name__", "")
        text = description or inspect.cleandoc(decorated.__doc__ or "")
        if not text:
            raise DefinitionError(f"sub-agent {chosen!r} needs a description: parents choose by it")
        callers = _names(parents)
        if not callers:
            raise DefinitionError(f"sub-agent {chosen!r} needs parents: the names of agents that may call it")
        settings = {**config, "description": text}
        if role:
            settings["system_prompt"] = f"Your role: {role}\n\n{config.get('system_prompt') or ''}".rstrip()
        _define("agents", chosen, _agent(chosen, settings, agent_id))
        _define("sub_agents", chosen, SubAgentDefinition(chosen, callers, background))
        return decorated

    return decorate


def _agent(name: str, settings: dict[str, Any], agent_id: str | None = None) -> AgentDefinition:
    try:
        AgentCreate.model_validate({**settings, "name": name})
        return AgentDefinition(name, settings, str(UUID(agent_id)) if agent_id else None)
    except ValidationError as error:
        raise DefinitionError(f"agent {name!r}: {_first(error)}") from None
    except ValueError:
        raise DefinitionError(f"agent {name!r}: agent_id: {agent_id!r} is no UUID") from None


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(str(step) for step in first['loc'])}: {first['msg']}"


def prompt_block(
    name: str | None = None,
    *,
    scope: Literal["conversation", "turn"] = "conversation",
    tags: Sequence[str] = (),
    ttl: float | None = None,
    mode: Literal["cached", "real_time"] = "cached",
    message: Literal["system", "user"] = "system",
    agents: Sequence[str] = (),
    order: int = 100,
    description: str | None = None,
) -> Callable[[T], T]:
    """Make an async function of one context a dynamic prompt block: it returns the block's inner text, or None.

    Args:
        ttl: seconds for which a cached text holds. agents: names; every agent by default.

    Raises:
        DefinitionError: the function is not async.
    """

    def decorate(function: T) -> T:
        chosen = name or function.__name__
        if not inspect.iscoroutinefunction(function):
            raise DefinitionError(f"prompt block {chosen!r} must be an `async def`")
        text = description or inspect.cleandoc(function.__doc__ or "")
        definition = PromptBlockDefinition(
            chosen, text, function, None, message, mode, scope, tuple(tags), tuple(agents), order, ttl
        )
        _define("prompt_blocks", chosen, definition)
        return function

    return decorate


def static_block(
    name: str,
    body: str,
    *,
    description: str = "",
    scope: Literal["conversation", "turn"] = "conversation",
    message: Literal["system", "user"] = "system",
    tags: Sequence[str] = (),
    agents: Sequence[str] = (),
    order: int = 100,
) -> None:
    """Define a prompt block with a fixed text."""
    definition = PromptBlockDefinition(
        name, description, None, body, message, "cached", scope, tuple(tags), tuple(agents), order
    )
    _define("prompt_blocks", name, definition)


def artifact(
    type: str,  # noqa: A002 - the field's name on the wire
    *,
    label: str | None = None,
    description: str | None = None,
    json_schema: Mapping[str, Any] | None = None,
    summarizer: Callable[[Any], str] | None = None,
    default: Mapping[str, Any] | None = None,
    **config: Any,
) -> Callable[[C], C]:
    """Define a type of artifact.

    Decorates a pydantic model, whose schema is the content's, or a function `content -> str`, which summarises one.

    Args:
        default: what lies under the content of a new one: fields that it does not set.
        config: further fields of `ArtifactTypeDefinition`: `actions`, `initial_state`, `icon`, `display`, …

    Raises:
        DefinitionError: there is no schema, or a field does not hold.
    """

    def decorate(decorated: C) -> C:
        schema = dict(json_schema) if json_schema is not None else None
        summarize = summarizer
        model = _model(decorated)
        if model is not None:
            schema = schema or model.model_json_schema()
            summarize = summarize or getattr(model, "summarize", None)
        elif summarize is None and inspect.isfunction(decorated):
            summarize = decorated
        if schema is None:
            raise DefinitionError(f"artifact {type!r} needs a schema: json_schema=, or decorate a pydantic model")
        try:
            _TYPE_NAME.validate_python(type)
        except ValidationError:
            raise DefinitionError(
                f"{type!r} is no type of artifacts: small letters, digits and _, a letter first"
            ) from None
        shown = {
            "label": label or type.replace("_", " ").capitalize(),
            "description": description or inspect.cleandoc(decorated.__doc__ or ""),
        }
        try:
            definition = ArtifactTypeDefinition.model_validate({**shown, **config, "content_schema": schema})
        except ValidationError as error:
            raise DefinitionError(f"artifact {type!r}: {_first(error)}") from None
        _define("artifacts", type, ArtifactDefinition(type, definition, summarize, dict(default or {})))
        return decorated

    return decorate


def _model(decorated: Any) -> type[BaseModel] | None:
    return decorated if inspect.isclass(decorated) and issubclass(decorated, BaseModel) else None


def entity_resolver(system: str, type: str) -> Callable[[T], T]:  # noqa: A002 - the field's name on the wire
    """Make an async function `(context, id) -> str | None` the resolver of references to one kind of record.

    Raises:
        DefinitionError: the function is not async.
    """

    def decorate(function: T) -> T:
        if not inspect.iscoroutinefunction(function):
            raise DefinitionError(f"the resolver of {system}/{type} must be an `async def`")
        _define("entity_resolvers", (system, type), EntityResolverDefinition(system, type, function))
        return function

    return decorate


def _name(name: str) -> str:
    if not NAME.fullmatch(name):
        raise DefinitionError(f"{name!r} is no tool name: 1 to 64 letters, digits and _, not beginning with a digit")
    return name


def _names(given: str | Sequence[str] | None) -> tuple[str, ...]:
    return () if given is None else (given,) if isinstance(given, str) else tuple(given)


def _arguments(function: Callable[..., Any], name: str) -> tuple[type[BaseModel], str | None]:
    """The function's arguments as a model, and the parameter that takes the context."""
    hints = get_type_hints(function, include_extras=True)
    fields: dict[str, Any] = {}
    context: str | None = None
    extra: Literal["allow", "forbid"] = "forbid"
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL):
            raise DefinitionError(f"tool {name!r} takes named arguments only: no `/` and no `*args`")
        if parameter.kind is parameter.VAR_KEYWORD:
            extra = "allow"
        elif hints.get(parameter.name) is ToolContext:
            context = parameter.name
        else:
            default = ... if parameter.default is parameter.empty else parameter.default
            fields[parameter.name] = (hints.get(parameter.name, Any), default)
    return create_model(name, __config__=ConfigDict(extra=extra, arbitrary_types_allowed=True), **fields), context


def _schema(arguments: type[BaseModel], documented: Mapping[str, str], name: str) -> dict[str, Any]:
    try:
        schema = arguments.model_json_schema()
    except PydanticUserError as error:
        raise DefinitionError(f"tool {name!r} has an argument that JSON cannot hold: {error.message}") from None
    schema.pop("title", None)
    for argument, part in schema.get("properties", {}).items():
        part.pop("title", None)
        if argument in documented:
            part.setdefault("description", documented[argument])
    return schema


_loaded: set[str] = set()


def load(folder: Path) -> Definitions:
    """Import every module below a folder and return what they define.

    The folder is put in front of `sys.path`, as Python does for a script: its modules may import each other. Folders
    and files whose names begin with `.` or `_` are not loaded by themselves.

    Raises:
        DefinitionError: there is no such folder, a module cannot be imported (names the file), or sub-agents call each
            other in a circle.
    """
    root = folder.resolve()
    if not root.is_dir():
        raise DefinitionError(f"there is no folder {folder}")
    for name in _loaded:
        sys.modules.pop(name, None)
    _loaded.clear()
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    importlib.invalidate_caches()
    with collecting() as found:
        for path in sorted(root.rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            if not any(part.startswith((".", "_")) for part in parts):
                _import(parts, path)
    try:
        TopologicalSorter({one.name: one.parents for one in found.sub_agents.values()}).prepare()
    except CycleError as error:
        raise DefinitionError(f"sub-agents call each other in a circle: {' → '.join(error.args[1])}") from None
    return found


def _import(parts: tuple[str, ...], path: Path) -> None:
    name = ".".join(parts)
    known = sys.modules.get(name)
    if known is not None and Path(known.__file__ or "") != path:
        raise DefinitionError(f"{path}: the module name {name!r} is taken by another package; rename the file")
    _loaded.update(".".join(parts[: depth + 1]) for depth in range(len(parts)))
    with _Naming(path):
        importlib.import_module(name)


class _Naming:
    """Says in which file of the folder an import went wrong."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if isinstance(error, Exception):
            raise DefinitionError(f"{self._path}: {type(error).__name__}: {error}") from error
