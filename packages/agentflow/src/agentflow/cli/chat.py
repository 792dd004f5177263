"""`agentflow chat`: a conversation in the terminal."""

import sys

import click

from agentflow.cli.output import agent_id_of, connected
from agentflow.cli.streaming import show_stream
from agentflow.client import AgentFlow


@click.command()
@click.argument("agent", default="MainAgent")
@click.option("--conversation", "conversation_id", help="Go on with this conversation.")
@click.option("--model", help="provider/model, for this talk.")
@connected
def chat(client: AgentFlow, as_json: bool, agent: str, conversation_id: str | None, model: str | None) -> None:
    """Talk to an agent, MainAgent by default. An empty line or Ctrl-D ends; Ctrl-C stops the answer.

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
        show_stream(conversation.stream(message, options=options), as_json=as_json)


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
