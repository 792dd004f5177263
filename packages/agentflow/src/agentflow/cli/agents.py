"""`agentflow agents`."""

import functools
import json
import sys
from pathlib import Path
from typing import Any

import click

from agentflow.cli.attachments import FILE
from agentflow.cli.knowledge_bases import agent_knowledge_bases
from agentflow.cli.output import agent_id_of, connected, write_fields, write_json, write_table
from agentflow.client import AgentFlow


@click.group()
def agents() -> None:
    """List, show, change and run agents. An AGENT is a name or an id."""


agents.add_command(agent_knowledge_bases)


@agents.command("list")
@click.option("--limit", type=click.IntRange(1, 100), default=50, show_default=True)
@click.option("--offset", type=click.IntRange(0), default=0)
@connected
def list_(client: AgentFlow, as_json: bool, limit: int, offset: int) -> None:
    """List the agents."""
    page = client.agents.list(limit=limit, offset=offset)
    if as_json:
        write_json(page.data)
        return
    write_table(
        ["name", "id", "tools", "description"], [(a.name, a.id, a.tool_count, a.description) for a in page.items]
    )


@agents.command()
@click.argument("agent")
@connected
def show(client: AgentFlow, as_json: bool, agent: str) -> None:
    """Show an agent's configuration."""
    config = client.agents.get_config(agent_id_of(client, agent))
    if as_json:
        write_json(config)
    else:
        write_fields(config.model_dump(mode="json"))


def _settings(given: dict[str, Any]) -> dict[str, Any]:
    settings = {name: value for name, value in given.items() if value not in (None, ())}
    model = settings.pop("model", None)
    if model:
        settings["llm_config"] = {"model": model}
    if "tools" in settings:
        settings["tools"] = list(settings["tools"])
    return settings


def _configurable(command: Any) -> Any:
    for option in (
        click.option("--tool", "tools", multiple=True, help="A tool the agent may use; may be repeated."),
        click.option("--max-turns", type=click.IntRange(1, 100), help="Most model calls of a run."),
        click.option("--model", help="provider/model"),
        click.option("--system-prompt", help="What the agent is."),
        click.option("--description"),
    ):
        command = option(command)
    return command


@agents.command()
@click.argument("name")
@_configurable
@connected
def create(client: AgentFlow, as_json: bool, name: str, **given: Any) -> None:
    """Add an agent."""
    agent = client.agents.create(name=name, **_settings(given))
    if as_json:
        write_json(agent)
    else:
        click.echo(f"{agent.name}  {agent.id}")


@agents.command()
@click.argument("agent")
@click.option("--name", help="Its new name.")
@_configurable
@connected
def update(client: AgentFlow, as_json: bool, agent: str, **given: Any) -> None:
    """Change an agent; what is not given stays."""
    config = client.agents.update(agent_id_of(client, agent), **_settings(given))
    if as_json:
        write_json(config)
    else:
        write_fields(config.model_dump(mode="json"))


@agents.command()
@click.argument("agent")
@connected
def delete(client: AgentFlow, as_json: bool, agent: str) -> None:
    """Remove an agent."""
    agent_id = agent_id_of(client, agent)
    client.agents.delete(agent_id)
    click.echo(json.dumps({"deleted": agent_id}) if as_json else f"Removed {agent_id}.")


@agents.command()
@click.argument("agent")
@click.argument("message")
@click.option("--conversation", "conversation_id", help="Go on with this conversation.")
@click.option("--model", help="provider/model, for this run.")
@click.option("--attach", "files", multiple=True, type=FILE, help="A file for the agent; may be repeated.")
@click.option("--stream/--no-stream", default=True, help="Write the answer as it comes.")
@click.option("--verbose", is_flag=True, help="Also show tools and usage.")
@connected
def run(
    client: AgentFlow,
    as_json: bool,
    agent: str,
    message: str,
    conversation_id: str | None,
    model: str | None,
    files: tuple[Path, ...],
    stream: bool,
    verbose: bool,
) -> None:
    """Run an agent with one message. With --json, --stream writes one event a line.

    In a terminal, what the agent may not do without you, and what it asks you, is asked here.
    """
    from agentflow.cli.chat import answer_person
    from agentflow.cli.streaming import show_stream

    options: dict[str, Any] = {"verbose": verbose, **({"model": model} if model else {})}
    agent_id = agent_id_of(client, agent)
    if files:
        options["attachment_ids"] = [client.attachments.upload(file).id for file in files]
    if stream:
        # people see which tools run; programs get what they asked for
        shown = {**options, "verbose": verbose or not as_json}
        events = client.agents.stream(
            agent_id=agent_id, message=message, conversation_id=conversation_id, options=shown
        )
        answer = functools.partial(answer_person, client) if sys.stdin.isatty() else None
        show_stream(events, as_json=as_json, answer=answer)
        return
    result = client.agents.run(agent_id=agent_id, message=message, conversation_id=conversation_id, options=options)
    if as_json:
        write_json(result)
    else:
        click.echo(result.text)
