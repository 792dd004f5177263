"""`client.system`: the server itself."""

from agentflow.transport.drivers import AsyncTransport
from agentflow.transport.request import Request
from agentflow.types.system import Health, Readiness, SystemInfo


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
