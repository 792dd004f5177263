"""Credentials, and where a client finds its endpoint and token: arguments, then the environment, then a profile."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from agentflow.auth.profiles import Profile, Profiles, Secrets
from agentflow.errors import ConfigurationError, LoginError
from agentflow.transport.drivers import Credentials

_EARLY = 60.0
_ENVIRONMENT = {
    "client_id": "AGENTFLOW_CLIENT_ID",
    "client_secret": "AGENTFLOW_CLIENT_SECRET",
    "tenant": "AGENTFLOW_TENANT",
    "on_behalf_of": "AGENTFLOW_ON_BEHALF_OF",
    "scope": "AGENTFLOW_SCOPE",
    "audience": "AGENTFLOW_AUDIENCE",
    "auth0_domain": "AGENTFLOW_AUTH0_DOMAIN",
}


@dataclass(frozen=True, slots=True)
class Machine:
    """The arguments of a client that signs in as a machine. `scope` and `audience` may be left out."""

    client_id: str | None = None
    client_secret: str | None = None
    tenant: str | None = None
    on_behalf_of: str | None = None
    scope: str | None = None
    audience: str | None = None
    auth0_domain: str | None = None

    def __bool__(self) -> bool:
        return any(getattr(self, item.name) is not None for item in fields(self))

    def __repr__(self) -> str:
        return f"Machine(client_id={self.client_id!r}, tenant={self.tenant!r}, on_behalf_of={self.on_behalf_of!r})"

    def over(self, other: "Machine") -> "Machine":
        """These, and what is left out here from the other."""
        mine = {item.name: getattr(self, item.name) for item in fields(self)}
        return replace(other, **{name: value for name, value in mine.items() if value is not None})

    @classmethod
    def of(cls, profile: Profile) -> "Machine":
        """What a profile holds."""
        known = {item.name: getattr(profile, item.name, None) for item in fields(cls)}
        return cls(**{**known, "client_secret": profile.secrets.client_secret})

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> "Machine":
        """What the environment holds, if it names a client at all."""
        if not environ.get(_ENVIRONMENT["client_id"]):
            return cls()
        return cls(**{name: environ.get(variable) or None for name, variable in _ENVIRONMENT.items()})


class FixedHeaders:
    """Sends what it was given; there is nothing to renew."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._headers = dict(headers)

    def headers(self) -> Mapping[str, str]:
        return self._headers

    def renew(self, refused: Mapping[str, str] | None) -> Mapping[str, str] | None:
        return None

    def __repr__(self) -> str:
        return "FixedHeaders(…)"


def no_credentials() -> FixedHeaders:
    """Sends nothing: for a local server started with DEV_AUTH_BYPASS=true, and for what needs no credentials."""
    return FixedHeaders({})


def bearer_token(token: str) -> FixedHeaders:
    """Sends a token as it was given.

    Raises:
        ConfigurationError: it cannot be sent.
    """
    return FixedHeaders(_bearer(token.strip()))


class RenewedToken:
    """Sends a token that is replaced before it expires: by one thread, while the others wait for it.

    Args:
        fetch: gets a token, another than the refused one. known: what there is already.
        delegation: sent beside the token.
    """

    def __init__(
        self, fetch: Callable[[str | None], Secrets], known: Secrets, delegation: Mapping[str, str] | None = None
    ) -> None:
        self._fetch = fetch
        self._delegation = dict(delegation or {})
        self._lock = threading.Lock()
        self._current: tuple[Mapping[str, str], float] | None = None
        self._set(known)

    def _set(self, secrets: Secrets) -> None:
        if secrets.access_token and secrets.expires_at:
            headers = {**self._delegation, **_bearer(secrets.access_token)}
            left = secrets.expires_at - time.time()
            self._current = (headers, secrets.expires_at - min(_EARLY, left / 5))

    def headers(self) -> Mapping[str, str] | None:
        current = self._current
        return current[0] if current is not None and time.time() < current[1] else None

    def renew(self, refused: Mapping[str, str] | None) -> Mapping[str, str] | None:
        with self._lock:
            current = self.headers()
            if current is not None and (refused is None or not _same(current, refused)):
                return current
            self._set(self._fetch(_token_of(refused)))
            return self._current[0] if self._current else None

    def __repr__(self) -> str:
        return "RenewedToken(…)"


