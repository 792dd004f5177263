"""`agentflow runs`."""

import click

from agentflow.cli.output import connected, write_fields, write_json
from agentflow.cli.streaming import show_stream
from agentflow.client import AgentFlow


@click.group()
def runs() -> None:
    """Show a run, or follow it."""


@runs.command()
@click.argument("run_id")
@connected
def show(client: AgentFlow, as_json: bool, run_id: str) -> None:
    """Show where a run stands."""
    run = client.runs.retrieve(run_id)
    if as_json:
        write_json(run)
    else:
        fields = run.model_dump(mode="json")
        fields["result"] = run.result.text if run.result else None
        write_fields(fields)


@runs.command()
@click.argument("run_id")
@click.option("--verbose", is_flag=True, help="Also show tools and usage.")
@connected
def follow(client: AgentFlow, as_json: bool, run_id: str, verbose: bool) -> None:
    """Read a run's events from its beginning to its end."""
    show_stream(client.runs.stream(run_id, verbose=verbose), as_json=as_json)
