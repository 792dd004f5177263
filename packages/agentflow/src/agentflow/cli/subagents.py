"""`agentflow subagents`."""

import json
from typing import Any

import click

from agentflow.cli.output import agent_id_of, connected, write_fields, write_json, write_table
from agentflow.client import AgentFlow


@click.group()
def subagents() -> None:
    """Agents that other agents may call. PARENT and AGENT are names or ids."""


@subagents.command("list")
@click.argument("parent")
@click.option("--limit", type=click.IntRange(1, 100), default=50, show_default=True)
@click.option("--offset", type=click.IntRange(0), default=0)
@connected
def list_(client: AgentFlow, as_json: bool, parent: str, limit: int, offset: int) -> None:
    """List the agents that PARENT may call."""
    page = client.agents.subagents.list(agent_id_of(client, parent), limit=limit, offset=offset)
    if as_json:
        write_json(page.data)
        return
    write_table(
        ["name", "tool", "background", "id", "description"],
        [(a.name, a.tool_name, a.background, a.id, a.description) for a in page.items],
    )


@subagents.command()
@click.argument("parent")
@click.argument("agent")
@connected
def show(client: AgentFlow, as_json: bool, parent: str, agent: str) -> None:
    """Show a sub-agent."""
    found = client.agents.subagents.retrieve(agent_id_of(client, parent), agent_id_of(client, agent))
    if as_json:
        write_json(found)
    else:
        write_fields(found.model_dump(mode="json"))


def _configurable(command: Any) -> Any:
    for option in (
        click.option("--background/--no-background", default=None, help="PARENT may call it without waiting."),
        click.option("--tool", "tool_assignments", multiple=True, help="A tool it may use; may be repeated."),
        click.option("--max-turns", type=click.IntRange(1, 100), help="Most model calls of a run."),
        click.option("--model", help="provider/model"),
        click.option("--system-prompt", help="What it is."),
    ):
        command = option(command)
    return command


def _settings(given: dict[str, Any]) -> dict[str, Any]:
    settings = {name: value for name, value in given.items() if value not in (None, ())}
    if model := settings.pop("model", None):
        settings["llm_config"] = {"model": model}
    if "tool_assignments" in settings:
        settings["tool_assignments"] = list(settings["tool_assignments"])
    return settings


@subagents.command()
@click.argument("parent")
@click.argument("name")
@click.option("--description", required=True, help="What PARENT's model reads to decide whether to call it.")
@_configurable
@connected
def create(client: AgentFlow, as_json: bool, parent: str, name: str, description: str, **given: Any) -> None:
    """Add an agent that PARENT may call."""
    made = client.agents.subagents.create(
        agent_id_of(client, parent), name=name, description=description, **_settings(given)
    )
    if as_json:
        write_json(made)
    else:
        click.echo(f"{made.name}  {made.id}  called by {made.tool_name}")


@subagents.command()
@click.argument("parent")
@click.argument("agent")
@click.option("--name", help="Its new name.")
@click.option("--description")
@_configurable
@connected
def update(client: AgentFlow, as_json: bool, parent: str, agent: str, **given: Any) -> None:
    """Change a sub-agent; what is not given stays."""
    changed = client.agents.subagents.update(
        agent_id_of(client, parent), agent_id_of(client, agent), **_settings(given)
    )
    if as_json:
        write_json(changed)
    else:
        write_fields(changed.model_dump(mode="json"))


@subagents.command()
@click.argument("parent")
@click.argument("agent")
@connected
def delete(client: AgentFlow, as_json: bool, parent: str, agent: str) -> None:
    """Remove a sub-agent for good."""
    agent_id = agent_id_of(client, agent)
    client.agents.subagents.delete(agent_id_of(client, parent), agent_id)
    click.echo(json.dumps({"deleted": agent_id}) if as_json else f"Removed {agent_id}.")


@subagents.command()
@click.argument("parent")
@click.argument("agent")
@click.option("--background", is_flag=True, help="PARENT may call it without waiting.")
@connected
def assign(client: AgentFlow, as_json: bool, parent: str, agent: str, background: bool) -> None:
    """Let PARENT call an agent that exists."""
    made = client.agents.subagents.assign(
        agent_id_of(client, parent), agent_id_of(client, agent), background=background
    )
    if as_json:
        write_json(made)
    else:
        click.echo(f"{made.name}  {made.id}  called by {made.tool_name}")


@subagents.command()
@click.argument("parent")
@click.argument("agent")
@connected
def unassign(client: AgentFlow, as_json: bool, parent: str, agent: str) -> None:
    """Take an agent from PARENT; it stays an agent."""
    agent_id = agent_id_of(client, agent)
    client.agents.subagents.unassign(agent_id_of(client, parent), agent_id)
    click.echo(json.dumps({"unassigned": agent_id}) if as_json else f"Unassigned {agent_id}.")


@subagents.command()
@click.argument("parent")
@click.argument("agent")
@click.argument("message")
@click.option("--stream/--no-stream", default=True, help="Write the answer as it comes.")
@click.option("--verbose", is_flag=True, help="Also show tools and usage.")
@connected
def run(client: AgentFlow, as_json: bool, parent: str, agent: str, message: str, stream: bool, verbose: bool) -> None:
    """Run a sub-agent itself with one message."""
    from agentflow.cli.streaming import show_stream

    ids = agent_id_of(client, parent), agent_id_of(client, agent)
    if stream:
        shown = {"verbose": verbose or not as_json}
        show_stream(client.agents.subagents.stream(*ids, message=message, options=shown), as_json=as_json)
        return
    result = client.agents.subagents.run(*ids, message=message, options={"verbose": verbose})
    if as_json:
        write_json(result)
    else:
        click.echo(result.text)
