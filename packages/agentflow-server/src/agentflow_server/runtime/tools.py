"""Tools as the loop sees them, and the wrappers every call goes through: validate, limit, retry.

Rooms implement `Tool` and `ToolResolver`; the loop knows nothing of where a tool comes from. Approval, caching and the
like are wrappers of the same shape.
"""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

from agentflow_server.eventlog import Draft
from agentflow_server.gateway.messages import ToolSpec
from agentflow_server.runtime.context import RunContext
from agentflow_server.runtime.plan import Notice, ToolRef
from agentflow_server.runtime.structured import first_problem
from agentflow_server.storage import Tx


@dataclass(frozen=True, slots=True)
class ToolInvocation:
    """One call of a tool.

    Attributes:
        call_id: the unit's id in the event tree. tool_call_id: the id the model gave the call.
        idempotency_key: the same for every attempt at this call, also after a restart.
        progress: reports on the way; what is reported becomes `tool_progress` events.
        notices: events told together with the call's `start` (an approval that was given).
    """

    arguments: dict[str, Any]
    call_id: str
    tool_call_id: str
    context: RunContext
    progress: Callable[[Any], None]
    notices: tuple[Notice, ...] = ()

    @property
    def idempotency_key(self) -> str:
        return f"{self.context.run.id}:{self.tool_call_id}"


@dataclass(frozen=True, slots=True)
class ToolOutcome:
    """What a call gave. `content` goes to the model, `result` into the event (and to callers).

    Attributes:
        metadata: further fields of the call's `end` event; `usage` and `cost` are added to the run's own,
            `background_tasks` and `citations` to its result.
        announce: events of the run that are told with the end of the call.
        also: written in the same transaction as the end of the call, so that both happen or neither does. It may raise
            ToolFailedError: then nothing is written, and the model is told.
        notices: events of the call itself, told before its end (an approval that was denied).
    """

    content: str
    result: Any = None
    is_error: bool = False
    metadata: dict[str, Any] = field(default_factory=dict[str, Any])
    announce: tuple[Notice, ...] = ()
    also: Callable[[Tx], None] | None = None
    notices: tuple[Notice, ...] = ()

    @classmethod
    def of(cls, result: Any) -> "ToolOutcome":
        """An outcome whose text for the model is the result itself, or its JSON."""
        content = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False, default=str)
        return cls(content, result)

    @classmethod
    def failure(cls, code: str, message: str, notices: tuple[Notice, ...] = ()) -> "ToolOutcome":
        """An outcome that tells the model, and the reader, what went wrong."""
        error = {"error": {"code": code, "message": message}}
        return cls(f"Error: {message}", error, is_error=True, notices=notices)


class ToolFailedError(Exception):
    """A tool could not do its work; the model is told `message` and may go on. `notices` as of an outcome."""

    def __init__(self, code: str, message: str, notices: tuple[Notice, ...] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.notices = notices


class Suspended(Exception):  # noqa: N818 - a control flow, not a failure
    """A call must wait for somebody: the run is parked until it is woken, by `Runner.wake`.

    Args:
        announce: events to append (an approval request, a question); empty if they were announced before.
        also: written in the same unit (the request's row).
        answered: looks, in that same unit, whether the answer has come in the meantime: then the run goes on at once.
    """

    def __init__(self, announce: Sequence[Draft], also: Callable[[Tx], None], answered: Callable[[Tx], bool]) -> None:
        super().__init__("the run waits")
        self.announce = announce
        self.also = also
        self.answered = answered


class Tool(Protocol):
    """Something the model may call."""

    @property
    def spec(self) -> ToolSpec:
        """Name, description and JSON Schema of the arguments."""
        ...

    @property
    def timeout(self) -> float | None:
        """Seconds a call may take, or None for no bound."""
        ...

    @property
    def idempotent(self) -> bool:
        """Whether a call may be repeated with the same idempotency key."""
        ...

    async def gate(self, invocation: ToolInvocation) -> ToolInvocation:
        """Decide whether the call may be executed, before anything is; may return it with other arguments.

        Raises:
            ToolFailedError: it may not. Suspended: somebody must decide first.
        """
        ...

    async def run(self, invocation: ToolInvocation) -> ToolOutcome:
        """Do the work.

        Raises:
            ToolFailedError: it cannot be done. Suspended: it must wait (idempotent tools only: they are run again).
        """
        ...


class ToolResolver(Protocol):
    """Builds the tools a plan refers to. The rooms' resolvers are put together in app.py."""

    async def resolve(self, context: RunContext) -> Mapping[str, Tool]:
        """The run's tools by name."""
        ...


class Wrapper(Protocol):
    """Puts something around tools: a cache for large results, a way to call without waiting."""

    def wrap(self, context: RunContext, ref: ToolRef | None, tool: Tool) -> Tool:
        """The tool with what is around it, or as it is. `ref` is None for a tool the plan does not name."""
        ...


class Resolvers:
    """The rooms' resolvers as one. Each builds the references of its own kinds; a name that two give is the first's."""

    def __init__(self, *resolvers: ToolResolver) -> None:
        self._resolvers = list(resolvers)
        self._wrappers: list[Wrapper] = []

    def add(self, *resolvers: ToolResolver) -> None:
        """Ask these too, after the others."""
        self._resolvers.extend(resolvers)

    def wrap(self, *wrappers: Wrapper) -> None:
        """Put these around every tool, the first one innermost."""
        self._wrappers.extend(wrappers)

    async def resolve(self, context: RunContext) -> Mapping[str, Tool]:
        """The run's tools by name, in the order of its plan."""
        found: dict[str, Tool] = {}
        for resolver in self._resolvers:
            for name, tool in (await resolver.resolve(context)).items():
                found.setdefault(name, tool)
        order = {ref.name: position for position, ref in enumerate(context.plan.tools)}
        refs = {ref.name: ref for ref in context.plan.tools}
        named = sorted(found.items(), key=lambda item: order.get(item[0], len(order)))
        return {name: self._wrapped(context, refs.get(name), tool) for name, tool in named}

    def _wrapped(self, context: RunContext, ref: ToolRef | None, tool: Tool) -> Tool:
        for wrapper in self._wrappers:
            tool = wrapper.wrap(context, ref, tool)
        return tool


def parse_arguments(tool: Tool, text: str) -> dict[str, Any]:
    """The arguments the model wrote, checked against the tool's schema.

    Raises:
        ToolFailedError: they are not JSON, or not what the schema asks for.
    """
    try:
        arguments = json.loads(text or "{}")
    except json.JSONDecodeError as error:
        raise ToolFailedError("invalid_arguments", f"the arguments are not JSON: {error}") from None
    if not isinstance(arguments, dict):
        raise ToolFailedError("invalid_arguments", "the arguments must be a JSON object")
    if problem := first_problem(arguments, tool.spec.parameters):
        raise ToolFailedError("invalid_arguments", problem)
    return cast("dict[str, Any]", arguments)


async def call(tool: Tool, invocation: ToolInvocation) -> ToolOutcome:
    """Run a tool within its time; every ordinary failure becomes an outcome the model can read."""
    try:
        async with asyncio.timeout(tool.timeout):
            return await tool.run(invocation)
    except TimeoutError:
        return ToolOutcome.failure("tool_timeout", f"{tool.spec.name} took longer than {tool.timeout:g} s")
    except ToolFailedError as error:
        return ToolOutcome.failure(error.code, str(error), error.notices)
