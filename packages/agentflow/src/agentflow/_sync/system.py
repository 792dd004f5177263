"""Generated from agentflow/resources/system.py by tools/sync_generator.py: do not edit.

`client.system`: the server itself."""

from agentflow.transport.drivers import SyncTransport
from agentflow.transport.request import Request
from agentflow.types.system import Health, Readiness, SystemInfo


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
