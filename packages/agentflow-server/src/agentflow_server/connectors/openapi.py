"""Reads operations out of an OpenAPI 3.x document, as requests with arguments. Called by the tools room.

References are resolved inside the document only; a schema that contains itself is cut where it repeats.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urljoin, urlsplit

from agentflow.types.tools import HttpCall

_METHODS = ("get", "post", "put", "patch", "delete", "head")
_WORD = re.compile(r"[^a-zA-Z0-9_]+")
_MAX_DEPTH = 12
Json = dict[str, Any]


class OpenApiError(ValueError):
    """The document cannot be used; says where and why."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation as a tool."""

    name: str
    description: str
    parameters: Json
    call: HttpCall


def operations(
    document: Json, wanted: Sequence[str] | None, *, base_url: str | None, prefix: str = ""
) -> list[Operation]:
    """The wanted operations (by operationId), or all of them.

    Raises:
        OpenApiError: it is no OpenAPI 3 document, an operation is not in it or cannot be called.
    """
    if not str(document.get("openapi", "")).startswith("3."):
        raise OpenApiError("the document is no OpenAPI 3 document: its `openapi` must be 3.x")
    base = _base(document, base_url)
    found: dict[str, Operation] = {}
    for path, item in _object(document, "paths").items():
        for method in _METHODS:
            if isinstance(item, dict) and isinstance(item.get(method), dict):
                identity = str(item[method].get("operationId") or f"{method}_{path}")
                if wanted is None or identity in wanted:
                    found[identity] = _operation(document, base, path, method, item, identity, prefix)
    if missing := [name for name in wanted or () if name not in found]:
        raise OpenApiError(f"the document has no operation {missing[0]!r}")
    if not found:
        raise OpenApiError("the document has no operations")
    return list(found.values())


def _base(document: Json, base_url: str | None) -> str:
    servers = document.get("servers") or [{}]
    server: Json = servers[0] if isinstance(servers, list) and isinstance(servers[0], dict) else {}
    address = str(server.get("url", ""))
    for name, variable in _object(server, "variables").items():
        address = address.replace(f"{{{name}}}", str(variable.get("default", "")))
    address = urljoin(base_url, address) if base_url and not urlsplit(address).scheme else (base_url or address)
    if urlsplit(address).scheme not in ("http", "https"):
        raise OpenApiError("the document names no server with a whole address: give base_url")
    return address.rstrip("/")


def _operation(document: Json, base: str, path: str, method: str, item: Json, identity: str, prefix: str) -> Operation:
    operation: Json = item[method]
    builder = _Builder(document)
    for listed in (*(item.get("parameters") or ()), *(operation.get("parameters") or ())):
        builder.add_parameter(builder.resolved(listed))
    body, body_format = builder.body(builder.resolved(operation.get("requestBody") or {}), method)
    url = base + re.sub(r"\{([^}]*)\}", lambda match: f"{{{builder.paths.get(match[1], match[1])}}}", path)
    call = HttpCall(
        method=cast("Any", method.upper()),
        url=url,
        query=builder.query,
        header_arguments=builder.headers,
        body=body,
        body_format=cast("Any", body_format),
    )
    name = (prefix + _argument(identity))[:64]
    text = str(operation.get("description") or operation.get("summary") or f"{method.upper()} {path}")
    return Operation(name, text[:10_000], builder.schema(), call)