def is_fresh(secrets: Secrets) -> bool:
    """Whether the access token will still hold for a while."""
    return bool(secrets.access_token) and (secrets.expires_at or 0) - time.time() > 5


def resolve(
    endpoint: str | None,
    access_token: str | None,
    profile: str | None,
    environ: Mapping[str, str],
    machine: Machine | None = None,
    own: Credentials | None = None,
) -> tuple[str, Credentials]:
    """The endpoint and the credentials of a client.

    Raises:
        ConfigurationError: no endpoint, or one that is not an address; arguments that contradict each other or are not
        complete. ProfileNotFoundError, ProfileDamagedError.
    """
    machine = machine or Machine()
    if sum(map(bool, (access_token, machine, own is not None))) > 1:
        raise ConfigurationError("pass one of access_token=, credentials= and client_id= with its companions")
    found = endpoint or (None if profile else environ.get("AGENTFLOW_ENDPOINT"))
    chosen = _profile(profile, environ) if profile or found is None else None
    address = checked_endpoint(found or (chosen.endpoint if chosen else ""))
    if own is not None:
        return address, own
    if access_token:
        return address, bearer_token(access_token)
    if chosen is not None and (profile or not _in_environment(environ)):
        return address, credentials_of(chosen, Profiles(environ), machine)
    return address, _without_profile(machine, environ)


def _in_environment(environ: Mapping[str, str]) -> bool:
    return bool(environ.get("AGENTFLOW_ACCESS_TOKEN") or environ.get(_ENVIRONMENT["client_id"]))


def _without_profile(machine: Machine, environ: Mapping[str, str]) -> Credentials:
    if machine:
        secret = environ.get(_ENVIRONMENT["client_secret"])
        return machine_credentials(machine.over(Machine.from_env(environ)).over(Machine(client_secret=secret)))
    if token := environ.get("AGENTFLOW_ACCESS_TOKEN"):
        return bearer_token(token)
    named = Machine.from_env(environ)
    return machine_credentials(named) if named else no_credentials()


def credentials_of(profile: Profile, profiles: Profiles, machine: Machine | None = None) -> Credentials:
    """What a profile signs in with; arguments win over its fields.

    Raises:
        ConfigurationError: arguments of a machine for a profile that is none.
    """
    if machine:
        merged = machine.over(Machine.of(profile))
        if merged.client_secret is None:
            raise ConfigurationError(
                f"the profile {profile.name!r} is not a machine's: without client_secret= it cannot act for others"
            )
        return machine_credentials(merged)
    if profile.method == "dev":
        return no_credentials()
    if profile.method == "token":
        if not profile.secrets.access_token:
            raise _not_signed_in(profile)
        return bearer_token(profile.secrets.access_token)
    delegation = _delegation(Machine.of(profile)) if profile.method == "m2m" else {}
    return RenewedToken(lambda refused: _renewed(profiles, profile, refused), profile.secrets, delegation)


def machine_credentials(machine: Machine) -> Credentials:
    """Client credentials on behalf of a user; the first token is fetched when the first call is made.

    Raises:
        ConfigurationError: an argument is missing.
    """
    delegation = _delegation(machine)

    def fetch(refused: str | None) -> Secrets:
        grant = provider_of(machine).client_credentials(machine.scope)
        return Secrets(grant.access_token, grant.expires_at)

    return RenewedToken(fetch, Secrets(), delegation)


