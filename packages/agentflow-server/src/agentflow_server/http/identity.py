"""Who calls: one tenant, one principal. Every route asks for a `Caller`; every query is bound to its tenant."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from agentflow.errors import AuthenticationError, PermissionDeniedError
from fastapi import Depends, Request

from agentflow_server.http.scopes import ADMIN, required_scope
from agentflow_server.kit.settings import Settings, is_loopback

Admit = Callable[["Caller"], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Caller:
    """The principal of a request.

    Attributes:
        tenant: whose data. user_id: whose conversations. kind: `dev` is the local bypass.
        scopes: what the token allows; None means everything. admin: the token names an admin scope or role.
    """

    tenant: str
    user_id: str
    kind: Literal["user", "machine", "dev"]
    scopes: frozenset[str] | None = None
    admin: bool = False

    @property
    def is_admin(self) -> bool:
        """Whether this is a person who administers the tenant, or the local bypass. A machine never is."""
        return self.kind == "dev" or (self.kind == "user" and self.admin)

    def may(self, scope: str) -> bool:
        """Whether the token allows what a scope stands for."""
        return self.scopes is None or scope in self.scopes or self.is_admin


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
    """The caller, for routes; checks the scope of the route's room.

    Raises:
        AuthenticationError: the caller is not known. PermissionDeniedError: the scope is missing.
    """
    identity: Identity = request.app.state.identity
    caller = await identity.identify(request)
    scope = required_scope(request.scope["route"].tags, request.method)
    if scope is not None:
        _require(caller, scope)
    return caller


def require_scope(scope: str) -> Any:
    """A dependency for a route that needs another scope than its room's."""

    async def check(caller: "CurrentCaller") -> None:
        _require(caller, scope)

    return Depends(check)


async def admin_caller(caller: "CurrentCaller") -> Caller:
    """The caller, for routes that only people with an admin scope may use.

    Raises:
        PermissionDeniedError: it is a machine, or not an admin.
    """
    if not caller.is_admin:
        what = "a machine token" if caller.kind == "machine" else f"a token without the scope {ADMIN}"
        raise PermissionDeniedError(
            f"only an admin of the tenant may do this, and signed in as a person; this is {what}"
        )
    return caller


def _require(caller: Caller, scope: str) -> None:
    if not caller.may(scope):
        raise PermissionDeniedError(
            f"the access token lacks the scope {scope}",
            details={"scope": scope},
            hint=f"Sign in again with `{scope}` among the scopes.",
        )


CurrentCaller = Annotated[Caller, Depends(current_caller)]
AdminCaller = Annotated[Caller, Depends(admin_caller)]
