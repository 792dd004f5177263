"""What the server says of itself: alive, ready, which version, which features and limits."""

import time
from importlib.metadata import PackageNotFoundError, version

from agentflow.errors import UnavailableError
from agentflow.types.system import Health, Readiness, SystemInfo

from agentflow_server.gateway import Gateway
from agentflow_server.kit.settings import Settings
from agentflow_server.storage import Database
from agentflow_server.storage.errors import StorageUnavailableError

FEATURES = {
    "agents": True, "conversations": True, "runs": True, "streaming": True, "structured_output": True,
    "cancellations": True, "models": True, "approvals": False, "artifacts": False, "attachments": False,
    "background": False, "batches": False, "cached_results": False, "completions": False, "knowledge_bases": False,
    "memory": False, "prompt_blocks": False, "questions": False, "subagents": False, "usage": True,
}  # fmt: skip


def server_version() -> str:
    """The installed version of the server."""
    try:
        return version("agentflow-server")
    except PackageNotFoundError:
        return "0"


class SystemService:
    """The system room."""

    def __init__(self, settings: Settings, db: Database, gateway: Gateway) -> None:
        self._settings = settings
        self._db = db
        self._gateway = gateway
        self._began = time.monotonic()
        self._version = server_version()
        self.stopping = False

    def health(self) -> Health:
        """The process answers."""
        return Health(status="ok", version=self._version, uptime_seconds=round(time.monotonic() - self._began, 3))

    async def ready(self) -> Readiness:
        """Whether the server can take work: its database can be written, and it is not shutting down.

        Raises:
            UnavailableError: it cannot; `details` says for each part what is wrong.
        """
        checks = {"database": "ok", "shutdown": "stopping" if self.stopping else "ok"}
        try:
            await self._db.write(lambda tx: tx.execute("DELETE FROM jobs WHERE tenant = '' AND id = ''"))
        except StorageUnavailableError as error:
            checks["database"] = error.message
        bad = [f"{part}: {state}" for part, state in checks.items() if state != "ok"]
        if bad:
            raise UnavailableError(f"the server is not ready: {'; '.join(bad)}", details=checks, retry_after=1.0)
        return Readiness(status="ok", checks=checks)

    async def info(self) -> SystemInfo:
        """Versions, features, limits."""
        settings = self._settings
        return SystemInfo(
            name="AgentFlow",
            version=self._version,
            api_version="v1",
            features=FEATURES,
            limits={
                "max_body_bytes": settings.max_body_bytes,
                "max_message_chars": settings.max_message_chars,
                "max_concurrent_runs": settings.max_concurrent_runs,
                "max_streams": settings.max_streams,
                "keep_alive_seconds": settings.keep_alive_seconds,
            },
            auth={"methods": ["dev"] if settings.dev_auth_bypass else []},
            default_model=await self._gateway.default_model(),
        )
