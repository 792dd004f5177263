"""`agentflow models`."""

import sys
from typing import Any

import click

from agentflow.cli.output import connected, write_fields, write_json, write_table
from agentflow.client import AgentFlow


@click.group()
def models() -> None:
    """Show the models, choose one, set policy and keys."""


@models.command("list")
@click.option("--available", is_flag=True, help="Only those whose provider is configured.")
@connected
def list_(client: AgentFlow, as_json: bool, available: bool) -> None:
    """List the models."""
    catalogue = client.models.list()
    found = [model for model in catalogue.models if model.available or not available]
    if as_json:
        write_json({"models": [model.model_dump(mode="json") for model in found], "default": catalogue.default})
        return
    rows = [(model.id, model.available, model.capabilities.contextWindow, model.name) for model in found]
    write_table(["id", "available", "window", "name"], rows)
    click.echo(f"default: {catalogue.default}", err=True)


@models.command()
@click.argument("model_id")
@connected
def show(client: AgentFlow, as_json: bool, model_id: str) -> None:
    """Show one model."""
    _tell(client.models.retrieve(model_id), as_json)


@models.command()
@click.argument("model_id", required=False)
@click.option("--clear", is_flag=True, help="Forget the choice.")
@connected
def use(client: AgentFlow, as_json: bool, model_id: str | None, clear: bool) -> None:
    """Choose the model your runs use, or show it."""
    if model_id or clear:
        setting = client.models.set_setting(None if clear else model_id)
    else:
        setting = client.models.get_setting()
    _tell(setting, as_json)


@models.command()
@click.option("--mode", type=click.Choice(["platform", "byo"]), help="Whose provider keys are used.")
@click.option("--allow", multiple=True, metavar="MODEL", help="Allow only these: ids or provider/*; may be repeated.")
@click.option("--allow-all", is_flag=True, help="Allow every model.")
@click.option("--default", "defaults", multiple=True, metavar="USE=MODEL", help="agent_chat=…, completions=…, titles=…")
@connected
def policy(
    client: AgentFlow, as_json: bool, mode: Any, allow: tuple[str, ...], allow_all: bool, defaults: tuple[str, ...]
) -> None:
    """Show or change the tenant's policy; what is not given stays."""
    changes: dict[str, Any] = {}
    if mode:
        changes["mode"] = mode
    if allow_all:
        changes["allow_all"] = True
    elif allow:
        changes["allowed_models"] = list(allow)
    if defaults:
        pairs = [pair.partition("=") for pair in defaults]
        changes["defaults"] = {name: model or None for name, _, model in pairs}
    _tell(client.models.set_policy(**changes) if changes else client.models.get_policy(), as_json)


@models.group()
def keys() -> None:
    """Look after the tenant's own provider keys."""


@keys.command("list")
@connected
def list_keys(client: AgentFlow, as_json: bool) -> None:
    """List the keys, by their last four characters."""
    found = client.models.keys()
    if as_json:
        write_json(found)
        return
    rows = [(key.provider, f"…{key.last_four}", key.checked_at, key.updated_at, key.updated_by) for key in found.keys]
    write_table(["provider", "key", "accepted", "changed", "by"], rows)


@keys.command("set")
@click.argument("provider")
@click.option("--base-url", help="Another address than the provider's usual one.")
@click.option("--api-version", help="For azure.")
@click.option("--no-test", is_flag=True, help="Keep the key without trying it.")
@connected
def set_key(
    client: AgentFlow, as_json: bool, provider: str, base_url: str | None, api_version: str | None, no_test: bool
) -> None:
    """Keep a key, or replace it. It is asked for, or read from standard input; never an argument."""
    key = click.prompt("Key", hide_input=True) if sys.stdin.isatty() else sys.stdin.readline().strip()
    kept = client.models.set_key(provider, key, base_url=base_url, api_version=api_version, test=not no_test)
    _tell(kept, as_json)


@keys.command("test")
@click.argument("provider")
@connected
def try_key(client: AgentFlow, as_json: bool, provider: str) -> None:
    """Try a stored key, and seal it with the newest master key."""
    _tell(client.models.test_key(provider), as_json)


@keys.command("delete")
@click.argument("provider")
@connected
def delete_key(client: AgentFlow, as_json: bool, provider: str) -> None:
    """Remove a key."""
    client.models.delete_key(provider)
    if as_json:
        write_json({"deleted": provider})
    else:
        click.echo(f"Removed the key of {provider}.")


def _tell(answer: Any, as_json: bool) -> None:
    if as_json:
        write_json(answer)
    else:
        write_fields(answer.model_dump(mode="json"))
