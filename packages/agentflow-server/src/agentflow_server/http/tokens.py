"""Access tokens: is this one genuine, meant for us and in time, and whom does it stand for. Called by identity.py.

JSON Web Tokens (RFC 7519) as access tokens (RFC 9068), checked as RFC 8725 advises. A token that held is remembered by
its hash until it expires, so that a request costs one look-up.
"""

import base64
import binascii
import hashlib
import json
import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from agentflow.errors import AuthenticationError, PermissionDeniedError
from joserfc import jws
from joserfc.errors import JoseError

from agentflow_server.http.issuers import Issuer
from agentflow_server.http.scopes import ADMIN, SCOPES
from agentflow_server.kit.clock import SECOND, Clock
from agentflow_server.kit.ids import is_id
from agentflow_server.kit.settings import Settings

LEEWAY = 30 * SECOND
_PROFILE = 600 * SECOND
_MAX_TOKEN = 16_384
_MAX_KNOWN = 20_000
_TYPES = frozenset({"jwt", "at+jwt", "application/at+jwt"})
_PRINCIPAL = re.compile(r"[\x21-\x7e]{1,255}")


@dataclass(frozen=True, slots=True)
class Principal:
    """Whom a token stands for.

    Attributes:
        subject: a person's id, or a machine's. scopes: None means everything that is not an admin's.
        expires: micros since the epoch.
    """

    kind: Literal["user", "machine"]
    tenant: str
    subject: str
    scopes: frozenset[str] | None
    admin: bool
    expires: int
    name: str | None = None
    email: str | None = None


