"""`agentflow batches`."""

from pathlib import Path
from typing import Any

import click

from agentflow.cli.items import load_json, model_options
from agentflow.cli.output import connected, write_fields, write_json, write_table
from agentflow.cli.progress import follow
from agentflow.client import AgentFlow
from agentflow.types.batches import Batch


@click.group()
def batches() -> None:
    """Work off many items in the background."""


@batches.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--operation",
    type=click.Choice(["label", "classify", "extract", "summarize", "enrich", "run"]),
    required=True,
)
@click.option("--category", "categories", multiple=True, help="label: a category; may be repeated.")
@click.option("--multi-label", is_flag=True, default=None, help="label: all categories that apply.")
@click.option("--instructions", help="What is wanted, in words.")
@click.option("--fields", help="enrich: JSON, or @FILE.")
@click.option("--include-context", is_flag=True, default=None, help="enrich: the model also sees the metadata.")
@click.option("--system", "system_prompt", help="run: what the model is told first.")
@click.option("--template", "user_prompt_template", help="run: {content} and {name} stand for an item's values.")
@click.option("--schema", help="extract, run: a JSON Schema, or @FILE.")
@click.option("--format", "format_", type=click.Choice(["csv", "json", "jsonl"]), help="Of the file.")
@click.option("--webhook-url", help="Told when the batch has ended.")
@click.option("--wait", "waits", is_flag=True, help="Wait for the end, with a progress bar.")
@model_options
@connected
def submit(client: AgentFlow, as_json: bool, file: Path, operation: str, waits: bool, **given: Any) -> None:
    """Hand in a file of items: CSV with a header, JSON, or JSON lines."""
    batch = client.batches.upload_file(file, operation=operation, **_options(operation, given))
    if waits:
        batch = _wait(client, batch.id, None, as_json)
    _show(batch, as_json)


def _options(operation: str, given: dict[str, Any]) -> dict[str, Any]:
    instructions = {"extract": "extraction_instructions", "summarize": "summary_instructions"}
    known = {name: value for name, value in given.items() if value not in (None, ())}
    if "instructions" in known:
        known[instructions.get(operation, "instructions")] = known.pop("instructions")
    if "categories" in known:
        known["categories"] = list(known["categories"])
    if "fields" in known:
        known["fields"] = load_json(known["fields"])
    if "schema" in known:
        known["output_type"] = load_json(known.pop("schema"))
    if "format_" in known:
        known["format"] = known.pop("format_")
    return known


@batches.command("list")
@click.option("--status", type=click.Choice(["queued", "processing", "completed", "failed", "cancelled"]))
@click.option("--limit", type=click.IntRange(1, 100), default=50, show_default=True)
@click.option("--offset", type=click.IntRange(0), default=0)
@connected
def list_(client: AgentFlow, as_json: bool, status: Any, limit: int, offset: int) -> None:
    """List your batches, newest first."""
    page = client.batches.list(status=status, limit=limit, offset=offset)
    if as_json:
        write_json(page.data)
        return
    write_table(
        ["id", "operation", "status", "done", "failed", "created"],
        [(b.id, b.operation, b.status, f"{b.processed}/{b.total}", b.failed, b.created_at) for b in page.items],
    )


@batches.command()
@click.argument("batch")
@connected
def show(client: AgentFlow, as_json: bool, batch: str) -> None:
    """Show how a batch stands."""
    _show(client.batches.retrieve(batch), as_json)


@batches.command()
@click.argument("batch")
@click.option("--timeout", type=click.FloatRange(0), help="Seconds to wait.")
@connected
def wait(client: AgentFlow, as_json: bool, batch: str, timeout: float | None) -> None:
    """Wait for a batch to end, with a progress bar."""
    _show(_wait(client, batch, timeout, as_json), as_json)


@batches.command()
@click.argument("batch")
@click.option("--format", "format_", type=click.Choice(["json", "jsonl", "csv"]), help="By default jsonl, or PATH's.")
@click.option("--to", "path", type=click.Path(path_type=Path, dir_okay=False), help="Write to a file.")
@click.option("--offset", type=click.IntRange(0), default=0, help="The first item.")
@click.option("--limit", type=click.IntRange(1), help="How many items.")
@connected
def output(
    client: AgentFlow, as_json: bool, batch: str, format_: str | None, path: Path | None, offset: int, limit: int | None
) -> None:
    """Write the rows of a batch."""
    if path is not None:
        client.batches.download_output(batch, path, format=None if format_ == "json" else format_)
        if as_json:
            write_json({"path": str(path)})
        else:
            click.echo(f"Wrote {path}.", err=True)
        return
    chosen = format_ or ("json" if as_json else "jsonl")
    rows = client.batches.output(batch, format=chosen, offset=offset, limit=limit)
    if chosen == "json":
        write_json(rows)
    else:
        click.echo(rows, nl=False)


@batches.command()
@click.argument("batch")
@connected
def cancel(client: AgentFlow, as_json: bool, batch: str) -> None:
    """Stop a batch; the rows that are there stay."""
    _show(client.batches.cancel(batch), as_json)


@batches.command()
@click.argument("batch")
@connected
def retry(client: AgentFlow, as_json: bool, batch: str) -> None:
    """Do again what failed or was not done."""
    _show(client.batches.retry(batch), as_json)


@batches.command()
@click.argument("batch")
@connected
def delete(client: AgentFlow, as_json: bool, batch: str) -> None:
    """Remove a batch that has ended, with its rows."""
    client.batches.delete(batch)
    if as_json:
        write_json({"deleted": batch})
    else:
        click.echo(f"Removed {batch}.")


def _wait(client: AgentFlow, batch_id: str, timeout: float | None, as_json: bool) -> Batch:
    if timeout is not None:
        return client.batches.wait(batch_id, timeout=timeout)
    return follow(client.batches.watch(batch_id), quiet=as_json, hint=f"agentflow batches wait {batch_id}")


def _show(batch: Batch, as_json: bool) -> None:
    if as_json:
        write_json(batch)
        return
    shown = batch.model_dump(mode="json", exclude={"usage", "progress"})
    write_fields({**shown, "progress": f"{batch.progress:.1%}"})
    if batch.status == "failed":
        raise click.exceptions.Exit(1)
