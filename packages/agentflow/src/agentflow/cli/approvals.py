"""`agentflow approvals`."""

import json
from typing import Any, Literal

import click

from agentflow.cli.output import connected, write_fields, write_json, write_table
from agentflow.client import AgentFlow
from agentflow.types.approvals import Approval

_STATUSES = ["pending", "approved", "denied", "expired", "cancelled", "all"]


@click.group()
def approvals() -> None:
    """Decide on tool calls that wait for it."""


def _told(approval: Approval, as_json: bool) -> None:
    if as_json:
        write_json(approval)
    else:
        click.echo(f"{approval.tool_name}: {approval.status}")


@approvals.command("list")
@click.option("--status", type=click.Choice(_STATUSES), default="pending", show_default=True)
@click.option("--tool", "tool_name", help="Only those of this tool.")
@click.option("--page", type=click.IntRange(1), default=1)
@click.option("--page-size", type=click.IntRange(1, 100), default=20, show_default=True)
@connected
def list_(client: AgentFlow, as_json: bool, **given: Any) -> None:
    """List requests for approval, the newest first."""
    page = client.approvals.list(**given)
    if as_json:
        write_json(page.data)
        return
    rows = [(one.id, one.tool_name, one.status, one.expires_at, one.arguments) for one in page.items]
    write_table(["id", "tool", "status", "expires", "arguments"], rows)


@approvals.command()
@click.argument("approval_id")
@connected
def show(client: AgentFlow, as_json: bool, approval_id: str) -> None:
    """Show a request."""
    approval = client.approvals.retrieve(approval_id)
    if as_json:
        write_json(approval)
    else:
        write_fields(approval.model_dump(mode="json"))


@approvals.command()
@click.argument("approval_id")
@click.option("--arguments", metavar="JSON", help="In place of the proposed ones.")
@click.option("--reason")
@connected
def approve(client: AgentFlow, as_json: bool, approval_id: str, arguments: str | None, reason: str | None) -> None:
    """Approve a call."""
    changed = _parsed(arguments)
    _told(_respond(client, approval_id, "approved", modified_arguments=changed, reason=reason), as_json)


def _parsed(arguments: str | None) -> Any:
    try:
        return None if arguments is None else json.loads(arguments)
    except ValueError as error:
        raise click.BadParameter(f"this is not JSON: {error}", param_hint="--arguments") from None


@approvals.command()
@click.argument("approval_id")
@click.argument("decision", type=click.Choice(["approved", "denied"]))
@click.option("--arguments", metavar="JSON", help="In place of the proposed ones; with `approved` only.")
@click.option("--reason", help="The model is told of a denial's.")
@connected
def respond(
    client: AgentFlow, as_json: bool, approval_id: str, decision: Any, arguments: str | None, **given: Any
) -> None:
    """Decide on a call, in one command for both answers."""
    changed = _parsed(arguments)
    if changed is not None and decision == "denied":
        raise click.UsageError("--arguments goes with approved only")
    _told(_respond(client, approval_id, decision, modified_arguments=changed, **given), as_json)


@approvals.command()
@click.argument("approval_id")
@click.option("--reason", help="The model is told.")
@connected
def deny(client: AgentFlow, as_json: bool, approval_id: str, reason: str | None) -> None:
    """Deny a call."""
    _told(_respond(client, approval_id, "denied", reason=reason), as_json)


def _respond(client: AgentFlow, approval_id: str, decision: Literal["approved", "denied"], **given: Any) -> Approval:
    return client.approvals.respond(approval_id, decision, **given)


@approvals.command()
@click.argument("approval_id")
@connected
def cancel(client: AgentFlow, as_json: bool, approval_id: str) -> None:
    """Withdraw a request."""
    _told(client.approvals.cancel(approval_id), as_json)


@approvals.command()
@click.option("--tool", help="Only this tool, by id or name.")
@connected
def stats(client: AgentFlow, as_json: bool, tool: str | None) -> None:
    """How often calls of each tool were approved, denied and so on."""
    found = client.approvals.stats(tool=tool)
    if as_json:
        write_json(list(found))
        return
    rows = [(s.tool_name, s.total, s.pending, s.approved, s.denied, s.expired, s.cancelled) for s in found]
    write_table(["tool", "total", "pending", "approved", "denied", "expired", "cancelled"], rows)


@approvals.command()
@connected
def summary(client: AgentFlow, as_json: bool) -> None:
    """How many there are of each status."""
    counts = client.approvals.summary()
    if as_json:
        write_json(counts)
    else:
        write_table(["status", "count"], list(counts.model_dump().items()))


@approvals.command()
@connected
def cleanup(client: AgentFlow, as_json: bool) -> None:
    """Remove the expired ones."""
    removed = client.approvals.cleanup()
    click.echo(json.dumps({"removed": removed}) if as_json else f"Removed {removed}.")
