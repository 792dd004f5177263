"""`agentflow profiles`: what `login` has kept."""

import json
import os
from dataclasses import asdict
from typing import Any

import click

from agentflow.auth.profiles import Profile, Profiles

as_json_option = click.option("--json", "as_json", is_flag=True, help="Write JSON.")


def _public(profile: Profile, current: str) -> dict[str, Any]:
    fields = asdict(profile)
    del fields["secrets"]
    return {**fields, "signed_in": profile.method == "dev" or bool(profile.secrets), "current": profile.name == current}


@click.group()
def profiles() -> None:
    """List, show, choose and remove profiles."""


@profiles.command("list")
@as_json_option
def list_(as_json: bool) -> None:
    """List the profiles."""
    store = Profiles(os.environ)
    found = [_public(store.load(name), store.current()) for name in store.names()]
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    for profile in found:
        click.echo(
            f"{'*' if profile['current'] else ' '} {profile['name']}  {profile['endpoint']}  ({profile['method']})"
        )
    if not found:
        click.echo("There are no profiles. Make one with: agentflow login --endpoint URL --profile NAME --method dev")


@profiles.command()
@click.argument("name", required=False)
@as_json_option
def show(name: str | None, as_json: bool) -> None:
    """Show a profile, without its secret; the chosen one by default."""
    store = Profiles(os.environ)
    fields = _public(store.load(name or store.current()), store.current())
    if as_json:
        click.echo(json.dumps(fields, indent=2))
        return
    for field, value in fields.items():
        if value not in (None, False):
            click.echo(f"{field}: {value}")


@profiles.command()
@click.argument("name")
@as_json_option
def use(name: str, as_json: bool) -> None:
    """Choose the profile to use when none is named."""
    Profiles(os.environ).use(name)
    click.echo(json.dumps({"current": name}) if as_json else f"The profile {name!r} is used from now on.")


@profiles.command()
@click.argument("name")
@as_json_option
def remove(name: str, as_json: bool) -> None:
    """Forget a profile and its secret."""
    Profiles(os.environ).remove(name)
    click.echo(json.dumps({"removed": name}) if as_json else f"The profile {name!r} is removed.")
