"""Who calls: one tenant, one principal. Every route asks for a `Caller`; every query is bound to its tenant."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from agentflow.errors import AuthenticationError, PermissionDeniedError
from fastapi import Depends, FastAPI, Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, iter_route_contexts

from agentflow_server.http.audit import Audit
from agentflow_server.http.limits import Limits
from agentflow_server.http.scopes import ADMIN, required_scope
from agentflow_server.http.tokens import Principal, Tokens, is_principal
from agentflow_server.kit.settings import Settings, is_loopback

Admit = Callable[["Caller", bool], Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class Caller:
    """The principal of a request.

    Attributes:
        tenant: whose data. user_id: whose conversations. kind: `dev` is the local bypass.
        scopes: what the token allows; None means everything. admin: the token names an admin scope or role.
        client: the machine that acts for the user. name, email: of a person, if the token or the provider tells.
    """

    tenant: str
    user_id: str
    kind: Literal["user", "machine", "dev"]
    scopes: frozenset[str] | None = None
    admin: bool = False
    client: str | None = None
    name: str | None = None
    email: str | None = None

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
        admit: says whether a tenant is set up; sets it up if it may.
    """

    def __init__(self, settings: Settings, tokens: Tokens, limits: Limits, audit: Audit, admit: Admit) -> None:
        self._settings = settings
        self._tokens = tokens
        self._limits = limits
        self._audit = audit
        self._admit = admit

    async def identify(self, request: Request) -> Caller:
        """The caller of a request.

        Raises:
            AuthenticationError: no credentials, or ones that do not hold. PermissionDeniedError: a tenant that is not
            served, or headers that contradict the token. RateLimitedError. UnavailableError: the provider is away.
        """
        sent = request.headers.getlist("authorization")
        caller = await self._verified(request, sent) if sent else self._local(request)
        await self._require_tenant(request, caller)
        request.state.standing = await self._limits.spend(caller.tenant, caller.client or caller.user_id)
        return caller

    async def _require_tenant(self, request: Request, caller: Caller) -> None:
        settings = self._settings
        allowed = caller.kind == "dev" or settings.tenant_auto_setup or caller.tenant in settings.tenants
        if not await self._admit(caller, allowed):
            raise PermissionDeniedError(
                f"the tenant {caller.tenant!r} is not set up on this server",
                details={"reason": "tenant"},
                hint="An operator can add it to AGENTFLOW_TENANTS, or set AGENTFLOW_TENANT_AUTO_SETUP=true.",
            )

    async def _verified(self, request: Request, sent: list[str]) -> Caller:
        if not self._tokens.configured:
            raise AuthenticationError(
                "the access token cannot be verified: this server has no identity provider configured",
                hint="Leave the Authorization header out if the server runs with DEV_AUTH_BYPASS=true.",
            )
        scheme, _, token = sent[0].partition(" ")
        if len(sent) > 1 or scheme.lower() != "bearer" or not token.strip():
            raise AuthenticationError(
                "the Authorization header must be `Bearer <access token>`, once", details={"reason": "malformed"}
            )
        principal = await self._tokens.verify(token.strip())
        try:
            return _caller(principal, request)
        except PermissionDeniedError:
            self.refused(request, principal.tenant, principal.subject, principal.kind)
            raise

    def _local(self, request: Request) -> Caller:
        """Without credentials, only programs of this machine are let in: not web pages that know its address."""
        settings = self._settings
        if not settings.dev_auth_bypass:
            raise AuthenticationError(
                "the request carries no credentials",
                hint="Send `Authorization: Bearer <token>`, or start a local server with DEV_AUTH_BYPASS=true.",
            )
        origin = request.headers.get("origin")
        hosts = [request.url.hostname or "", *([urlsplit(origin).hostname or ""] if origin else [])]
        if not settings.dev_allow_remote and not all(is_loopback(host) for host in hosts):
            raise PermissionDeniedError(
                "DEV_AUTH_BYPASS serves this machine only: the request names another host or comes from a web page",
                hint="Call the server by its loopback address, or sign in.",
            )
        return Caller(settings.dev_tenant_name, settings.dev_user_id, "dev")

    async def aclose(self) -> None:
        """Close the connections to the identity provider."""
        await self._tokens.aclose()

    def admitted(self, request: Request, caller: Caller) -> None:
        """Note what a caller who was let in is about to change."""
        actor = caller.client or caller.user_id
        request.state.note = self._audit.changes(request, caller.tenant, actor, caller.kind)

    def refused(self, request: Request, tenant: str, actor: str, kind: str) -> None:
        """Note that somebody known was refused."""
        request.state.note = self._audit.refusal(request, tenant, actor, kind)


