"""`agentflow models`."""

import click

from agentflow.cli.output import connected, write_fields, write_json, write_table
from agentflow.client import AgentFlow


@click.group()
def models() -> None:
    """Show the catalogue of models."""


@models.command("list")
@click.option("--available", is_flag=True, help="Only those whose provider is configured.")
@connected
def list_(client: AgentFlow, as_json: bool, available: bool) -> None:
    """List the models."""
    catalogue = client.models.list()
    found = [model for model in catalogue.models if model.available or not available]
    if as_json:
        write_json({"models": [model.model_dump(mode="json") for model in found], "default": catalogue.default})
        return
    rows = [(model.id, model.available, model.capabilities.contextWindow, model.name) for model in found]
    write_table(["id", "available", "window", "name"], rows)
    click.echo(f"default: {catalogue.default}", err=True)


@models.command()
@click.argument("model_id")
@connected
def show(client: AgentFlow, as_json: bool, model_id: str) -> None:
    """Show one model."""
    model = client.models.retrieve(model_id)
    if as_json:
        write_json(model)
    else:
        write_fields(model.model_dump(mode="json"))
