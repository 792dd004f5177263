"""Who calls: one tenant, one principal. Every route asks for a `Caller`; every query is bound to its tenant."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Literal
from urllib.parse import urlsplit

from agentflow.errors import AuthenticationError, PermissionDeniedError
from fastapi import Depends, Request

from agentflow_server.kit.settings import Settings, is_loopback

Admit = Callable[["Caller"], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Caller:
    """The principal of a request.

    Attributes:
        tenant: whose data. user_id: whose conversations. kind: `dev` is the local bypass.
        scopes: what the token allows; None means everything.
    """

    tenant: str
    user_id: str
    kind: Literal["user", "machine", "dev"]
    scopes: frozenset[str] | None = None


class Identity:
    """Resolves callers.

    Args:
        admit: sets up a tenant that is seen for the first time.
    """

    def __init__(self, settings: Settings, admit: Admit) -> None:
        self._settings = settings
        self._admit = admit

    async def identify(self, request: Request) -> Caller:
        """The caller of a request.

        Raises:
            AuthenticationError: no credentials, or ones that do not hold.
        """
        if "authorization" in request.headers:
            raise AuthenticationError(
                "the access token cannot be verified: this server has no identity provider configured",
                hint="Leave the Authorization header out if the server runs with DEV_AUTH_BYPASS=true.",
            )
        if not self._settings.dev_auth_bypass:
            raise AuthenticationError(
                "the request carries no credentials",
                hint="Send `Authorization: Bearer <token>`, or start a local server with DEV_AUTH_BYPASS=true.",
            )
        self._require_local(request)
        caller = Caller(self._settings.dev_tenant_name, self._settings.dev_user_id, "dev")
        await self._admit(caller)
        return caller

    def _require_local(self, request: Request) -> None:
        """Without credentials, only programs of this machine are let in: not web pages that know its address."""
        if self._settings.dev_allow_remote:
            return
        origin = request.headers.get("origin")
        hosts = [request.url.hostname or "", *([urlsplit(origin).hostname or ""] if origin else [])]
        if not all(is_loopback(host) for host in hosts):
            raise PermissionDeniedError(
                "DEV_AUTH_BYPASS serves this machine only: the request names another host or comes from a web page",
                hint="Call the server by its loopback address, or sign in.",
            )


async def current_caller(request: Request) -> Caller:
    """The caller, for routes."""
    identity: Identity = request.app.state.identity
    return await identity.identify(request)


CurrentCaller = Annotated[Caller, Depends(current_caller)]
