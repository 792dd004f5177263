"""Credentials, and where a client finds its endpoint and token: arguments, then the environment, then a profile."""

from collections.abc import Mapping

from agentflow.auth.profiles import Profile, Profiles
from agentflow.errors import ConfigurationError
from agentflow.transport.drivers import Credentials


class NoCredentials:
    """Sends nothing: for a local server started with DEV_AUTH_BYPASS=true."""

    def headers(self) -> Mapping[str, str]:
        return {}


class BearerToken:
    """Sends a token as it was given."""

    def __init__(self, token: str) -> None:
        if not token.isascii() or not token.isprintable() or " " in token:
            raise ConfigurationError("the access token holds characters that cannot be sent in a header")
        self._headers = {"Authorization": f"Bearer {token}"}

    def headers(self) -> Mapping[str, str]:
        return self._headers

    def __repr__(self) -> str:
        return "BearerToken(…)"


def resolve(
    endpoint: str | None, access_token: str | None, profile: str | None, environ: Mapping[str, str]
) -> tuple[str, Credentials]:
    """The endpoint and the credentials of a client.

    Raises:
        ConfigurationError: no endpoint, or one that is not an address. ProfileNotFoundError, ProfileDamagedError.
    """
    found_endpoint = endpoint or (None if profile else environ.get("AGENTFLOW_ENDPOINT"))
    token = access_token or (None if profile or endpoint else environ.get("AGENTFLOW_ACCESS_TOKEN"))
    if endpoint and not access_token and not profile:
        token = environ.get("AGENTFLOW_ACCESS_TOKEN")
    chosen: Profile | None = None
    if found_endpoint is None:
        chosen = _profile(profile, environ)
        found_endpoint = chosen.endpoint
        token = token or chosen.access_token
    checked = checked_endpoint(found_endpoint)
    return checked, BearerToken(token.strip()) if token else NoCredentials()


def _profile(name: str | None, environ: Mapping[str, str]) -> Profile:
    profiles = Profiles(environ)
    if name is None and not environ.get("AGENTFLOW_PROFILE"):
        raise ConfigurationError(
            "no endpoint is configured",
            hint="Pass endpoint=, set AGENTFLOW_ENDPOINT, or use AgentFlow.from_profile(name) after `agentflow login`.",
        )
    return profiles.load(name or profiles.current())


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
