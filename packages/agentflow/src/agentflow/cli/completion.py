"""`agentflow completion`: the script that teaches a shell this command."""

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a shell.

    For example: agentflow completion bash >> ~/.bashrc
    """
    from agentflow.cli.main import root

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(root, {}, "agentflow", "_AGENTFLOW_COMPLETE").source())
