"""`agentflow attachments`."""

import json
from pathlib import Path

import click

from agentflow.cli.output import connected, write_fields, write_json, write_table
from agentflow.client import AgentFlow

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def attachments() -> None:
    """Upload, list, show, download and delete files that runs can be given."""


@attachments.command()
@click.argument("files", nargs=-1, required=True, type=FILE)
@click.option("--media-type", help="In place of what the name says.")
@connected
def upload(client: AgentFlow, as_json: bool, files: tuple[Path, ...], media_type: str | None) -> None:
    """Upload files."""
    found = [client.attachments.upload(file, media_type=media_type) for file in files]
    if as_json:
        write_json(found)
        return
    for attachment in found:
        click.echo(f"{attachment.id}  {attachment.name}")


@attachments.command("list")
@click.option("--limit", type=click.IntRange(1, 100), default=50, show_default=True)
@click.option("--offset", type=click.IntRange(0), default=0)
@connected
def list_(client: AgentFlow, as_json: bool, limit: int, offset: int) -> None:
    """List your files, newest first."""
    page = client.attachments.list(limit=limit, offset=offset)
    if as_json:
        write_json(page.data)
        return
    columns = ["id", "name", "media_type", "size", "created_at"]
    write_table(columns, [[getattr(item, column) for column in columns] for item in page.items])


@attachments.command()
@click.argument("attachment_id")
@connected
def show(client: AgentFlow, as_json: bool, attachment_id: str) -> None:
    """Show what is known of a file."""
    attachment = client.attachments.retrieve(attachment_id)
    if as_json:
        write_json(attachment)
    else:
        write_fields(attachment.model_dump(mode="json"))


@attachments.command()
@click.argument("attachment_id")
@click.option("--output", "-o", type=click.Path(path_type=Path), help="Where to; by default its name, here.")
@connected
def download(client: AgentFlow, as_json: bool, attachment_id: str, output: Path | None) -> None:
    """Download a file; one that broke off is gone on with."""
    target = output
    if target is None or target.is_dir():
        name = Path(client.attachments.retrieve(attachment_id).name).name
        target = (target or Path()) / name
        if target.exists():
            raise click.UsageError(f"{target} exists: name another file with --output")
    path = client.attachments.download(attachment_id).save(target)
    size = path.stat().st_size
    click.echo(json.dumps({"path": str(path), "size": size}) if as_json else f"{path}  {size} bytes")


@attachments.command()
@click.argument("attachment_id")
@connected
def delete(client: AgentFlow, as_json: bool, attachment_id: str) -> None:
    """Remove a file."""
    client.attachments.delete(attachment_id)
    click.echo(json.dumps({"deleted": attachment_id}) if as_json else f"Removed {attachment_id}.")
