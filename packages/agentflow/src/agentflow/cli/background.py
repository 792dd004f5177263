"""`agentflow background`."""

from typing import Literal

import click

from agentflow.cli.output import connected, write_fields, write_json, write_table
from agentflow.client import AgentFlow
from agentflow.types.background import BackgroundTask


@click.group()
def background() -> None:
    """Look after work that no run waits for."""


def _show(task: BackgroundTask, *, as_json: bool) -> None:
    if as_json:
        write_json(task)
    else:
        write_fields({**task.model_dump(mode="json", exclude={"result"}), "text": task.text})


@background.command("list")
@click.option("--status", type=click.Choice(["running", "completed", "failed", "cancelled"]))
@click.option("--conversation-id")
@click.option("--limit", type=click.IntRange(1, 100), default=50, show_default=True)
@click.option("--offset", type=click.IntRange(0), default=0)
@connected
def list_(
    client: AgentFlow, as_json: bool, status: str | None, conversation_id: str | None, limit: int, offset: int
) -> None:
    """List tasks, the newest first."""
    page = client.background.list(status=status, conversation_id=conversation_id, limit=limit, offset=offset)
    if as_json:
        write_json(page.data)
        return
    write_table(
        ["id", "kind", "name", "status", "begun"],
        [(task.task_id, task.kind, task.name, task.status, task.created_at) for task in page.items],
    )


@background.command()
@click.argument("task_id")
@connected
def show(client: AgentFlow, as_json: bool, task_id: str) -> None:
    """Show a task, and what it gave."""
    _show(client.background.retrieve(task_id), as_json=as_json)


@background.command()
@click.argument("task_id")
@click.option("--timeout", type=float, help="Seconds to wait.")
@connected
def wait(client: AgentFlow, as_json: bool, task_id: str, timeout: float | None) -> None:
    """Wait until a task has ended, and show it."""
    _show(client.background.wait(task_id, timeout=timeout), as_json=as_json)


@background.command()
@click.argument("task_id")
@connected
def cancel(client: AgentFlow, as_json: bool, task_id: str) -> None:
    """Ask a task to stop."""
    _show(client.background.cancel(task_id), as_json=as_json)


@background.command()
@click.argument("task_id")
@click.argument("text")
@click.option("--wait", is_flag=True, help="Wait for the sub-agent's answer, at most a minute.")
@connected
def message(client: AgentFlow, as_json: bool, task_id: str, text: str, wait: bool) -> None:
    """Say something to a sub-agent that works in the background."""
    mode: Literal["send", "send_and_wait"] = "send_and_wait" if wait else "send"
    _show(client.background.message(task_id, text, mode=mode, timeout=60.0), as_json=as_json)
