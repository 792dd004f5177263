"""`agentflow login`: signs in and keeps what is needed as a profile."""

import click

from agentflow.auth.credentials import checked_endpoint
from agentflow.auth.profiles import Profile, Profiles, checked_name
from agentflow.client import AgentFlow
from agentflow.errors import LoginError


@click.command()
@click.option("--endpoint", required=True, metavar="URL", help="Address of the server.")
@click.option("--profile", default="default", show_default=True, metavar="NAME", help="The profile to keep it as.")
@click.option(
    "--method",
    type=click.Choice(["dev", "token"]),
    default="dev",
    show_default=True,
    help="dev: a local server with DEV_AUTH_BYPASS=true. token: an access token you have.",
)
@click.option("--access-token", envvar="AGENTFLOW_ACCESS_TOKEN", help="For the method token; better in the variable.")
@click.option("--json", "as_json", is_flag=True, help="Write JSON.")
def login(endpoint: str, profile: str, method: str, access_token: str | None, as_json: bool) -> None:
    """Sign in and keep it as a profile."""
    import json
    import os

    checked_name(profile)
    address = checked_endpoint(endpoint)
    if method == "token" and not access_token:
        access_token = click.prompt("Access token", hide_input=True)
    token = access_token if method == "token" else None
    with AgentFlow(endpoint=address, access_token=token, timeout=15) as client:
        info = client.system.info()
        if method == "dev" and "dev" not in info.auth.get("methods", []):
            raise LoginError(
                f"{address} does not let requests without credentials in",
                hint="Start it with DEV_AUTH_BYPASS=true, or use another --method.",
            )
        client.agents.list(limit=1)
    made = Profile(profile, address, method, access_token=token)
    Profiles(os.environ).save(made)
    if as_json:
        click.echo(json.dumps({"profile": profile, "endpoint": address, "method": method}))
    else:
        click.echo(f"Signed in to {address} ({info.name} {info.version}); kept as the profile {profile!r}.")