def _caller(principal: Principal, request: Request) -> Caller:
    """The caller that a token and the delegation headers name together."""
    tenant, user = request.headers.get("snc-tenant"), request.headers.get("snc-userid")
    machine = principal.kind == "machine"
    if machine and tenant is None:
        raise PermissionDeniedError("a machine's request needs the header snc-tenant", details={"reason": "tenant"})
    if tenant is not None and tenant != principal.tenant:
        raise PermissionDeniedError(
            "the header snc-tenant is not the tenant of the access token", details={"reason": "tenant"}
        )
    if machine and (user is None or not is_principal(user)):
        raise PermissionDeniedError(
            "a machine's request needs the header snc-userid: whom it acts for, 1 to 255 ASCII characters, no spaces",
            details={"reason": "user"},
        )
    if not machine and user not in (None, principal.subject):
        raise PermissionDeniedError("only a machine acts for somebody else (snc-userid)", details={"reason": "user"})
    return Caller(
        tenant=principal.tenant,
        user_id=user if machine and user else principal.subject,
        kind=principal.kind,
        scopes=principal.scopes,
        admin=principal.admin,
        client=principal.subject if machine else None,
        name=principal.name,
        email=principal.email,
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
        _require(request, caller, scope)
    identity.admitted(request, caller)
    return caller


CurrentCaller = Annotated[Caller, Depends(current_caller)]


def require_scope(scope: str) -> Any:
    """A dependency for a route that needs another scope than its room's."""

    async def check(request: Request, caller: CurrentCaller) -> None:
        _require(request, caller, scope)

    return Depends(check)


async def admin_caller(request: Request, caller: CurrentCaller) -> Caller:
    """The caller, for routes that only people with an admin scope may use.

    Raises:
        PermissionDeniedError: it is a machine, or not an admin.
    """
    if not caller.is_admin:
        _refuse(request, caller)
        what = "a machine token" if caller.kind == "machine" else f"a token without the scope {ADMIN}"
        raise PermissionDeniedError(
            f"only an admin of the tenant may do this, and signed in as a person; this is {what}",
            details={"reason": "admin"},
        )
    return caller


AdminCaller = Annotated[Caller, Depends(admin_caller)]


def _require(request: Request, caller: Caller, scope: str) -> None:
    if not caller.may(scope):
        _refuse(request, caller)
        raise PermissionDeniedError(
            f"the access token lacks the scope {scope}",
            details={"reason": "scope", "scope": scope},
            hint=f"Sign in again with `{scope}` among the scopes.",
        )


def _refuse(request: Request, caller: Caller) -> None:
    identity: Identity = request.app.state.identity
    identity.refused(request, caller.tenant, caller.client or caller.user_id, caller.kind)


def describe(app: FastAPI) -> None:
    """Let the OpenAPI document say which routes need a token, and which scope (OpenAPI 3.1, "Security Requirement")."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        schema = plain()
        schema.setdefault("components", {})["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
        }
        for route in iter_route_contexts(app.routes):
            if not isinstance(route.original_route, APIRoute) or not _asks(route.dependant, current_caller):
                continue
            for method in route.methods or ():
                scope = ADMIN if _asks(route.dependant, admin_caller) else required_scope(route.tags, method)
                operation = schema["paths"][route.path_format][method.lower()]
                operation["security"] = [{"bearer": [scope] if scope else []}]
        return schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend the document


def _asks(dependant: Dependant, whom: Callable[..., Any]) -> bool:
    return dependant.call is whom or any(_asks(each, whom) for each in dependant.dependencies)
