"""Generated from agentflow/resources/system.py by tools/sync_generator.py: do not edit.

`client.system`: the server itself."""

from agentflow._sync.pages import Page
from agentflow.transport.drivers import SyncTransport
from agentflow.transport.request import Request
from agentflow.types.system import AuditEntry, AuditPage, Health, Principal, Readiness, SystemInfo


class System:
    """Health, readiness, versions."""

    def __init__(self, transport: SyncTransport) -> None:
        self._transport = transport

    def health(self) -> Health:
        """The server's process is alive."""
        return self._transport.call(Request("GET", "/health", repeatable=True), Health)

    def ready(self) -> Readiness:
        """Whether the server can take work.

        Raises:
            UnavailableError: it cannot.
        """
        return self._transport.call(Request("GET", "/ready"), Readiness)

    def info(self) -> SystemInfo:
        """Versions, features and limits of the server."""
        return self._transport.call(Request("GET", "/api/v1/system", repeatable=True), SystemInfo)

    def metadata(self) -> SystemInfo:
        """The same as `info`."""
        return self.info()

    def me(self) -> Principal:
        """Who this client is to the server: tenant, user, scopes."""
        return self._transport.call(Request("GET", "/api/v1/system/me", repeatable=True), Principal)

    def audit(
        self, *, actor: str | None = None, action: str | None = None, limit: int = 50, offset: int = 0
    ) -> Page[AuditEntry]:
        """The tenant's audit log, the newest entries first; iterating it walks on through all. For admins.

        Args:
            actor: only what this user or machine did. action: only this, for example `agents.delete`. limit: 1 to 100.

        Raises:
            PermissionDeniedError: the caller is no admin.
        """
        query = {"actor": actor, "action": action, "limit": limit, "offset": offset}
        data = self._transport.call(Request("GET", "/api/v1/system/audit", query, repeatable=True), AuditPage)

        def fetch(start: int) -> Page[AuditEntry]:
            return self.audit(actor=actor, action=action, limit=limit, offset=start)

        return Page(data, "entries", fetch)
