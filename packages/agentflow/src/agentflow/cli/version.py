"""`agentflow version`."""

import click

from agentflow import __version__


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Write JSON.")
def version(as_json: bool) -> None:
    """Print the version."""
    click.echo(f'{{"version": "{__version__}"}}' if as_json else __version__)
