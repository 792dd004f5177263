"""`agentflow login`, `logout`, `whoami`, `token`: sign in, and keep what is needed as a profile."""

import json
import os
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from agentflow.auth.profiles import Profile, Profiles, Secrets, checked_name
from agentflow.cli.output import connected, write_fields, write_json
from agentflow.client import AgentFlow
from agentflow.errors import AgentFlowError, ConfigurationError, LoginError, ProfileNotFoundError

if TYPE_CHECKING:
    from agentflow.auth.oidc import DevicePrompt, Provider
    from agentflow.types.system import SystemInfo

_SETTINGS = ("client_id", "audience", "auth0_domain", "tenant", "on_behalf_of", "scope")
as_json_option = click.option("--json", "as_json", is_flag=True, help="Write JSON.")
profile_option = click.option("--profile", metavar="NAME", help="The profile; the chosen one by default.")


@click.command()
@click.option("--endpoint", metavar="URL", help="Address of the server; needed for a new profile.")
@click.option("--profile", default="default", show_default=True, metavar="NAME", help="The profile to keep it as.")
@click.option(
    "--method",
    type=click.Choice(["device", "m2m", "dev", "token"]),
    help="device: in a browser. m2m: a service, with a client secret. dev: a local server with DEV_AUTH_BYPASS=true."
    " token: an access token you have. By default as the profile did before, else dev.",
)
@click.option("--client-id", metavar="ID", help="The client as the identity provider knows it.")
@click.option("--audience", metavar="API", help="The API that tokens are for, by its name at the provider.")
@click.option("--auth0-domain", metavar="DOMAIN", help="The provider: an Auth0 domain, or any OpenID Connect issuer.")
@click.option("--scope", metavar="SCOPES", help="What to ask for, separated by spaces.")
@click.option("--client-secret", envvar="AGENTFLOW_CLIENT_SECRET", help="For m2m; better in the variable.")
@click.option("--tenant", metavar="TENANT", help="For m2m: whose data.")
@click.option("--on-behalf-of", metavar="USER", help="For m2m: whom it acts for.")
@click.option("--access-token", envvar="AGENTFLOW_ACCESS_TOKEN", help="For the method token; better in the variable.")
@click.option("--keyring", is_flag=True, help="Keep secrets in the system's keyring, in place of a file.")
@click.option("--no-browser", is_flag=True, help="For device: do not open a browser.")
@as_json_option
def login(
    endpoint: str | None,
    profile: str,
    method: str | None,
    client_secret: str | None,
    access_token: str | None,
    keyring: bool,
    no_browser: bool,
    as_json: bool,
    **settings: str | None,
) -> None:
    """Sign in and keep it as a profile. Options that are left out stay as the profile has them."""
    from agentflow.auth.credentials import no_credentials

    profiles = Profiles(os.environ)
    wanted = _wanted(profiles, profile, endpoint, method, {**settings, "keyring": keyring or None})
    with AgentFlow(endpoint=wanted.endpoint, credentials=no_credentials(), timeout=15) as client:
        info = client.system.info()
    wanted = _completed(wanted, info)
    if wanted.method == "dev":
        _require_dev(wanted, info)
        secrets = Secrets()
    elif wanted.method == "token":
        secrets = Secrets(access_token=(access_token or click.prompt("Access token", hide_input=True)).strip())
    elif wanted.method == "m2m":
        secrets = _machine(wanted, client_secret)
    else:
        secrets = _in_browser(wanted, open_browser=not no_browser, as_json=as_json)
    made = replace(wanted, secrets=secrets)
    who = _try(made, profiles)
    profiles.save(made)
    if as_json:
        click.echo(json.dumps({"profile": made.name, "endpoint": made.endpoint, "method": made.method, **who}))
    else:
        click.echo(f"Signed in to {made.endpoint} ({info.name} {info.version}) as {who['user_id']} of {who['tenant']}.")
        click.echo(f"Kept as the profile {made.name!r}.")


def _wanted(
    profiles: Profiles, name: str, endpoint: str | None, method: str | None, settings: dict[str, Any]
) -> Profile:
    """The profile as it was, with what the options change."""
    from agentflow.auth.credentials import checked_endpoint

    given = {key: value for key, value in settings.items() if value is not None}
    try:
        known = profiles.load(checked_name(name))
    except ProfileNotFoundError:
        if endpoint is None:
            raise ConfigurationError(f"--endpoint is needed: there is no profile {name!r} yet") from None
        known = Profile(name, "", "dev")
    address = checked_endpoint(endpoint or known.endpoint)
    return replace(known, endpoint=address, method=method or known.method, **given)


def _completed(wanted: Profile, info: "SystemInfo") -> Profile:
    """The provider and the audience as the server names them, where they were not given."""
    if wanted.method not in ("device", "m2m"):
        return wanted
    domain = wanted.auth0_domain or info.auth.get("issuer")
    completed = replace(wanted, auth0_domain=domain, audience=wanted.audience or info.auth.get("audience"))
    missing = [f"--{name.replace('_', '-')}" for name in ("client_id", "auth0_domain") if not getattr(completed, name)]
    if missing:
        raise ConfigurationError(f"--method {wanted.method} needs {' and '.join(missing)}")
    return completed


