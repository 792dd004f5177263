"""Reads a local Python function as a tool: its name, description, JSON Schema and a source that stands for itself.

Used by `client.agents.tools.register`. What the function uses of its module goes along: imports, plain constants, and
other functions of the same module.
"""

import ast
import builtins
import inspect
import re
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType, ModuleType
from typing import Any

from agentflow.errors import ConfigurationError

_PLAIN = (str, int, float, bool, bytes, type(None))
_GOOGLE = re.compile(r"^(\w+)\s*(?:\([^)]*\))?:\s*(.+)$")
_SECTIONS = {"args:", "arguments:", "parameters:", "returns:", "raises:", "yields:", "example:", "examples:"}


@dataclass(frozen=True, slots=True)
class CallableTool:
    """A function as it is sent."""

    name: str
    description: str
    function_code: str
    args_schema: dict[str, Any]


def read_callable(function: Callable[..., Any]) -> CallableTool:
    """Describe a function.

    Raises:
        ConfigurationError: it cannot be a tool (a lambda, a closure, a method, a built-in, source that cannot be read);
            says why and what to do.
    """
    if not isinstance(function, FunctionType):
        kind = "a class" if inspect.isclass(function) else f"a {type(function).__name__}"
        raise _refused(function, f"it is {kind}, not a function written in Python", "Wrap it in a `def`.")
    if function.__name__ == "<lambda>":
        raise _refused(function, "a lambda has no name and no documentation", "Write it as a `def` with a docstring.")
    if function.__closure__:
        names = ", ".join(function.__code__.co_freevars)
        raise _refused(function, f"it is a closure over {names}", "Pass what it needs as arguments.")
    if "self" in inspect.signature(function).parameters and "." in function.__qualname__:
        raise _refused(function, "it is a method", "Write it as a function of its own.")
    description, documented = _documented(inspect.getdoc(function) or "")
    if not description:
        raise _refused(function, "it has no docstring", "Models choose tools by their description: write one.")
    return CallableTool(function.__name__, description, _whole_source(function), _schema(function, documented))


def _schema(function: FunctionType, documented: dict[str, str]) -> dict[str, Any]:
    from pydantic import TypeAdapter
    from pydantic.errors import PydanticUserError

    try:
        described: Any = function
        schema = TypeAdapter[Any](described).json_schema()
    except (PydanticUserError, NameError) as error:
        raise _refused(function, f"its arguments cannot be described: {error}", "Use types that JSON has.") from None
    if schema.get("type") != "object":
        raise _refused(function, "a tool takes named arguments only", "Leave `/` and `*args` out.")
    for name, part in schema.get("properties", {}).items():
        part.pop("title", None)
        if name in documented:
            part.setdefault("description", documented[name])
    return schema


def _documented(text: str) -> tuple[str, dict[str, str]]:
    """The description above the sections of a docstring, and its documented arguments."""
    summary: list[str] = []
    documented: dict[str, str] = {}
    section = ""
    for raw in text.splitlines():
        line = raw.strip()
        if line.lower() in _SECTIONS:
            section = line.lower()
        elif section in ("args:", "arguments:", "parameters:"):
            found = _GOOGLE.match(line)
            if found:
                documented[found[1]] = found[2]
            elif line and documented:
                documented[next(reversed(documented))] += f" {line}"
        elif not section:
            summary.append(line)
    return "\n".join(summary).strip(), documented


def _whole_source(function: FunctionType) -> str:
    """The function's source, below what it uses of its module."""
    before: dict[str, str] = {}
    body = _source(function, before, {function.__name__})
    return "\n".join([*before.values(), "", body]).strip() + "\n"


def _source(function: FunctionType, before: dict[str, str], seen: set[str]) -> str:
    try:
        text = textwrap.dedent(inspect.getsource(function))
        tree = ast.parse(text)
    except (OSError, TypeError, SyntaxError):
        raise _refused(
            function, "its source cannot be read", "Define it in a file, or use create() with function_code."
        ) from None
    node = tree.body[0]
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.decorator_list:
        raise _refused(
            function, "it is decorated", "What a decorator does cannot be sent: register the plain function."
        )
    names = {part.id for part in ast.walk(tree) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Load)}
    for name in sorted(names - seen - set(before)):
        if name in function.__globals__ and not (hasattr(builtins, name) and name not in function.__globals__):
            needed = _needed(function, name, function.__globals__[name], before, seen)
            before[name] = needed
    return text


def _needed(function: FunctionType, name: str, value: Any, before: dict[str, str], seen: set[str]) -> str:
    """The lines that give a function what it knows under a name."""
    if isinstance(value, ModuleType):
        return f"import {value.__name__}" if value.__name__ == name else f"import {value.__name__} as {name}"
    if isinstance(value, FunctionType) and value.__module__ == function.__module__:
        seen.add(name)
        return _source(value, before, seen)
    if _is_plain(value):
        return f"{name} = {value!r}"
    home, own = getattr(value, "__module__", None), getattr(value, "__qualname__", getattr(value, "__name__", None))
    if home and own and home != function.__module__ and getattr(sys.modules.get(home), own, None) is value:
        return f"from {home} import {own}" if own == name else f"from {home} import {own} as {name}"
    raise _refused(
        function,
        f"it uses {name}, which cannot be sent with it",
        "Move it into the function, or pass it as an argument.",
    )


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple | set | frozenset):
        return all(_is_plain(item) for item in value)
    if isinstance(value, dict):
        return all(_is_plain(key) and _is_plain(item) for key, item in value.items())
    return isinstance(value, _PLAIN)


def _refused(function: Any, reason: str, hint: str) -> ConfigurationError:
    name = getattr(function, "__qualname__", repr(function))
    return ConfigurationError(f"{name} cannot be registered as a tool: {reason}", hint=hint)
