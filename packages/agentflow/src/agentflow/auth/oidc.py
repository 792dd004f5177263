"""Talks to an OpenID Connect provider: discovery, and the grants the SDK uses. Waits; async code calls it in a thread.

OAuth 2.0 (RFC 6749) client credentials and refresh, the device grant (RFC 8628), revocation (RFC 7009). The audience is
sent as Auth0 wants it (`audience`) and, if it is a URI, as a resource indicator (RFC 8707).
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

import httpx2

from agentflow.errors import ConfigurationError, ConnectionFailedError, LoginError
from agentflow.transport.tls import shared_context

SIGN_IN_SCOPE = "openid profile email offline_access"
_DEVICE = "urn:ietf:params:oauth:grant-type:device_code"
_TIMEOUT = 30.0
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_DEFAULT_LIFETIME = 300.0


@dataclass(frozen=True, slots=True)
class Grant:
    """What a provider gave. `expires_at` is in seconds since the epoch."""

    access_token: str = field(repr=False)
    expires_at: float
    refresh_token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class DevicePrompt:
    """What a person has to do: open `url` and enter `code` (or open `complete_url`, which holds it)."""

    url: str
    code: str
    complete_url: str | None
    device_code: str = field(repr=False)
    interval: float
    expires_in: float


class Provider:
    """One provider, for one client.

    Args:
        domain: a host name (`company.eu.auth0.com`), or the provider's issuer URL.
        client_id: the client as it is registered there. client_secret: of a machine.
        audience: the API that tokens are for.
    """

    def __init__(
        self, domain: str, client_id: str, *, client_secret: str | None = None, audience: str | None = None
    ) -> None:
        self.issuer = issuer_of(domain)
        self._client_id = client_id
        self._client_secret = client_secret
        self._audience = audience
        self._metadata: dict[str, Any] | None = None

    def client_credentials(self, scope: str | None) -> Grant:
        """A token for the machine itself.

        Raises:
            LoginError: the provider refused. ConnectionFailedError: it could not be asked.
        """
        return self._grant({"grant_type": "client_credentials", "scope": scope})

    def refresh(self, refresh_token: str, scope: str | None = None) -> Grant:
        """A new token for an old one; the refresh token itself may be a new one, too. Raises as the others."""
        grant = self._grant({"grant_type": "refresh_token", "refresh_token": refresh_token, "scope": scope})
        return grant if grant.refresh_token else Grant(grant.access_token, grant.expires_at, refresh_token)

    def begin_device(self, scope: str) -> DevicePrompt:
        """Begin the device grant. Raises as the others."""
        answer = self._post("device_authorization_endpoint", {"client_id": self._client_id, "scope": scope})
        try:
            return DevicePrompt(
                url=str(answer["verification_uri"]),
                code=str(answer["user_code"]),
                complete_url=answer.get("verification_uri_complete"),
                device_code=str(answer["device_code"]),
                interval=float(answer.get("interval", 5)),
                expires_in=float(answer["expires_in"]),
            )
        except (KeyError, TypeError, ValueError):
            raise LoginError(f"{self.issuer} gave an answer that is no device authorization (RFC 8628)") from None

    def finish_device(self, prompt: DevicePrompt, *, sleep: Callable[[float], None] = time.sleep) -> Grant:
        """Wait until the person has confirmed, asking as often as the provider allows.

        Raises:
            LoginError: refused, or too late.
        """
        pause, until = prompt.interval, time.monotonic() + prompt.expires_in
        while time.monotonic() < until:
            sleep(pause)
            try:
                return self._grant({"grant_type": _DEVICE, "device_code": prompt.device_code})
            except ConnectionFailedError:
                pause *= 2
            except _RefusedError as refused:
                if refused.code == "slow_down":
                    pause += 5
                elif refused.code != "authorization_pending":
                    raise
        raise LoginError("the code has expired before it was confirmed", hint="Run the login again.")

    def revoke(self, refresh_token: str) -> None:
        """Let the provider forget a refresh token, if it offers that."""
        if self._known().get("revocation_endpoint"):
            form = {"token": refresh_token, "token_type_hint": "refresh_token"}
            self._authenticated("revocation_endpoint", form)

    def _grant(self, form: Mapping[str, str | None]) -> Grant:
        answer = self._authenticated("token_endpoint", form)
        token = answer.get("access_token")
        if not isinstance(token, str) or str(answer.get("token_type", "bearer")).lower() != "bearer":
            raise LoginError(f"{self.issuer} gave no bearer token")
        try:
            lifetime = float(answer.get("expires_in", _DEFAULT_LIFETIME))
        except (TypeError, ValueError):
            lifetime = _DEFAULT_LIFETIME
        renewed = answer.get("refresh_token")
        return Grant(token, time.time() + lifetime, renewed if isinstance(renewed, str) else None)

    def _authenticated(self, endpoint: str, form: Mapping[str, str | None]) -> dict[str, Any]:
        """Post as this client: the secret in the form, else, if that is refused, in the header (RFC 6749, 2.3.1)."""
        identified = {**form, "client_id": self._client_id}
        if self._client_secret is None:
            return self._post(endpoint, identified)
        offered = self._known().get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
        if "client_secret_post" in offered:
            try:
                return self._post(endpoint, {**identified, "client_secret": self._client_secret})
            except _RefusedError as refused:
                if refused.code != "invalid_client" or "client_secret_basic" not in offered:
                    raise
        pair = (quote(self._client_id, safe=""), quote(self._client_secret, safe=""))
        return self._post(endpoint, form, auth=pair)

    def _post(
        self, endpoint: str, form: Mapping[str, str | None], auth: tuple[str, str] | None = None
    ) -> dict[str, Any]:
        address = self._known().get(endpoint)
        if not isinstance(address, str):
            raise LoginError(f"{self.issuer} does not offer this way to sign in: it names no {endpoint}")
        self._require_safe(address)
        wanted = {**form, "audience": self._audience, "resource": _as_resource(self._audience)}
        fields = {name: value for name, value in wanted.items() if value is not None}
        return self._ask("POST", address, data=fields, auth=auth)

    def _known(self) -> dict[str, Any]:
        if self._metadata is None:
            self._require_safe(self.issuer)
            found = self._ask("GET", f"{self.issuer.rstrip('/')}/.well-known/openid-configuration")
            if str(found.get("issuer", "")).rstrip("/") != self.issuer.rstrip("/"):
                raise LoginError(f"{self.issuer} says that it is another issuer: {found.get('issuer')!r}")
            self._metadata = found
        return self._metadata

    def _require_safe(self, address: str) -> None:
        parts = urlsplit(address)
        if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
            raise LoginError(f"{address} is not https: credentials are not sent there")

    def _ask(self, method: str, address: str, **options: Any) -> dict[str, Any]:
        verify: Any = shared_context() if address.startswith("https:") else False
        try:
            with httpx2.Client(verify=verify, timeout=_TIMEOUT, follow_redirects=False) as http:
                response = http.request(method, address, headers={"Accept": "application/json"}, **options)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise ConnectionFailedError(
                f"the identity provider {self.issuer} could not be reached: {error or type(error).__name__}",
                hint="Is --auth0-domain right?",
            ) from None
        try:
            answer = response.json() if response.content else {}
        except ValueError:
            answer = None
        if response.status_code >= 500:
            raise ConnectionFailedError(f"the identity provider {self.issuer} failed with {response.status_code}")
        if response.status_code >= 400 or not isinstance(answer, dict):
            raise _RefusedError.of(self.issuer, response.status_code, answer)
        return answer


class _RefusedError(LoginError):
    """The provider said no; `code` is its word for why (RFC 6749, section 5.2)."""

    code: str = ""

    @classmethod
    def of(cls, issuer: str, status: int, answer: Any) -> "_RefusedError":
        told = answer if isinstance(answer, dict) else {}
        code = str(told.get("error", f"status {status}"))
        text = str(told.get("error_description", ""))[:300]
        error = cls(f"{issuer} refused: {code}{f' ({text})' if text else ''}")
        error.code = code
        return error


def issuer_of(domain: str) -> str:
    """The issuer URL for what a user calls the domain.

    Raises:
        ConfigurationError: it is neither a host name nor an http address.
    """
    text = domain.strip()
    url = text if "://" in text else f"https://{text.rstrip('/')}/"
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or " " in text:
        raise ConfigurationError(
            f"auth0_domain: {domain!r} is not the domain of an identity provider",
            hint="It looks like company.eu.auth0.com, or https://login.example.com/realms/company.",
        )
    return url


def _as_resource(audience: str | None) -> str | None:
    return audience if audience is not None and urlsplit(audience).scheme else None
