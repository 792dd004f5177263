"""`agentflow usage`."""

from typing import Any

import click

from agentflow.cli.output import connected, write_fields, write_json, write_table
from agentflow.client import AgentFlow

RANGE = click.Choice(["7d", "30d", "90d", "all"])


@click.group()
def usage() -> None:
    """Show what was used, and what may be used."""


@usage.command()
@click.option("--range", "range_", type=RANGE, default="30d", show_default=True)
@click.option("--everyone", is_flag=True, help="The whole tenant's, for admins.")
@click.option("--user", "user_id", help="Another user's, for admins.")
@click.option("--by", type=click.Choice(["model", "agent", "user", "purpose", "day"]), default="model")
@connected
def summary(client: AgentFlow, as_json: bool, range_: Any, everyone: bool, user_id: str | None, by: str) -> None:
    """Show tokens and cost."""
    found = client.usage.summary(range_, everyone=everyone, user_id=user_id)
    if as_json:
        write_json(found)
        return
    rows: list[Any] = [*getattr(found, f"by_{by}"), found]
    write_table(
        [by, "calls", "input", "cached", "output", "cost $"],
        [
            (
                "total" if row is found else row.name,
                row.calls,
                row.input_tokens,
                row.cached_input_tokens,
                row.output_tokens,
                f"{row.cost:.6f}",
            )
            for row in rows
        ],
    )


@usage.command()
@click.option("--range", "range_", type=RANGE, default="30d", show_default=True)
@click.option("--everyone", is_flag=True, help="The whole tenant's, for admins.")
@click.option("--run", "run_id", help="Only those of a run or a batch.")
@click.option("--limit", type=click.IntRange(1, 100), default=50, show_default=True)
@click.option("--offset", type=click.IntRange(0), default=0)
@connected
def calls(
    client: AgentFlow, as_json: bool, range_: Any, everyone: bool, run_id: str | None, limit: int, offset: int
) -> None:
    """List single model calls, newest first."""
    page = client.usage.calls(range_, everyone=everyone, run_id=run_id, limit=limit, offset=offset)
    if as_json:
        write_json(page.data)
        return
    write_table(
        ["at", "model", "purpose", "status", "input", "output", "cost $", "ms"],
        [
            (c.at, c.model, c.purpose, c.status, c.input_tokens, c.output_tokens, c.cost, round(c.latency_ms))
            for c in page.items
        ],
    )


@usage.command()
@click.option("--set", "cap", metavar="USD", help="A new monthly cap of the tenant; `none` goes back to the default.")
@click.option("--mine", is_flag=True, help="What you may still spend yourself.")
@connected
def budget(client: AgentFlow, as_json: bool, cap: str | None, mine: bool) -> None:
    """Show or set the tenant's monthly budget."""
    found: Any
    if mine:
        found = client.usage.my_budget()
    else:
        found = client.usage.get_budget() if cap is None else client.usage.set_budget(_amount(cap))
    if as_json:
        write_json(found)
    else:
        write_fields((found.user if mine else found).model_dump(mode="json"))


@usage.command()
@click.option("--set", "cap", metavar="USD", help="A new monthly cap; `none` goes back to the default.")
@click.option("--user", "user_id", help="For this user; for every user if left out.")
@connected
def budgets(client: AgentFlow, as_json: bool, cap: str | None, user_id: str | None) -> None:
    """Show or set the users' monthly budgets."""
    found = client.usage.user_budgets() if cap is None else client.usage.set_user_budget(_amount(cap), user_id=user_id)
    if as_json:
        write_json(found)
        return
    write_table(
        ["user", "cap", "spent", "reserved", "remaining"],
        [(u.user_id, u.cap, f"{u.spent:.6f}", u.reserved, u.remaining) for u in found.users],
    )


def _amount(text: str) -> float | None:
    if text.lower() == "none":
        return None
    try:
        return float(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is not an amount in US dollars") from None
