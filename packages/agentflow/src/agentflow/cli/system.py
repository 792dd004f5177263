"""`agentflow system`."""

from typing import Any

import click

from agentflow.cli.output import connected, write_fields, write_json
from agentflow.client import AgentFlow


@click.group()
def system() -> None:
    """Ask the server how it is."""


def _tell(answer: Any, as_json: bool) -> None:
    if as_json:
        write_json(answer)
    else:
        write_fields(answer.model_dump(mode="json"))


@system.command()
@connected
def health(client: AgentFlow, as_json: bool) -> None:
    """The process is alive."""
    _tell(client.system.health(), as_json)


@system.command()
@connected
def ready(client: AgentFlow, as_json: bool) -> None:
    """The server can take work."""
    _tell(client.system.ready(), as_json)


@system.command()
@connected
def info(client: AgentFlow, as_json: bool) -> None:
    """Versions, features and limits."""
    _tell(client.system.info(), as_json)
