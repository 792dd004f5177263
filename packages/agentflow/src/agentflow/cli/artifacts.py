"""`agentflow artifacts`."""

import json
from pathlib import Path
from typing import Any

import click

from agentflow.cli.output import connected, write_fields, write_json, write_table
from agentflow.client import AgentFlow
from agentflow.types.artifacts import Artifact


@click.group()
def artifacts() -> None:
    """Look at what agents have made, and act on it."""


def _show(artifact: Artifact, *, as_json: bool) -> None:
    if as_json:
        write_json(artifact)
    else:
        write_fields(artifact.model_dump(mode="json"))


@artifacts.command()
@connected
def types(client: AgentFlow, as_json: bool) -> None:
    """List the types."""
    found = client.artifacts.types()
    if as_json:
        write_json(found)
        return
    write_table(
        ["name", "source", "states", "actions", "description"],
        [(t.name, t.source, ", ".join(t.states), ", ".join(t.actions), t.description) for t in found],
    )


@artifacts.command("list")
@click.option("--conversation-id")
@click.option("--type", "artifact_type")
@click.option("--limit", type=click.IntRange(1, 100), default=50, show_default=True)
@click.option("--offset", type=click.IntRange(0), default=0)
@connected
def list_(client: AgentFlow, as_json: bool, conversation_id: str | None, **given: Any) -> None:
    """List artifacts, the newest first."""
    page = client.artifacts.list(conversation_id, **given)
    if as_json:
        write_json(page.data)
        return
    write_table(
        ["id", "type", "state", "version", "title"],
        [(a.id, a.artifact_type, a.state.get("status"), a.version, a.title) for a in page.items],
    )


@artifacts.command()
@click.argument("artifact_id")
@connected
def show(client: AgentFlow, as_json: bool, artifact_id: str) -> None:
    """Show an artifact."""
    _show(client.artifacts.retrieve(artifact_id), as_json=as_json)


@artifacts.command()
@click.argument("artifact_id")
@connected
def versions(client: AgentFlow, as_json: bool, artifact_id: str) -> None:
    """List an artifact's versions, the newest first."""
    page = client.artifacts.versions(artifact_id)
    if as_json:
        write_json(page.data)
        return
    write_table(
        ["version", "author", "change", "state", "when"],
        [(v.version, v.author, v.change, v.state.get("status"), v.created_at) for v in page.items],
    )


@artifacts.command()
@click.argument("artifact_id")
@click.argument("content")
@click.option("--expected-version", type=click.IntRange(1))
@connected
def edit(client: AgentFlow, as_json: bool, artifact_id: str, content: str, expected_version: int | None) -> None:
    """Change the content by a JSON merge patch."""
    changed = client.artifacts.update_content(artifact_id, json.loads(content), expected_version=expected_version)
    _show(changed, as_json=as_json)


@artifacts.command()
@click.argument("artifact_id")
@click.argument("action")
@click.option("--data", default="{}", help="JSON, merged into the state.")
@click.option("--expected-version", type=click.IntRange(1))
@connected
def act(
    client: AgentFlow, as_json: bool, artifact_id: str, action: str, data: str, expected_version: int | None
) -> None:
    """Do an action, `send` for example."""
    done = client.artifacts.act(artifact_id, action, data=json.loads(data), expected_version=expected_version)
    _show(done, as_json=as_json)


@artifacts.command()
@click.argument("artifact_id")
@click.argument("path", type=click.Path(dir_okay=False, path_type=Path))
@connected
def download(client: AgentFlow, as_json: bool, artifact_id: str, path: Path) -> None:
    """Save an artifact as a file."""
    saved = client.artifacts.download(artifact_id).save(path)
    click.echo(json.dumps({"path": str(saved)}) if as_json else f"Saved {saved}.")
