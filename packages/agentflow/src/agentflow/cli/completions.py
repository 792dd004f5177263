"""`agentflow completions`."""

import json
from pathlib import Path
from typing import Any

import click

from agentflow.cli.items import items_option, load_json, model_options, read_items
from agentflow.cli.output import connected, write_json, write_table
from agentflow.client import AgentFlow


@click.group()
def completions() -> None:
    """Classify, extract, summarise, enrich, or ask your own question of texts.

    TEXTS are arguments, else come from --file, else are the lines of standard input.
    """


def _show(completion: Any, as_json: bool) -> None:
    if as_json:
        write_json(completion)
        return
    rows = [
        (row.index, "ok" if row.success else row.error.code, _cell(row.result) if row.success else row.error.message)
        for row in completion.results
    ]
    write_table(["item", "status", "result"], rows)
    click.echo(f"{completion.succeeded} done, {completion.failed} failed, ${completion.cost or 0:.6f}", err=True)
    if completion.failed and not completion.succeeded:
        raise click.exceptions.Exit(1)


def _cell(result: Any) -> str:
    plain = result.model_dump(mode="json") if hasattr(result, "model_dump") else result
    if "summary" in plain and len(plain) == 1:
        return plain["summary"]
    if "text" in plain and plain.get("output") is None:
        return plain["text"]
    if "labels" in plain:
        return ", ".join(f"{label['label']} ({label['confidence']})" for label in plain["labels"]) or "-"
    return json.dumps(plain, ensure_ascii=False)


@completions.command()
@items_option
@click.option("--category", "categories", multiple=True, required=True, help="A category; may be repeated.")
@click.option("--multi-label", is_flag=True, help="All categories that apply, not the best one.")
@click.option("--instructions", help="What the categories mean.")
@model_options
@connected
def classify(
    client: AgentFlow,
    as_json: bool,
    texts: tuple[str, ...],
    file: Path | None,
    categories: tuple[str, ...],
    **given: Any,
) -> None:
    """Put texts into categories."""
    items = read_items(texts, file)
    _show(client.completions.classify(items=items, categories=categories, **given), as_json)


@completions.command()
@items_option
@click.option("--instructions", "extraction_instructions", help="What to look for.")
@click.option("--schema", help="A JSON Schema, or @FILE.")
@model_options
@connected
def extract(
    client: AgentFlow, as_json: bool, texts: tuple[str, ...], file: Path | None, schema: str | None, **given: Any
) -> None:
    """Read a structure out of texts."""
    items = read_items(texts, file)
    _show(client.completions.extract(items=items, output_type=load_json(schema), **given), as_json)


@completions.command()
@items_option
@click.option("--instructions", "summary_instructions", help="How long, for whom, in which language.")
@model_options
@connected
def summarize(client: AgentFlow, as_json: bool, texts: tuple[str, ...], file: Path | None, **given: Any) -> None:
    """Summarise texts."""
    _show(client.completions.summarize(items=read_items(texts, file), **given), as_json)


@completions.command()
@items_option
@click.option("--fields", required=True, help='JSON: [{"name": …, "type": …, "valid_values": […]}], or @FILE.')
@click.option("--include-context", is_flag=True, help="The model also sees the items' metadata.")
@click.option("--instructions")
@model_options
@connected
def enrich(
    client: AgentFlow, as_json: bool, texts: tuple[str, ...], file: Path | None, fields: str, **given: Any
) -> None:
    """Fill in fields for texts."""
    items = read_items(texts, file)
    _show(client.completions.enrich(items=items, fields=load_json(fields), **given), as_json)


@completions.command()
@items_option
@click.option("--system", "system_prompt", help="What the model is told first.")
@click.option("--template", "user_prompt_template", help="{content} and {name} stand for an item's values.")
@click.option("--schema", help="A JSON Schema the answers must fit, or @FILE.")
@model_options
@connected
def run(
    client: AgentFlow, as_json: bool, texts: tuple[str, ...], file: Path | None, schema: str | None, **given: Any
) -> None:
    """Ask your own question of texts."""
    items = read_items(texts, file)
    _show(client.completions.run(items=items, output_type=load_json(schema), **given), as_json)
