"""An identity provider as seen from here: its metadata, its signing keys, its user info. Asked by tokens.py.

OpenID Connect Discovery 1.0 for the metadata, RFC 7517 for the keys. Keys are kept for ten minutes and fetched again
when a token names one that is not known, but never more often than every ten seconds: made-up key ids cost the provider
nothing. While the provider is away its last keys serve on, for a day.
"""

import asyncio
import json
from typing import Any
from urllib.parse import urlsplit

import httpx2
from agentflow.errors import AuthenticationError, UnavailableError
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

from agentflow_server.kit.clock import SECOND, Clock
from agentflow_server.kit.settings import is_loopback

Key = RSAKey | ECKey | OKPKey
_KINDS: dict[str, type[RSAKey] | type[ECKey] | type[OKPKey]] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}
_FRESH = 600 * SECOND
_STALE = 86_400 * SECOND
_COOL_DOWN = 10 * SECOND
_MAX_ANSWER = 1024 * 1024
_TIMEOUT = 5.0


class Issuer:
    """One provider.

    Args:
        url: its issuer identifier.
    """

    def __init__(self, url: str, clock: Clock) -> None:
        self.url = url
        self._clock = clock
        self._http: httpx2.AsyncClient | None = None
        self._lock = asyncio.Lock()
        self._metadata: dict[str, Any] = {}
        self._keys: list[tuple[dict[str, Any], Key]] = []
        self._fetched = self._tried = -_STALE

    async def key(self, key_id: str | None, algorithm: str) -> Key:
        """The public key a token says it is signed with.

        Raises:
            AuthenticationError: the provider has no such key. UnavailableError: the provider cannot be asked.
        """
        await self._refresh(self._clock.micros() - self._fetched > _FRESH)
        found = self._find(key_id, algorithm)
        if found is None:
            await self._refresh(wanted=True)
            found = self._find(key_id, algorithm)
        if found is None:
            raise AuthenticationError(
                "the access token is signed with a key that its issuer does not publish", details={"reason": "key"}
            )
        return found

    def _find(self, key_id: str | None, algorithm: str) -> Key | None:
        kind = "RSA" if algorithm[:2] in ("RS", "PS") else "EC" if algorithm.startswith("ES") else "OKP"
        fitting = [
            key
            for data, key in self._keys
            if data["kty"] == kind
            and data.get("alg") in (None, algorithm)
            and (key_id is None or data.get("kid") == key_id)
        ]
        return fitting[0] if len(fitting) == 1 or (fitting and key_id is not None) else None

    async def _refresh(self, wanted: bool) -> None:
        if not wanted or self._clock.micros() - self._tried < _COOL_DOWN:
            self._require_keys()
            return
        before = self._tried
        async with self._lock:
            if self._tried == before:
                self._tried = self._clock.micros()
                try:
                    await self._fetch()
                except UnavailableError:
                    self._require_keys()

    def _require_keys(self) -> None:
        if self._clock.micros() - self._fetched > _STALE:
            raise UnavailableError(
                "the identity provider cannot be reached, so access tokens cannot be verified", retry_after=10.0
            )

    async def _fetch(self) -> None:
        metadata = await self._document(f"{self.url.rstrip('/')}/.well-known/openid-configuration")
        if str(metadata.get("issuer", "")).rstrip("/") != self.url.rstrip("/"):
            raise UnavailableError("the identity provider's metadata is that of another issuer")
        published = (await self._document(str(metadata.get("jwks_uri", "")))).get("keys")
        keys: list[tuple[dict[str, Any], Key]] = []
        for data in published if isinstance(published, list) else []:
            if not isinstance(data, dict) or data.get("kty") not in _KINDS or data.get("use") not in (None, "sig"):
                continue
            try:
                keys.append((data, _KINDS[data["kty"]].import_key(data)))
            except (JoseError, ValueError, TypeError):
                continue
        self._metadata, self._keys, self._fetched = metadata, keys, self._clock.micros()

    async def user_info(self, token: str) -> dict[str, Any]:
        """What the provider tells of the person a token was issued to (OpenID Connect Core 1.0, section 5.3).

        Nothing, if it has no such endpoint or does not take the token there.

        Raises:
            UnavailableError: the provider cannot be asked.
        """
        address = self._metadata.get("userinfo_endpoint")
        if not isinstance(address, str):
            return {}
        status, profile = await self._ask(address, {"Authorization": f"Bearer {token}"})
        if status >= 500:
            raise _odd_answer()
        return profile or {}

    async def _document(self, address: str) -> dict[str, Any]:
        _, document = await self._ask(address, {})
        if document is None:
            raise _odd_answer()
        return document

    async def _ask(self, address: str, headers: dict[str, str]) -> tuple[int, dict[str, Any] | None]:
        """The status, and the JSON object that came with a 200."""
        parts = urlsplit(address)
        if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname or "")):
            raise UnavailableError("the identity provider names an address that is not https")
        if self._http is None:
            self._http = httpx2.AsyncClient(timeout=_TIMEOUT, follow_redirects=False)
        content = b""
        try:
            async with asyncio.timeout(_TIMEOUT), self._http.stream("GET", address, headers=headers) as response:
                async for piece in response.aiter_bytes():
                    content += piece
                    if len(content) > _MAX_ANSWER:
                        raise _odd_answer()
            data = json.loads(content) if response.status_code == 200 else None
        except (httpx2.HTTPError, TimeoutError, ValueError):
            raise _odd_answer() from None
        return response.status_code, data if isinstance(data, dict) else None

    async def aclose(self) -> None:
        """Close the connections."""
        if self._http is not None:
            await self._http.aclose()


def _odd_answer() -> UnavailableError:
    return UnavailableError("the identity provider did not answer as it should", retry_after=10.0)
