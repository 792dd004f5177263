"""What every sandbox promises: one run, its limits, its result and the errors that say how it ended.

The tools room calls it; the sandboxes implement it. It may not know a resource or the database.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

from agentflow_server.sandbox.signature import Signature

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one run may use.

    Args:
        seconds: wall time of the run.
        memory_bytes: heap of the interpreter, or address space of the process beyond what Python itself maps.
        output_bytes: what the run may print, and separately the JSON it may return.
        progress_events: how many values it may report while it runs.
        recursion: depth of calls.
    """

    seconds: float = 30.0
    memory_bytes: int = 128 * MIB
    output_bytes: int = 1 * MIB
    progress_events: int = 1000
    recursion: int = 500


@dataclass(frozen=True, slots=True)
class SandboxResult:
    """What a run gave back: a JSON value, what it printed and how long it took in milliseconds."""

    value: Any
    stdout: str
    duration_ms: float


class SandboxError(Exception):
    """A run that gave no value."""


class SandboxTimeout(SandboxError):  # noqa: N818
    """The run took longer than its limit."""


class SandboxMemoryExceeded(SandboxError):  # noqa: N818
    """The run asked for more memory than its limit."""


class SandboxOutputExceeded(SandboxError):  # noqa: N818
    """The run printed, reported or returned more than its limit."""


class SandboxCrashed(SandboxError):  # noqa: N818
    """The run ended without an answer: its process died or its answer was no answer."""


class SandboxRefused(SandboxError):  # noqa: N818
    """The source cannot run in this sandbox; `line` is the line of the source where that shows, if there is one."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason if line is None else f"line {line}: {reason}")
        self.reason = reason
        self.line = line


class SandboxToolError(SandboxError):
    """The tool itself raised: its exception's type name and message, and the lines of the tool it passed through."""

    def __init__(self, type_name: str, message: str, trace: str = "") -> None:
        super().__init__(f"{type_name}: {message}" if message else type_name)
        self.type_name = type_name
        self.message = message
        self.trace = trace


class Sandbox(Protocol):
    """A place where source that users send may run."""

    async def run(
        self,
        source: str,
        entrypoint: str | None,
        arguments: Mapping[str, Any],
        *,
        limits: Limits,
        on_progress: Callable[[Any], None] | None = None,
    ) -> SandboxResult:
        """Load `source`, call its function `entrypoint` with `arguments` and return what it returned.

        Cancelling the awaiting task ends the work.

        Raises:
            SandboxError: one of its kinds, which says how the run ended.
        """
        ...

    async def check(self, source: str, entrypoint: str | None = None, *, limits: Limits = ...) -> Signature:
        """Read the function's signature and load the source once, without calling it.

        Raises:
            SandboxRefused: the source cannot run here; says why and on which line.
        """
        ...

    async def aclose(self) -> None:
        """End every process that is still there."""
        ...


def json_value(text: object, limits: Limits) -> Any:
    """The value a run returned as JSON text. The text comes from inside, so nothing about it is taken for granted."""
    if not isinstance(text, str):
        raise SandboxCrashed("the run returned no JSON text")
    if len(text.encode(errors="replace")) > limits.output_bytes:
        raise SandboxOutputExceeded(f"the tool returned more than {limits.output_bytes} bytes of JSON")
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise SandboxToolError("ValueError", f"the tool returned what JSON cannot hold: {error}") from None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")
