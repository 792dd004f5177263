"""The server itself on the wire."""

from datetime import datetime
from typing import Any

from pydantic import Field

from agentflow.types.base import Page, ResponseModel


class Health(ResponseModel):
    """The process is alive."""

    status: str
    version: str
    uptime_seconds: float


class Readiness(ResponseModel):
    """Whether the server can take work; `checks` says for each part `ok` or what is wrong."""

    status: str
    checks: dict[str, str]


class Principal(ResponseModel):
    """Who a caller is to the server.

    Attributes:
        kind: `user`, `machine`, or `dev` for a local server's bypass. scopes: what the token is limited to; None means
        everything that is not an admin's. client_id: the machine that acts for the user.
    """

    tenant: str
    user_id: str
    kind: str
    is_admin: bool = False
    scopes: list[str] | None = None
    client_id: str | None = None
    name: str | None = None
    email: str | None = None


class AuditEntry(ResponseModel):
    """One thing that somebody did, or was refused.

    Attributes:
        actor: the user, or the machine. action: `<room>.<what>`. target: the path. status: of the answer (HTTP).
    """

    id: str
    at: datetime
    actor: str
    actor_kind: str
    action: str
    target: str
    status: int
    request_id: str | None = None


class AuditPage(Page):
    """Entries of the audit log, the newest first."""

    entries: list[AuditEntry]


class SystemInfo(ResponseModel):
    """Versions, features and limits of a server."""

    name: str
    version: str
    api_version: str
    features: dict[str, bool] = Field(default_factory=dict[str, bool])
    limits: dict[str, float] = Field(default_factory=dict[str, float])
    auth: dict[str, Any] = Field(default_factory=dict[str, Any])
    default_model: str | None = None
