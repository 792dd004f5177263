"""The server's settings, read once from the environment and the command line.

Every field names its environment variable in its description; `docs/howto/settings.md` lists them all.
"""

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off", ""}
ASYMMETRIC = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"}
)  # never `none`, never HMAC: a public key must not become a shared secret (RFC 8725, section 3.1)


class SettingsError(ValueError):
    """A setting has a value the server cannot use; the message names the variable and what it accepts."""


class Settings(BaseModel):
    """What an operator decides. Field names are the environment names without their prefix, in lower case."""

    model_config = ConfigDict(frozen=True)

    data: Path = Field(
        default=Path(".agentflow-data"), description="AGENTFLOW_DATA: folder of the embedded database and files"
    )
    database_url: SecretStr | None = Field(
        default=None, description="AGENTFLOW_DATABASE_URL: postgresql://… to scale out"
    )
    database_connections: int = Field(
        default=12, ge=2, le=500, description="AGENTFLOW_DATABASE_CONNECTIONS: PostgreSQL connections of one process"
    )
    database_wait_seconds: float = Field(
        default=30.0,
        ge=0,
        description="AGENTFLOW_DATABASE_WAIT_SECONDS: how long a start waits for PostgreSQL that cannot be reached yet",
    )
    blobs_url: str | None = Field(
        default=None, description="AGENTFLOW_BLOBS_URL: s3://bucket/prefix to keep files there and not in the folder"
    )
    blobs_endpoint: str | None = Field(
        default=None,
        pattern="^https?://",
        description="AGENTFLOW_BLOBS_ENDPOINT: address of the S3-compatible store, if it is not Amazon's",
    )
    sqlite_synchronous: Literal["full", "normal"] = Field(
        default="full",
        description="AGENTFLOW_SQLITE_SYNCHRONOUS: `full` survives power loss, `normal` only a killed process",
    )
    host: str = Field(default="127.0.0.1", description="AGENTFLOW_HOST: address to listen on")
    port: int = Field(default=8001, ge=0, le=65535, description="AGENTFLOW_PORT: port to listen on, 0 for any free one")
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="AGENTFLOW_LOG_LEVEL")

    dev_auth_bypass: bool = Field(
        default=False, description="DEV_AUTH_BYPASS: let requests without credentials through"
    )
    dev_tenant_name: str = Field(default="agentflow", min_length=1, description="DEV_TENANT_NAME: their tenant")
    dev_user_id: str = Field(default="local-dev", min_length=1, description="DEV_USER_ID: their user")
    dev_allow_remote: bool = Field(
        default=False, description="AGENTFLOW_DEV_ALLOW_REMOTE: allow the bypass on an address that is not loopback"
    )

    auth0_domain: str | None = Field(
        default=None, description="AUTH0_DOMAIN: the identity provider: an Auth0 domain, or the URL of any OIDC issuer"
    )
    auth0_issuer: str | None = Field(
        default=None, description="AUTH0_ISSUER: its issuer identifier, if it is not https://AUTH0_DOMAIN/"
    )
    auth0_audience: str | None = Field(
        default=None, min_length=1, description="AUTH0_AUDIENCE: the audience that tokens for this server name"
    )
    auth0_algorithms: str = Field(
        default="RS256", description="AUTH0_ALGORITHMS: accepted signature algorithms, separated by commas"
    )
    auth0_claim_namespace: str = Field(
        default="https://agentflow.ai/", description="AUTH0_CLAIM_NAMESPACE: what custom claims begin with"
    )
    auth0_claim_key: str = Field(
        default="tenant", min_length=1, description="AUTH0_CLAIM_KEY: the tenant claim, behind the namespace"
    )
    auth0_m2m_issuer: str | None = Field(
        default=None, description="AUTH0_M2M_ISSUER: issuer of machine tokens, if it is another"
    )
    auth0_m2m_audience: str | None = Field(
        default=None, description="AUTH0_M2M_AUDIENCE: audience of machine tokens, if it is another"
    )
    auth0_m2m_required_scope: str | None = Field(
        default=None, description="AUTH0_M2M_REQUIRED_SCOPE: a scope that every machine token must have"
    )
    admin_scope_names: str = Field(
        default="agentflow:admin",
        description="AGENTFLOW_ADMIN_SCOPES: scopes that make a person an admin, separated by commas or spaces",
    )
    tenant_auto_setup: bool = Field(
        default=True,
        description="AGENTFLOW_TENANT_AUTO_SETUP: set up a tenant that a genuine token names for the first time",
    )
    tenant_names: str = Field(
        default="", description="AGENTFLOW_TENANTS: tenants that are set up in any case, separated by commas"
    )
    tenant_rate_limit: int = Field(
        default=300_000, ge=0, le=60_000_000, description="AGENTFLOW_TENANT_RATE_LIMIT: requests a minute; 0: no limit"
    )
    principal_rate_limit: int = Field(
        default=120_000,
        ge=0,
        le=60_000_000,
        description="AGENTFLOW_PRINCIPAL_RATE_LIMIT: requests a minute of one user or machine; 0: no limit",
    )
    tenant_max_runs: int = Field(
        default=2_000, ge=0, description="AGENTFLOW_TENANT_MAX_RUNS: runs of a tenant under way at once; 0: no limit"
    )
    principal_max_runs: int = Field(
        default=1_000, ge=0, description="AGENTFLOW_PRINCIPAL_MAX_RUNS: runs of a user under way at once; 0: no limit"
    )
    audit_days: int = Field(default=365, gt=0, description="AGENTFLOW_AUDIT_DAYS: how long the audit log is kept")

    secret_keys: SecretStr | None = Field(
        default=None,
        description="AGENTFLOW_SECRET_KEYS: `id:key,…` that seal stored secrets, newest first, 32 bytes in base64 each",
    )
    allow_private_addresses: bool = Field(
        default=False,
        description="AGENTFLOW_ALLOW_PRIVATE_ADDRESSES: let tools, crawls and webhooks call private addresses",
    )

    embedding_model: str | None = Field(
        default=None,
        description="AGENTFLOW_EMBEDDING_MODEL: what new knowledge bases are embedded with; `none` for words only",
    )
    crawl_pause_seconds: float = Field(
        default=0.5, ge=0, le=60, description="AGENTFLOW_CRAWL_PAUSE_SECONDS: between two requests of a crawl"
    )
    app: Path | None = Field(
        default=None, description="AGENTFLOW_APP: folder with tools, agents and the like that are defined in code"
    )
    allow_full_python: bool = Field(
        default=False,
        description="AGENTFLOW_ALLOW_FULL_PYTHON: let tools with secure_execution=false run in a confined process",
    )
    allow_mcp_commands: bool = Field(
        default=False, description="AGENTFLOW_ALLOW_MCP_COMMANDS: let users attach MCP servers that are commands"
    )
    sandbox_concurrency: int = Field(
        default=4, gt=0, description="AGENTFLOW_SANDBOX_CONCURRENCY: source tools that run at once in one process"
    )
    tenant_monthly_budget: float | None = Field(
        default=None,
        ge=0,
        description="AGENTFLOW_TENANT_MONTHLY_BUDGET: US dollars a tenant may spend in a month by default",
    )
    user_monthly_budget: float | None = Field(
        default=None, ge=0, description="AGENTFLOW_USER_MONTHLY_BUDGET: the same for each user"
    )

    tenant_model_rate_limit: int = Field(
        default=0,
        ge=0,
        le=60_000_000,
        description="AGENTFLOW_TENANT_MODEL_RATE_LIMIT: model calls a minute of a tenant; 0: no limit",
    )
    completion_max_items: int = Field(
        default=50, gt=0, description="AGENTFLOW_COMPLETION_MAX_ITEMS: items of one request that is answered at once"
    )
    completion_concurrency: int = Field(
        default=16, gt=0, description="AGENTFLOW_COMPLETION_CONCURRENCY: items of such a request under way at a time"
    )
    batch_max_items: int = Field(default=1_000_000, gt=0, description="AGENTFLOW_BATCH_MAX_ITEMS: items of a batch")
    batch_max_file_bytes: int = Field(
        default=100 * 1024 * 1024, gt=0, description="AGENTFLOW_BATCH_MAX_FILE_BYTES: largest file of items"
    )
    batch_concurrency: int = Field(
        default=256, gt=0, description="AGENTFLOW_BATCH_CONCURRENCY: batch items of one process under way at a time"
    )
    batch_tenant_concurrency: int = Field(
        default=64, gt=0, description="AGENTFLOW_BATCH_TENANT_CONCURRENCY: batch items of a tenant under way at a time"
    )
    batch_item_retries: int = Field(
        default=5, ge=0, description="AGENTFLOW_BATCH_ITEM_RETRIES: further attempts where a provider is busy"
    )

    max_body_bytes: int = Field(
        default=4 * 1024 * 1024, gt=0, description="AGENTFLOW_MAX_BODY_BYTES: largest JSON request"
    )
    max_requests: int = Field(
        default=4_000, gt=0, description="AGENTFLOW_MAX_REQUESTS: requests of one process under way, streams among them"
    )
    max_uploads: int = Field(
        default=64, gt=0, description="AGENTFLOW_MAX_UPLOADS: forms with files that one process takes in at a time"
    )
    max_bodies_bytes: int = Field(
        default=256 * 1024 * 1024,
        gt=0,
        description="AGENTFLOW_MAX_BODIES_BYTES: request bodies that one process holds in memory at a time",
    )
    max_message_chars: int = Field(
        default=500_000,
        gt=0,
        description="AGENTFLOW_MAX_MESSAGE_CHARS: longest chat message",
    )
    max_attachment_bytes: int = Field(
        default=25 * 1024 * 1024, gt=0, description="AGENTFLOW_MAX_ATTACHMENT_BYTES: largest uploaded attachment"
    )
    max_attachments_per_run: int = Field(
        default=10, ge=1, le=100, description="AGENTFLOW_MAX_ATTACHMENTS_PER_RUN: files one run may be given"
    )
    attachment_types: str = Field(
        default="image/*,text/*,application/*,message/*",
        min_length=1,
        description="AGENTFLOW_ATTACHMENT_TYPES: media types that are taken, with `*`, separated by commas",
    )
    attachment_text_chars: int = Field(
        default=100_000,
        gt=0,
        description="AGENTFLOW_ATTACHMENT_TEXT_CHARS: how much of a document's text a run is given",
    )
    max_image_pixels: int = Field(
        default=50_000_000, gt=0, description="AGENTFLOW_MAX_IMAGE_PIXELS: width times height of an attached image"
    )
    prompt_block_seconds: float = Field(
        default=2.0,
        gt=0,
        description="AGENTFLOW_PROMPT_BLOCK_SECONDS: how long dynamic prompt blocks of a run may take",
    )
    max_concurrent_runs: int = Field(
        default=1000, gt=0, description="AGENTFLOW_MAX_CONCURRENT_RUNS: runs of one process"
    )
    max_streams: int = Field(default=2000, gt=0, description="AGENTFLOW_MAX_STREAMS: open event streams of one process")
    cached_result_chars: int = Field(
        default=16_000, gt=0, description="AGENTFLOW_CACHED_RESULT_CHARS: tool results longer than this are kept apart"
    )
    cached_result_seconds: float = Field(
        default=86_400.0, gt=0, description="AGENTFLOW_CACHED_RESULT_SECONDS: how long they are kept"
    )
    keep_alive_seconds: float = Field(
        default=15.0, gt=0, description="AGENTFLOW_KEEP_ALIVE_SECONDS: comment line in a stream"
    )
    metrics_token: SecretStr | None = Field(
        default=None,
        description="AGENTFLOW_METRICS_TOKEN: what `/metrics` asks for; without one it serves this machine only",
    )
    run_jobs: bool = Field(
        default=True, description="AGENTFLOW_RUN_JOBS: whether `serve` runs jobs too, or leaves them to `worker`"
    )
    job_engine: Literal["ledger", "dbos"] = Field(
        default="ledger",
        description="AGENTFLOW_JOB_ENGINE: what brings jobs to workers, the platform's own `ledger` or `dbos`",
    )
    lease_seconds: float = Field(
        default=30.0, gt=1, description="AGENTFLOW_LEASE_SECONDS: how long a silent worker owns a job"
    )
    shutdown_seconds: float = Field(
        default=10.0, ge=0, description="AGENTFLOW_SHUTDOWN_SECONDS: time to hand runs over"
    )

    memory_core_chars: int = Field(
        default=4_000, gt=0, description="AGENTFLOW_MEMORY_CORE_CHARS: characters of a core memory block"
    )
    memory_core_entries: int = Field(
        default=20, gt=0, description="AGENTFLOW_MEMORY_CORE_ENTRIES: entries (lines) of a core memory block"
    )
    memory_archival_chars: int = Field(
        default=8_000, gt=0, description="AGENTFLOW_MEMORY_ARCHIVAL_CHARS: characters of an archival memory block"
    )
    memory_consolidation: bool = Field(
        default=True,
        description="AGENTFLOW_MEMORY_CONSOLIDATION: let the model keep memory from conversations that have settled",
    )
    memory_idle_seconds: float = Field(
        default=300.0,
        ge=0,
        description="AGENTFLOW_MEMORY_IDLE_SECONDS: how long after its last run a conversation has settled",
    )

    @model_validator(mode="after")
    def _bypass_stays_local(self) -> Self:
        if self.dev_auth_bypass and not self.dev_allow_remote and not is_loopback(self.host):
            raise ValueError(
                f"DEV_AUTH_BYPASS lets everybody in, so the server will not listen on {self.host}: use a loopback"
                " address, configure an identity provider, or set AGENTFLOW_DEV_ALLOW_REMOTE=true if you mean it"
            )
        return self

    @model_validator(mode="after")
    def _somebody_runs_jobs(self) -> Self:
        if not self.run_jobs and self.database_url is None:
            raise ValueError(
                "AGENTFLOW_RUN_JOBS: the embedded database has one process, which must run the jobs itself;"
                " set AGENTFLOW_DATABASE_URL to have others do it"
            )
        return self

    @model_validator(mode="after")
    def _engine_has_its_database(self) -> Self:
        if self.job_engine == "dbos" and self.database_url is None:
            raise ValueError("AGENTFLOW_JOB_ENGINE: dbos works on PostgreSQL only; set AGENTFLOW_DATABASE_URL too")
        return self

    @model_validator(mode="after")
    def _provider_is_whole(self) -> Self:
        for variable, url in (("AUTH0_ISSUER", self.issuer), ("AUTH0_M2M_ISSUER", self.m2m_issuer)):
            parts = urlsplit(url or "")
            local = parts.scheme == "http" and is_loopback(parts.hostname or "")
            if url is not None and not (parts.scheme == "https" and parts.hostname) and not local:
                raise ValueError(f"{variable}: {url!r} is not an https address")
        if self.issuer is not None and self.auth0_audience is None:
            raise ValueError(
                "AUTH0_AUDIENCE: needed with AUTH0_DOMAIN or AUTH0_ISSUER: tokens must be meant for this server"
            )
        if self.m2m_issuer is not None and self.m2m_audience is None:
            raise ValueError("AUTH0_M2M_AUDIENCE: needed with AUTH0_M2M_ISSUER")
        if unknown := self.algorithms - ASYMMETRIC:
            raise ValueError(
                f"AUTH0_ALGORITHMS: {sorted(unknown)[0]!r} is not accepted; known are {', '.join(sorted(ASYMMETRIC))}"
            )
        if not self.algorithms:
            raise ValueError("AUTH0_ALGORITHMS: names no algorithm")
        return self

    @property
    def issuer(self) -> str | None:
        """The issuer of people's tokens."""
        if self.auth0_issuer or self.auth0_domain is None:
            return self.auth0_issuer
        return self.auth0_domain if "://" in self.auth0_domain else f"https://{self.auth0_domain.rstrip('/')}/"

    @property
    def m2m_issuer(self) -> str | None:
        """The issuer of machines' tokens."""
        return self.auth0_m2m_issuer or self.issuer

    @property
    def m2m_audience(self) -> str | None:
        """The audience of machines' tokens."""
        return self.auth0_m2m_audience or self.auth0_audience

    @property
    def algorithms(self) -> frozenset[str]:
        """The accepted signature algorithms."""
        return _words(self.auth0_algorithms)

    @property
    def admin_scopes(self) -> frozenset[str]:
        """The scopes that make a person an admin."""
        return _words(self.admin_scope_names)

    @property
    def tenants(self) -> frozenset[str]:
        """The tenants that are set up in any case."""
        return _words(self.tenant_names)

    def claim(self, key: str) -> str:
        """The whole name of a custom claim."""
        namespace = self.auth0_claim_namespace
        return f"{namespace}{'' if not namespace or namespace[-1] in '/:.' else '/'}{key}"

    @classmethod
    def from_env(cls, environ: Mapping[str, str], **overrides: Any) -> Self:
        """Read the environment; `overrides` (command line) win over it where they are not None.

        Raises:
            SettingsError: a variable holds something the server cannot use.
        """
        values: dict[str, Any] = {}
        for name, field in cls.model_fields.items():
            variable = variable_of(name, field.description)
            if variable in environ:
                values[name] = _parse(variable, environ[variable], field.annotation)
        values.update({name: value for name, value in overrides.items() if value is not None})
        try:
            return cls.model_validate(values)
        except ValueError as error:
            raise SettingsError(_explain(cls, error)) from None


def _words(text: str) -> frozenset[str]:
    return frozenset(text.replace(",", " ").split())


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address or host name."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def variable_of(name: str, description: str | None) -> str:
    """The environment variable of a field: the first word of its description."""
    return (description or f"AGENTFLOW_{name.upper()}").split(":", 1)[0].split(" ", 1)[0]


def _parse(variable: str, text: str, annotation: Any) -> Any:
    if annotation is bool:
        word = text.strip().lower()
        if word in _TRUE | _FALSE:
            return word in _TRUE
        raise SettingsError(f"{variable} must be true or false, not {text!r}")
    return text or None if "None" in str(annotation) else text


def _explain(cls: type[Settings], error: ValueError) -> str:
    from pydantic import ValidationError

    if not isinstance(error, ValidationError):
        return str(error)
    lines: list[str] = []
    for item in error.errors(include_url=False, include_input=False):
        if not item["loc"]:
            lines.append(item["msg"].removeprefix("Value error, "))
            continue
        name = str(item["loc"][0])
        field = cls.model_fields.get(name)
        lines.append(f"{variable_of(name, field.description if field else None)}: {item['msg']}")
    return "; ".join(lines)
