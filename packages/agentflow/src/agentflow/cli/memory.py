"""`agentflow memory`."""

import sys

import click

from agentflow.cli.output import agent_id_of, connected, write_json, write_table
from agentflow.client import AgentFlow
from agentflow.errors import NotFoundError

_TYPE = click.argument("block_type", metavar="BLOCK", type=click.Choice(["core", "archival"]))
_AGENT = click.option("--agent", metavar="NAME|ID", help="This agent's own memory, in place of the user's.")


@click.group()
def memory() -> None:
    """Show, change, search, export and erase what agents keep about you."""


def _agent(client: AgentFlow, agent: str | None) -> str | None:
    return agent_id_of(client, agent) if agent else None


@memory.command("list")
@click.option("--scope", type=click.Choice(["user", "agent", "all"]), default="all", show_default=True)
@_AGENT
@connected
def list_(client: AgentFlow, as_json: bool, scope: str, agent: str | None) -> None:
    """List the blocks."""
    page = client.memory.list(scope=scope, agent_id=_agent(client, agent), limit=100)  # type: ignore[arg-type]  # a Choice
    if as_json:
        write_json(page.data)
        return
    rows = [(b.block_type, b.scope, b.agent_id, len(b.content), b.updated_at) for b in page]
    write_table(["block", "scope", "agent", "characters", "updated"], rows)


@memory.command()
@_TYPE
@_AGENT
@connected
def get(client: AgentFlow, as_json: bool, block_type: str, agent: str | None) -> None:
    """Print a block."""
    block = client.memory.get(block_type, agent_id=_agent(client, agent))
    if as_json:
        write_json(block)
    else:
        click.echo(block.content)


@memory.command()
@_TYPE
@click.argument("content", required=False)
@_AGENT
@click.option("--expected-updated-at", metavar="TIME", help="The `updated_at` you have read; without it, the newest.")
@connected
def update(
    client: AgentFlow,
    as_json: bool,
    block_type: str,
    content: str | None,
    agent: str | None,
    expected_updated_at: str | None,
) -> None:
    """Replace the whole text of a block; it is read from standard input if CONTENT is left out."""
    text = sys.stdin.read().rstrip("\n") if content is None else content
    agent_id = _agent(client, agent)
    expected = expected_updated_at or _newest(client, block_type, agent_id)
    block = client.memory.update(block_type, text, expected_updated_at=expected, agent_id=agent_id)
    if as_json:
        write_json(block)
    else:
        click.echo(f"{block.block_type}: {len(block.content)} characters, updated_at {block.updated_at.isoformat()}")


def _newest(client: AgentFlow, block_type: str, agent_id: str | None) -> str | None:
    try:
        return client.memory.get(block_type, agent_id=agent_id).updated_at.isoformat()
    except NotFoundError:
        return None


@memory.command()
@click.argument("query")
@click.option("--agent", metavar="NAME|ID", help="Search this agent's memory too.")
@click.option("--limit", type=click.IntRange(1, 100), default=10, show_default=True)
@click.option("--min-score", type=click.FloatRange(0, 1))
@connected
def recall(
    client: AgentFlow, as_json: bool, query: str, agent: str | None, limit: int, min_score: float | None
) -> None:
    """Find entries by words and meaning."""
    found = client.memory.recall(query, agent_id=_agent(client, agent), limit=limit, min_score=min_score)
    if as_json:
        write_json({"results": [item.model_dump(mode="json") for item in found], "mode": found.mode,
                    "pending": found.pending})  # fmt: skip
        return
    rows = [(f"{item.score:.3f}", item.block_type, item.scope, item.line_number, item.content) for item in found]
    write_table(["score", "block", "scope", "line", "entry"], rows)
    if found.mode == "keyword":
        click.echo("by words only: the server has no embedding", err=True)


@memory.command()
@_TYPE
@_AGENT
@connected
def delete(client: AgentFlow, as_json: bool, block_type: str, agent: str | None) -> None:
    """Remove a block."""
    client.memory.delete(block_type, agent_id=_agent(client, agent))
    if as_json:
        write_json({"deleted": block_type})
    else:
        click.echo(f"deleted {block_type}")


@memory.command()
@connected
def export(client: AgentFlow, as_json: bool) -> None:
    """Print everything the server holds about you, as JSON."""
    write_json(client.memory.export())


@memory.command()
@click.option("--everything", is_flag=True, help="Also conversations and all else that is yours.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@connected
def erase(client: AgentFlow, as_json: bool, everything: bool, yes: bool) -> None:
    """Erase your memory for good."""
    if not yes:
        click.confirm("Erase everything about you?" if everything else "Erase your whole memory?", abort=True, err=True)
    erased = client.memory.erase(everything=everything)
    if as_json:
        write_json(erased)
    else:
        click.echo(", ".join(f"{name}: {count}" for name, count in erased.erased.items()))
