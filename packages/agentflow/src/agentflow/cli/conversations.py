"""`agentflow conversations`."""

import json

import click

from agentflow.cli.output import connected, write_json, write_table
from agentflow.client import AgentFlow

_COLUMNS = ["id", "messages", "updated", "title"]


@click.group()
def conversations() -> None:
    """List, show, search and delete conversations."""


@conversations.command("list")
@click.option("--limit", type=click.IntRange(1, 100), default=20, show_default=True)
@click.option("--offset", type=click.IntRange(0), default=0)
@click.option("--agent-id")
@click.option("--source")
@click.option("--exclude-source")
@click.option("--source-ref-id")
@click.option("--all-users", is_flag=True, help="Those of the whole tenant; needs --source-ref-id.")
@connected
def list_(
    client: AgentFlow,
    as_json: bool,
    limit: int,
    offset: int,
    agent_id: str | None,
    source: str | None,
    exclude_source: str | None,
    source_ref_id: str | None,
    all_users: bool,
) -> None:
    """List conversations, the most recently used first."""
    page = client.conversations.list(
        limit=limit,
        offset=offset,
        agent_id=agent_id,
        source=source,
        exclude_source=exclude_source,
        source_ref_id=source_ref_id,
        all_users=all_users,
    )
    if as_json:
        write_json(page.data)
        return
    write_table(_COLUMNS, [(c.id, c.message_count, c.updated_at, c.title) for c in page.items])
    if page.has_next:
        click.echo(f"{page.total} in all; go on with --offset {page.offset + len(page.items)}", err=True)


@conversations.command()
@click.argument("query")
@click.option("--limit", type=click.IntRange(1, 100), default=20, show_default=True)
@connected
def search(client: AgentFlow, as_json: bool, query: str, limit: int) -> None:
    """Find conversations by what was said in them."""
    page = client.conversations.search(query, limit=limit)
    if as_json:
        write_json(page.data)
    else:
        write_table(_COLUMNS, [(c.id, c.message_count, c.updated_at, c.title) for c in page.items])


@conversations.command()
@click.argument("conversation_id")
@click.option("--timeline", is_flag=True, help="Everything that happened, as JSON.")
@connected
def show(client: AgentFlow, as_json: bool, conversation_id: str, timeline: bool) -> None:
    """Show what was said in a conversation."""
    if timeline:
        write_json(client.conversations.timeline(conversation_id))
        return
    detail = client.conversations.detail(conversation_id)
    if as_json:
        write_json(detail)
        return
    click.secho(detail.title or "(no title)", bold=True)
    for message in detail.messages:
        click.echo(f"\n{message.role}: {message.content}")


@conversations.command()
@click.argument("conversation_id")
@click.argument("title", required=False)
@connected
def title(client: AgentFlow, as_json: bool, conversation_id: str, title: str | None) -> None:
    """Name a conversation; without a TITLE, the agent's model names it."""
    resource = client.conversations
    named = resource.set_title(conversation_id, title) if title else resource.generate_title(conversation_id)
    if as_json:
        write_json(named)
    else:
        click.echo(named.title)


@conversations.command()
@click.argument("conversation_id")
@connected
def watch(client: AgentFlow, as_json: bool, conversation_id: str) -> None:
    """Follow a conversation until it is deleted or you stop."""
    for event in client.conversations.watch(conversation_id):
        if as_json:
            click.echo(json.dumps(event.raw, ensure_ascii=False))
            continue
        for message in event.content["messages"]:
            click.echo(f"{message['role']}: {message['content']}")


@conversations.command()
@click.argument("conversation_id")
@connected
def delete(client: AgentFlow, as_json: bool, conversation_id: str) -> None:
    """Remove a conversation; what runs in it is cancelled."""
    client.conversations.delete(conversation_id)
    click.echo(json.dumps({"deleted": conversation_id}) if as_json else f"Removed {conversation_id}.")
