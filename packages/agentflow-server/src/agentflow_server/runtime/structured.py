"""JSON Schema (2020-12) as the runtime uses it: is a schema one we can enforce, does a value fit it, and where not.

References are resolved inside the schema only: nothing is ever fetched.
"""

import json
from functools import lru_cache
from typing import Any, cast

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, best_match
from referencing import Registry
from referencing.exceptions import Unresolvable

from agentflow_server.runtime.plan import OutputSpec


class OutputMismatchError(ValueError):
    """The model's answer is not the structure that was asked for; the message says where."""


def schema_problem(schema: dict[str, Any]) -> str | None:
    """Why this is not a JSON Schema, or None."""
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        return f"{_where(error.absolute_path)}: {error.message}"
    return None


def first_problem(value: Any, schema: dict[str, Any]) -> str | None:
    """The most telling reason why a value does not fit a schema, or None."""
    try:
        error = best_match(_validator(json.dumps(schema, sort_keys=True)).iter_errors(value))
    except Unresolvable as unknown:
        return f"the schema refers to {unknown.ref}, which it does not contain"
    return f"{_where(error.absolute_path)}: {error.message}" if error else None


def parse_output(text: str, spec: OutputSpec) -> Any:
    """The value in the model's answer.

    Raises:
        OutputMismatchError: it is not JSON or does not fit the schema.
    """
    try:
        value = json.loads(_without_fence(text))
    except json.JSONDecodeError as error:
        raise OutputMismatchError(f"the answer is not JSON: {error}") from None
    if problem := first_problem(value, spec.json_schema):
        raise OutputMismatchError(problem)
    return value


@lru_cache(maxsize=256)
def _validator(schema: str) -> Draft202012Validator:
    return Draft202012Validator(cast("dict[str, Any]", json.loads(schema)), registry=Registry())


def _where(path: Any) -> str:
    return "/".join(str(step) for step in path) or "value"


def _without_fence(text: str) -> str:
    text = text.strip()
    if text.startswith("```"):
        text = text.split("\n", 1)[-1].removesuffix("```")
    return text
