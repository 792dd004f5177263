"""`agentflow cancellations`."""

import click

from agentflow.cli.output import connected, write_json
from agentflow.client import AgentFlow
from agentflow.types.cancellations import Cancellation


@click.group()
def cancellations() -> None:
    """Stop what is running."""


def _tell(cancellation: Cancellation, as_json: bool) -> None:
    if as_json:
        write_json(cancellation)
    elif cancellation.cancelled:
        click.echo(f"The run {cancellation.run_id} is being stopped.")
    else:
        click.echo(f"The run {cancellation.run_id} had ended before: {cancellation.status}.")


@cancellations.command()
@click.argument("run_id")
@connected
def run(client: AgentFlow, as_json: bool, run_id: str) -> None:
    """Cancel a run."""
    _tell(client.cancellations.cancel_run(run_id), as_json)


@cancellations.command()
@click.argument("call_id")
@connected
def call(client: AgentFlow, as_json: bool, call_id: str) -> None:
    """Cancel the run whose root call this is."""
    _tell(client.cancellations.cancel_call(call_id), as_json)


@cancellations.command()
@click.argument("conversation_id")
@click.argument("message_id")
@connected
def message(client: AgentFlow, as_json: bool, conversation_id: str, message_id: str) -> None:
    """Cancel the run that a message started."""
    _tell(client.cancellations.cancel_message(conversation_id, message_id), as_json)
