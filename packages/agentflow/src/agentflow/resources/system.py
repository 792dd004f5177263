"""`client.system`: the server itself."""

from agentflow.resources.pages import AsyncPage
from agentflow.transport.drivers import AsyncTransport
from agentflow.transport.request import Request
from agentflow.types.system import AuditEntry, AuditPage, Health, Principal, Readiness, SystemInfo


class AsyncSystem:
    """Health, readiness, versions."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def health(self) -> Health:
        """The server's process is alive."""
        return await self._transport.call(Request("GET", "/health", repeatable=True), Health)

    async def ready(self) -> Readiness:
        """Whether the server can take work.

        Raises:
            UnavailableError: it cannot.
        """
        return await self._transport.call(Request("GET", "/ready"), Readiness)

    async def info(self) -> SystemInfo:
        """Versions, features and limits of the server."""
        return await self._transport.call(Request("GET", "/api/v1/system", repeatable=True), SystemInfo)

    async def metadata(self) -> SystemInfo:
        """The same as `info`."""
        return await self.info()

    async def me(self) -> Principal:
        """Who this client is to the server: tenant, user, scopes."""
        return await self._transport.call(Request("GET", "/api/v1/system/me", repeatable=True), Principal)

    async def audit(
        self, *, actor: str | None = None, action: str | None = None, limit: int = 50, offset: int = 0
    ) -> AsyncPage[AuditEntry]:
        """The tenant's audit log, the newest entries first; iterating it walks on through all. For admins.

        Args:
            actor: only what this user or machine did. action: only this, for example `agents.delete`. limit: 1 to 100.

        Raises:
            PermissionDeniedError: the caller is no admin.
        """
        query = {"actor": actor, "action": action, "limit": limit, "offset": offset}
        data = await self._transport.call(Request("GET", "/api/v1/system/audit", query, repeatable=True), AuditPage)

        async def fetch(start: int) -> AsyncPage[AuditEntry]:
            return await self.audit(actor=actor, action=action, limit=limit, offset=start)

        return AsyncPage(data, "entries", fetch)
