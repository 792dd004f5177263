"""`agentflow cached-results`."""

import click

from agentflow.cli.output import connected, write_json, write_table
from agentflow.client import AgentFlow


@click.group("cached-results")
def cached_results() -> None:
    """Read large tool results that are kept for a while."""


@cached_results.command("list")
@click.argument("conversation_id")
@click.option("--limit", type=click.IntRange(1, 100), default=50, show_default=True)
@click.option("--offset", type=click.IntRange(0), default=0)
@connected
def list_(client: AgentFlow, as_json: bool, conversation_id: str, limit: int, offset: int) -> None:
    """List what is kept of a conversation."""
    page = client.cached_results.list(conversation_id, limit=limit, offset=offset)
    if as_json:
        write_json(page.data)
        return
    write_table(
        ["id", "tool", "characters", "until"],
        [(entry.cache_id, entry.tool_name, entry.size, entry.expires_at) for entry in page.items],
    )


@cached_results.command()
@click.argument("conversation_id")
@click.argument("cache_id")
@connected
def show(client: AgentFlow, as_json: bool, conversation_id: str, cache_id: str) -> None:
    """Write a result to standard output."""
    found = client.cached_results.retrieve(conversation_id, cache_id)
    if as_json:
        write_json(found)
    else:
        click.echo(found.content)