def _require_dev(wanted: Profile, info: "SystemInfo") -> None:
    if "dev" not in info.auth.get("methods", []):
        raise LoginError(
            f"{wanted.endpoint} does not let requests without credentials in",
            hint="Start it with DEV_AUTH_BYPASS=true, or use another --method.",
        )


def _machine(wanted: Profile, client_secret: str | None) -> Secrets:
    missing = [f"--{name.replace('_', '-')}" for name in ("tenant", "on_behalf_of") if not getattr(wanted, name)]
    if missing:
        raise ConfigurationError(f"--method m2m needs {' and '.join(missing)}")
    kept = client_secret or wanted.secrets.client_secret
    secret = kept or click.prompt("Client secret", hide_input=True)
    grant = _provider(wanted, secret).client_credentials(wanted.scope)
    return Secrets(grant.access_token, grant.expires_at, client_secret=secret)


def _in_browser(wanted: Profile, *, open_browser: bool, as_json: bool) -> Secrets:
    from agentflow.auth.oidc import SIGN_IN_SCOPE

    provider = _provider(wanted, None)
    prompt = provider.begin_device(" ".join(dict.fromkeys(f"{SIGN_IN_SCOPE} {wanted.scope or ''}".split())))
    _show(prompt, as_json)
    if open_browser and _has_browser():
        import webbrowser

        webbrowser.open(prompt.complete_url or prompt.url)
    grant = provider.finish_device(prompt)
    return Secrets(grant.access_token, grant.expires_at, grant.refresh_token)


def _show(prompt: "DevicePrompt", as_json: bool) -> None:
    """On standard error, so that standard output holds the result alone."""
    if as_json:
        shown = {"verification_uri": prompt.url, "user_code": prompt.code, "expires_in": prompt.expires_in}
        click.echo(json.dumps(shown), err=True)
        return
    click.echo(f"Open {prompt.url} and enter the code {prompt.code}", err=True)
    if prompt.complete_url:
        click.echo(f"or open {prompt.complete_url}", err=True)
    click.echo(f"Waiting for up to {prompt.expires_in / 60:.0f} minutes (Ctrl-C stops)…", err=True)


def _has_browser() -> bool:
    import webbrowser

    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return False
    try:
        webbrowser.get()
    except webbrowser.Error:
        return False
    return True


def _provider(profile: Profile, client_secret: str | None) -> "Provider":
    from agentflow.auth.credentials import provider_of

    return provider_of(profile, client_secret)


def _try(made: Profile, profiles: Profiles) -> dict[str, Any]:
    """Use what was signed in with, before it is kept: the server may see it otherwise."""
    from agentflow.auth.credentials import FixedHeaders, credentials_of

    once = FixedHeaders(credentials_of(made, profiles).headers() or {})
    with AgentFlow(endpoint=made.endpoint, credentials=once, timeout=15) as client:
        me = client.system.me()
    return {"tenant": me.tenant, "user_id": me.user_id}


@click.command()
@profile_option
@as_json_option
def logout(profile: str | None, as_json: bool) -> None:
    """Forget a profile's tokens and secrets; the provider is told, if it wants to know. Its settings stay."""
    profiles = Profiles(os.environ)
    found = profiles.load(profile or profiles.current())
    with profiles.lock(found.name):
        kept = profiles.secrets(found)
        profiles.keep(found, Secrets())
    revoked = False
    if kept.refresh_token and found.auth0_domain:
        try:
            _provider(found, None).revoke(kept.refresh_token)
            revoked = True
        except AgentFlowError as error:
            click.echo(f"The provider could not be told: {error.message}", err=True)
    if as_json:
        click.echo(json.dumps({"profile": found.name, "revoked": revoked}))
    else:
        click.echo(f"Signed out; `agentflow login --profile {found.name}` signs in again.")


@click.command()
@connected
def whoami(client: AgentFlow, as_json: bool) -> None:
    """Show who you are to the server: tenant, user, scopes."""
    me = client.system.me()
    if as_json:
        write_json(me)
    else:
        write_fields({**me.model_dump(mode="json"), "scopes": " ".join(me.scopes) if me.scopes is not None else "all"})


@click.command()
@profile_option
@click.option("--renew", is_flag=True, help="Get a new one, even if the present one still holds.")
@as_json_option
def token(profile: str | None, renew: bool, as_json: bool) -> None:
    """Print an access token that holds for a while, for scripts: curl -H "Authorization: Bearer $(agentflow token)"."""
    from agentflow.auth.credentials import credentials_of

    profiles = Profiles(os.environ)
    found = profiles.load(profile or profiles.current())
    credentials = credentials_of(found, profiles)
    headers = credentials.headers()
    if headers is None or renew:
        headers = credentials.renew(headers) or headers
    value = (headers or {}).get("Authorization", "").removeprefix("Bearer ")
    if not value:
        raise ConfigurationError(f"the profile {found.name!r} signs in without a token (method {found.method})")
    if as_json:
        extra = {name: text for name, text in (headers or {}).items() if name != "Authorization"}
        click.echo(json.dumps({"access_token": value, "headers": extra}))
    else:
        click.echo(value)
