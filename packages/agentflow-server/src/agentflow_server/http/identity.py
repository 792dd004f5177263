"""Who calls: one tenant, one principal. Every route asks for a `Caller`; every query is bound to its tenant."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import Depends, Request

from agentflow.errors import AuthenticationError
from agentflow_server.kit.settings import Settings

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
        caller = Caller(self._settings.dev_tenant_name, self._settings.dev_user_id, "dev")
        await self._admit(caller)
        return caller


async def current_caller(request: Request) -> Caller:
    """The caller, for routes."""
    identity: Identity = request.app.state.identity
    return await identity.identify(request)


CurrentCaller = Annotated[Caller, Depends(current_caller)]
