"""Reads a tool's function from its source, without running it: name, description and JSON Schema of its arguments.

Both sandboxes call it. It may not execute anything that users wrote.
"""

import ast
import re
import warnings
from dataclasses import dataclass
from typing import Any

MAX_SOURCE = 200_000
_SIMPLE = {"str": "string", "int": "integer", "float": "number", "bool": "boolean", "None": "null"}
_ARRAYS = {"list", "List", "Sequence", "Iterable", "tuple", "Tuple", "set", "Set", "frozenset"}
_OBJECTS = {"dict", "Dict", "Mapping"}
Schema = dict[str, Any]


class SourceError(ValueError):
    """The source has no function that can be a tool; `line` says where that shows."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.line = line


@dataclass(frozen=True, slots=True)
class Signature:
    """A tool's function as its source describes it."""

    name: str
    description: str
    parameters: Schema
    is_async: bool
    imports: tuple[tuple[str, int], ...]


def read_signature(source: str, entrypoint: str | None = None) -> Signature:
    """Find the function and describe it.

    Args:
        source: Python source.
        entrypoint: the function's name; without it the only public function, else the one called `run` or `main`.

    Raises:
        SourceError: no such function, or one that cannot be called with named arguments.
    """
    if len(source) > MAX_SOURCE:
        raise SourceError(f"the source has {len(source)} characters, {MAX_SOURCE} are allowed")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
            function = _find(tree, entrypoint)
            return _describe(tree, function)
    except SyntaxError as error:
        raise SourceError(f"not Python: {error.msg}", error.lineno) from None
    except (RecursionError, MemoryError):
        raise SourceError("the source is nested too deeply") from None
    except SourceError:
        raise
    except ValueError as error:
        raise SourceError(f"not Python: {error}") from None


_Function = ast.FunctionDef | ast.AsyncFunctionDef


def _find(tree: ast.Module, entrypoint: str | None) -> _Function:
    found = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    if entrypoint is not None:
        if entrypoint in found:
            return found[entrypoint]
        raise SourceError(f"no function {entrypoint!r} at the top of the source; there is {_names(list(found))}")
    public = [name for name in found if not name.startswith("_")]
    if len(public) == 1:
        return found[public[0]]
    for name in ("run", "main"):
        if name in public:
            return found[name]
    raise SourceError(f"name the function to call as entrypoint; there is {_names(public)}")


def _names(names: list[str]) -> str:
    return ", ".join(names[:20]) if names else "none: define one with `def`"


def _describe(tree: ast.Module, function: _Function) -> Signature:
    spec = function.args
    if spec.posonlyargs or spec.vararg:
        raise SourceError("a tool takes named arguments only: no `/` and no `*args`", function.lineno)
    summary, documented = read_docstring(ast.get_docstring(function) or "")
    first_default = len(spec.args) - len(spec.defaults)
    defaults: list[ast.expr | None] = [None] * first_default
    pairs = list(zip(spec.args, defaults + list(spec.defaults), strict=True))
    pairs += list(zip(spec.kwonlyargs, spec.kw_defaults, strict=True))
    properties: Schema = {}
    required: list[str] = []
    for argument, default in pairs:
        schema = _schema(argument.annotation)
        if argument.arg in documented:
            schema.setdefault("description", documented[argument.arg])
        if default is None:
            required.append(argument.arg)
        else:
            schema.update(_default(default))
        properties[argument.arg] = schema
    parameters: Schema = {"type": "object", "properties": properties, "additionalProperties": spec.kwarg is not None}
    if required:
        parameters["required"] = required
    is_async = isinstance(function, ast.AsyncFunctionDef)
    return Signature(function.name, summary, parameters, is_async, tuple(_imports(tree)))


def _imports(tree: ast.Module) -> list[tuple[str, int]]:
    found: list[tuple[str, int]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise SourceError("a tool is one file: relative imports have nothing to refer to", node.lineno)
            found.append((node.module or "", node.lineno))
    return found


def _default(node: ast.expr) -> Schema:
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError):
        return {}
    return {"default": value} if isinstance(value, str | int | float | bool | list | dict) or value is None else {}


def _schema(node: ast.expr | None) -> Schema:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return _schema(ast.parse(node.value, mode="eval").body)
    if isinstance(node, ast.Constant) and node.value is None:
        return {"type": "null"}
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _union([node.left, node.right])
    if isinstance(node, ast.Subscript):
        return _generic(_name(node.value), node.slice)
    name = _name(node)
    if name in _SIMPLE:
        return {"type": _SIMPLE[name]}
    if name in _ARRAYS:
        return {"type": "array"}
    return {"type": "object"} if name in _OBJECTS else {}


def _generic(name: str, inner: ast.expr) -> Schema:
    parts = list(inner.elts) if isinstance(inner, ast.Tuple) else [inner]
    if name in _ARRAYS:
        return {"type": "array", "items": _schema(parts[0])}
    if name in _OBJECTS:
        return {"type": "object", "additionalProperties": _schema(parts[1]) if len(parts) > 1 else {}}
    if name == "Literal":
        return {"enum": [ast.literal_eval(part) for part in parts]}
    if name == "Optional":
        return _union([*parts, ast.Constant(None)])
    if name == "Union":
        return _union(parts)
    if name == "Annotated":
        schema = _schema(parts[0])
        texts = [part.value for part in parts[1:] if isinstance(part, ast.Constant) and isinstance(part.value, str)]
        return schema | ({"description": texts[0]} if texts else {})
    return {}


def _union(parts: list[ast.expr]) -> Schema:
    options = [_schema(part) for part in parts]
    flat = [inner for option in options for inner in option.get("anyOf", [option])]
    return {"anyOf": flat} if all(flat) else {}


def _name(node: ast.expr | None) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


_SPHINX = re.compile(r"^:param (?:\S+ )?(\w+):\s*(.+)$")
_GOOGLE = re.compile(r"^(\w+)\s*(?:\([^)]*\))?:\s*(.+)$")


def read_docstring(text: str) -> tuple[str, dict[str, str]]:
    """The description above the sections, and each documented argument (Google and Sphinx styles)."""
    summary: list[str] = []
    documented: dict[str, str] = {}
    section = ""
    for raw in text.splitlines():
        line = raw.strip()
        sphinx = _SPHINX.match(line)
        if sphinx:
            documented[sphinx[1]] = sphinx[2]
            section = "params"
        elif line.rstrip(":").lower() in {"args", "arguments", "parameters", "returns", "raises", "yields", "example"}:
            section = line.rstrip(":").lower()
        elif section in {"args", "arguments", "parameters"}:
            google = _GOOGLE.match(line)
            if google:
                documented[google[1]] = google[2]
            elif line and documented:
                last = next(reversed(documented))
                documented[last] += " " + line
        elif not section:
            summary.append(line)
    return "\n".join(summary).strip(), documented
