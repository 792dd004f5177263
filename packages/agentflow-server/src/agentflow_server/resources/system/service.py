"""What the server says of itself: alive, ready, which version, which features and limits."""

import asyncio
import hmac
import time
from importlib.metadata import PackageNotFoundError, version

from agentflow.errors import AuthenticationError, NotFoundError, UnavailableError
from agentflow.types.system import AuditEntry, AuditPage, Health, Principal, Readiness, SystemInfo

from agentflow_server.gateway import Gateway
from agentflow_server.http.identity import Caller
from agentflow_server.http.scopes import SCOPES
from agentflow_server.jobs import ledger
from agentflow_server.kit import telemetry
from agentflow_server.kit.clock import Clock, to_datetime
from agentflow_server.kit.settings import Settings, is_loopback
from agentflow_server.storage import Database, audit
from agentflow_server.storage.errors import StorageUnavailableError
from agentflow_server.storage.signals import Signals

_PATIENCE = 3.0
FEATURES = {
    "agents": True, "conversations": True, "runs": True, "streaming": True, "structured_output": True,
    "cancellations": True, "models": True, "approvals": False, "artifacts": True, "attachments": True,
    "background": True, "batches": True, "cached_results": True, "completions": True, "knowledge_bases": True,
    "memory": True, "prompt_blocks": True, "questions": False, "subagents": True, "usage": True,
}  # fmt: skip


def server_version() -> str:
    """The installed version of the server."""
    try:
        return version("agentflow-server")
    except PackageNotFoundError:
        return "0"


class SystemService:
    """The system room."""

    def __init__(self, settings: Settings, db: Database, gateway: Gateway, signals: Signals, clock: Clock) -> None:
        self._settings = settings
        self._db = db
        self._gateway = gateway
        self._signals = signals
        self._clock = clock
        self._began = time.monotonic()
        self._version = server_version()
        self.stopping = False

    def health(self) -> Health:
        """The process answers."""
        return Health(status="ok", version=self._version, uptime_seconds=round(time.monotonic() - self._began, 3))

    async def ready(self) -> Readiness:
        """Whether the server can take work: its database can be written, and it is not shutting down.

        Lost signals make it slower, by up to a second, and not unready.

        Raises:
            UnavailableError: it cannot; `details` says for each part what is wrong.
        """
        checks = {"database": "ok", "shutdown": "stopping" if self.stopping else "ok"}
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._db.write(lambda tx: tx.execute("DELETE FROM jobs WHERE tenant = '' AND id = ''"))
        except StorageUnavailableError as error:
            checks["database"] = error.message
        except TimeoutError:
            checks["database"] = f"no answer within {_PATIENCE:g} seconds"
        bad = [f"{part}: {state}" for part, state in checks.items() if state != "ok"]
        if bad:
            raise UnavailableError(f"the server is not ready: {'; '.join(bad)}", details=checks, retry_after=1.0)
        return Readiness(status="ok", checks={**checks, "signals": self._signals.state})

    async def metrics(self, peer: str, authorization: str | None) -> bytes:
        """What this process counts, and how much work is due. It holds no tenant's name and no content.

        Args:
            peer: the address that asks.

        Raises:
            AuthenticationError: the metrics have a token, and this is not it. NotFoundError: they have none, and the
            address is not of this machine.
        """
        token = self._settings.metrics_token
        if token is not None:
            wanted = f"Bearer {token.get_secret_value()}".encode()
            if not hmac.compare_digest((authorization or "").encode(), wanted):
                raise AuthenticationError("the metrics need their token (AGENTFLOW_METRICS_TOKEN)")
        elif not is_loopback(peer):
            raise NotFoundError("there is no route GET /metrics")
        now = self._clock.micros()
        depths = await self._db.read(lambda tx: ledger.depths(tx, now))
        telemetry.queue.clear()
        for queue, depth in depths.items():
            telemetry.queue.labels(queue).set(depth)
        return telemetry.exposition()

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
                "requests_per_minute_tenant": settings.tenant_rate_limit,
                "requests_per_minute_principal": settings.principal_rate_limit,
                "runs_at_once_tenant": settings.tenant_max_runs,
                "runs_at_once_principal": settings.principal_max_runs,
            },
            auth={
                "methods": ["dev"] * settings.dev_auth_bypass
                + ["device", "m2m", "token"] * (settings.issuer is not None),
                "issuer": settings.issuer,
                "audience": settings.auth0_audience,
                "scopes": sorted({*SCOPES, *settings.admin_scopes}),
            },
            default_model=await self._gateway.default_model(),
        )

    def me(self, caller: Caller) -> Principal:
        """Who the caller is."""
        return Principal(
            tenant=caller.tenant,
            user_id=caller.user_id,
            kind=caller.kind,
            is_admin=caller.is_admin,
            scopes=None if caller.scopes is None else sorted(caller.scopes),
            client_id=caller.client,
            name=caller.name,
            email=caller.email,
        )

    async def audit(
        self, caller: Caller, *, actor: str | None, action: str | None, limit: int, offset: int
    ) -> AuditPage:
        """A page of the tenant's audit log."""
        entries, total = await self._db.tenant(caller.tenant).scan(
            lambda tx: audit.page(tx, actor=actor, action=action, limit=limit, offset=offset)
        )
        shown = [
            AuditEntry(
                id=entry.id,
                at=to_datetime(entry.at),
                actor=entry.actor,
                actor_kind=entry.actor_kind,
                action=entry.action,
                target=entry.target,
                status=entry.status,
                request_id=entry.request_id,
            )
            for entry in entries
        ]
        return AuditPage(entries=shown, total=total, limit=limit, offset=offset)
