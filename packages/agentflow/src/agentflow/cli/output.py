"""How commands write: tables for people, JSON for programs. And the options that every connected command has."""

import functools
import json
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from agentflow.client import AgentFlow
from agentflow.errors import AgentFlowError, APIError

F = TypeVar("F", bound=Callable[..., Any])


def connected(command: F) -> F:
    """Give a command `--endpoint`, `--profile` and `--json`; it is called with `client` and `as_json`."""

    @click.option("--endpoint", metavar="URL", help="Address of the server, in place of a profile.")
    @click.option("--profile", metavar="NAME", help="The profile to use.")
    @click.option("--json", "as_json", is_flag=True, help="Write JSON.")
    @functools.wraps(command)
    def wrapped(*args: Any, endpoint: str | None, profile: str | None, **kwargs: Any) -> Any:
        with connect(endpoint, profile) as client:
            return command(*args, client=client, **kwargs)

    return wrapped  # type: ignore[return-value]  # the options are added, the rest is as it was


def connect(endpoint: str | None, profile: str | None) -> AgentFlow:
    """A client: for the endpoint, else the profile, else the environment, else the chosen profile."""
    if endpoint:
        return AgentFlow(endpoint=endpoint)
    if profile or not os.environ.get("AGENTFLOW_ENDPOINT"):
        return AgentFlow.from_profile(profile)
    return AgentFlow()


def write_json(value: Any) -> None:
    """A value as JSON; models as the wire has them."""
    click.echo(json.dumps(_plain(value), ensure_ascii=False, indent=2))


def _plain(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def write_table(headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Columns, as wide as what stands in them; the last one is not cut."""
    texts = [[_cell(value) for value in row] for row in rows]
    widths = [max(len(row[index]) for row in [list(headings), *texts]) for index in range(len(headings))]
    for row in [[heading.upper() for heading in headings], *texts]:
        click.echo("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def write_fields(fields: dict[str, Any]) -> None:
    """A value a line, with its name; empty ones are left out."""
    shown = {name: value for name, value in fields.items() if value not in (None, "", [], {})}
    width = max((len(name) for name in shown), default=0)
    for name, value in shown.items():
        click.echo(f"{name.ljust(width)}  {_cell(value)}")


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if hasattr(value, "astimezone"):
        return value.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    return str(value).replace("\n", " ")


def error_json(error: AgentFlowError) -> str:
    """An error as JSON."""
    content: dict[str, Any] = {"message": error.message, "hint": error.hint, "type": type(error).__name__}
    if isinstance(error, APIError):
        content.update(code=error.code, status=error.status, details=error.details, request_id=error.request_id)
    return json.dumps({"error": content}, ensure_ascii=False, default=str)


def agent_id_of(client: AgentFlow, name_or_id: str) -> str:
    """The id of an agent given by name or id."""
    if len(name_or_id) == 36 and name_or_id.count("-") == 4:
        return name_or_id
    return client.agents.by_name(name_or_id).id
