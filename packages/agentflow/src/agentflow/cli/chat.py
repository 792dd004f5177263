"""`agentflow chat`: a conversation in the terminal."""

import functools
import json
import sys
from typing import Any

import click

from agentflow.cli.output import agent_id_of, connected
from agentflow.cli.questions import ask
from agentflow.cli.streaming import show_stream
from agentflow.client import AgentFlow
from agentflow.errors import ConflictError, ValidationError
from agentflow.events import ApprovalRequired, Event, QuestionRequired


@click.command()
@click.argument("agent", default="MainAgent")
@click.option("--conversation", "conversation_id", help="Go on with this conversation.")
@click.option("--model", help="provider/model, for this talk.")
@connected
def chat(client: AgentFlow, as_json: bool, agent: str, conversation_id: str | None, model: str | None) -> None:
    """Talk to an agent, MainAgent by default. An empty line or Ctrl-D ends; Ctrl-C stops the answer.

    What the agent may not do without you, and what it asks you, is asked here.
    Without a terminal, every line of the input is a message.
    """
    if conversation_id:
        conversation = client.conversations.resume(conversation_id)
    else:
        conversation = client.conversations.create(agent_id=agent_id_of(client, agent))
    options = {"verbose": True, **({"model": model} if model else {})}
    interactive = sys.stdin.isatty()
    if not as_json:
        click.secho(f"Conversation {conversation.id}", dim=True, err=True)
    while (message := _next(interactive)) is not None:
        answer = functools.partial(answer_person, client) if interactive else None
        show_stream(conversation.stream(message, options=options), as_json=as_json, answer=answer)


def answer_person(client: AgentFlow, event: Event) -> None:
    """Ask the person at the terminal what the run waits for; somebody else may have been quicker."""
    try:
        if isinstance(event, ApprovalRequired) and event.id is not None:
            _decide(client, event.id, event.arguments)
        elif isinstance(event, QuestionRequired) and event.id is not None:
            client.questions.respond(event.id, ask(client.questions.retrieve(event.id)))
    except (ConflictError, ValidationError) as error:
        click.secho(error.message, dim=True, err=True)
        if isinstance(error, ValidationError):
            answer_person(client, event)


def _decide(client: AgentFlow, approval_id: str, arguments: Any) -> None:
    choice = click.prompt("Approve?", type=click.Choice(["y", "n", "edit"]), err=True)
    if choice == "n":
        reason = click.prompt("Why not", default="", show_default=False, err=True)
        client.approvals.respond(approval_id, "denied", reason=reason or None)
        return
    changed = _edited(arguments) if choice == "edit" else None
    client.approvals.respond(approval_id, "approved", modified_arguments=changed)


def _edited(arguments: Any) -> Any:
    """The arguments as somebody has changed them, in an editor."""
    text = json.dumps(arguments, ensure_ascii=False, indent=2)
    while True:
        text = click.edit(text, extension=".json") or text
        try:
            return json.loads(text)
        except ValueError as error:
            click.secho(f"This is not JSON: {error}", err=True)


def _next(interactive: bool) -> str | None:
    """The next message, None at the end."""
    if not interactive:
        for line in sys.stdin:
            if line.strip():
                return line.strip()
        return None
    try:
        return input("> ").strip() or None
    except EOFError:
        click.echo()
        return None
    except KeyboardInterrupt:
        raise click.Abort from None
