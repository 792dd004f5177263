"""The smallest value that fits a JSON Schema, filled from a text by simple rules. For the scripted model."""

import re
from typing import Any, cast

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_MAX_DEPTH = 12


def sample(schema: dict[str, Any], text: str, root: dict[str, Any] | None = None, depth: int = 0) -> Any:
    """A value for the schema: enum words and numbers are taken from the text, strings are the text itself."""
    root = root or schema
    schema = _resolved(schema, root)
    if depth > _MAX_DEPTH:
        return None
    for fixed in ("const", "default"):
        if fixed in schema:
            return schema[fixed]
    if "enum" in schema:
        return _chosen(schema["enum"], text)
    for choice in ("anyOf", "oneOf", "allOf"):
        if schema.get(choice):
            return sample(schema[choice][0], text, root, depth + 1)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = cast("list[str]", kind)[0]
    return _of_type(kind, schema, text, root, depth)


def _of_type(kind: str, schema: dict[str, Any], text: str, root: dict[str, Any], depth: int) -> Any:
    if kind == "object":
        properties: dict[str, Any] = schema.get("properties", {})
        wanted = [name for name in properties if name in schema.get("required", properties)]
        return {name: sample(properties[name], text, root, depth + 1) for name in wanted}
    if kind == "array":
        count = int(schema.get("minItems", 0))
        return [sample(schema.get("items", {}), text, root, depth + 1) for _ in range(count)]
    if kind in ("integer", "number"):
        return _number(kind, schema, text)
    if kind == "boolean":
        return not re.search(r"\b(no|not|false|never)\b", text.lower())
    if kind == "null":
        return None
    return text[: schema.get("maxLength", 500)].ljust(schema.get("minLength", 0), ".")


def _number(kind: str, schema: dict[str, Any], text: str) -> int | float:
    found = _NUMBER.search(text)
    value = float(found.group()) if found else float(schema.get("minimum", 0))
    value = max(value, float(schema.get("minimum", value)))
    value = min(value, float(schema.get("maximum", value)))
    if "exclusiveMinimum" in schema:
        value = max(value, float(schema["exclusiveMinimum"]) + 1)
    return int(value) if kind == "integer" else value


def _chosen(options: list[Any], text: str) -> Any:
    lowered = text.lower()
    return next((option for option in options if str(option).lower() in lowered), options[0])


def _resolved(schema: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    seen = 0
    while (ref := schema.get("$ref")) and ref.startswith("#/") and seen < _MAX_DEPTH:
        target: Any = root
        for step in ref[2:].split("/"):
            target = target[step]
        schema = {**target, **{key: value for key, value in schema.items() if key != "$ref"}}
        seen += 1
    return schema
