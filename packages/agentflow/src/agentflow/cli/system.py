"""`agentflow system`."""

from typing import Any

import click

from agentflow.cli.output import connected, write_fields, write_json, write_table
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


@system.command()
@click.option("--actor", metavar="USER", help="Only what this user or machine did.")
@click.option("--action", metavar="ACTION", help="Only this, for example agents.delete.")
@click.option("--limit", type=click.IntRange(1, 100), default=50, show_default=True, help="How many entries.")
@click.option("--offset", type=click.IntRange(0), default=0, help="How many to skip.")
@connected
def audit(client: AgentFlow, as_json: bool, actor: str | None, action: str | None, limit: int, offset: int) -> None:
    """Show the tenant's audit log, newest first. For admins."""
    page = client.system.audit(actor=actor, action=action, limit=limit, offset=offset)
    if as_json:
        write_json(page.data)
        return
    rows = [(entry.at, entry.actor, entry.action, entry.status, entry.target) for entry in page.items]
    write_table(("at", "actor", "action", "status", "target"), rows)