class _Builder:
    """Gathers the arguments of one operation, and where each goes."""

    def __init__(self, document: Json) -> None:
        self._document = document
        self._properties: Json = {}
        self._required: list[str] = []
        self.paths: dict[str, str] = {}
        self.query: dict[str, str] = {}
        self.headers: dict[str, str] = {}

    def resolved(self, value: Any) -> Json:
        """The object itself, or what its reference stands for."""
        for _ in range(_MAX_DEPTH):
            if not isinstance(value, dict) or "$ref" not in value:
                break
            value = self._at(str(value["$ref"]))
        if not isinstance(value, dict):
            raise OpenApiError(f"an object was expected, not {value!r}"[:200])
        return cast("Json", value)

    def _at(self, pointer: str) -> Any:
        if not pointer.startswith("#/"):
            raise OpenApiError(f"{pointer}: references lead into the document only")
        value: Any = self._document
        for step in pointer[2:].split("/"):
            key = step.replace("~1", "/").replace("~0", "~")
            if not isinstance(value, dict) or key not in value:
                raise OpenApiError(f"{pointer}: leads nowhere")
            value = value[key]
        return value

    def add_parameter(self, parameter: Json) -> None:
        place, wire = parameter.get("in"), str(parameter.get("name", ""))
        shelves = {"path": self.paths, "query": self.query, "header": self.headers}
        if place not in shelves or (place == "header" and wire.lower() in ("accept", "content-type", "authorization")):
            return
        argument = shelves[place].setdefault(wire, self._free(_argument(wire)))
        schema = self.inlined(parameter.get("schema") or {})
        if text := parameter.get("description"):
            schema = {**schema, "description": str(text)}
        self._properties[argument] = schema
        if (parameter.get("required") or place == "path") and argument not in self._required:
            self._required.append(argument)

    def body(self, request: Json, method: str) -> tuple[dict[str, str] | str | None, str]:
        """Where the arguments of the body come from, and how it is written."""
        content = _object(request, "content")
        if not content or method in ("get", "head", "delete"):
            return None, "json"
        media = next((name for name in content if "json" in name), None)
        form = "application/x-www-form-urlencoded"
        if media is None and form not in content:
            raise OpenApiError(f"the body is {next(iter(content))}; only JSON and forms can be sent")
        schema = self.inlined(self.resolved(content[media or form]).get("schema") or {})
        written = "json" if media else "form"
        if schema.get("type") == "object" and schema.get("properties") and not schema.get("additionalProperties"):
            fields: dict[str, str] = {}
            for wire, part in schema["properties"].items():
                if isinstance(part, dict) and part.get("readOnly"):
                    continue
                fields[wire] = self._free(_argument(wire))
                self._properties[fields[wire]] = part
            needed = [fields[wire] for wire in schema.get("required", ()) if wire in fields]
            self._required += needed if request.get("required") else []
            return fields, written
        argument = self._free("body")
        self._properties[argument] = schema
        if request.get("required"):
            self._required.append(argument)
        return argument, written

    def _free(self, name: str) -> str:
        while name in self._properties:
            name += "_"
        return name

    def inlined(self, schema: Any, above: tuple[str, ...] = ()) -> Any:
        """A schema without references, in the words of JSON Schema 2020-12."""
        if isinstance(schema, list):
            return [self.inlined(part, above) for part in schema]
        if not isinstance(schema, dict):
            return schema
        reference = schema.get("$ref")
        if isinstance(reference, str):
            if reference in above or len(above) >= _MAX_DEPTH:
                return {}
            return self.inlined(self._at(reference), (*above, reference))
        plain: Json = {
            name: self.inlined(part, above)
            for name, part in schema.items()
            if name not in ("nullable", "example", "xml", "externalDocs", "discriminator") and not name.startswith("x-")
        }
        for bound in ("Minimum", "Maximum"):  # OpenAPI 3.0 says with a boolean what JSON Schema says with the number
            exclusive = plain.get(f"exclusive{bound}")
            if isinstance(exclusive, bool):
                del plain[f"exclusive{bound}"]
                if exclusive and bound.lower() in plain:
                    plain[f"exclusive{bound}"] = plain.pop(bound.lower())
        return {"anyOf": [plain, {"type": "null"}]} if schema.get("nullable") is True else plain

    def schema(self) -> Json:
        schema: Json = {"type": "object", "properties": self._properties, "additionalProperties": False}
        return {**schema, "required": self._required} if self._required else schema


def _argument(wire: str) -> str:
    name = _WORD.sub("_", wire).strip("_") or "value"
    return f"_{name}" if name[0].isdigit() else name


def _object(value: Mapping[str, Any], name: str) -> Json:
    found = value.get(name)
    return cast("Json", found) if isinstance(found, dict) else {}
