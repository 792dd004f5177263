"""`agentflow prompt-blocks`."""

import json
from pathlib import Path
from typing import Any

import click

from agentflow.cli.output import agent_id_of, connected, write_fields, write_json, write_table
from agentflow.client import AgentFlow
from agentflow.types.prompt_blocks import PromptBlock


@click.group()
def prompt_blocks() -> None:
    """List, show, change and try prompt blocks."""


@prompt_blocks.command("list")
@click.option("--limit", type=click.IntRange(1, 100), default=50, show_default=True)
@click.option("--offset", type=click.IntRange(0), default=0)
@connected
def list_(client: AgentFlow, as_json: bool, limit: int, offset: int) -> None:
    """List the blocks in their order."""
    page = client.prompt_blocks.list(limit=limit, offset=offset)
    if as_json:
        write_json(page.data)
        return
    columns = ["name", "enabled", "type", "message", "scope", "mode", "order", "description"]
    write_table(columns, [[getattr(block, column) for column in columns] for block in page.items])


@prompt_blocks.command()
@click.argument("name")
@connected
def show(client: AgentFlow, as_json: bool, name: str) -> None:
    """Show a block."""
    _write(client.prompt_blocks.retrieve(name), as_json)


def _fields(command: Any) -> Any:
    for option in (
        click.option("--agent", "agents", multiple=True, help="Only for this agent (id or name); may be repeated."),
        click.option("--ttl", type=click.IntRange(0), help="Seconds a text may be kept."),
        click.option("--order", type=click.IntRange(0), help="Smaller ones come first."),
        click.option("--tag", "tags", multiple=True, help="May be repeated."),
        click.option("--scope", type=click.Choice(["conversation", "turn"])),
        click.option("--mode", type=click.Choice(["cached", "real_time"])),
        click.option("--message", type=click.Choice(["system", "user"]), help="Where it stands."),
        click.option("--description"),
        click.option("--body-file", type=click.Path(exists=True, dir_okay=False, path_type=Path)),
        click.option("--body", help="Its text."),
    ):
        command = option(command)
    return command


def _given(body_file: Path | None, fields: dict[str, Any]) -> dict[str, Any]:
    given = {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}
    given = {name: value for name, value in given.items() if value not in (None, [])}
    if body_file is not None:
        given["body"] = body_file.read_text(encoding="utf-8")
    return given


@prompt_blocks.command()
@click.argument("name")
@_fields
@connected
def create(client: AgentFlow, as_json: bool, name: str, body_file: Path | None, **fields: Any) -> None:
    """Add a static block."""
    given = _given(body_file, fields)
    if "body" not in given:
        raise click.UsageError("a block needs a text: --body or --body-file")
    _write(client.prompt_blocks.create(name=name, **given), as_json)


@prompt_blocks.command()
@click.argument("name")
@_fields
@connected
def update(client: AgentFlow, as_json: bool, name: str, body_file: Path | None, **fields: Any) -> None:
    """Change a block; what is not given stays."""
    _write(client.prompt_blocks.update(name, **_given(body_file, fields)), as_json)


@prompt_blocks.command()
@click.argument("name")
@connected
def enable(client: AgentFlow, as_json: bool, name: str) -> None:
    """Let runs have a block again."""
    _write(client.prompt_blocks.enable(name), as_json)


@prompt_blocks.command()
@click.argument("name")
@connected
def disable(client: AgentFlow, as_json: bool, name: str) -> None:
    """Keep a block from runs."""
    _write(client.prompt_blocks.disable(name), as_json)


@prompt_blocks.command()
@click.argument("name")
@connected
def delete(client: AgentFlow, as_json: bool, name: str) -> None:
    """Remove a static block."""
    client.prompt_blocks.delete(name)
    click.echo(json.dumps({"deleted": name}) if as_json else f"Removed {name}.")


@prompt_blocks.command("invalidate-cache")
@click.argument("name")
@connected
def invalidate_cache(client: AgentFlow, as_json: bool, name: str) -> None:
    """Forget every kept text of a block."""
    _write(client.prompt_blocks.invalidate_cache(name), as_json)


@prompt_blocks.command()
@click.argument("name")
@click.option("--body", help="Try this text in place of the block's own.")
@click.option("--client-timezone", help="IANA name.")
@connected
def preview(client: AgentFlow, as_json: bool, name: str, body: str | None, client_timezone: str | None) -> None:
    """Show a block as the model would see it."""
    given = {"body": body, "client_timezone": client_timezone}
    found = client.prompt_blocks.preview(name, **{key: value for key, value in given.items() if value is not None})
    if as_json:
        write_json(found)
    else:
        click.echo(found.wrapped)


@prompt_blocks.command("preview-prompt")
@click.argument("agent")
@click.argument("message")
@click.option("--conversation", "conversation_id", help="As the next message of this conversation.")
@click.option("--full", is_flag=True, help="Write the texts too.")
@connected
def preview_prompt(
    client: AgentFlow, as_json: bool, agent: str, message: str, conversation_id: str | None, full: bool
) -> None:
    """Show the whole prompt a run would send, with token counts."""
    found = client.prompt_blocks.preview_prompt(
        agent_id=agent_id_of(client, agent), message=message, conversation_id=conversation_id
    )
    if as_json:
        write_json(found)
        return
    for part in found.parts:
        click.secho(f"{part.kind} {part.name or ''} ({part.tokens} tokens)".replace("  ", " "), bold=full)
        if full and part.text:
            click.echo(f"{part.text}\n")
    click.echo(f"{found.tokens} tokens for {found.model}, {found.cached_tokens} of them in the stable prefix")


def _write(block: PromptBlock, as_json: bool) -> None:
    if as_json:
        write_json(block)
    else:
        write_fields(block.model_dump(mode="json"))
