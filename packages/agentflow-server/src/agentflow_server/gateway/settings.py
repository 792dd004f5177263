"""Which providers are configured: keys and base URLs from the usual environment variables."""

from collections.abc import Mapping
from typing import Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from agentflow_server.kit.settings import SettingsError

Kind = Literal["openai", "azure", "anthropic", "google"]


class Endpoint(BaseModel):
    """Where and how a provider is reached.

    Attributes:
        local: on a machine of one's own, without a key; its models are listed.
        guarded: a tenant has named the address, so it must be a public one; `allow_private` is the operator's leave.
    """

    model_config = ConfigDict(frozen=True)

    kind: Kind
    base_url: str | None = None
    api_key: SecretStr | None = None
    api_version: str | None = None
    local: bool = False
    guarded: bool = False
    allow_private: bool = False


class _Known(NamedTuple):
    """A provider by its usual variables."""

    kind: Kind
    key: tuple[str, ...]
    url: tuple[str, ...]
    default_url: str | None = None


_KNOWN: dict[str, _Known] = {
    "openai": _Known("openai", ("OPENAI_API_KEY",), ("OPENAI_BASE_URL",), "https://api.openai.com/v1"),
    "anthropic": _Known("anthropic", ("ANTHROPIC_API_KEY",), ("ANTHROPIC_BASE_URL",)),
    "google": _Known("google", ("GEMINI_API_KEY", "GOOGLE_API_KEY"), ("GEMINI_BASE_URL",)),
    "openrouter": _Known("openai", ("OPENROUTER_API_KEY",), ("OPENROUTER_BASE_URL",), "https://openrouter.ai/api/v1"),
    "groq": _Known("openai", ("GROQ_API_KEY",), ("GROQ_BASE_URL",), "https://api.groq.com/openai/v1"),
    "mistral": _Known("openai", ("MISTRAL_API_KEY",), ("MISTRAL_BASE_URL",), "https://api.mistral.ai/v1"),
    "deepseek": _Known("openai", ("DEEPSEEK_API_KEY",), ("DEEPSEEK_BASE_URL",), "https://api.deepseek.com/v1"),
    "together": _Known("openai", ("TOGETHER_API_KEY",), ("TOGETHER_BASE_URL",), "https://api.together.xyz/v1"),
    "azure": _Known("azure", ("AZURE_OPENAI_API_KEY",), ("AZURE_OPENAI_ENDPOINT",)),
}
_AZURE_VERSION = "2024-10-21"
_LOCAL = {
    "ollama": ("OLLAMA_BASE_URL", "OLLAMA_HOST"),
    "vllm": ("VLLM_BASE_URL",),
    "llamacpp": ("LLAMACPP_BASE_URL",),
    "local": ("AGENTFLOW_LOCAL_MODEL_URL",),
}


class GatewaySettings(BaseModel):
    """The gateway's settings.

    Attributes:
        endpoints: configured providers by name.
        default_model: what agents without a model of their own use; None picks one from what is configured.
        retries: further attempts before the first chunk. concurrency: calls of one provider at once.
        rate_limit: calls a minute of one provider, evenly spaced; 0 sets no limit.
        connect_timeout, idle_timeout, call_timeout: seconds to connect, between two reads, for a whole call.
    """

    model_config = ConfigDict(frozen=True)

    endpoints: dict[str, Endpoint] = Field(default_factory=dict[str, Endpoint])
    default_model: str | None = None
    retries: int = Field(default=2, ge=0, le=10)
    concurrency: int = Field(default=256, ge=1)
    rate_limit: int = Field(default=0, ge=0)
    connect_timeout: float = Field(default=10.0, gt=0)
    idle_timeout: float = Field(default=120.0, gt=0)
    call_timeout: float = Field(default=900.0, gt=0)

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Self:
        """Read keys and base URLs from the environment.

        Raises:
            SettingsError: a number is not a number.
        """
        endpoints: dict[str, Endpoint] = {}
        for name, known in _KNOWN.items():
            key, url = _first(environ, known.key), _first(environ, known.url)
            if key or (url and name in ("openai", "azure")):
                endpoints[name] = Endpoint(
                    kind=known.kind,
                    base_url=url or known.default_url,
                    api_key=SecretStr(key) if key else None,
                    api_version=environ.get("AZURE_OPENAI_API_VERSION", _AZURE_VERSION) if name == "azure" else None,
                )
        for name, variables in _LOCAL.items():
            if url := _first(environ, variables):
                key = environ.get(f"{name.upper()}_API_KEY")
                endpoints[name] = Endpoint(
                    kind="openai", base_url=_local_url(url), api_key=SecretStr(key) if key else None, local=True
                )
        numbers = {
            field: _number(variable, environ[variable])
            for field, variable in (
                ("retries", "AGENTFLOW_MODEL_RETRIES"),
                ("concurrency", "AGENTFLOW_MODEL_CONCURRENCY"),
                ("rate_limit", "AGENTFLOW_MODEL_RATE_LIMIT"),
                ("idle_timeout", "AGENTFLOW_MODEL_IDLE_TIMEOUT"),
                ("call_timeout", "AGENTFLOW_MODEL_CALL_TIMEOUT"),
            )
            if environ.get(variable)
        }
        try:
            default = environ.get("AGENTFLOW_DEFAULT_MODEL") or None
            return cls.model_validate({"endpoints": endpoints, "default_model": default, **numbers})
        except ValueError as error:
            raise SettingsError(f"AGENTFLOW_MODEL_…: {error}") from None


def is_known(name: str) -> bool:
    """Whether there is a provider of this name, configured or not."""
    return name in _KNOWN or name in _LOCAL


def keyed_providers() -> tuple[str, ...]:
    """The providers that are reached with a key."""
    return tuple(_KNOWN)


def own_endpoint(
    name: str, api_key: str, *, base_url: str | None, api_version: str | None, allow_private: bool
) -> Endpoint:
    """A keyed provider with a tenant's own key, and address if it names one."""
    known = _KNOWN[name]
    return Endpoint(
        kind=known.kind,
        base_url=base_url or known.default_url,
        api_key=SecretStr(api_key),
        api_version=(api_version or _AZURE_VERSION) if name == "azure" else None,
        guarded=base_url is not None,
        allow_private=allow_private,
    )


def _first(environ: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    return next((environ[name].strip() for name in names if environ.get(name, "").strip()), None)


def _local_url(url: str) -> str:
    url = url if "://" in url else f"http://{url}"
    url = url.rstrip("/")
    return url if url.endswith("/v1") else f"{url}/v1"


def _number(variable: str, text: str) -> float | int:
    try:
        return int(text) if text.isdigit() else float(text)
    except ValueError:
        raise SettingsError(f"{variable} must be a number, not {text!r}") from None