class Tokens:
    """Verifies access tokens of the configured issuers."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._known: OrderedDict[bytes, Principal] = OrderedDict()
        self._profiles: OrderedDict[tuple[str, str], tuple[int, dict[str, Any]]] = OrderedDict()
        self._issuers: dict[str, Issuer] = {}
        for url in (settings.issuer, settings.m2m_issuer):
            if url is not None and url.rstrip("/") not in self._issuers:
                self._issuers[url.rstrip("/")] = Issuer(url, clock)

    @property
    def configured(self) -> bool:
        """Whether there is an issuer whose tokens could hold."""
        return bool(self._issuers)

    async def verify(self, token: str) -> Principal:
        """The principal of a token.

        Raises:
            AuthenticationError: it does not hold; `details` names the check. PermissionDeniedError: it holds, but names
            no tenant. UnavailableError: the identity provider cannot be asked.
        """
        digest = hashlib.sha256(token.encode("latin-1", "replace")).digest()
        known = self._known.get(digest)
        if known is not None and self._clock.micros() < known.expires + LEEWAY:
            return known
        principal = await self._verify(token)
        self._known[digest] = principal
        self._known.move_to_end(digest)
        if len(self._known) > _MAX_KNOWN:
            self._known.popitem(last=False)
        return principal

    async def _verify(self, token: str) -> Principal:
        header, claims = _parsed(token)
        algorithm = self._algorithm(header)
        machine = _is_machine(claims)
        issuer = self._issuer(claims, machine=machine)
        self._check_audience(claims, machine=machine)
        key_id = header.get("kid")
        if key_id is not None and not isinstance(key_id, str):
            raise _refused("malformed", "its header cannot be read")
        key = await issuer.key(key_id, algorithm)
        try:
            jws.deserialize_compact(token, key, algorithms=[algorithm])
        except (JoseError, ValueError):
            raise _refused("signature", "its signature does not hold") from None
        expires = self._check_times(claims)
        subject = claims.get("sub")
        if not isinstance(subject, str) or not _PRINCIPAL.fullmatch(subject):
            raise _refused("subject", "it names no subject")
        return await self._principal(issuer, token, claims, subject, expires, machine=machine)

    def _algorithm(self, header: Mapping[str, Any]) -> str:
        algorithm = header.get("alg")
        if not isinstance(algorithm, str) or algorithm not in self._settings.algorithms:
            raise _refused("algorithm", "its signature algorithm is not accepted here")
        kind = header.get("typ")
        if kind is not None and (not isinstance(kind, str) or kind.lower() not in _TYPES):
            raise _refused("type", "it is of another type")
        if "crit" in header:
            raise _refused("critical", "its header asks for an extension that is not known here")
        return algorithm

    def _issuer(self, claims: Mapping[str, Any], *, machine: bool) -> Issuer:
        expected = self._settings.m2m_issuer if machine else self._settings.issuer
        named = claims.get("iss")
        if expected is None or not isinstance(named, str) or named.rstrip("/") != expected.rstrip("/"):
            raise _refused("issuer", "its issuer is not the one this server trusts")
        return self._issuers[expected.rstrip("/")]

    def _check_audience(self, claims: Mapping[str, Any], *, machine: bool) -> None:
        expected = self._settings.m2m_audience if machine else self._settings.auth0_audience
        named = claims.get("aud")
        audiences: list[Any] = named if isinstance(named, list) else [named]
        if expected is None or expected not in audiences:
            raise _refused("audience", "it was issued for another audience")

    def _check_times(self, claims: Mapping[str, Any]) -> int:
        now = self._clock.micros()
        expires = _instant(claims, "exp")
        if expires is None:
            raise _refused("expired", "it does not say when it expires")
        if now >= expires + LEEWAY:
            raise _refused("expired", "it has expired")
        for claim in ("nbf", "iat"):
            begins = _instant(claims, claim)
            if begins is not None and now < begins - LEEWAY:
                raise _refused("not_yet_valid", "it is not valid yet")
        return expires

    async def _principal(
        self, issuer: Issuer, token: str, claims: Mapping[str, Any], subject: str, expires: int, *, machine: bool
    ) -> Principal:
        known = dict(claims)
        if self._tenant(known) is None and not machine:
            known = {**await self._profile(issuer, token, subject), **known}
        tenant = self._tenant(known)
        if tenant is None:
            raise PermissionDeniedError(
                "the access token names no tenant",
                details={"reason": "tenant"},
                hint="The identity provider must add the tenant claim; see AUTH0_CLAIM_NAMESPACE and AUTH0_CLAIM_KEY.",
            )
        granted = _words(claims.get("scope")) | _words(claims.get("permissions"))
        self._check_machine_scope(granted, machine=machine)
        own = granted & SCOPES
        return Principal(
            kind="machine" if machine else "user",
            tenant=tenant,
            subject=subject,
            scopes=own if machine or own else None,
            admin=not machine and self._is_admin(granted, known),
            expires=expires,
            name=_text(known.get("name")),
            email=_text(known.get("email")),
        )

    async def _profile(self, issuer: Issuer, token: str, subject: str) -> dict[str, Any]:
        """What the provider tells of a person; asked anew after ten minutes, or one if it names no tenant."""
        key, now = (issuer.url, subject), self._clock.micros()
        until, profile = self._profiles.get(key, (0, {}))
        if now >= until:
            profile = await issuer.user_info(token)
            if profile.get("sub") != subject:
                profile = {}
            self._profiles[key] = (now + (_PROFILE if self._tenant(profile) else _PROFILE // 10), profile)
            self._profiles.move_to_end(key)
            if len(self._profiles) > _MAX_KNOWN:
                self._profiles.popitem(last=False)
        return profile

    def _check_machine_scope(self, granted: frozenset[str], *, machine: bool) -> None:
        required = self._settings.auth0_m2m_required_scope
        if machine and required is not None and required not in granted:
            raise PermissionDeniedError(
                f"a machine's access token needs the scope {required}", details={"reason": "scope", "scope": required}
            )

    def _tenant(self, claims: Mapping[str, Any]) -> str | None:
        value = claims.get(self._settings.claim(self._settings.auth0_claim_key))
        if isinstance(value, dict):
            value = value.get("tenant")
        return value if isinstance(value, str) and is_id(value) else None

    def _is_admin(self, granted: frozenset[str], claims: Mapping[str, Any]) -> bool:
        """A scope says so, or an Auth0 role or `permissionType` of `admin`, which stand for `agentflow:admin`."""
        accepted = self._settings.admin_scopes
        metadata = claims.get(self._settings.claim(self._settings.auth0_claim_key))
        roles = _words(claims.get(self._settings.claim("roles")))
        roles |= _words(claims.get(self._settings.claim("permissionType")))
        if isinstance(metadata, dict):
            roles |= _words(metadata.get("roles")) | _words(metadata.get("permissionType"))
        return bool(accepted & granted) or (ADMIN in accepted and "admin" in roles)

    async def aclose(self) -> None:
        """Close the connections to the issuers."""
        for issuer in self._issuers.values():
            await issuer.aclose()


def _parsed(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims as they stand there, not yet to be believed."""
    pieces = token.split(".")
    if len(token) > _MAX_TOKEN or len(pieces) != 3:
        raise _refused("malformed", "it is not a signed JSON Web Token")
    try:
        header, claims = (json.loads(base64.b64decode(part + "=" * (-len(part) % 4), b"-_")) for part in pieces[:2])
    except (ValueError, RecursionError, binascii.Error):
        raise _refused("malformed", "it cannot be read") from None
    if not isinstance(header, dict) or not isinstance(claims, dict):
        raise _refused("malformed", "it cannot be read")
    return header, claims


def _is_machine(claims: Mapping[str, Any]) -> bool:
    """Whether the token was given for client credentials: Auth0 says so, or the subject is the client itself."""
    subject = claims.get("sub")
    if claims.get("gty") == "client-credentials":
        return True
    if not isinstance(subject, str):
        return False
    of_auth0 = subject.endswith("@clients") and "|" not in subject
    return of_auth0 or subject in (claims.get("client_id"), claims.get("azp"))


def _instant(claims: Mapping[str, Any], name: str) -> int | None:
    """A NumericDate in micros; None if the token has none."""
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e11:
        raise _refused("malformed", f"its claim {name} is no date")
    return int(value * SECOND)


def _words(value: Any) -> frozenset[str]:
    if isinstance(value, str):
        return frozenset(value.split())
    return frozenset(word for word in value if isinstance(word, str)) if isinstance(value, list) else frozenset()


def _text(value: Any) -> str | None:
    return value[:200] if isinstance(value, str) else None


def is_principal(value: str) -> bool:
    """Whether a text may be a user's id: 1 to 255 printable ASCII characters without spaces."""
    return _PRINCIPAL.fullmatch(value) is not None


def _refused(reason: str, what: str) -> AuthenticationError:
    return AuthenticationError(f"the access token does not hold: {what}", details={"reason": reason})
