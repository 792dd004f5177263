"""The server itself on the wire."""

from typing import Any

from pydantic import Field

from agentflow.types.base import ResponseModel


class Health(ResponseModel):
    """The process is alive."""

    status: str
    version: str
    uptime_seconds: float


class Readiness(ResponseModel):
    """Whether the server can take work; `checks` says for each part `ok` or what is wrong."""

    status: str
    checks: dict[str, str]


class SystemInfo(ResponseModel):
    """Versions, features and limits of a server."""

    name: str
    version: str
    api_version: str
    features: dict[str, bool] = Field(default_factory=dict[str, bool])
    limits: dict[str, float] = Field(default_factory=dict[str, float])
    auth: dict[str, Any] = Field(default_factory=dict[str, Any])
    default_model: str | None = None