def _delegation(machine: Machine) -> dict[str, str]:
    needed = ("client_id", "client_secret", "tenant", "on_behalf_of", "auth0_domain")
    missing = [name for name in needed if not getattr(machine, name)]
    if missing:
        raise ConfigurationError(
            f"a machine needs {', '.join(missing)}",
            hint="Pass client_id, client_secret, tenant, on_behalf_of and auth0_domain; audience and scope as needed.",
        )
    headers = {"snc-tenant": machine.tenant or "", "snc-userid": machine.on_behalf_of or ""}
    for name, value in headers.items():
        if not value.isascii() or not value.isprintable() or " " in value:
            raise ConfigurationError(f"{name}: {value!r} cannot be sent in a header: use ASCII without spaces")
    return headers


def provider_of(machine: "Machine | Profile", client_secret: str | None = None) -> Any:
    """The provider of a machine or a profile."""
    from agentflow.auth.oidc import Provider

    secret = machine.client_secret if isinstance(machine, Machine) else client_secret
    return Provider(
        machine.auth0_domain or "", machine.client_id or "", client_secret=secret, audience=machine.audience
    )


def _renewed(profiles: Profiles, profile: Profile, refused: str | None) -> Secrets:
    """A profile's next token. Processes that come meanwhile wait, and take what the first one has got."""
    with profiles.lock(profile.name):
        kept = profiles.secrets(profile)
        if is_fresh(kept) and kept.access_token != refused:
            return kept
        provider = provider_of(profile, kept.client_secret)
        if profile.method == "m2m":
            grant = provider.client_credentials(profile.scope)
        elif kept.refresh_token:
            grant = _refreshed(provider, profile, kept.refresh_token)
        else:
            raise _not_signed_in(profile)
        renewed = Secrets(grant.access_token, grant.expires_at, grant.refresh_token, kept.client_secret)
        profiles.keep(profile, renewed)
        return renewed


def _refreshed(provider: Any, profile: Profile, refresh_token: str) -> Any:
    try:
        return provider.refresh(refresh_token)
    except LoginError as error:
        raise LoginError(
            f"the sign-in of the profile {profile.name!r} cannot be renewed: {error.message}",
            hint=f"Sign in again: agentflow login --profile {profile.name} --method device",
        ) from None


def _not_signed_in(profile: Profile) -> LoginError:
    return LoginError(
        f"the profile {profile.name!r} is not signed in",
        hint=f"agentflow login --profile {profile.name} --method {profile.method}",
    )


def _profile(name: str | None, environ: Mapping[str, str]) -> Profile:
    profiles = Profiles(environ)
    if name is None and not environ.get("AGENTFLOW_PROFILE"):
        raise ConfigurationError(
            "no endpoint is configured",
            hint="Pass endpoint=, set AGENTFLOW_ENDPOINT, or use AgentFlow.from_profile(name) after `agentflow login`.",
        )
    return profiles.load(name or profiles.current())


def _bearer(token: str) -> dict[str, str]:
    if not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigurationError("the access token holds characters that cannot be sent in a header")
    return {"Authorization": f"Bearer {token}"}


def _token_of(headers: Mapping[str, str] | None) -> str | None:
    return None if headers is None else headers.get("Authorization", "").removeprefix("Bearer ") or None


def _same(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    return one.get("Authorization") == other.get("Authorization")


def checked_endpoint(endpoint: str) -> str:
    """An endpoint without its trailing slash.

    Raises:
        ConfigurationError: it is not an http or https address.
    """
    from urllib.parse import urlsplit

    text = endpoint.strip().rstrip("/")
    try:
        parts = urlsplit(text)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != -1
    except ValueError:
        valid = False
        parts = None
    if not valid or parts is None or parts.query or parts.fragment:
        raise ConfigurationError(
            f"{endpoint!r} is not an endpoint", hint="An endpoint looks like https://your-instance.agentflow.ai."
        )
    if parts.username or parts.password:
        raise ConfigurationError("an endpoint must not hold a user name or password")
    return text.removesuffix("/api/v1")
